"""`runs.csv`: a study as a table of its runs, for statistics elsewhere."""

import csv
import io
from typing import Any

from bnhead.census import keys
from bnhead.studies import wording
from bnhead.studies.directory import StudyFiles

NAME = "runs.csv"
_POPULATION, _WITHOUT_NORMS = "_population", "_without_norms"


def runs_csv(study: StudyFiles) -> str:
    """A row for each judged run, in the plan's order.

    Columns: `run`, `cell`, `head`, the settings in which cells differ, `seed`, `status`, the outcomes as they
    were judged (shares in [0, 1]; chance where a run did not train), in a study of causes also with
    population statistics (`accuracy_population`) and in one of claims without the head's norm
    (`balanced_accuracy_without_norms`), then the scores and figures of dead units in `result.json`.
    A cell without a number is empty. A run's time, which differs when the run is repeated, is in its
    `environment.json`.
    """
    judged = judged_scores(study)
    names = [
        name
        for row in study.plan.measures
        for name in (row.name, row.name + _POPULATION, row.name + _WITHOUT_NORMS)
    ]
    outcomes = [name for name in names if any(name in scores for scores in judged.values())]
    varied = dict.fromkeys(key for cell in study.plan.cells for key in cell.stratum)
    rows = [_run_row(study, run, varied, judged.get((run.cell, run.seed), {})) for run in study.judged_runs]
    numbers = dict.fromkeys(key for row in rows for key in row if key.startswith("test_") or keys.is_key(key))
    columns = ["run", "cell", "head", *varied, "seed", "status", *outcomes, *numbers]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _run_row(study: StudyFiles, run: Any, varied: dict[str, Any], scores: dict[str, float]) -> dict[str, Any]:
    files, cell = study.runs[run.id], study.plan.cell(run.cell)
    numbers = {
        key: value
        for key, value in files.result.items()
        if (key.startswith("test_") or keys.is_key(key)) and wording.is_number(value)
    }
    return {
        "run": run.id,
        "cell": run.cell,
        "head": cell.head,
        **{key: cell.stratum.get(key, "") for key in varied},
        "seed": run.seed,
        "status": files.result.get("status", "missing"),
        **numbers,
        **scores,
    }


def judged_scores(study: StudyFiles) -> dict[tuple[str, int], dict[str, float]]:
    """(cell, seed) -> outcome -> the number with which the run entered the verdict."""
    scores: dict[tuple[str, int], dict[str, float]] = {}
    for comparison in study.verdict["comparisons"]:
        for row in (comparison, *comparison.get("secondary", ())):
            for side in ("control", "treatment"):
                for seed, value in zip(row["seeds"], row.get(f"{side}_scores", ()), strict=False):
                    if wording.is_number(value):
                        scores.setdefault((row[side], seed), {})[row["outcome"]] = value
    for row in study.verdict.get("claims", {}).get("scores", ()):
        suffix = _WITHOUT_NORMS * (row["model"] == "without_norms")
        for seed, value in zip(row["seeds"], row["values"], strict=True):
            scores.setdefault((row["cell"], seed), {})[row["outcome"] + suffix] = value
    for table in study.verdict.get("causes", ()):
        for row in table["scores"]:
            suffix = _POPULATION * (row["statistics"] == "population")
            for seed, value in zip(table["seeds"], row["values"], strict=True):
                scores.setdefault((row["cell"], seed), {})[table["outcome"] + suffix] = value
    return scores
