"""Changes of the training split: fewer examples of some classes, wrong labels, a part for validation.

All is index arithmetic in NumPy with a fixed seed: runs with different seeds train on the same examples, and
a smaller subset is part of a larger one. Test data is never changed here.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bnhead import seeds
from bnhead.data.corruptions import parse_corruption
from bnhead.errors import UsageError, nearest

# Examples of class c of `classes`, if each class had `most`: `IMBALANCES[name](most, c, classes, ratio)`.
IMBALANCES: dict[str, Callable[[float, int, int, float], float]] = {
    # exponential: Cui et al. 2019, "Class-Balanced Loss", section 5.1
    "longtail": lambda most, c, classes, ratio: most * (1 / ratio) ** (c / (classes - 1)),
    # Buda et al. 2018; Cao et al. 2019, section 4.1
    "step": lambda most, c, classes, ratio: most if c < classes // 2 else most / ratio,
    # Kocaman et al. 2021, arXiv 2109.09016
    "one_majority": lambda most, c, classes, ratio: most if c < 1 else most / ratio,
    "two_majorities": lambda most, c, classes, ratio: most if c < 2 else most / ratio,
}


def check_shifts(
    task: str, validation: float, imbalance: str, label_noise: float, test_corruption: str
) -> None:
    """Raises UsageError unless `sources.load` accepts these values."""
    if task == "regression" and (imbalance != "none" or label_noise):
        raise UsageError("imbalance and label_noise are for classes, and task regression has numbers")
    if not 0 <= validation < 1:
        raise UsageError(f"validation must be a share in [0, 1), got {validation}")
    if not 0 <= label_noise <= 1:
        raise UsageError(f"label_noise must be a share in [0, 1], got {label_noise}")
    parse_imbalance(imbalance)
    parse_corruption(test_corruption)


def parse_imbalance(text: str) -> tuple[str, float] | None:
    """Returns `("longtail", 100.0)` for `longtail:100`; None for `none`.

    Raises:
        UsageError: an unknown imbalance, or a ratio that is not a number of at least 1.
    """
    if text == "none":
        return None
    name, _, number = text.partition(":")
    if name not in IMBALANCES:
        choices = ", ".join(f"{choice}:100" for choice in IMBALANCES)
        raise UsageError(
            f"imbalance {text!r} is not known{nearest(name, IMBALANCES)} (there are none, {choices})"
        )
    try:
        ratio = float(number)
    except ValueError:
        ratio = 0.0
    if not 1 <= ratio < float("inf"):
        raise UsageError(f"imbalance must have a ratio of at least 1, as in {name}:100, got {text!r}")
    return name, ratio


def class_sizes(text: str, counts: Sequence[int]) -> list[int]:
    """Returns the number of examples of each class after an imbalance.

    With N examples of C classes, n = N / C and mu = 1 / ratio:

        longtail         n_c = int(n mu^(c / (C - 1)))
        step             n for the first half of the classes, int(n mu) for the others
        one_majority     n for class 0, int(n mu) for the others
        two_majorities   n for the classes 0 and 1, int(n mu) for the others

    at least 1, and at most the examples of the class.

    Args:
        text: such as `longtail:100`.
        counts: examples of each class in the data set.
    """
    parsed = parse_imbalance(text)
    if parsed is None:
        return list(counts)
    name, ratio = parsed
    classes = len(counts)
    most = sum(counts) / classes
    sizes = [IMBALANCES[name](most, c, classes, ratio) for c in range(classes)]
    return [min(count, max(1, int(size))) for size, count in zip(sizes, counts, strict=True)]


def imbalanced(labels: np.ndarray, text: str, classes: int) -> np.ndarray:
    """Returns ascending indices of the examples that remain after an imbalance.

    Args:
        labels: `(size,)` integers in `[0, classes)`.
        text: such as `longtail:100`.
        classes: number of classes.
    """
    sizes = class_sizes(text, np.bincount(labels, minlength=classes).tolist())
    members = _shuffled_by_class(labels, classes, "imbalance")
    return np.sort(np.concatenate([indices[:size] for indices, size in zip(members, sizes, strict=True)]))


def validation_split(labels: np.ndarray, share: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ascending indices of the examples for training and of those for validation.

    Args:
        labels: `(size,)` classes, each of which gives its share to validation, or `(size, numbers)`.
        share: share for validation, in [0, 1).
        classes: number of classes; 0 if labels are numbers.
    """
    groups = labels if classes else np.zeros(len(labels), np.int64)
    members = _shuffled_by_class(groups, classes or 1, "validation")
    validation = np.concatenate([indices[: round(share * len(indices))] for indices in members])
    return np.setdiff1d(np.arange(len(labels)), validation), np.sort(validation)


def limited(labels: np.ndarray, examples: int, classes: int, split: str) -> np.ndarray:
    """Returns ascending indices of at most `examples` examples, of each class about the same share.

    Args:
        labels: `(size,)` classes, or `(size, numbers)`.
        examples: at most the size.
        classes: number of classes; 0 if labels are numbers.
        split: name of the split, whose examples are drawn by a stream of that name.
    """
    groups = labels if classes else np.zeros(len(labels), np.int64)
    members = _shuffled_by_class(groups, classes or 1, f"limited_{split}")
    # an example's place in its class, as a share of the class: the smallest shares are taken
    places = [(np.arange(len(indices)) + 0.5) / max(1, len(indices)) for indices in members]
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.sort(np.concatenate(members)[order[:examples]])


def noisy_labels(labels: np.ndarray, share: float, classes: int) -> np.ndarray:
    """Returns labels with `round(share * size)` wrong ones, uniform over the other classes.

    Args:
        labels: `(size,)` integers in `[0, classes)`.
        share: in [0, 1].
        classes: number of classes.
    """
    random = np.random.default_rng(seeds.stream(0, "label_noise"))
    wrong = random.permutation(len(labels))[: round(share * len(labels))]
    shift = random.integers(1, classes, len(labels))
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + shift[wrong]) % classes
    return noisy


def _shuffled_by_class(labels: np.ndarray, classes: int, purpose: str) -> list[np.ndarray]:
    """Returns the indices of the examples of each class, in an order fixed by the purpose."""
    randoms = (np.random.default_rng(seeds.stream(0, purpose, c)) for c in range(classes))
    return [random.permutation(np.flatnonzero(labels == c)) for c, random in enumerate(randoms)]
