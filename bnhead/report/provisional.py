"""A study without a verdict: what its runs so far show, without any statement about them."""

import dataclasses
import pathlib
from typing import Any

from bnhead.studies.directory import StudyFiles, read_failures
from bnhead.studies.outcomes import SCORED, read_outcomes

WORD = "INCOMPLETE"
# Whoever reads them before the last run has ended, and then stops or goes on, tests more than once.
_NO_STATEMENTS = ("interval", "interval_seeds", "converged")


def without_verdict(study: StudyFiles, directory: pathlib.Path) -> StudyFiles:
    """The study with the numbers of its runs so far in the place of a verdict.

    Differences, means and dead units are those of the runs that have ended. Intervals, p-values and
    verdicts are missing.

    Args:
        study: the files of a study without `verdict.json`.
        directory: its directory.
    """
    from bnhead.studies.verdict import judge  # not at the top: a page of a finished study needs no SciPy

    plan = study.plan
    outcomes = read_outcomes(plan, directory, read_failures(directory))
    numbers = judge(plan, outcomes)
    nothing: dict[str, Any] = dict.fromkeys(_NO_STATEMENTS)
    comparisons = [
        {**comparison, **nothing, "word": "", "sentence": "", "secondary": []}
        for comparison in numbers["comparisons"]
    ]
    ended = sum(outcome.status in SCORED for outcome in outcomes)
    return dataclasses.replace(
        study,
        verdict={
            **numbers,
            "word": WORD,
            "sentence": f"{ended} of {len(outcomes)} runs have a result. There is no verdict yet.",
            "next": None,
            "comparisons": comparisons,
            "trends": [],
            "claims": {},
            "exclusions": [
                run for run in numbers["exclusions"] if run["reason"] not in ("not started", "not finished")
            ],
            "width_law": [
                {**law, "slope": None, "interval": None, "logit": None} for law in numbers["width_law"]
            ],
        },
    )
