"""The checks of `bnhead.studies.claims` on the runs of a study, and the figures of its classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnhead.runs.predictions import read_predictions
from bnhead.studies import statistics
from bnhead.studies.by_class import adjusted, by_class, minorities
from bnhead.studies.claims import CLAIMS, CONTROL, HEADS
from bnhead.studies.intervals import crossed
from bnhead.studies.outcomes import SCORED, Outcome
from bnhead.studies.plan import Plan, PlannedMeasure

GAIN, ERROR = "balanced_accuracy", "ece_excess"
TRAINED, WITHOUT = "trained", "without_norms"
_INTERVALS = len(CLAIMS) + 1  # judged intervals of a head: one claim has two
Scores = Mapping[int, float]  # seed -> score


def judge_claims(plan: Plan, outcomes: Sequence[Outcome], reason: str = "") -> dict[str, Any]:
    """A row for each claim and place of the norm; empty for a study without the cells.

    Only seeds with all scores of a row count. A run that did not train has its chance, as in a verdict. The
    intervals of all rows hold together, over seeds.

    Args:
        plan: the plan.
        outcomes: of its runs.
        reason: why the runs cannot be compared; every row is then INVALID.

    Returns:
        `rows`, each with `claim`, `head`, `word`, `outcome`, `n`, `seeds`, `differences`, `mean`, `sd`,
        `level`, `interval`, `margin`, and `gains`: the means that are subtracted from each other. `scores`,
        from which they follow: `cell`, `outcome`, `model` ("trained", or "without_norms"), `seeds`, `values`.
    """
    if not plan.claims:
        return {}
    cells = {
        (name, head): next(c.name for c in plan.cells if c.head == head and dict(c.stratum) == stratum)
        for name, stratum in plan.claims.items()
        for head in (CONTROL, *HEADS)
    }
    by_cell: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.status in SCORED and not reason:
            by_cell.setdefault(outcome.run.cell, []).append(outcome)

    used: dict[tuple[str, str, str], dict[int, float]] = {}

    def scores(stratum: str, head: str, measure: str, model: str) -> dict[int, float]:
        key = cells[stratum, head], measure, model
        numbers = used.setdefault(key, {})
        for outcome in by_cell.get(key[0], ()):
            is_changed = model != TRAINED and outcome.status == "finished"  # else it is at chance
            of_run = outcome.without_norms if is_changed else outcome.values
            if measure in of_run:
                numbers[outcome.run.seed] = float(np.mean(of_run[measure]))
        return numbers

    def gain(stratum: str, head: str, measure: str = GAIN, model: str = TRAINED) -> Scores:
        return _less(scores(stratum, head, measure, model), scores(stratum, CONTROL, measure, TRAINED))

    rows = []
    for head in HEADS:
        one = gain("one", head)
        terms: dict[str, list[tuple[Scores, Scores | None]]] = {
            "removable": [(gain("one", head, model=WITHOUT), None)],
            "threshold": [(one, gain("less", head)), (one, gain("more", head))],
            "batch": [(gain("batch", head), one)],
            "general": [(one, None)],
            "majority": [(one, gain("two", head))],
            "softmax": [(one, gain("sigmoid", head))],
            "calibration": [(gain("one", head, ERROR), None)],
        }
        rows += [_claim_row(plan, claim.name, head, terms[claim.name]) for claim in CLAIMS]
    kept = [
        {
            "cell": cell,
            "outcome": measure,
            "model": model,
            "seeds": list(of_seed),
            "values": [*of_seed.values()],
        }
        for (cell, measure, model), of_seed in used.items()
    ]
    return {"rows": rows, "scores": kept}


def _less(first: Scores, second: Scores) -> dict[int, float]:
    return {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}


def _claim_row(
    plan: Plan, claim: str, head: str, terms: Sequence[tuple[Scores, Scores | None]]
) -> dict[str, Any]:
    """The row of a claim: of several differences the one with the lowest interval, and the word of all."""
    outcome = ERROR if claim == "calibration" else GAIN
    planned = next((row for row in plan.measures if row.name == outcome), None) or PlannedMeasure.of(outcome)
    level = plan.level(len(HEADS) * _INTERVALS)
    judged = []
    for first, second in terms:
        differences = dict(first) if second is None else _less(first, second)
        row = {
            "claim": claim, "head": head, "word": "INVALID", "outcome": outcome, "n": len(differences),
            "seeds": list(differences), "differences": list(differences.values()),
            **dict.fromkeys(("mean", "sd", "interval")), "level": 1 - level, "margin": planned.margin,
            "gains": [float(np.mean(list(side.values()))) for side in (first, second) if side],
        }  # fmt: skip
        if len(differences) >= 2:
            result = crossed(np.array(row["differences"])[:, None])
            interval = [float(bound) for bound in result.interval(level)]
            word = word_of(interval, planned.margin, two_sided=claim == "batch")
            sd = statistics.describe(row["differences"])["sd"]
            row |= {"mean": result.mean, "sd": sd, "interval": interval, "word": word}
        judged.append(row)
    lowest = min(judged, key=lambda row: row["interval"][0] if row["interval"] else -np.inf)
    words = [row["word"] for row in judged]
    all_of = next(word for word in ("INVALID", "REFUTED", "UNDECIDED", "CONFIRMED") if word in words)
    return {**lowest, "word": all_of}


def word_of(interval: Sequence[float], margin: float, *, two_sided: bool = False) -> str:
    """CONFIRMED, REFUTED or UNDECIDED, by the rules of `bnhead.studies.claims`.

    Args:
        interval: both bounds of the difference that should be above 0.
        margin: a smaller difference is not material.
        two_sided: whether the claim is only that it is not 0.
    """
    low, high = interval
    if high < margin and (low > -margin or not two_sided):
        return "REFUTED"
    return "CONFIRMED" if low > 0 or (two_sided and high < 0) else "UNDECIDED"


def class_table(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of each class, means over the seeds of each compared cell; empty if they do not count.

    A diverged run has none; a class without test images has None.

    Returns:
        `counts`, training examples of each class; `minority`, whether it is one (`by_class.minorities`); and
        `rows`: `cell`, `n`, and by class `recall`, `adjusted_recall` (without the prior), `precision`, `f1`.
    """
    compared = dict.fromkeys(name for pair in plan.comparisons for name in (pair.control, pair.treatment))
    if not plan.claims:
        return {}
    counts, rows = [], []
    for cell in compared:
        figures: dict[str, list[np.ndarray]] = {}
        runs = [run for run in outcomes if run.run.cell == cell and run.status == "finished"]
        for run in runs:
            predictions, data = read_predictions(run.files.path), run.result["data"]
            if predictions.outputs is None or "prior" not in data:
                continue
            counts = data["checks"]["class_counts"]["train"]
            plain = by_class(predictions.outputs, predictions.labels)
            outputs = adjusted(predictions.outputs, data["prior"], plan.task)
            without = by_class(outputs, predictions.labels)
            for name, values in (
                ("recall", plain.recall),
                ("adjusted_recall", without.recall),
                ("precision", plain.precision),
                ("f1", plain.f1),
            ):
                figures.setdefault(name, []).append(values)
        if figures:
            means = {name: np.mean(np.stack(values), 0) for name, values in figures.items()}
            texts = {
                name: [float(value) if np.isfinite(value) else None for value in values]
                for name, values in means.items()
            }
            rows.append({"cell": cell, "n": len(figures["recall"]), **texts})
    if not rows:
        return {}
    return {"counts": counts, "minority": minorities(counts).tolist(), "rows": rows}
