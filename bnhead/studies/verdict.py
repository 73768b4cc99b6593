"""The rule that turns outcomes into a verdict, in this order:

INVALID                 a run of the comparison is missing; its runs differ in code, packages, devices or
                        data; there are fewer than 3 seeds; or runs finished and neither head is further above
                        chance than a point
UNSTABLE                the treatment diverges or fails to learn in a fifth of the seeds or more, or in more
                        seeds than the control
NO MATERIAL DIFFERENCE  the interval lies inside the margin
HELPS, HURTS            the interval excludes 0, in the better or in the worse direction
UNDECIDED               otherwise; with what would decide

One interval is drawn and judged: over seeds and test images (`bnhead.studies.intervals`), of confidence
1 - alpha / (m L) for m judged rows in its family and L looks declared beforehand, so that all of them hold
together at all looks with at least the probability 1 - alpha. A family is the primary outcome over all
comparisons; the secondary outcomes over all comparisons are another. Runs are paired by seed. Runs that
diverge or fail to learn are scored at chance, for every image; if there are any, `converged` has the same
numbers without their pairs, and decides nothing.

A study of a trend judges the differences of slopes. A head that is within the margin of the best possible
value at every value of the setting has no room to improve: a slope that is worse for this reason is NOT
JUDGED. If none is left to judge, the comparisons at each value are the primary rows.

A study is judged at its first look at which no primary row is UNDECIDED, else at the last look whose runs all
exist; runs of later looks change nothing. It has the word that all primary rows share, and MIXED if they
differ; it is INVALID if one of them is.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bnhead.census import keys
from bnhead.studies import statistics, wording
from bnhead.studies.causes import cause_tables
from bnhead.studies.claim_checks import class_table, judge_claims
from bnhead.studies.intervals import crossed
from bnhead.studies.measures import MEASURES, OF_A_LAYER, PRIMARY
from bnhead.studies.outcomes import SCORED, UNTRAINED, Outcome, exclusions, flow
from bnhead.studies.plan import LEAST_SEEDS, Comparison, Plan, PlannedMeasure
from bnhead.studies.width import trends, width_law

FORMAT = 2
UNSTABLE_SHARE = 0.2
_EQUAL_ENVIRONMENT = (
    *("bnhead", "source_sha256", "python", "tensorflow", "keras", "numpy"),
    *("backend", "backend_version", "devices", "threads"),
)
_EQUAL_DATA = ("name", "train", "test", "train_sha256", "test_sha256")
_EQUAL_TEST_DATA = tuple(name for name in _EQUAL_DATA if not name.startswith("train"))
Pairs = Sequence[tuple[Outcome, Outcome]]


def judge(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The content of `verdict.json`. The order of the outcomes and the times of the runs do not matter.

    Its flow and its exclusions are of the runs of its look, and of the next look once that has begun.

    Args:
        plan: the plan.
        outcomes: of all its runs.
    """
    order = {run.id: index for index, run in enumerate(plan.runs)}
    outcomes = sorted(outcomes, key=lambda outcome: order[outcome.run.id])
    for number, seeds in enumerate(plan.looks, 1):
        at_look = [outcome for outcome in outcomes if outcome.run.seed in plan.seeds[:seeds]]
        verdict = _judge_look(plan, at_look, number)
        next_seeds = plan.seeds[seeds : plan.looks[number]] if number < len(plan.looks) else ()
        following = [outcome for outcome in outcomes if outcome.run.seed in next_seeds]
        are_complete = following and all(outcome.status in SCORED for outcome in following)
        if not (verdict["next"] and are_complete):
            break
    if verdict["next"] and any(outcome.status != "missing" for outcome in following):
        at_look += following  # begun: a run that failed there must be seen
    return {**verdict, "flow": flow(at_look), "exclusions": exclusions(at_look)}


