"""Opening a data set: by name, decoded into memory or streamed, checked, and changed as asked."""

import dataclasses
import math

import numpy as np

from bnhead.data import catalog, checks, subsets
from bnhead.data.dataset import DataSet
from bnhead.data.reading import OpenedSet
from bnhead.data.sets.domains import (
    common_shape,
    joined,
    require_memory,
    same_classes,
    source_and_target,
    with_change,
)
from bnhead.data.sets.folder import open_folder
from bnhead.data.sets.tfds import check_task, open_prepared
from bnhead.data.split import Split
from bnhead.data.stream import Streamed
from bnhead.errors import DataError

MEMORY_LIMIT = 2**30  # bytes of decoded pixels, train and test together


def load(
    name: str,
    data_dir: str | None = None,
    *,
    task: str = "classification",
    image_size: int = 0,
    crop: bool = False,
    train_examples: int = 0,
    test_examples: int = 0,
    validation: float = 0.0,
    imbalance: str = "none",
    label_noise: float = 0.0,
    test_corruption: str = "none",
    unlabelled_target: bool = False,
    memory_limit: int = MEMORY_LIMIT,
    cached: bool = True,
) -> DataSet:
    """Opens a data set of images with classes or numbers.

    The embedded sets are prepared on first use. Every other set must have been prepared, since a training run
    should not begin with a download of unknown size. The network is never used.

    Args:
        name: as in `catalog`: a TFDS name with or without config and version, `folder:PATH`, `domains:A,B`.
        data_dir: TFDS' directory; None for TFDS' default.
        task: "regression" for numbers as labels, anything else for classes.
        image_size: height and width to resize images to; 0 keeps them if all have one size (every picture is
            measured if the set does not record the size).
        crop: for ImageNet's augmentation: pictures of many sizes are cropped instead of stretched, to random
            windows in training, which then streams, and to the centre in evaluation.
        train_examples, test_examples: examples of a split that are used, of each class about the same share
            and the same for every seed; 0 uses all. Before validation.
        validation: share of the training split, in [0, 1), that is reserved, of each class alike.
        imbalance: reduces classes of the training split (`subsets.class_sizes`), after validation.
        label_noise: share of the training labels that are replaced by wrong ones, in [0, 1].
        test_corruption: corruption of the test images (`corruptions`).
        unlabelled_target: whether the second of two domains is a target: training examples are those of the
            first, test examples those of the second, whose training images are `DataSet.target`.
        memory_limit: up to this many bytes of decoded pixels are held in memory; larger sets are streamed.
        cached: whether decoded arrays are stored on disk (`cache`), if that is possible.

    Raises:
        UsageError: an unknown name, or a change that needs classes with task regression.
        DataError: the set is not prepared, has no images or other labels than the task needs, lacks a
            labelled test split, has an empty split or fewer examples than are asked for, images of many sizes
            without `image_size`, another dtype than uint8, a file that cannot be read or decoded, labels out
            of range, numbers that float32 cannot distinguish, or too few classes for a change.
    """
    catalog.check_name(name, data_dir, task)
    subsets.check_shifts(task, validation, imbalance, label_noise, test_corruption)

    domains = catalog.domain_names(name)
    parts, changes = zip(*([catalog.split_change(part) for part in domains] or [(name, "")]), strict=True)
    sets = [_open(part, data_dir, task) for part in parts]
    names = [part.name + f"+{change}" * bool(change) for part, change in zip(sets, changes, strict=True)]
    same_classes(names, [part.classes for part in sets])
    shape = common_shape([_image_shape(part, image_size) for part in sets])
    size = sum(reader.size for part in sets for reader in part.readers) * math.prod(shape)
    if domains:
        require_memory(size, memory_limit)
    crop, fits = crop and not domains, size <= memory_limit
    splits = [_splits(part, shape, image_size, crop, fits, cached) for part in sets]
    if domains:
        for i, change in enumerate(changes):
            splits[i] = with_change(splits[i], change, lambda other: load(other, data_dir, cached=cached))
        splits = [[joined(sides) for sides in zip(*splits, strict=True)]]
    train, test, target = source_and_target(*splits[0]) if unlabelled_target else (*splits[0], None)
    classes, notes = sets[0].classes, tuple(note for part in sets for note in part.notes)
    outputs = len(classes) or math.prod(sets[0].label.shape)
    rule = "; ".join(sorted({part.split_rule for part in sets if part.split_rule}))
    about = {"domains": domains, "target": target, "notes": notes, "split_rule": rule}
    data = DataSet("+".join(names), shape, classes, outputs, train, test, **about)
    data = _with_limits(data, train_examples, test_examples)
    return _with_subsets(data, validation, imbalance, label_noise, test_corruption)


