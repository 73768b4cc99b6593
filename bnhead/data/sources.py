"""Opening a data set: TFDS builder or folder, checks, in memory or streamed, splits and shifts."""

import contextlib
import dataclasses
import io
import math
import pathlib
import time
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds

from bnhead.data import cache, catalog, checks, shifts
from bnhead.data.digits import Digits, DigitsRotation
from bnhead.data.domains import common_shape, joined, same_classes
from bnhead.data.pipelines import InMemory, Streamed
from bnhead.data.reading import EXTENSIONS, Files, Prepared, Shards
from bnhead.errors import DataError, UsageError

MEMORY_LIMIT = 2**30  # bytes of decoded pixels, train and test together

Label = tfds.features.ClassLabel | tfds.features.Tensor


@dataclass(frozen=True)
class DataSet:
    """A data set, ready to be read.

    Attributes:
        name: TFDS' full name with version, such as `digits/1.0.0`.
        shape: `(height, width, channels)` of every image.
        classes: the classes' names; label k is class k. Empty where the labels are numbers.
        outputs: number of classes, or of numbers to predict.
        train: the split that is trained on.
        test: the split that is evaluated on; no choice may depend on it.
        validation: what was cut off from the training split to choose by; None where nothing was.
        domains: names of the sets that this one is made of; empty where it is one.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    outputs: int
    train: InMemory | Streamed
    test: InMemory | Streamed
    validation: InMemory | Streamed | None = None
    domains: tuple[str, ...] = ()

    def class_counts(self) -> list[int]:
        """Training examples of each class."""
        return self.count_classes(self.train)

    def count_classes(self, split: InMemory | Streamed) -> list[int]:
        """Examples of each class in a split."""
        labels = np.concatenate(list(split.labels_in_batches()))
        _check_range(labels, len(self.classes), self.name)
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
    crop: bool = False,
    validation: float = 0.0,
    imbalance: str = "none",
    label_noise: float = 0.0,
    test_corruption: str = "none",
    memory_limit: int = MEMORY_LIMIT,
    cached: bool = True,
) -> DataSet:
    """Opens a data set of images with classes or numbers.

    The embedded ones are prepared on first use; everything else must have been prepared, since a download
    of unknown size is nothing that a training run should begin with. Nothing here uses a network.

    Args:
        name: as in `catalog`: a TFDS name with or without config and version, `folder:PATH`, `domains:A,B`.
        data_dir: TFDS' directory; None for TFDS' default.
        task: "regression" for numbers as labels, anything else for classes.
        image_size: height and width that images are resized to; 0 keeps them, where they are all of one size.
        crop: whether images of many sizes are cut rather than stretched: random windows in training, which
            then streams, the middle in evaluation. For ImageNet's augmentation.
        validation: share of the training split, in [0, 1), that is cut off, of each class alike.
        imbalance: what is left of the training split (`shifts.class_sizes`), after validation is cut off.
        label_noise: share of the training labels that are made wrong, in [0, 1].
        test_corruption: corruption of the test images (`corruptions`).
        memory_limit: up to this many bytes of decoded pixels are kept in memory; more is streamed.
        cached: whether decoded arrays are kept on disk (`cache`), where that can be written.

    Raises:
        UsageError: there is no data set of this name, or a shift needs classes and there are numbers.
        DataError: it is not prepared, has no images or other labels than the task wants, lacks a labelled
            test split, has an empty split, images of many sizes and no `image_size`, another dtype than
            uint8, a picture that cannot be decoded, or labels out of range.
    """
    catalog.check_name(name, data_dir)
    if task == "regression" and (imbalance != "none" or label_noise):
        raise UsageError("imbalance and label_noise are for classes, and task regression has numbers")
    how = {"task": task, "crop": crop, "memory_limit": memory_limit, "cached": cached}
    parts = catalog.domains(name)
    plain = _joined(parts, data_dir, image_size, how) if parts else _plain(name, data_dir, image_size, how)
    return _shifted(plain, validation, imbalance, label_noise, test_corruption)


def _shifted(
    data: DataSet, validation: float, imbalance: str, label_noise: float, test_corruption: str
) -> DataSet:
    train, held_out, test, classes = data.train, None, data.test, len(data.classes)

    def labels():
        return next(train.labels_in_batches())

    if validation:
        stays, cut = shifts.validation_split(labels(), validation, classes)
        train, held_out = train.take(stays), train.take(cut)
        if not held_out.size or not train.size:
            raise DataError(
                f"validation must leave examples on both sides, got {validation:g} of {data.train.size}"
            )
    if imbalance != "none":
        train = train.take(shifts.imbalanced(labels(), imbalance, classes))
    if label_noise:
        train = train.with_labels(shifts.noisy_labels(labels(), label_noise, classes))
    if test_corruption != "none":
        test = test.with_corruption(test_corruption)
    return dataclasses.replace(data, train=train, validation=held_out, test=test)


@dataclass(frozen=True)
class _Opened:
    """A set of which nothing has been decoded."""

    name: str
    readers: tuple[Prepared, Prepared]
    label: Label
    shape: tuple[int | None, int | None, int]

    def sized(self, image_size: int) -> tuple[int, int, int]:
        """The shape of all images."""
        shape = (image_size, image_size, self.shape[-1]) if image_size else self.shape
        if None in shape:
            raise DataError(
                f"{self.name}: images have many sizes, {self.shape}; set image_size (--image_size)"
            )
        return shape

    def splits(
        self, shape: tuple[int, int, int], crop: bool, memory_limit: int, cached: bool
    ) -> tuple[InMemory | Streamed, InMemory | Streamed]:
        """Train and test, in memory where they fit."""
        cropped = crop and None in self.shape
        train, test = (Streamed(reader, shape, cropped) for reader in self.readers)
        if (train.size + test.size) * math.prod(shape) <= memory_limit:
            train, test = train if cropped else _decoded(train, cached), _decoded(test, cached)
        classes = getattr(self.label, "num_classes", 0)
        for split, reader in zip((train, test), self.readers, strict=True):
            for labels in split.labels_in_batches():
                checks.check_labels(labels, classes, reader.name)
        return train, test


def _plain(name: str, data_dir: str | None, image_size: int, how: dict) -> DataSet:
    opened = _opened(name, data_dir, how["task"])
    shape = opened.sized(image_size)
    splits = opened.splits(shape, how["crop"], how["memory_limit"], how["cached"])
    if how["task"] == "regression":
        return DataSet(opened.name, shape, (), math.prod(opened.label.shape), *splits)
    return DataSet(opened.name, shape, tuple(opened.label.names), opened.label.num_classes, *splits)


def _joined(parts: tuple[str, ...], data_dir: str | None, image_size: int, how: dict) -> DataSet:
    if how["task"] == "regression":
        raise UsageError("domains are of the same classes, and task regression has numbers")
    opened = [_opened(part, data_dir, how["task"]) for part in parts]
    names = [one.name for one in opened]
    same_classes(names, [tuple(one.label.names) for one in opened])
    shape = common_shape([one.sized(image_size) for one in opened])
    size = sum(reader.size for one in opened for reader in one.readers) * math.prod(shape)
    if size > how["memory_limit"]:
        raise DataError(
            f"domains must fit in memory, {size / 2**20:.0f} MiB of {how['memory_limit'] / 2**20:.0f}; "
            "set a smaller image_size (--image_size)"
        )
    splits = [one.splits(shape, False, how["memory_limit"], how["cached"]) for one in opened]
    train, test = (joined(side) for side in zip(*splits, strict=True))
    classes = tuple(opened[0].label.names)
    return DataSet("+".join(names), shape, classes, len(classes), train, test, domains=tuple(parts))


def _opened(name: str, data_dir: str | None, task: str) -> _Opened:
    builder = _folder(name) if catalog.folder(name) else _builder(name, data_dir)
    shown = name if catalog.folder(name) else builder.info.full_name
    image, label = _features(shown, builder.info, task)
    readers = tuple(
        _reader(name, builder, split, data_dir) for split in ("train", _test_split(shown, builder))
    )
    for reader in readers:
        if not reader.size:
            raise DataError(f"{reader.name}: the split is empty")
    return _Opened(shown, readers, label, tuple(image.shape))


def _reader(name: str, builder: tfds.core.DatasetBuilder, split: str, data_dir: str | None) -> Prepared:
    root = catalog.folder(name)
    if root:
        home = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
        return Files(builder, split, root.resolve(), home / "bnhead-folders")
    shards = Shards(builder, split)
    return shards if shards.are_there() else Prepared(builder, split)


def _folder(name: str) -> tfds.ImageFolder:
    root = catalog.folder(name).resolve()
    pictures = f"{root}/train/<class>/*{' '.join(EXTENSIONS)} and {root}/test/<class>/..."
    if not (root / "train").is_dir():
        raise DataError(f"data set {name!r} needs pictures in {pictures}; there is no folder train")
    builder = tfds.ImageFolder(str(root))
    if not builder.info.features["label"].num_classes:
        raise DataError(f"data set {name!r} needs pictures in {pictures}; there are none")
    return builder


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    embedded = name.split(":")[0]
    if embedded in catalog.EMBEDDED:
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


def _features(name: str, info: tfds.core.DatasetInfo, task: str) -> tuple[tfds.features.Image, Label]:
    keys = info.supervised_keys or ()
    features = [info.features[key] for key in keys if isinstance(key, str)]
    if len(features) != 2 or not isinstance(features[0], tfds.features.Image):
        raise DataError(f"{name} has no images with labels: it is read as {keys or 'nothing'}")
    image, label = features
    has_classes = isinstance(label, tfds.features.ClassLabel)
    if task == "regression" and (has_classes or not _are_numbers(label)):
        raise DataError(f"{name} has {_kind(label)} as labels and no numbers (task regression)")
    if task != "regression" and not has_classes:
        hint = "; numbers are for task regression (--task=regression)" if _are_numbers(label) else ""
        raise DataError(f"{name} is no classification set, its labels are {_kind(label)}{hint}")
    if image.np_dtype != np.uint8:
        raise DataError(f"{name}: images must be of dtype uint8, got {np.dtype(image.np_dtype)}")
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


def _test_split(name: str, builder: tfds.core.DatasetBuilder) -> str:
    """`test`, or `validation` (`val` of a folder) for the sets whose test labels were never published."""
    info = builder.info
    unlabelled = info.name == "imagenet2012"
    if "train" not in info.splits:
        raise DataError(f"{name} has no train split, only {', '.join(info.splits) or 'none at all'}")
    for split in ("test", "validation", "val"):
        if split in info.splits and not (unlabelled and split == "test"):
            return split
    raise DataError(f"{name} has no test or validation split, only {', '.join(info.splits)}")


def _decoded(split: Streamed, cached: bool) -> InMemory:
    """The split in memory, from its copy on disk where there is a sound one."""
    identity = split.reader.identity() if cached else None
    if identity is None:
        return split.decoded()
    where = cache.folder(split.reader.place, ["pixels", identity, split.shape, split.cropped])
    arrays = cache.read(where)
    if arrays is not None:
        return InMemory(arrays["images"], arrays["labels"])
    decoded = split.decoded()
    cache.write(where, {"images": decoded.images, "labels": decoded.labels})
    return decoded


def _check_range(labels: np.ndarray, classes: int, where: str) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels {labels.min()} to {labels.max()}, classes 0 to {classes - 1}")


def _check_finite(labels: np.ndarray, where: str) -> None:
    if not np.isfinite(labels).all():
        raise DataError(f"{where}: {int((~np.isfinite(labels)).any(-1).sum())} labels are not finite")
