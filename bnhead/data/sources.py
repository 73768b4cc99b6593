"""Opening a data set: TFDS builder, checks, and whether it is kept in memory or streamed."""

import contextlib
import io
import math
import time
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds

from bnhead.data.catalog import EMBEDDED, check_name
from bnhead.data.digits import Digits, DigitsRotation
from bnhead.data.pipelines import InMemory, Streamed
from bnhead.errors import DataError

MEMORY_LIMIT = 2**30  # bytes of decoded pixels, train and test together


@dataclass(frozen=True)
class DataSet:
    """A data set, ready to be read.

    Attributes:
        name: TFDS' full name with version, such as `digits/1.0.0`.
        shape: `(height, width, channels)` of every image.
        classes: the classes' names; label k is class k. Empty where the labels are numbers.
        outputs: number of classes, or of numbers to predict.
        train: the split that is trained on.
        test: the split that is evaluated on.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    outputs: int
    train: InMemory | Streamed
    test: InMemory | Streamed

    def class_counts(self) -> list[int]:
        """Training examples of each class."""
        labels = np.concatenate(list(self.train.labels_in_batches()))
        _check_range(labels, len(self.classes), f"{self.name}, train")
        return np.bincount(labels, minlength=len(self.classes)).tolist()

    def target_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each training target, `(outputs,)` float64.

        Raises:
            DataError: a target is not finite, or the same for all images: there is nothing to predict.
        """
        targets = np.concatenate([np.asarray(t, np.float64) for t in self.train.labels_in_batches()])
        _check_finite(targets, f"{self.name}, train")
        for target, deviation in zip(targets[0], targets.std(0), strict=True):
            if not deviation > 0:
                raise DataError(f"{self.name}: all training targets are {target:g}, nothing to predict")
        return targets.mean(0), targets.std(0)


def load(
    name: str,
    data_dir: str | None = None,
    *,
    task: str = "classification",
    image_size: int = 0,
    memory_limit: int = MEMORY_LIMIT,
) -> DataSet:
    """Opens a TFDS data set of images with classes or numbers.

    The embedded ones are prepared on first use; everything else must have been prepared, since a download
    of unknown size is nothing that a training run should begin with.

    Args:
        name: the embedded `digits` or `digits_rotation`, or a TFDS name, with or without config and version
            (`cifar10:3.0.2`).
        data_dir: TFDS' directory; None for TFDS' default.
        task: "regression" for numbers as labels, anything else for classes.
        image_size: height and width that images are resized to; 0 keeps them, where they are all of one size.
        memory_limit: up to this many bytes of decoded pixels are kept in memory; more is streamed.

    Raises:
        UsageError: there is no data set of this name.
        DataError: it is not prepared, has no images or other labels than the task wants, lacks a labelled
            test split, has images of many sizes and no `image_size` was given, is not of dtype uint8, or has
            labels out of range (which is seen where it is kept in memory).
    """
    check_name(name, data_dir)
    builder = _builder(name, data_dir)
    info = builder.info
    image, label = _features(info, task)
    shape = (image_size, image_size, image.shape[-1]) if image_size else image.shape
    if None in shape:
        raise DataError(
            f"{info.full_name}: images have many sizes, {image.shape}; set image_size (--image_size)"
        )
    splits = "train", _test_split(info)
    size = sum(info.splits[split].num_examples for split in splits) * int(np.prod(shape))
    read = [Streamed(builder, split, tuple(shape)) for split in splits]
    if size <= memory_limit:
        read = [_decode(split, label) for split in read]
    if task == "regression":
        return DataSet(info.full_name, tuple(shape), (), math.prod(label.shape), *read)
    return DataSet(info.full_name, tuple(shape), tuple(label.names), label.num_classes, *read)


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    embedded = name.split(":")[0]
    if embedded in EMBEDDED:
        builder = _prepared(Digits if embedded == "digits" else DigitsRotation, data_dir)
        if name not in (embedded, f"{embedded}:{builder.version}"):
            raise DataError(f"data set {name!r} cannot be opened: there is version {builder.version} alone")
        return builder
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as error:
        raise DataError(
            f"data set {name!r} cannot be opened: {str(error).strip().splitlines()[0]}"
        ) from error
    if not builder.is_prepared():
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise DataError(
            f"data set {name!r} is not prepared in {builder.data_path}; "
            f"with a network, `tfds build {name}{where}` downloads and prepares it there"
        )
    return builder


