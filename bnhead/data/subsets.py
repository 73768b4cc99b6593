"""Changes of what is trained on: fewer examples of some classes, wrong labels, a part kept for validation.

Index arithmetic in NumPy, drawn with a fixed seed of its own: all runs, whatever their seed, are trained on
the same examples, and a smaller subset lies within a larger one. Test data is never changed here.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bnhead import seeds
from bnhead.data.corruptions import parse_corruption
from bnhead.errors import UsageError, nearest


def _longtail(most: float, classes: int, ratio: float) -> list[float]:
    """Exponential: Cui et al. 2019, "Class-Balanced Loss", section 5.1."""
    return [most * (1 / ratio) ** (c / (classes - 1)) for c in range(classes)]


def _majorities(count: Callable[[int], int]) -> Callable[[float, int, float], list[float]]:
    """The first `count(classes)` classes have all there is, the others a share of `1 / ratio`."""

    def sizes(most: float, classes: int, ratio: float) -> list[float]:
        return [most if c < count(classes) else most / ratio for c in range(classes)]

    return sizes


IMBALANCES: dict[str, Callable[[float, int, float], list[float]]] = {
    "longtail": _longtail,
    "step": _majorities(lambda classes: classes // 2),  # Buda et al. 2018; Cao et al. 2019, section 4.1
    "one_majority": _majorities(lambda classes: 1),  # Kocaman et al. 2021, arXiv 2109.09016
    "two_majorities": _majorities(lambda classes: 2),
}


def check_shifts(validation: float, imbalance: str, label_noise: float, test_corruption: str) -> None:
    """Raises UsageError unless these are what `sources.load` takes."""
    if not 0 <= validation < 1:
        raise UsageError(f"validation must be a share in [0, 1), got {validation}")
    if not 0 <= label_noise <= 1:
        raise UsageError(f"label_noise must be a share in [0, 1], got {label_noise}")
    parse_imbalance(imbalance)
    parse_corruption(test_corruption)


def parse_imbalance(text: str) -> tuple[str, float] | None:
    """`("longtail", 100.0)` of `longtail:100`; None of `none`.

    Raises:
        UsageError: there is no imbalance of this name, or the ratio is no number of at least 1.
    """
    if text == "none":
        return None
    kind, _, number = text.partition(":")
    if kind not in IMBALANCES:
        there = ", ".join(f"{name}:100" for name in IMBALANCES)
        raise UsageError(
            f"imbalance {text!r} is not known{nearest(kind, IMBALANCES)} (there are none, {there})"
        )
    try:
        ratio = float(number)
    except ValueError:
        ratio = 0.0
    if not 1 <= ratio < float("inf"):
        raise UsageError(f"imbalance must have a ratio of at least 1, as in {kind}:100, got {text!r}")
    return kind, ratio


def class_sizes(text: str, counts: Sequence[int]) -> list[int]:
    """How many examples of each class an imbalance leaves.

    With N examples of C classes, n = N / C and mu = 1 / ratio:

        longtail         n_c = int(n mu^(c / (C - 1)))
        step             n for the first half of the classes, int(n mu) for the others
        one_majority     n for class 0, int(n mu) for the others; two_majorities: n for the classes 0 and 1

    at least 1, and never more than there are.

    Args:
        text: such as `longtail:100`.
        counts: examples of each class that there are.
    """
    parsed = parse_imbalance(text)
    if parsed is None:
        return list(counts)
    kind, ratio = parsed
    wanted = IMBALANCES[kind](sum(counts) / len(counts), len(counts), ratio)
    return [min(there, max(1, int(size))) for size, there in zip(wanted, counts, strict=True)]


def imbalanced(labels: np.ndarray, text: str, classes: int) -> np.ndarray:
    """Indices, ascending, of the examples that an imbalance leaves.

    Args:
        labels: `(size,)` integers in `[0, classes)`.
        text: such as `longtail:100`.
        classes: number of classes.
    """
    sizes = class_sizes(text, np.bincount(labels, minlength=classes).tolist())
    drawn = [
        members[:size] for members, size in zip(_by_class(labels, classes, "imbalance"), sizes, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def validation_split(labels: np.ndarray, share: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices, ascending, of what stays for training and of what is cut off for validation.

    Args:
        labels: `(size,)` classes, of each of which the share is cut, or `(size, numbers)`.
        share: the share that is cut off, in [0, 1).
        classes: number of classes; 0 where labels are numbers.
    """
    groups = _by_class(labels if classes else np.zeros(len(labels), np.int64), classes or 1, "validation")
    cut = np.concatenate([members[: round(share * len(members))] for members in groups])
    return np.setdiff1d(np.arange(len(labels)), cut), np.sort(cut)


def noisy_labels(labels: np.ndarray, share: float, classes: int) -> np.ndarray:
    """Labels of which `round(share * size)` are wrong: another class, each of the others as likely.

    Args:
        labels: `(size,)` integers in `[0, classes)`.
        share: in [0, 1].
        classes: number of classes.
    """
    random = np.random.default_rng(seeds.stream(0, "label_noise"))
    chosen = random.permutation(len(labels))[: round(share * len(labels))]
    shift = random.integers(1, classes, len(labels))
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + shift[chosen]) % classes
    return noisy


def _by_class(labels: np.ndarray, classes: int, purpose: str) -> list[np.ndarray]:
    """The examples of each class, in an order that is drawn once and for all."""
    orders = []
    for c in range(classes):
        members = np.flatnonzero(labels == c)
        orders.append(np.random.default_rng(seeds.stream(0, purpose, c)).permutation(members))
    return orders