def _open(name: str, data_dir: str | None, task: str) -> OpenedSet:
    """Opens one set of `sets`; a new source of data gets a module there and a line here."""
    opened = open_folder(name, data_dir) if catalog.folder_path(name) else open_prepared(name, data_dir)
    check_task(opened.name, opened.label, task)
    for reader in opened.readers:
        if not reader.size:
            raise DataError(f"{reader.name}: the split is empty")
    return opened


def _image_shape(opened: OpenedSet, image_size: int) -> tuple[int, int, int]:
    """Returns the shape of all images of a set, measured if neither the set nor `image_size` determines it.

    Raises:
        DataError: there are several sizes, or a picture cannot be decoded.
    """
    channels = opened.shape[-1]
    if image_size:
        return image_size, image_size, channels
    if None not in opened.shape:
        return opened.shape
    sizes = {
        size for reader in opened.readers for size in Streamed(reader, (None, None, reader.channels)).sizes()
    }
    if len(sizes) > 1:
        examples = " and ".join(f"{height} x {width}" for height, width in sorted(sizes)[:2])
        raise DataError(
            f"{opened.name}: images have many sizes, such as {examples}; set image_size (--image_size)"
        )
    return (*sizes.pop(), channels)


def _splits(
    opened: OpenedSet, shape: tuple[int, int, int], image_size: int, crop: bool, fits: bool, cached: bool
) -> tuple[Split, Split]:
    """Returns train and test, in memory if they fit."""
    classes = len(opened.classes)
    if not classes and not np.can_cast(opened.label.np_dtype, np.float32):
        for reader in opened.readers:
            checks.check_rounding(reader.labels, reader.name)
    crop = crop and bool(image_size) and None in opened.shape
    splits = train, test = [Streamed(reader, shape, crop) for reader in opened.readers]
    if fits:
        decode = Streamed.cached_decoded if cached else Streamed.decoded
        # A crop draws its windows from the undecoded pictures, so training streams all the same.
        splits = train if crop else decode(train), decode(test)
    for split, reader in zip(splits, opened.readers, strict=True):
        checks.check_labels(split.labels, classes, reader.name)
    return tuple(splits)


def _with_limits(data: DataSet, train_examples: int, test_examples: int) -> DataSet:
    """Returns the data set with some of the examples of its splits."""
    changed = {}
    for name, examples in (("train", train_examples), ("test", test_examples)):
        split = data.splits[name]
        if examples > split.size:
            raise DataError(
                f"{name}_examples must be at most the {split.size} of {data.name}, got {examples}"
            )
        if examples:
            changed[name] = split.take(subsets.limited(split.labels, examples, len(data.classes), name))
    if train_examples and data.target is not None and train_examples < data.target.size:
        kept = subsets.limited(data.target.labels, train_examples, 0, "target")  # without its classes
        changed["target"] = data.target.take(kept).with_labels(np.arange(train_examples))
    return dataclasses.replace(data, **changed)


def _with_subsets(
    data: DataSet, validation: float, imbalance: str, label_noise: float, test_corruption: str
) -> DataSet:
    """Returns the data set with a validation split, an imbalance, wrong labels or corrupted test images."""
    train, reserved, test, classes = data.train, None, data.test, len(data.classes)
    if imbalance != "none" or label_noise:
        checks.check_classes(data.class_counts(), data.classes, data.name)
    if validation:
        train_indices, indices = subsets.validation_split(train.labels, validation, classes)
        train, reserved = train.take(train_indices), train.take(indices)
        if not reserved.size or not train.size:
            raise DataError(
                f"validation must leave examples on both sides, got {validation:g} of {data.train.size}"
            )
    if imbalance != "none":
        train = train.take(subsets.imbalanced(train.labels, imbalance, classes))
    if label_noise:
        train = train.with_labels(subsets.noisy_labels(train.labels, label_noise, classes))
    if test_corruption != "none":
        test = test.with_corruption(test_corruption)
    return dataclasses.replace(data, train=train, validation=reserved, test=test)
