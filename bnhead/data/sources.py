"""Opening a data set: TFDS builder or folder, checks, in memory or streamed, splits and shifts."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead.data import cache, catalog, checks, subsets
from bnhead.data.pipelines import InMemory, Streamed
from bnhead.data.reading import ArrayRecords, Files, Prepared, Reader, Shards
from bnhead.data.sets import folder
from bnhead.data.sets.domains import common_shape, joined, same_classes
from bnhead.data.sets.tfds import Label, check_task, features, opened, test_split
from bnhead.errors import DataError, UsageError

_PICTURES = ("picture", "image", "jpeg", "png", "gif", "webp", "bmp")  # words of a message about a picture
MEMORY_LIMIT = 2**30  # bytes of decoded pixels, train and test together

_READERS = {tfds.core.FileFormat.TFRECORD: Shards, tfds.core.FileFormat.ARRAY_RECORD: ArrayRecords}


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
        notes: what was odd where it was opened, such as files that are left out.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    outputs: int
    train: InMemory | Streamed
    test: InMemory | Streamed
    validation: InMemory | Streamed | None = None
    domains: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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

    @contextlib.contextmanager
    def naming_pictures(self) -> Iterator[None]:
        """Raises a DataError that names the picture where one that is read during training cannot be read."""
        try:
            yield
        except tf.errors.OpError as error:
            if not _may_be_a_file(error):
                raise
            for split in (self.train, self.validation, self.test):
                if isinstance(split, Streamed) and (message := split.unreadable()):
                    raise DataError(message) from error
            raise


def _may_be_a_file(error: tf.errors.OpError) -> bool:
    """Whether an error may be a file's fault: a step's own are of two kinds, and speak of no picture."""
    if isinstance(error, tf.errors.InvalidArgumentError):
        return any(kind in str(error).lower() for kind in _PICTURES)
    return not isinstance(error, tf.errors.ResourceExhaustedError)


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
        image_size: height and width that images are resized to; 0 keeps them, where they are all of one size
            (where the set does not tell, every picture is looked at).
        crop: whether images of many sizes are cut rather than stretched: random windows in training, which
            then streams, the middle in evaluation. For ImageNet's augmentation.
        validation: share of the training split, in [0, 1), that is cut off, of each class alike.
        imbalance: what is left of the training split (`subsets.class_sizes`), after validation is cut off.
        label_noise: share of the training labels that are made wrong, in [0, 1].
        test_corruption: corruption of the test images (`corruptions`).
        memory_limit: up to this many bytes of decoded pixels are kept in memory; more is streamed.
        cached: whether decoded arrays are kept on disk (`cache`), where that can be written.

    Raises:
        UsageError: there is no data set of this name, or a shift needs classes and there are numbers.
        DataError: it is not prepared, has no images or other labels than the task wants, lacks a labelled
            test split, has an empty split, images of many sizes and no `image_size`, another dtype than
            uint8, a file that cannot be read or decoded, labels out of range, numbers that float32 does not
            tell apart, or too few classes for a shift.
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
    if imbalance != "none" or label_noise:
        checks.check_classes(data.class_counts(), data.classes, data.name)

    def labels():
        return next(train.labels_in_batches())

    if validation:
        stays, cut = subsets.validation_split(labels(), validation, classes)
        train, held_out = train.take(stays), train.take(cut)
        if not held_out.size or not train.size:
            raise DataError(
                f"validation must leave examples on both sides, got {validation:g} of {data.train.size}"
            )
    if imbalance != "none":
        train = train.take(subsets.imbalanced(labels(), imbalance, classes))
    if label_noise:
        train = train.with_labels(subsets.noisy_labels(labels(), label_noise, classes))
    if test_corruption != "none":
        test = test.with_corruption(test_corruption)
    return dataclasses.replace(data, train=train, validation=held_out, test=test)


@dataclass(frozen=True)
class _Opened:
    """A set of which nothing has been decoded."""

    name: str
    readers: tuple[Reader, Reader]
    label: Label
    shape: tuple[int | None, int | None, int]
    notes: tuple[str, ...] = ()

    def sized(self, image_size: int) -> tuple[int, int, int]:
        """The shape of all images."""
        return (image_size, image_size, self.shape[-1]) if image_size else self.shape

    def measured(self, image_size: int) -> "_Opened":
        """The set with the one size of its pictures, where it does not tell it and none is given."""
        if image_size or None not in self.shape:
            return self
        return dataclasses.replace(self, shape=(*_one_size(self.name, self.readers), self.shape[-1]))

    def splits(
        self, shape: tuple[int, int, int], crop: bool, memory_limit: int, cached: bool
    ) -> tuple[InMemory | Streamed, InMemory | Streamed]:
        """Train and test, in memory where they fit."""
        classes = getattr(self.label, "num_classes", 0)
        if not classes and not np.can_cast(self.label.np_dtype, np.float32):
            for reader in self.readers:
                checks.check_rounding(reader.labels, reader.name)
        cropped = crop and None in self.shape
        train, test = (Streamed(reader, shape, cropped) for reader in self.readers)
        if (train.size + test.size) * math.prod(shape) <= memory_limit:
            train, test = train if cropped else _decoded(train, cached), _decoded(test, cached)
        for split, reader in zip((train, test), self.readers, strict=True):
            for labels in split.labels_in_batches():
                checks.check_labels(labels, classes, reader.name)
        return train, test


def _plain(name: str, data_dir: str | None, image_size: int, how: dict) -> DataSet:
    opened = _opened(name, data_dir, how["task"]).measured(image_size)
    shape = opened.sized(image_size)
    splits = opened.splits(shape, how["crop"], how["memory_limit"], how["cached"])
    if how["task"] == "regression":
        return DataSet(opened.name, shape, (), math.prod(opened.label.shape), *splits)
    classes = tuple(opened.label.names)
    return DataSet(opened.name, shape, classes, len(classes), *splits, notes=opened.notes)


def _joined(parts: tuple[str, ...], data_dir: str | None, image_size: int, how: dict) -> DataSet:
    if how["task"] == "regression":
        raise UsageError("domains are of the same classes, and task regression has numbers")
    opened = [_opened(part, data_dir, how["task"]).measured(image_size) for part in parts]
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
    notes = tuple(note for one in opened for note in one.notes)
    name = "+".join(names)
    return DataSet(name, shape, classes, len(classes), train, test, domains=tuple(parts), notes=notes)


def _opened(name: str, data_dir: str | None, task: str) -> _Opened:
    opened = _folder(name, data_dir, task) if catalog.folder(name) else _prepared(name, data_dir, task)
    for reader in opened.readers:
        if not reader.size:
            raise DataError(f"{reader.name}: the split is empty")
    return opened


def _prepared(name: str, data_dir: str | None, task: str) -> _Opened:
    builder = opened(name, data_dir)
    shown = builder.info.full_name
    image, label = features(shown, builder.info, task)
    readers = tuple(_reader(builder, split) for split in ("train", test_split(shown, builder)))
    return _Opened(shown, readers, label, tuple(image.shape))


def _reader(builder: tfds.core.DatasetBuilder, split: str) -> Prepared:
    kind = _READERS.get(builder.info.file_format)
    shards = kind and kind(builder, split)
    return shards if shards and shards.are_there() else Prepared(builder, split)


def _folder(name: str, data_dir: str | None, task: str) -> _Opened:
    root = catalog.folder(name).resolve()
    pictures = f"{root}/train/<class>/*{' '.join(folder.ENDINGS)} and {root}/test/<class>/..."
    if not (root / "train").is_dir():
        raise DataError(f"data set {name!r} needs pictures in {pictures}; there is no folder train")
    splits = {"train": folder.listed(root, "train")}
    if not splits["train"].pictures:
        note = folder.told(splits["train"].left_out.values())
        raise DataError(
            f"data set {name!r} needs pictures in {pictures}; there are none{note and f', {note}'}"
        )
    test = folder.test_split(root)
    if test is None:
        raise DataError(f"{name} has no test or validation split, only train")
    splits[test] = folder.listed(root, test)
    classes = tuple(sorted({one for found in splits.values() for one in found.pictures}))
    for split, found in splits.items():
        folder.check_endings(found, f"{name}, {split}")
    beside = catalog.expanded(data_dir or str(tfds.core.constants.DATA_DIR)) / "bnhead-folders"
    readers = tuple(Files(root, split, classes, found, beside) for split, found in splits.items())
    check_task(name, readers[0].label, task)
    left_out = folder.told(kinds for found in splits.values() for kinds in found.left_out.values())
    return _Opened(name, readers, readers[0].label, (None, None, 3), (left_out,) if left_out else ())


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


def _one_size(name: str, readers: Sequence[Reader]) -> tuple[int, int]:
    """Height and width of all pictures of a set that does not tell them.

    Raises:
        DataError: there are several sizes, or a picture cannot be decoded.
    """
    sizes = [size for reader in readers for size in _sizes(reader)]
    if len(set(sizes)) > 1:
        told = " and ".join(f"{height} x {width}" for height, width in sorted(set(sizes))[:2])
        raise DataError(f"{name}: images have many sizes, such as {told}; set image_size (--image_size)")
    return sizes[0]


def _sizes(reader: Reader) -> list[tuple[int, int]]:
    """Height and width of the pictures of a split: the first's, and the first other, where there is one."""
    identity = reader.identity()
    where = identity and cache.folder(reader.place, ["sizes", identity])
    known = where and cache.read(where)
    if known:
        return [tuple(size) for size in known["sizes"].tolist()]
    split = Streamed(reader, (None, None, reader.channels))
    found = list(split.sizes())
    if where:
        cache.write(where, {"sizes": np.array(found)})
    return found


def _check_range(labels: np.ndarray, classes: int, where: str) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels {labels.min()} to {labels.max()}, classes 0 to {classes - 1}")


def _check_finite(labels: np.ndarray, where: str) -> None:
    if not np.isfinite(labels).all():
        raise DataError(f"{where}: {int((~np.isfinite(labels)).any(-1).sum())} labels are not finite")
