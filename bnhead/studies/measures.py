"""The quantities that a verdict can be about, each with its margin and its better direction.

One row per measure. Commands, verdicts, tables and pages read these rows; a new measure is a new row.
`values` gives a number for each test image if the measure is a mean over test images: a verdict then
treats images as a sample too (`bnhead.studies.intervals`). Of the others a run has one number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnhead.census import keys
from bnhead.errors import UsageError, nearest

if TYPE_CHECKING:  # a list of studies need not wait for NumPy
    import numpy as np

    from bnhead.runs.predictions import Predictions

    Values = np.ndarray  # (images,) float64, or (1,) for a measure with one number a run


@dataclass(frozen=True)
class Measure:
    """A measured quantity.

    Attributes:
        name: as in flags and files.
        title: in sentences.
        margin: a difference inside +-margin is not material.
        better: 1 if higher is better, -1 if lower is.
        is_share: whether it is shown in percent and its differences in points.
        is_relative: whether `margin` is a share of the control's mean.
        is_per_image: whether it is a mean over test images.
        values: `(result.json, predictions, task)` -> the numbers of a finished run; None if it has none.
        chance: `(classes, task)` -> the number of a run that did not train; None where no such number exists.
        best: the best possible value; None if it is not known.
    """

    name: str
    title: str
    margin: float
    better: int
    is_share: bool
    is_relative: bool
    is_per_image: bool
    values: Callable[[Mapping[str, Any], "Predictions", str], "Values | None"]
    chance: Callable[[int | None, str], float | None] = lambda classes, task: None
    best: float | None = None


def _array_of(number: float) -> "Values":
    import numpy as np

    return np.array([float(number)])


def _number_of_result(key: str) -> Callable[[Mapping[str, Any], "Predictions", str], "Values | None"]:
    def values(result, predictions, task):
        return None if result.get(key) is None else _array_of(result[key])

    return values


def _dead_share(result: Mapping[str, Any], predictions: "Predictions", task: str) -> "Values | None":
    share = result.get(keys.key(predictions.layers[0], "dataset"))
    return None if share is None else _array_of(share)


def _of_classes(
    figure: str, *, minority: bool = False, without_prior: bool = False
) -> Callable[[Mapping[str, Any], "Predictions", str], "Values | None"]:
    """The mean of a figure of `by_class.ByClass` over the classes."""

    def values(result, predictions, task):
        import numpy as np

        from bnhead.studies.by_class import adjusted, by_class, minorities

        data, outputs = result.get("data", {}), predictions.outputs
        counts = data.get("checks", {}).get("class_counts", {}).get("train")
        if outputs is None or task == "regression" or (minority and not counts):
            return None
        if without_prior:
            if "prior" not in data:
                return None
            outputs = adjusted(outputs, data["prior"], task)
        numbers = getattr(by_class(outputs, predictions.labels), figure)
        numbers = numbers[minorities(counts)] if minority else numbers
        known = numbers[np.isfinite(numbers)]
        return _array_of(known.mean()) if len(known) else None

    return values


def _ece_excess(result: Mapping[str, Any], predictions: "Predictions", task: str) -> "Values | None":
    if predictions.outputs is None or task != "classification":
        return None
    from bnhead.mechanisms.calibration import CalibrationSums

    sums = CalibrationSums()
    sums.add(predictions.outputs, predictions.labels)
    return _array_of(sums.result().ece_excess)


def _class_dead(result: Mapping[str, Any], predictions: "Predictions", task: str) -> "Values | None":
    share = result.get(keys.key(predictions.layers[0], "class_dead"))
    return None if share is None else _array_of(share)


def _guess(classes: int | None, task: str) -> float | None:
    """The share of right answers of a guess among equally likely classes."""
    return None if classes is None else 1 / classes


MEASURES = {
    row.name: row
    for row in (
        Measure(
            "accuracy", "test accuracy", 0.01, 1, True, False, True,
            values=lambda result, predictions, task: predictions.accuracy(),
            chance=lambda classes, task: 1 / classes,
            best=1.0,
        ),
        Measure(
            "r2", "test R\N{SUPERSCRIPT TWO}", 0.01, 1, False, False, False,
            values=_number_of_result("test_r2"),
            chance=lambda classes, task: 0.0,  # the mean of the targets reaches it
            best=1.0,
        ),
        Measure("dead_share", "dead units", 0.02, -1, True, False, False, values=_dead_share, best=0.0),
        Measure(
            "silent_share", "silent units per image", 0.02, -1, True, False, True,
            values=lambda result, predictions, task: predictions.silent_share(),
            best=0.0,
        ),
        Measure(
            "nll", "negative log-likelihood", 0.05, -1, False, True, True,
            values=lambda result, predictions, task: predictions.negative_log_likelihood(task),
            chance=lambda classes, task: math.log(2 if task == "multilabel" else classes),
            best=0.0,
        ),
        Measure(
            "balanced_accuracy", "balanced accuracy", 0.01, 1, True, False, False,
            values=_of_classes("recall"), chance=_guess, best=1.0,
        ),
        Measure(
            "adjusted_balanced_accuracy", "balanced accuracy without the prior", 0.01, 1, True, False, False,
            values=_of_classes("recall", without_prior=True), chance=_guess, best=1.0,
        ),
        Measure(
            "macro_f1", "mean F1 of the classes", 0.01, 1, True, False, False,
            values=_of_classes("f1"), chance=_guess, best=1.0,
        ),
        Measure(
            "minority_recall", "recall of minority classes", 0.02, 1, True, False, False,
            values=_of_classes("recall", minority=True), chance=_guess, best=1.0,
        ),
        Measure(
            "minority_precision", "precision of minority classes", 0.02, 1, True, False, False,
            values=_of_classes("precision", minority=True), chance=_guess, best=1.0,
        ),
        Measure(
            "ece_excess", "calibration error above its floor", 0.01, -1, True, False, False,
            values=_ece_excess,
        ),
        Measure(
            "class_dead", "units dead for a class", 0.02, -1, True, False, False,
            values=_class_dead, best=0.0,
        ),
        Measure(
            "robust_accuracy", "accuracy under attack", 0.02, 1, True, False, False,
            values=_number_of_result("test_robust_accuracy"), chance=_guess, best=1.0,
        ),
        Measure(
            "corrupted_accuracy", "accuracy on corrupted images", 0.01, 1, True, False, False,
            values=_number_of_result("test_corrupted_accuracy"), chance=_guess, best=1.0,
        ),
        Measure(
            "initial_modal_share", "most frequent answer before training", 0.05, -1, True, False, False,
            values=_number_of_result("mechanisms/initial_modal_share"),
        ),
    )
}  # fmt: skip


def measure_of(name: str, better: int = 1) -> Measure:
    """The measure of a name: a row of `MEASURES`, or one for a metric of a user's model, "test_auc".

    Args:
        name: of the measure; that of a metric begins with "test_" and is a key of `result.json`.
        better: for a metric, 1 if higher is better and -1 if lower is.

    Raises:
        UsageError: an unknown measure.
    """
    if name in MEASURES:
        return MEASURES[name]
    if name.startswith("test_"):
        return Measure(
            name, name.replace("_", " "), 0.01, better, False, False, False, _number_of_result(name)
        )
    raise UsageError(f"outcome {name!r} is not known{nearest(name, MEASURES)} ({', '.join(MEASURES)})")


OF_A_LAYER = ("dead_share", "silent_share", "class_dead")  # comparable for one and the same layer
PRIMARY = {"classification": "accuracy", "multilabel": "accuracy", "regression": "r2"}
SECONDARY = {
    "classification": ("dead_share", "silent_share", "nll"),
    "multilabel": ("dead_share", "silent_share", "nll"),
    "regression": ("dead_share", "silent_share"),
}
# Judged where a study asks for them. They need outputs for every test image, those of minority classes
# training classes of unequal size, and accuracy under attack and on corrupted images runs with --robustness.
OF_CLASSES = (
    "balanced_accuracy", "adjusted_balanced_accuracy", "minority_recall", "minority_precision", "macro_f1",
)  # fmt: skip
OPTIONAL = {
    "classification": (
        *(*OF_CLASSES, "ece_excess", "class_dead", "initial_modal_share"),
        *("robust_accuracy", "corrupted_accuracy"),
    ),
    "multilabel": (*OF_CLASSES, "class_dead", "initial_modal_share"),
    "regression": (),
}  # fmt: skip


def measures_of(task: str, primary: str = "", secondary: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the measures of a task, the primary one first.

    Args:
        task: the task of the runs.
        primary: name of the primary measure; "" for the task's.
        secondary: names of the others, in their order; none for the task's.

    Raises:
        UsageError: the task has no such measure.
    """
    names = (PRIMARY[task], *SECONDARY[task])
    if secondary:
        known = (*names, *OPTIONAL[task])
        return (primary or names[0], *(name for name in secondary if name in known and name != primary))
    if primary in OPTIONAL[task]:
        return (primary, *names)
    if primary and primary not in names:
        raise UsageError(
            f"outcome {primary!r} is not measured for {task}{nearest(primary, names)} "
            f"(outcomes: {', '.join((*names, *OPTIONAL[task]))})"
        )
    return (primary, *(name for name in names if name != primary)) if primary else names
