"""The rule that turns outcomes into a verdict, in this order:

INVALID                 a run of the comparison is missing; its runs differ in code, packages, devices or
                        data; there are fewer than 3 seeds; or runs finished and neither head is further above
                        chance than delta
UNSTABLE                the treatment diverges or fails to learn in a fifth of the seeds or more, or in more
                        seeds than the control
NO MATERIAL DIFFERENCE  two one-sided tests at +-delta: p, adjusted by Holm, is below alpha
HELPS, HURTS            the paired t test against 0: p, adjusted by Holm, is below alpha; for one comparison:
                        the interval of confidence 1 - alpha excludes 0
UNDECIDED               otherwise; with the number of further seeds that would decide at a power of 80 %

Replicates are seeds, and runs of one seed are pairs. Runs that diverge or fail to learn are scored at chance;
if there are any, `converged` has the same numbers without their pairs, and decides nothing. Holm's family is
all comparisons of the plan; one without a p-value counts as 1. For two heads that do not differ, HELPS and
HURTS together have at most the probability alpha, over the whole family. A study of several comparisons has
the word that all of them share, and MIXED if they differ; it is INVALID if one of them is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnhead.census import keys
from bnhead.studies import statistics
from bnhead.studies.outcomes import SCORED, UNTRAINED, Outcome, exclusions, flow
from bnhead.studies.plan import Comparison, Plan
from bnhead.studies.width import width_law
from bnhead.studies.wording import as_margin, ascii_difference, unit

FORMAT = 1
LEAST_SEEDS = 3
UNSTABLE_SHARE = 0.2
_EQUAL_ENVIRONMENT = (
    *("bnhead", "source_sha256", "python", "tensorflow", "keras", "numpy"),
    *("backend", "backend_version", "devices", "threads"),
)
_EQUAL_DATA = ("name", "train", "test", "train_sha256", "test_sha256")
_NUMBERS = ("n", "mean", "sd", "interval", "p", "interval_tost", "p_tost")


def judge(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The content of `verdict.json`. The order of the outcomes and the times of the runs do not matter.

    Args:
        plan: the plan.
        outcomes: of all its runs.
    """
    order = {run.id: index for index, run in enumerate(plan.runs)}
    outcomes = sorted(outcomes, key=lambda outcome: order[outcome.run.id])
    comparisons = [_measured(plan, comparison, outcomes) for comparison in plan.comparisons]
    for name in ("p", "p_tost"):
        p_values = [1.0 if numbers[name] is None else numbers[name] for numbers in comparisons]
        for numbers, adjusted in zip(comparisons, statistics.holm(p_values), strict=True):
            numbers[name.replace("p", "p_holm", 1)] = None if numbers[name] is None else adjusted
    for comparison, numbers in zip(plan.comparisons, comparisons, strict=True):
        word, why = _decision(plan, comparison, numbers, outcomes)
        numbers["word"], numbers["sentence"] = word, f"{_finding(plan, numbers)}: {word}{why}."
    words = {numbers["word"] for numbers in comparisons}
    if len(words) != 1:
        words = {"INVALID"} & words or {"MIXED"}
    return {
        "format": FORMAT,
        "plan_sha256": plan.sha256,
        "exploratory": list(plan.amendments),
        "word": words.pop(),
        "sentence": _sentence(plan, comparisons),
        "flow": flow(outcomes),
        "exclusions": exclusions(outcomes),
        "comparisons": comparisons,
        "cells": [_cell_figures(cell.name, outcomes) for cell in plan.cells],
        "width_law": width_law(plan, outcomes),
    }


