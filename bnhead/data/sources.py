"""Opening a data set: TFDS builder, checks, and whether it is kept in memory or streamed."""

import contextlib
import io
import time
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds

from bnhead.data.catalog import EMBEDDED, check_name
from bnhead.data.digits import Digits
from bnhead.data.pipelines import InMemory, Streamed
from bnhead.errors import DataError

MEMORY_LIMIT = 2**30  # bytes of decoded pixels, train and test together


@dataclass(frozen=True)
class DataSet:
    """A classification data set, ready to be read.

    Attributes:
        name: TFDS' full name with version, such as `digits/1.0.0`.
        shape: `(height, width, channels)` of every image.
        classes: the classes' names; label k is class k.
        train: the split that is trained on.
        test: the split that is evaluated on.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train: InMemory | Streamed
    test: InMemory | Streamed


def load(
    name: str, data_dir: str | None = None, *, image_size: int = 0, memory_limit: int = MEMORY_LIMIT
) -> DataSet:
    """Opens a TFDS classification data set.

    The embedded `digits` is prepared on first use; everything else must have been prepared, since a download
    of unknown size is nothing that a training run should begin with.

    Args:
        name: the embedded `digits` or a TFDS name, with or without config and version (`cifar10:3.0.2`).
        data_dir: TFDS' directory; None for TFDS' default.
        image_size: height and width that images are resized to; 0 keeps them, where they are all of one size.
        memory_limit: up to this many bytes of decoded pixels are kept in memory; more is streamed.

    Raises:
        UsageError: there is no data set of this name.
        DataError: it is not prepared, is no image classification set, lacks a labelled test split, has images
            of many sizes and no `image_size` was given, is not of dtype uint8, or has labels out of range
            (which is seen where it is kept in memory).
    """
    check_name(name, data_dir)
    builder = _builder(name, data_dir)
    info = builder.info
    image, label = _features(info)
    shape = (image_size, image_size, image.shape[-1]) if image_size else image.shape
    if None in shape:
        raise DataError(
            f"{info.full_name}: images have many sizes, {image.shape}; set image_size (--image_size)"
        )
    splits = "train", _test_split(info)
    size = sum(info.splits[split].num_examples for split in splits) * int(np.prod(shape))
    read = [Streamed(builder, split, tuple(shape)) for split in splits]
    if size <= memory_limit:
        read = [_decode(split, label.num_classes) for split in read]
    return DataSet(info.full_name, tuple(shape), tuple(label.names), *read)


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    if name.split(":")[0] == EMBEDDED:
        builder = _prepared_digits(data_dir)
        if name not in (EMBEDDED, f"{EMBEDDED}:{builder.version}"):
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


def _prepared_digits(data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The embedded set; of several processes that prepare it at once, one does and the others wait for it."""
    tfds.disable_progress_bar()
    for _ in range(60):
        builder = Digits(data_dir=data_dir)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it speaks of a download; there is none
                builder.download_and_prepare()
        except FileExistsError:
            time.sleep(0.5)
            continue
        except OSError as error:
            raise DataError(f"digits cannot be prepared in {builder.data_path}: {error}") from error
        return builder
    raise DataError(f"digits is being prepared by another process in {builder.data_path} for over 30 s")


def _features(info: tfds.core.DatasetInfo) -> tuple[tfds.features.Image, tfds.features.ClassLabel]:
    keys = info.supervised_keys or ()
    features = [info.features[key] for key in keys if isinstance(key, str)]
    kinds = tfds.features.Image, tfds.features.ClassLabel
    if len(features) != 2 or not all(map(isinstance, features, kinds)):
        raise DataError(f"{info.full_name} is no image classification set: it is read as {keys or 'nothing'}")
    image, label = features
    if image.np_dtype != np.uint8:
        raise DataError(f"{info.full_name}: images must be of dtype uint8, got {np.dtype(image.np_dtype)}")
    return image, label


def _test_split(info: tfds.core.DatasetInfo) -> str:
    """`test`, or `validation` for the sets whose test labels were never published."""
    unlabelled = info.name == "imagenet2012"
    for split in ("test", "validation"):
        if split in info.splits and not (unlabelled and split == "test"):
            return split
    raise DataError(f"{info.full_name} has no test or validation split, only {', '.join(info.splits)}")


def _decode(split: Streamed, classes: int) -> InMemory:
    images = np.empty((split.size, *split.shape), np.uint8)
    labels = np.empty(split.size, np.int64)
    seen = 0
    for batch, batch_labels in split.evaluation_batches(1024).as_numpy_iterator():
        images[seen : seen + len(batch)], labels[seen : seen + len(batch)] = batch, batch_labels
        seen += len(batch)
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(
            f"{split.builder.info.full_name}, {split.split}: labels {found}, classes 0 to {classes - 1}"
        )
    return InMemory(images, labels)