def _judge_look(plan: Plan, outcomes: Sequence[Outcome], number: int) -> dict[str, Any]:
    """The verdict at the look of this number, over its runs only."""
    comparisons = [_judge_comparison(plan, comparison, outcomes) for comparison in plan.comparisons]
    slopes = trends(plan, outcomes) if plan.trend else []
    for row in slopes:
        better = plan.measures[0].better
        row["word"] = _trend_word(row, better) if row["control"] else ""
        row["sentence"] = wording.trend_sentence(row, [slope for slope in slopes if not slope["control"]])
    primary = [row for row in slopes if row["word"] not in ("", wording.NOT_JUDGED)] or comparisons
    # no slope counts without all its runs, or where runs of one of its points did not train
    for word in ("INVALID", "UNSTABLE")[: 2 if slopes else 1]:
        if stopped := [row for row in comparisons if row["word"] == word]:
            primary = stopped
            break
    words = {row["word"] for row in primary}
    verdict = {
        "format": FORMAT,
        "plan_sha256": plan.sha256,
        "exploratory": list(plan.amendments),
        "look": {"number": number, "seeds": plan.looks[number - 1]},
        "word": words.pop() if len(words) == 1 else "MIXED",
        "sentence": "",
        "next": _next_step(plan, primary, number),
        "comparisons": comparisons,
        "trends": slopes,
        "cells": [_cell_figures(plan, cell.name, outcomes) for cell in plan.cells],
        "width_law": width_law(plan, outcomes),
    }
    if plan.causes:
        reason = next(_invalid_reasons(plan, outcomes), "")
        verdict["causes"] = cause_tables(plan, outcomes, reason)
    if plan.claims:
        reason = next(_invalid_reasons(plan, outcomes, of_one_data_set=False), "")
        verdict["claims"] = judge_claims(plan, outcomes, reason)
        verdict["classes"] = class_table(plan, outcomes)
    return {**verdict, "sentence": wording.headline(plan, verdict)}