def _measured(plan: Plan, comparison: Comparison, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The numbers of a comparison over the seeds with both scores, in the order of the seeds, undecided."""
    by_seed = [
        {outcome.run.seed: outcome for outcome in outcomes if outcome.run.cell == cell}
        for cell in (comparison.control, comparison.treatment)
    ]
    pairs = [(by_seed[0][seed], by_seed[1][seed]) for seed in sorted(by_seed[0].keys() & by_seed[1].keys())]
    pairs = [pair for pair in pairs if None not in (pair[0].score, pair[1].score)]
    scores = [[pair[side].score for pair in pairs] for side in (0, 1)]
    untrained = [sum(pair[side].status in UNTRAINED for pair in pairs) for side in (0, 1)]
    trained = [pair for pair in pairs if not {outcome.status for outcome in pair} & set(UNTRAINED)]
    converged = {
        "label": "pairs of which both trained; decides nothing",
        **_numbers(plan, _score_differences(trained)),
    }
    return {
        "name": comparison.name,
        "control": comparison.control,
        "treatment": comparison.treatment,
        "stratum": dict(comparison.stratum),
        "word": "",
        "sentence": "",
        "seeds": [pair[0].run.seed for pair in pairs],
        "control_scores": scores[0],
        "treatment_scores": scores[1],
        "differences": _score_differences(pairs),
        **_numbers(plan, _score_differences(pairs)),
        "p_holm": None,
        "p_holm_tost": None,
        "diverged": {"control": untrained[0], "treatment": untrained[1]},
        "more_seeds": None,
        "converged": converged if any(untrained) else None,
    }


def _score_differences(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[float]:
    return [treatment.score - control.score for control, treatment in pairs]


def _numbers(plan: Plan, differences: Sequence[float]) -> dict[str, Any]:
    if len(differences) < 2:
        return {**dict.fromkeys(_NUMBERS), "n": len(differences)}
    result = statistics.paired(differences, plan.delta, plan.alpha)
    numbers = {name: getattr(result, name) for name in _NUMBERS}
    return {**numbers, "interval": list(result.interval), "interval_tost": list(result.interval_tost)}


def _decision(
    plan: Plan, comparison: Comparison, numbers: dict[str, Any], outcomes: Sequence[Outcome]
) -> tuple[str, str]:
    """The word and its reason. Records in `numbers` how many more seeds would decide."""
    untrained, n = numbers["diverged"], numbers["n"]
    if invalid := _invalid(plan, comparison, outcomes):
        return "INVALID", f", {invalid}"
    if untrained["treatment"] >= UNSTABLE_SHARE * n or untrained["treatment"] > untrained["control"]:
        return "UNSTABLE", (
            f", {untrained['treatment']} of {n} runs of {comparison.treatment} and "
            f"{untrained['control']} of {comparison.control} did not train"
        )
    if numbers["p_holm_tost"] < plan.alpha:
        return "NO MATERIAL DIFFERENCE", f", less than {as_margin(plan.delta, plan.primary)} either way"
    if numbers["p_holm"] < plan.alpha:
        return "HELPS" if numbers["mean"] > 0 else "HURTS", ""
    alpha = plan.alpha / len(plan.comparisons)
    needed = statistics.seeds_to_decide(numbers["mean"], numbers["sd"], plan.delta, alpha)
    if needed is None:
        return "UNDECIDED", f", and over {statistics.MOST_SEEDS:,} seeds would be needed"
    numbers["more_seeds"] = seeds = max(1, needed - n)
    return "UNDECIDED", f", about {seeds} more seed{'s' if seeds > 1 else ''} would decide"


def _invalid(plan: Plan, comparison: Comparison, outcomes: Sequence[Outcome]) -> str:
    """Why a comparison cannot be judged; empty if it can."""
    runs = [outcome for outcome in outcomes if outcome.run.cell in (comparison.control, comparison.treatment)]
    if missing := sum(outcome.status not in SCORED for outcome in runs):
        return f"{missing} of {len(runs)} runs have no result; run the same command again to finish them"
    if len(plan.seeds) < LEAST_SEEDS:
        return f"{len(plan.seeds)} seeds, at least {LEAST_SEEDS} are needed"
    for name in _EQUAL_ENVIRONMENT:
        values = {str(outcome.environment.get(name)) for outcome in runs}
        if len(values) > 1:
            return f"its runs differ in {name}: {', '.join(sorted(values))}"
    for name in _EQUAL_DATA:
        values = {str(outcome.result.get("data", {}).get(name)) for outcome in runs}
        values |= {str(plan.data[name])} if name in plan.data else set()
        if len(values) > 1:
            return f"its runs differ in their data set ({name}): {', '.join(v[:20] for v in sorted(values))}"
    by_cell: dict[str, list[float]] = {}
    for outcome in runs:
        if outcome.status == "finished":
            by_cell.setdefault(outcome.run.cell, []).append(outcome.score)
    means = [statistics.describe(scores)["mean"] for scores in by_cell.values()]
    if means and max(means) <= plan.chance + plan.delta:
        margin = as_margin(plan.delta, plan.primary)
        return f"neither head is more than {margin} above chance: nothing was learned"
    return ""


def _finding(plan: Plan, numbers: Mapping[str, Any]) -> str:
    subject = f"{_data_and_backbone(plan)}, {numbers['name']}"
    if numbers["mean"] is None:
        return subject
    mean, low, high = (
        ascii_difference(value, plan.primary) for value in (numbers["mean"], *numbers["interval"])
    )
    return (
        f"{subject}: {plan.primary.replace('_', ' ')} {' '.join(filter(None, (mean, unit(plan.primary))))} "
        f"({100 * (1 - plan.alpha):g} % interval {low} to {high}), {numbers['n']} seeds"
    )


def _data_and_backbone(plan: Plan) -> str:
    return " with ".join(
        f"{word}{plan.settings[key]}"
        for word, key in (("On ", "dataset"), ("", "backbone"))
        if key in plan.settings
    )


def _sentence(plan: Plan, comparisons: Sequence[Mapping[str, Any]]) -> str:
    if len(comparisons) == 1:
        return comparisons[0]["sentence"]
    by_word: dict[str, list[str]] = {}
    for numbers in comparisons:
        by_word.setdefault(numbers["word"], []).append(numbers["name"])
    findings = "; ".join(f"{word}: {', '.join(names)}" for word, names in by_word.items())
    return (
        f"{_data_and_backbone(plan)}, {len(comparisons)} comparisons of {len(plan.seeds)} seeds. {findings}."
    )


def _cell_figures(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Scores and dead units of one cell; a figure that is unknown in some runs is over the other runs."""
    scored = [outcome for outcome in outcomes if outcome.run.cell == name and outcome.score is not None]
    figures: dict[str, list[float]] = {}
    for outcome in scored:
        for key, value in outcome.result.items():
            if keys.is_key(key) and isinstance(value, int | float) and math.isfinite(value):
                figures.setdefault(keys.short(key), []).append(value)
    dead = {key: statistics.describe(values) for key, values in figures.items()}
    return {
        "name": name,
        **statistics.describe([outcome.score for outcome in scored]),
        "dead": {key: {part: values[part] for part in ("n", "mean", "sd")} for key, values in dead.items()},
    }
