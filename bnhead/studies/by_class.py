"""Figures of a classifier by class from its kept outputs: recall, precision, F1; with and without the prior.

With TP_c right answers c, FP_c wrong ones and FN_c test images of class c with another answer:

    recall_c = TP_c / (TP_c + FN_c)        precision_c = TP_c / (TP_c + FP_c)
    F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c)

A precision or F1 of 0 / 0, of a class that is never answered, is 0. A class without test images has no
figures, and means are over the others. Balanced accuracy is the mean of the recalls. A minority class has
fewer training examples than the mean of the classes.

Post hoc logit adjustment subtracts from the logits the log of the classes' shares as the training loss saw
them, less what an adjusted loss has left out already (`prior` in a run's `data`). The rest is the model's
answer for classes that are equally frequent (Menon et al. 2021, arXiv 2007.07314, equation 9, tau = 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ByClass:
    """Figures of each class, `(classes,)` float64; NaN for a class without test images."""

    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


def by_class(outputs: np.ndarray, labels: np.ndarray) -> ByClass:
    """The figures of each class.

    Args:
        outputs: `(images, classes)`; the largest is the answer.
        labels: `(images,)` classes.
    """
    classes, answers = outputs.shape[1], outputs.argmax(1)
    right = np.bincount(labels[answers == labels], minlength=classes).astype("float64")
    tested, answered = (np.bincount(numbers, minlength=classes) for numbers in (labels, answers))
    tested = np.where(tested, tested, np.nan)
    never_wrong = np.maximum(answered, 1)  # 0 / 0 is 0
    return ByClass(
        right / tested, np.where(tested > 0, right / never_wrong, np.nan), 2 * right / (tested + answered)
    )


def minorities(counts: Sequence[int]) -> np.ndarray:
    """`(classes,)` bool: whether a class has fewer training examples than the mean of the classes."""
    return np.asarray(counts) < np.mean(counts)


def adjusted(outputs: np.ndarray, prior: Sequence[float], task: str) -> np.ndarray:
    """The outputs without the prior, float64.

    Args:
        outputs: `(images, classes)` logits.
        prior: `(classes,)` shares, each above 0.
        task: "classification"; for "multilabel" the log odds of the shares are subtracted.
    """
    shares = np.asarray(prior, "float64")
    others = 1 - shares if task == "multilabel" else 1.0
    return outputs.astype("float64") - np.log(shares / others)
