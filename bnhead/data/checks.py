"""What is looked at before training, in NumPy: labels, classes, pixels, duplicates, how batches come out.

What cannot be trained on raises a DataError in one line; what is merely odd becomes a warning. The rest of
what was seen is returned, and a run records it with its data's fingerprint. The backbone's own demands,
channels for pre-trained weights and a size above its stride, are checked where the model is built.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from bnhead.errors import DataError

if TYPE_CHECKING:
    from bnhead.data.pipelines import InMemory, Streamed
    from bnhead.data.sources import DataSet

SAMPLE = 256  # images of a streamed split that are looked at
SHOWN = 5  # names in a message
MOST_ROUNDED = 1 / 8  # of the targets' standard deviation
NARROW = 64  # of 256 values: pictures of 8 to 14 bits stored in 16 reach less


def inspect(data: "DataSet", batch_size: int = 0) -> dict:
    """Looks at a whole data set.

    Args:
        data: the data set.
        batch_size: training examples in a batch; 0 if that is not known yet.

    Returns:
        `splits`: examples of each; `class_counts`: of each split, for classes; `pixels`: dtype, least,
        largest and mean value, and of how many training images; `duplicates`: test images that are training
        images too, pixel by pixel, and images that are there more than once in each split (None where a split
        is streamed); `batches`: steps of an epoch and examples left out of it; `warnings`.

    Raises:
        DataError: labels out of range, fewer than two classes in training, pixels that are not finite or not
            in 0 to 255, fewer training examples than a batch.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    splits = {name: split for name, split in splits.items() if split is not None}
    seen: dict = {"splits": {name: split.size for name, split in splits.items()}}
    warnings: list[str] = list(data.notes)
    for name, split in splits.items():
        for labels in split.labels_in_batches():
            check_labels(labels, len(data.classes), f"{data.name}, {name}")
    if data.classes:
        seen["class_counts"] = {name: data.count_classes(split) for name, split in splits.items()}
        warnings += check_classes(seen["class_counts"]["train"], data.classes, data.name)
    if data.domains:
        seen["domain_counts"] = {
            name: np.bincount(split.domains, minlength=len(data.domains)).tolist()
            for name, split in splits.items()
        }
    seen["pixels"], odd = check_pixels(_images(data.train), f"{data.name}, train")
    warnings += odd
    seen["duplicates"] = duplicates(splits)
    shared = seen["duplicates"] and seen["duplicates"]["train_test"]
    if shared:
        warnings.append(f"{shared} test images are training images too")
    if batch_size:
        seen["batches"] = check_batches(data.train.size, batch_size)
    return {**seen, "warnings": warnings}


