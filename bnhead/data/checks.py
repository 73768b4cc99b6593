"""Checks of a data set before training, in NumPy: labels, classes, pixels, duplicates, batches.

Data that cannot be trained on raises a DataError with a one-line message; oddities become warnings. A run
records the results with the fingerprint of its data. The requirements of the backbone (channels for
pre-trained weights, a size above its stride) are checked when the model is built.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from bnhead.data.dataset import DataSet
from bnhead.data.split import Split
from bnhead.errors import DataError

SAMPLE = 256  # images of a streamed split that are checked
MOST_NAMES = 5  # in a message
MOST_ROUNDED = 1 / 8  # of the standard deviation of the targets
NARROW = 64  # of 256 values: pictures of 8 to 14 bits stored in 16 reach fewer


def inspect_data(data: DataSet) -> dict:
    """Checks a data set.

    Args:
        data: the data set.

    Returns:
        `splits`: examples of each; `split_rule`: for a set that has no test split; `class_counts`: of each
        split, for classes; `domain_counts`: of each split, for joined sets; `pixels`: dtype, least, largest
        and mean value and the number of training images that were checked; `duplicates` (see `duplicates`);
        `warnings`.

    Raises:
        DataError: labels out of range, fewer than two classes in training, pixels that are not finite or not
            in 0 to 255.
    """
    splits, warnings = data.splits, list(data.notes)
    results: dict = {"splits": {name: split.size for name, split in splits.items()}}
    if data.split_rule:
        results["split_rule"] = data.split_rule
    for name, split in splits.items():
        check_labels(split.labels, len(data.classes), f"{data.name}, {name}")
    if data.classes:
        results["class_counts"] = {name: data.class_counts(split) for name, split in splits.items()}
        warnings += check_classes(results["class_counts"]["train"], data.classes, data.name)
    if data.domains:
        results["domain_counts"] = {
            name: np.bincount(split.domains, minlength=len(data.domains)).tolist()
            for name, split in splits.items()
        }
    train = data.train
    sample = train if train.in_memory else train.take(np.arange(min(SAMPLE, train.size))).decoded()
    results["pixels"], pixel_warnings = check_pixels(sample.images, f"{data.name}, train")
    warnings += pixel_warnings
    results["duplicates"] = duplicates(splits)
    if results["duplicates"] and (shared := results["duplicates"]["train_test"]):
        warnings.append(f"{shared} test images are training images too")
    return {**results, "warnings": warnings}


def check_labels(labels: np.ndarray, classes: int, subject: str) -> None:
    """Raises DataError unless labels are classes in range, or finite numbers.

    Args:
        labels: `(size,)` integers, or `(size, numbers)` floats.
        classes: number of classes; 0 for numbers.
        subject: name of the split for the message.
    """
    if not classes:
        infinite = ~np.isfinite(labels).reshape(len(labels), -1).all(1)
        if infinite.any():
            raise DataError(
                f"{subject}: {infinite.sum()} labels are not finite in float32, which holds up to 3.4e38, "
                f"the first is example {infinite.argmax()}"
            )
    elif not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{subject}: labels must be whole numbers, classes 0 to {classes - 1}, got {labels.dtype}"
        )
    elif labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{subject}: labels {labels.min()} to {labels.max()}, classes 0 to {classes - 1}")


def check_rounding(targets: np.ndarray, subject: str) -> None:
    """Raises DataError for numbers that float32 rounds by much of their standard deviation.

    Nets compute in float32 with 24 bits: above 16,777,216 it does not hold every whole number. TFDS stores
    float64 as float32 as well, so the rounding of floats is estimated from the distance to the next float32.

    Args:
        targets: `(size, ...)`, whole numbers or float64, as they were read.
        subject: name of the split for the message.
    """
    exact = targets.astype(np.longdouble).reshape(len(targets), -1)
    rounded = exact.astype(np.float32)
    with np.errstate(invalid="ignore"):  # check_labels reports numbers that are not finite
        error = np.spacing(np.abs(rounded)) / 2 if targets.dtype.kind == "f" else np.abs(exact - rounded)
        deviation = exact.std(0)
        lost = (error.max(0) > MOST_ROUNDED * deviation) & (deviation > 0)
    if lost.any():
        raise DataError(
            f"{subject}: float32 rounds targets by up to {error[:, lost].max():.2g}, and their standard "
            f"deviation is {deviation[lost].min():.2g}; subtract their mean from them first"
        )


def check_classes(counts: list[int], names: tuple[str, ...], subject: str) -> list[str]:
    """Returns warnings about the class counts of a training split.

    Raises:
        DataError: fewer than two classes have examples.
    """
    present = [name for name, count in zip(names, counts, strict=True) if count]
    if len(present) < 2:
        raise DataError(f"{subject}: training needs at least two classes, got only {present[0]!r}")
    absent = [name for name in names if name not in present]
    if not absent:
        return []
    ending = f" and {len(absent) - MOST_NAMES} more" if len(absent) > MOST_NAMES else ""
    return [f"no training example of {', '.join(absent[:MOST_NAMES])}{ending}"]


def check_pixels(images: np.ndarray, subject: str) -> tuple[dict, list[str]]:
    """Returns dtype, range and mean of the pixels, and warnings about them.

    Args:
        images: `(size, height, width, channels)`, numbers in 0 to 255.
        subject: name of the split for the message.

    Raises:
        DataError: pixels that are NaN, infinite or outside 0 to 255.
    """
    if np.issubdtype(images.dtype, np.floating):
        infinite = ~np.isfinite(images).all((1, 2, 3))
        if infinite.any():
            raise DataError(
                f"{subject}: {infinite.sum()} images have pixels that are NaN or infinite, "
                f"the first is example {infinite.argmax()}"
            )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 255:
        raise DataError(f"{subject}: pixels must be in 0 to 255, got {low:g} to {high:g}")
    warnings = []
    if high <= 1:
        warnings.append(f"pixels reach {high:g} of 255: are they scaled to 0 to 1?")
    elif high - low < NARROW:
        warnings.append(
            f"pixels are {low:g} to {high:g} of 0 to 255: have they fewer bits than the files have room for?"
        )
    parts = (images[i : i + 1024] for i in range(0, len(images), 1024))  # bounds the memory of the comparison
    uniform = sum(int((part == part[:, :1, :1]).all((1, 2, 3)).sum()) for part in parts)
    if uniform:
        warnings.append(f"{uniform} training images are of one colour")
    mean = round(float(images.mean(dtype=np.float64)), 4)
    dtype = str(images.dtype)
    return {"dtype": dtype, "least": low, "largest": high, "mean": mean, "images": len(images)}, warnings


def duplicates(splits: Mapping[str, Split]) -> dict[str, int] | None:
    """Counts images that are equal in every pixel; None if a split is not in memory.

    Returns:
        `train_test`: test images that are training images too; `within_train`, `within_test`, ...: repeated
        images of each split.
    """
    if not all(split.in_memory for split in splits.values()):
        return None
    hashes = {
        name: [
            hashlib.blake2b(image.data, digest_size=16).digest()
            for image in np.ascontiguousarray(split.images).reshape(split.size, -1)
        ]
        for name, split in splits.items()
    }
    train = set(hashes["train"])
    within = {f"within_{name}": len(digests) - len(set(digests)) for name, digests in hashes.items()}
    return {"train_test": sum(digest in train for digest in hashes["test"]), **within}


def check_batches(size: int, batch_size: int) -> dict[str, int]:
    """Returns the batch size, steps of an epoch and examples left out; a partial batch never occurs.

    Raises:
        DataError: there are fewer examples than a batch.
    """
    if batch_size > size:
        raise DataError(f"batch_size must be at most the {size} training images, got {batch_size}")
    return {"size": batch_size, "steps": size // batch_size, "left_out": size % batch_size}
