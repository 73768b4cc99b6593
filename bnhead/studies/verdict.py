"""The rule that turns outcomes into a verdict; its order is the order below.

INVALID                 a run of the comparison is missing; the code, packages, devices or data of its runs
                        are not one; there are fewer than 3 seeds; or runs finished and neither head is
                        further above chance than delta
UNSTABLE                the treatment diverges or fails to learn in a fifth of the seeds or more, or in more
                        than the control does
NO MATERIAL DIFFERENCE  two one-sided tests at +-delta: p, adjusted by Holm, is below alpha
HELPS, HURTS            the paired t test against 0: p, adjusted by Holm, is below alpha; for one comparison:
                        the interval of confidence 1 - alpha excludes 0
UNDECIDED               none of these; with how many more seeds would decide at a power of 80 %

Replicates are seeds, and runs of one seed are pairs. Runs that diverge or fail to learn are scored at chance;
where there are any, `converged` has the same numbers without their pairs, and decides nothing. Holm's family
is all comparisons of the plan; one that has no p-value yet counts as 1. Of two heads that do not differ,
HELPS and HURTS together have at most the probability alpha, over the whole family. A study of several
comparisons has the word that all of them share, and MIXED where they differ; it is INVALID where one of them
is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnhead.census import keys
from bnhead.studies import statistics
from bnhead.studies.outcomes import SCORED, UNTRAINED, Outcome, exclusions, flow
from bnhead.studies.plan import Comparison, Plan
from bnhead.studies.width import width_law

FORMAT = 1
LEAST_SEEDS = 3
UNSTABLE_SHARE = 0.2
_ONE = (
    *("bnhead", "source_sha256", "python", "tensorflow", "keras", "numpy"),
    *("backend", "backend_version", "devices", "threads"),
)
_FINGERPRINT = ("name", "train", "test", "train_sha256", "test_sha256")
_NUMBERS = ("n", "mean", "sd", "interval", "p", "interval_tost", "p_tost")


def judge(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What `verdict.json` holds. Neither the order of the outcomes nor when the runs were done matters.

    Args:
        plan: the plan.
        outcomes: of all its runs.
    """
    place = {run.id: index for index, run in enumerate(plan.runs)}
    outcomes = sorted(outcomes, key=lambda one: place[one.run.id])
    compared = [_measured(plan, comparison, outcomes) for comparison in plan.comparisons]
    for name in ("p", "p_tost"):
        values = statistics.holm([1.0 if one[name] is None else one[name] for one in compared])
        for one, value in zip(compared, values, strict=True):
            one[name.replace("p", "p_holm", 1)] = None if one[name] is None else value
    for comparison, numbers in zip(plan.comparisons, compared, strict=True):
        _decide(plan, comparison, numbers, _invalid(plan, comparison, outcomes))
    return {
        "format": FORMAT,
        "plan_sha256": plan.sha256,
        "exploratory": list(plan.amendments),
        "word": _word_of_all(compared),
        "sentence": _sentence_of_all(plan, compared),
        "flow": flow(outcomes),
        "exclusions": exclusions(outcomes),
        "comparisons": compared,
        "cells": [_cell(cell.name, outcomes) for cell in plan.cells],
        "width_law": width_law(plan, outcomes),
    }