def _prepared(builder_type: type, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """An embedded set; of several processes that prepare it at once, one does and the others wait for it."""
    tfds.disable_progress_bar()
    for _ in range(60):
        builder = builder_type(data_dir=data_dir)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it speaks of a download; there is none
                builder.download_and_prepare()
        except FileExistsError:
            time.sleep(0.5)
            continue
        except OSError as error:
            raise DataError(f"{builder.name} cannot be prepared in {builder.data_path}: {error}") from error
        return builder
    raise DataError(
        f"{builder.name} is being prepared by another process in {builder.data_path} for over 30 s"
    )


def _features(
    info: tfds.core.DatasetInfo, task: str
) -> tuple[tfds.features.Image, tfds.features.ClassLabel | tfds.features.Tensor]:
    keys = info.supervised_keys or ()
    features = [info.features[key] for key in keys if isinstance(key, str)]
    if len(features) != 2 or not isinstance(features[0], tfds.features.Image):
        raise DataError(f"{info.full_name} has no images with labels: it is read as {keys or 'nothing'}")
    image, label = features
    has_classes = isinstance(label, tfds.features.ClassLabel)
    if task == "regression" and (has_classes or not _are_numbers(label)):
        raise DataError(f"{info.full_name} has {_kind(label)} as labels and no numbers (task regression)")
    if task != "regression" and not has_classes:
        hint = "; numbers are for task regression (--task=regression)" if _are_numbers(label) else ""
        raise DataError(f"{info.full_name} is no classification set, its labels are {_kind(label)}{hint}")
    if image.np_dtype != np.uint8:
        raise DataError(f"{info.full_name}: images must be of dtype uint8, got {np.dtype(image.np_dtype)}")
    return image, label


def _are_numbers(label: tfds.features.FeatureConnector) -> bool:
    """Whether a feature is a scalar or a vector of numbers, of known length."""
    if isinstance(label, tfds.features.ClassLabel) or not isinstance(label, tfds.features.Tensor):
        return False
    return np.issubdtype(label.np_dtype, np.number) and len(label.shape) < 2 and None not in label.shape


def _kind(label: tfds.features.FeatureConnector) -> str:
    if isinstance(label, tfds.features.ClassLabel):
        return f"{label.num_classes} classes"
    return f"a {type(label).__name__} of shape {label.shape} and dtype {np.dtype(label.np_dtype)}"


def _test_split(info: tfds.core.DatasetInfo) -> str:
    """`test`, or `validation` for the sets whose test labels were never published."""
    unlabelled = info.name == "imagenet2012"
    for split in ("test", "validation"):
        if split in info.splits and not (unlabelled and split == "test"):
            return split
    raise DataError(f"{info.full_name} has no test or validation split, only {', '.join(info.splits)}")


def _decode(split: Streamed, label: tfds.features.FeatureConnector) -> InMemory:
    images = np.empty((split.size, *split.shape), np.uint8)
    spec = split.evaluation_batches(1).element_spec[1]
    labels = np.empty((split.size, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
    seen = 0
    for batch, batch_labels in split.evaluation_batches(1024).as_numpy_iterator():
        images[seen : seen + len(batch)], labels[seen : seen + len(batch)] = batch, batch_labels
        seen += len(batch)
    _check_labels(labels, label, f"{split.builder.info.full_name}, {split.split}")
    return InMemory(images, labels)


def _check_labels(labels: np.ndarray, label: tfds.features.FeatureConnector, where: str) -> None:
    if isinstance(label, tfds.features.ClassLabel):
        _check_range(labels, label.num_classes, where)
    else:
        _check_finite(labels, where)


def _check_range(labels: np.ndarray, classes: int, where: str) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels {labels.min()} to {labels.max()}, classes 0 to {classes - 1}")


def _check_finite(labels: np.ndarray, where: str) -> None:
    if not np.isfinite(labels).all():
        raise DataError(f"{where}: {int((~np.isfinite(labels)).any(-1).sum())} labels are not finite")