def _judge_comparison(plan: Plan, comparison: Comparison, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The primary row of a comparison, with its secondary rows under "secondary"."""
    by_seed = [
        {outcome.run.seed: outcome for outcome in outcomes if outcome.run.cell == cell}
        for cell in (comparison.control, comparison.treatment)
    ]
    pairs = [(by_seed[0][seed], by_seed[1][seed]) for seed in sorted(by_seed[0].keys() & by_seed[1].keys())]
    pairs = [pair for pair in pairs if all(outcome.status in SCORED for outcome in pair)]
    untrained = [sum(pair[side].status in UNTRAINED for pair in pairs) for side in (0, 1)]
    stop = _invalid(plan, comparison, outcomes) or _unstable(comparison, untrained, len(pairs))
    primary, *secondary = plan.measures
    number = len(plan.comparisons)
    rows = []
    for planned in plan.measures:
        # where slopes are primary, all differences are secondary
        is_primary = planned == primary and not plan.trend
        family = number if is_primary else number * (len(plan.measures) if plan.trend else len(secondary))
        row = _row(comparison, planned, pairs, plan.level(family))
        if row is None:
            if planned != primary:
                continue
            row = _empty_row(comparison, planned.name)
        row["word"] = stop[0] if stop else word_of(row["interval"], row["margin"], planned.better)
        row["sentence"] = wording.sentence(row, stop[1] if stop else "")
        rows.append(row)
    converged = None
    if any(untrained):
        trained = [pair for pair in pairs if not {outcome.status for outcome in pair} & set(UNTRAINED)]
        converged = _row(comparison, primary, trained, plan.level(number))
        if converged:
            converged["label"] = "pairs of which both trained; decides nothing"
    return {
        **rows[0],
        "stratum": dict(comparison.stratum),
        "diverged": {"control": untrained[0], "treatment": untrained[1]},
        "converged": converged,
        "secondary": rows[1:],
    }


def _row(
    comparison: Comparison, planned: PlannedMeasure, pairs: Pairs, level: float
) -> dict[str, Any] | None:
    """The numbers of one outcome of a comparison, without its word; None if they are not comparable.

    Args:
        comparison: the comparison.
        planned: the measure.
        pairs: the runs with results, by seed.
        level: error rate of the interval.
    """
    name, measure = planned.name, planned.measure
    pairs = [pair for pair in pairs if all(name in outcome.values for outcome in pair)]
    layers = {outcome.layer for pair in pairs for outcome in pair if outcome.layer}
    if len(pairs) < 2 or (name in OF_A_LAYER and len(layers) > 1):
        return None
    sizes = {len(outcome.values[name]) for pair in pairs for outcome in pair} - {
        1
    }  # 1: chance, for every image
    if len(sizes) > 1:
        return None
    images = max(sizes, default=1)
    control, treatment = (
        np.stack([np.broadcast_to(pair[side].values[name], (images,)) for pair in pairs]) for side in (0, 1)
    )
    result = crossed(treatment - control)
    by_seed = [_means(rows) for rows in (control, treatment, treatment - control)]
    scores = [statistics.describe(values) for values in by_seed]
    return {
        **_empty_row(comparison, name),
        "n": len(pairs),
        "images": images if measure.is_per_image else None,
        "seeds": [pair[0].run.seed for pair in pairs],
        "control_scores": by_seed[0],
        "treatment_scores": by_seed[1],
        "differences": by_seed[2],
        "control_mean": scores[0]["mean"],
        "treatment_mean": scores[1]["mean"],
        "mean": result.mean,
        "sd": scores[2]["sd"],
        "level": 1 - level,
        "interval": [float(bound) for bound in result.interval(level)],
        "interval_seeds": [float(bound) for bound in result.interval(level, seeds_only=True)],
        "variance": {"seeds": float(result.seed_variance), "images": float(result.image_variance)},
        "margin": float(planned.margin * (abs(scores[0]["mean"]) if measure.is_relative else 1)),
    }


def _means(values: np.ndarray) -> list[float]:
    """The mean of each row `(seeds, images)`, independent of the order of its numbers."""
    return [math.fsum(row) / len(row) for row in values]


def _empty_row(comparison: Comparison, name: str) -> dict[str, Any]:
    return {
        "name": comparison.name,
        "control": comparison.control,
        "treatment": comparison.treatment,
        "outcome": name,
        "word": "",
        "sentence": "",
        "n": 0,
        "images": None,
        "seeds": [],
        "control_scores": [],
        "treatment_scores": [],
        "differences": [],
        **dict.fromkeys(("control_mean", "treatment_mean", "mean", "sd", "level"), None),
        **dict.fromkeys(("interval", "interval_seeds", "variance", "margin"), None),
    }


def word_of(interval: Sequence[float] | None, margin: float | None, better: int) -> str:
    """The word for an interval.

    Args:
        interval: both bounds of a difference; None if it has none.
        margin: a difference inside +-margin is not material.
        better: 1 if higher is better, -1 if lower is.
    """
    if not interval:
        return "INVALID"
    low, high = interval
    if -margin < low and high < margin:
        return "NO MATERIAL DIFFERENCE"
    if low > 0 or high < 0:
        return "HELPS" if (low > 0) == (better > 0) else "HURTS"
    return "UNDECIDED"


def _trend_word(row: Mapping[str, Any], better: int) -> str:
    """The word for a difference of slopes; NOT JUDGED if the worse slope is that of a head without room.

    A share of dead units that is 0 at every width cannot fall any further. Where the other head's share falls
    from above, the difference of the slopes alone would call the head without dead units worse.
    """
    word = word_of(row["interval"], row["margin"], better)
    worse = {"HELPS": row["control"], "HURTS": row["treatment"]}.get(word)
    return wording.NOT_JUDGED if worse in row["at_best"] else word


def _next_step(plan: Plan, primary: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any] | None:
    """What would decide the UNDECIDED primary rows: "look", "seeds" or "images"; None if there are none.

    A study that is over cannot get more seeds. The estimate for a new one takes mean and deviation of the row
    that needs most as the true ones, at a power of 80 %.
    """
    open_rows = [row for row in primary if row["word"] == "UNDECIDED"]
    if not open_rows:
        return None
    if number < len(plan.looks):
        return {"kind": "look", "seeds": plan.looks[number]}
    if any(row["variance"] and row["variance"]["images"] > row["variance"]["seeds"] for row in open_rows):
        return {"kind": "images", "seeds": None}
    needed = [
        statistics.seeds_to_decide(row["mean"], row["sd"], row["margin"], 1 - row["level"])
        for row in open_rows
        if row["sd"]
    ]
    seeds = None if None in needed else max(needed, default=None)
    return {"kind": "seeds", "seeds": seeds and max(seeds, plan.looks[-1])}


def _unstable(comparison: Comparison, untrained: Sequence[int], n: int) -> tuple[str, str] | None:
    control, treatment = untrained
    if n and (treatment >= UNSTABLE_SHARE * n or treatment > control):
        reason = (
            f"{treatment} of {n} runs of {comparison.treatment} and {control} of {comparison.control} "
            "did not train"
        )
        return "UNSTABLE", reason
    return None


def _invalid(plan: Plan, comparison: Comparison, outcomes: Sequence[Outcome]) -> tuple[str, str] | None:
    """INVALID and why a comparison cannot be judged; None if it can."""
    runs = [outcome for outcome in outcomes if outcome.run.cell in (comparison.control, comparison.treatment)]
    for reason in _invalid_reasons(plan, runs):
        return "INVALID", reason
    return None


def _invalid_reasons(plan: Plan, runs: Sequence[Outcome], *, of_one_data_set: bool = True) -> Iterator[str]:
    if missing := sum(outcome.status not in SCORED for outcome in runs):
        yield f"{missing} of {len(runs)} runs have no result; run the same command again to finish them"
    if plan.looks[0] < LEAST_SEEDS:
        yield f"{plan.looks[0]} seeds, at least {LEAST_SEEDS} are needed"
    for name in _EQUAL_ENVIRONMENT:
        values = {str(outcome.environment.get(name)) for outcome in runs}
        if len(values) > 1:
            yield f"its runs differ in {name}: {', '.join(sorted(values))}"
    for name in _EQUAL_DATA if of_one_data_set else _EQUAL_TEST_DATA:
        usual = plan.run_settings(plan.runs[0]).get("image_size")
        by_size: dict[Any, set[str]] = {usual: {str(plan.data[name])} if name in plan.data else set()}
        for outcome in runs:
            # the same images in another size, in an arm of a study, have another fingerprint
            size = plan.run_settings(outcome.run).get("image_size") if name.endswith("sha256") else usual
            value = str(outcome.result.get("data", {}).get(name))
            by_size.setdefault(size, set()).add(value)
        for values in (values for values in by_size.values() if len(values) > 1):
            yield f"its runs differ in their data set ({name}): {', '.join(v[:20] for v in sorted(values))}"
    metric = MEASURES[PRIMARY[plan.task]]
    chance = plan.chance(metric.name)
    by_cell: dict[str, list[float]] = {}
    for outcome in runs:
        if outcome.status == "finished":
            by_cell.setdefault(outcome.run.cell, []).append(outcome.score)
    means = [statistics.describe(scores)["mean"] for scores in by_cell.values()]
    if means and chance is not None and max(means) <= chance + metric.margin:
        margin = wording.as_margin(metric.margin, metric.name)
        yield f"neither head is more than {margin} above chance: nothing was learned"


def _cell_figures(plan: Plan, name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Scores, outcomes and dead units of one cell; a figure unknown in some runs is over the other runs."""
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