def _measured(plan: Plan, comparison: Comparison, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The numbers of a comparison, of the seeds that have both scores; the decision is left open."""
    pairs = _pairs(comparison, outcomes)
    scores = [[pair[side].score for pair in pairs] for side in (0, 1)]
    untrained = [sum(pair[side].status in UNTRAINED for pair in pairs) for side in (0, 1)]
    trained = [pair for pair in pairs if not {one.status for one in pair} & set(UNTRAINED)]
    converged = {"label": "pairs of which both trained; decides nothing", **_numbers(plan, trained)}
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
        "differences": _differences(pairs),
        **_numbers(plan, pairs),
        "p_holm": None,
        "p_holm_tost": None,
        "diverged": {"control": untrained[0], "treatment": untrained[1]},
        "more_seeds": None,
        "converged": converged if any(untrained) else None,
    }


def _numbers(plan: Plan, pairs: Sequence[tuple[Outcome, Outcome]]) -> dict[str, Any]:
    if len(pairs) < 2:
        return {**dict.fromkeys(_NUMBERS), "n": len(pairs)}
    result = statistics.paired(_differences(pairs), plan.delta, plan.alpha)
    numbers = {name: getattr(result, name) for name in _NUMBERS}
    return {**numbers, "interval": list(result.interval), "interval_tost": list(result.interval_tost)}


def _pairs(comparison: Comparison, outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """Both outcomes of every seed that has two scores, by seed."""
    sides = [
        {one.run.seed: one for one in outcomes if one.run.cell == cell and one.score is not None}
        for cell in (comparison.control, comparison.treatment)
    ]
    return [(sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]


def _differences(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[float]:
    return [treatment.score - control.score for control, treatment in pairs]


def _invalid(plan: Plan, comparison: Comparison, outcomes: Sequence[Outcome]) -> str:
    """Why a comparison says nothing; empty where it may."""
    runs = [one for one in outcomes if one.run.cell in (comparison.control, comparison.treatment)]
    if absent := [one for one in runs if one.status not in SCORED]:
        return f"{len(absent)} of {len(runs)} runs have no result; the same command again does them"
    if len(plan.seeds) < LEAST_SEEDS:
        return f"{len(plan.seeds)} seeds, and {LEAST_SEEDS} are the least"
    for name in _ONE:
        values = {str(one.environment.get(name)) for one in runs}
        if len(values) > 1:
            return f"its runs are not of one {name}: {', '.join(sorted(values))}"
    for name in _FINGERPRINT:
        values = {str(one.result.get("data", {}).get(name)) for one in runs}
        values |= {str(plan.data[name])} if name in plan.data else set()
        if len(values) > 1:
            return f"its runs are not of one data set ({name}): {', '.join(v[:20] for v in sorted(values))}"
    if _learned_nothing(plan, runs):
        return f"neither head is more than {_amount(plan, plan.delta)} above chance: nothing was learned"
    return ""


def _learned_nothing(plan: Plan, runs: Sequence[Outcome]) -> bool:
    """Whether runs finished, and no cell of them is on average further above chance than the margin."""
    finished = [one for one in runs if one.status == "finished"]
    by_cell = [[one.score for one in finished if one.run.cell == cell] for cell in {r.run.cell for r in runs}]
    means = [statistics.describe(scores)["mean"] for scores in by_cell if scores]
    return bool(means) and max(means) <= plan.chance + plan.delta


def _decide(plan: Plan, comparison: Comparison, numbers: dict[str, Any], invalid: str) -> None:
    """Fills in the word, the sentence and the number of seeds that would decide."""
    untrained = numbers["diverged"]
    if invalid:
        word, why = "INVALID", f", {invalid}"
    elif _is_unstable(untrained, numbers["n"]):
        word = "UNSTABLE"
        why = (
            f", {untrained['treatment']} of {numbers['n']} runs of {comparison.treatment} and "
            f"{untrained['control']} of {comparison.control} did not train"
        )
    elif numbers["p_holm_tost"] < plan.alpha:
        word, why = "NO MATERIAL DIFFERENCE", f", less than {_amount(plan, plan.delta)} either way"
    elif numbers["p_holm"] < plan.alpha:
        word, why = "HELPS" if numbers["mean"] > 0 else "HURTS", ""
    else:
        word = "UNDECIDED"
        alpha = plan.alpha / len(plan.comparisons)
        needed = statistics.seeds_to_decide(numbers["mean"], numbers["sd"], plan.delta, alpha)
        numbers["more_seeds"] = None if needed is None else max(1, needed - numbers["n"])
        why = _how_many_more(numbers["more_seeds"])
    numbers["word"], numbers["sentence"] = word, f"{_finding(plan, numbers)}: {word}{why}."


def _is_unstable(untrained: Mapping[str, int], seeds: int) -> bool:
    return untrained["treatment"] >= UNSTABLE_SHARE * seeds or untrained["treatment"] > untrained["control"]


def _how_many_more(seeds: int | None) -> str:
    if seeds is None:
        return f", and over {statistics.MOST_SEEDS:,} seeds would be needed"
    return f", about {seeds} more seed{'s' if seeds > 1 else ''} would decide"


def _finding(plan: Plan, numbers: Mapping[str, Any]) -> str:
    what = f"{_where(plan)}, {numbers['name']}"
    if numbers["mean"] is None:
        return what
    low, high = numbers["interval"]
    return (
        f"{what}: {plan.primary.replace('_', ' ')} {_signed(plan, numbers['mean'])} "
        f"({100 * (1 - plan.alpha):g} % interval {_figure(plan, low)} to {_figure(plan, high)}), "
        f"{numbers['n']} seeds"
    )


def _where(plan: Plan) -> str:
    return " with ".join(
        f"{word}{plan.settings[key]}"
        for word, key in (("On ", "dataset"), ("", "backbone"))
        if key in plan.settings
    )


def _word_of_all(compared: Sequence[Mapping[str, Any]]) -> str:
    words = {one["word"] for one in compared}
    if "INVALID" in words:
        return "INVALID"
    return words.pop() if len(words) == 1 else "MIXED"


def _sentence_of_all(plan: Plan, compared: Sequence[Mapping[str, Any]]) -> str:
    if len(compared) == 1:
        return compared[0]["sentence"]
    by_word: dict[str, list[str]] = {}
    for one in compared:
        by_word.setdefault(one["word"], []).append(one["name"])
    findings = "; ".join(f"{word}: {', '.join(names)}" for word, names in by_word.items())
    return f"{_where(plan)}, {len(compared)} comparisons of {len(plan.seeds)} seeds. {findings}."


def _cell(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    own = [one for one in outcomes if one.run.cell == name and one.score is not None]
    counted: dict[str, list[float]] = {}
    for one in own:
        for key, value in one.result.items():
            if keys.is_key(key) and isinstance(value, int | float) and math.isfinite(value):
                counted.setdefault(keys.short(key), []).append(value)
    dead = {key: statistics.describe(values) for key, values in counted.items()}
    return {
        "name": name,
        **statistics.describe([one.score for one in own]),
        "dead": {key: {name: value[name] for name in ("n", "mean", "sd")} for key, value in dead.items()},
    }


def _is_share(plan: Plan) -> bool:
    return plan.primary.endswith("accuracy")


def _figure(plan: Plan, value: float) -> str:
    return f"{100 * value:+.2f}" if _is_share(plan) else f"{value:+.4f}"


def _signed(plan: Plan, value: float) -> str:
    return f"{_figure(plan, value)} points" if _is_share(plan) else _figure(plan, value)


def _amount(plan: Plan, value: float) -> str:
    return f"{100 * value:g} point{'s' * (value != 0.01)}" if _is_share(plan) else f"{value:g}"