def _images(split: "InMemory | Streamed") -> np.ndarray:
    """All images, or those of a streamed split's beginning."""
    if hasattr(split, "images"):
        return split.images
    return split.take(np.arange(min(SAMPLE, split.size))).decoded().images


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raises DataError unless labels are classes in range, or finite numbers.

    Args:
        labels: `(size,)` integers, or `(size, numbers)` floats.
        classes: number of classes; 0 for numbers.
        where: how to call the split.
    """
    if not classes:
        wrong = ~np.isfinite(labels).reshape(len(labels), -1).all(1)
        if wrong.any():
            raise DataError(
                f"{where}: {wrong.sum()} labels are not finite in float32, which holds up to 3.4e38, "
                f"the first is example {wrong.argmax()}"
            )
        return
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: labels must be whole numbers, classes 0 to {classes - 1}, got {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels {labels.min()} to {labels.max()}, classes 0 to {classes - 1}")


def check_rounding(targets: np.ndarray, where: str) -> None:
    """Raises DataError where numbers lie so close together that float32 does not tell them apart.

    Nets compute in float32, of 24 bits: above 16,777,216 it does not hold every whole number. TFDS writes
    float64 as float32 as well, so that there it is the distance to the next number that counts.

    Args:
        targets: `(size, ...)`, whole numbers or float64, as they were read.
        where: how to call the split.
    """
    exact = targets.astype(np.longdouble).reshape(len(targets), -1)
    rounded = exact.astype(np.float32)
    with np.errstate(invalid="ignore"):  # what is not finite has a check of its own
        error = np.spacing(np.abs(rounded)) / 2 if targets.dtype.kind == "f" else np.abs(exact - rounded)
        deviation = exact.std(0)
        lost = (error.max(0) > MOST_ROUNDED * deviation) & (deviation > 0)
    if lost.any():
        raise DataError(
            f"{where}: float32 rounds targets by up to {error[:, lost].max():.2g}, beside their standard "
            f"deviation of {deviation[lost].min():.2g}; subtract their mean from them first"
        )


def check_classes(counts: list[int], names: tuple[str, ...], where: str) -> list[str]:
    """Warnings about a training split's class counts.

    Raises:
        DataError: there are examples of fewer than two classes.
    """
    there = [name for name, count in zip(names, counts, strict=True) if count]
    if len(there) < 2:
        raise DataError(f"{where}: training needs at least two classes, there is {there[0]!r} alone")
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if not absent:
        return []
    more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
    return [f"no training example of {', '.join(absent[:SHOWN])}{more}"]


def check_pixels(images: np.ndarray, where: str) -> tuple[dict, list[str]]:
    """What the pixels are, and warnings about them.

    Args:
        images: `(size, height, width, channels)`, numbers in 0 to 255.
        where: how to call the split.

    Raises:
        DataError: pixels that are NaN, infinite or outside 0 to 255.
    """
    if np.issubdtype(images.dtype, np.floating):
        wrong = ~np.isfinite(images).all((1, 2, 3))
        if wrong.any():
            text = f"{wrong.sum()} images have pixels that are NaN or infinite"
            raise DataError(f"{where}: {text}, the first is example {wrong.argmax()}")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 255:
        raise DataError(f"{where}: pixels must be in 0 to 255, got {low:g} to {high:g}")
    warnings = []
    if high <= 1:
        warnings.append(f"pixels reach {high:g} of 255: are they scaled to 0 to 1?")
    elif high - low < NARROW:
        warnings.append(
            f"pixels are {low:g} to {high:g} of 0 to 255: have they fewer bits than the files have room for?"
        )
    parts = (images[i : i + 1024] for i in range(0, len(images), 1024))
    plain = sum(int((part == part[:, :1, :1]).all((1, 2, 3)).sum()) for part in parts)
    if plain:
        warnings.append(f"{plain} training images are of one colour")
    mean = float(images.mean(dtype=np.float64))
    seen = {"dtype": str(images.dtype), "least": low, "largest": high, "mean": round(mean, 4)}
    return {**seen, "images": len(images)}, warnings


def duplicates(splits: "dict[str, InMemory | Streamed]") -> dict[str, int] | None:
    """Counts of images that are equal in every pixel; None where a split is not in memory."""
    if not all(hasattr(split, "images") for split in splits.values()):
        return None
    hashes = {
        name: [hashlib.blake2b(image.data, digest_size=16).digest() for image in _contiguous(split.images)]
        for name, split in splits.items()
    }
    train = set(hashes["train"])
    within = {f"within_{name}": len(own) - len(set(own)) for name, own in hashes.items()}
    return {"train_test": sum(one in train for one in hashes["test"]), **within}


def _contiguous(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images).reshape(len(images), -1)


def check_batches(size: int, batch_size: int) -> dict[str, int]:
    """Steps of an epoch, and examples that each epoch leaves out: never is there a batch of one.

    Raises:
        DataError: there are fewer examples than a batch.
    """
    if batch_size > size:
        raise DataError(f"batch_size must be at most the {size} training images, got {batch_size}")
    return {"size": batch_size, "steps": size // batch_size, "left_out": size % batch_size}
