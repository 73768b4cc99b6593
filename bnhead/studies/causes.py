"""The cause table: the difference that a batch norm makes as a sum over its mechanisms, for every seed.

With v(.) the score of a head of the chain (`bnhead.studies.chain`) and one seed,

    bn - fc = Shapley(C) + Shapley(S) + Shapley(N)            centring, scaling, batch noise
            + v(statistics) - v(CSN)                          statistics that follow, and their gradient
            + v(bn) - v(statistics)                           gain and offset
            + v(bn with moving averages) - v(bn)              statistics that do not match; same weights

where Shapley is over the eight heads of {C, S, N}, and all scores are with population statistics of the
head's norm, except where moving averages are named. The terms cancel, so that the rows add up without a
remainder. Further rows show how much of the difference goes away under another change: bn - fc minus the
same difference with a neutral initial guess, without weight decay of the FC that reads the features, with
decay in the features' units.

A row is a linear combination of scores. A score that is a mean over test images is one for every image, and
its interval is that of a verdict, over seeds and images (`bnhead.studies.intervals`). The intervals of one
table have the level 1 - alpha / (m L) for its m rows and L looks (Bonferroni): they hold together with
1 - alpha.

Reference: Shapley 1953, "A value for n-person games".
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnhead.studies import statistics, wording
from bnhead.studies.chain import FEATURE_DECAY, NEUTRAL, NO_DECAY
from bnhead.studies.intervals import crossed
from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import Plan, PlannedMeasure

FACTORS = "CSN"
OUTCOMES = ("accuracy", "r2", "nll", "dead_share")
Combination = Mapping[str, float]  # name of a score -> its weight


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: in files.
        part: "sum", "total" or "beside".
        title: in tables.
        meaning: in a few words.
        weights: score -> weight.
    """

    name: str
    part: str
    title: str
    meaning: str
    weights: Combination


def shapley(factor: str) -> dict[str, float]:
    """The Shapley value of a factor as weights of the eight heads of {C, S, N}."""
    weights, n = {}, len(FACTORS)
    others = [other for other in FACTORS if other != factor]
    for size in range(n):
        for subset in itertools.combinations(others, size):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            weights["".join(subset)] = -weight
            weights["".join(f for f in FACTORS if f in (*subset, factor))] = weight
    return weights


def _less(weights: Combination, subtracted: Combination) -> dict[str, float]:
    names = dict.fromkeys([*weights, *subtracted])
    return {name: weights.get(name, 0.0) - subtracted.get(name, 0.0) for name in names}


_TOTAL = {"moving": 1.0, "": -1.0}
ROWS = (
    Row("centring", "sum", "centring", "subtracting a mean, measured before the first step", shapley("C")),
    Row("scaling", "sum", "scaling", "dividing by a deviation, measured then", shapley("S")),
    Row("noise", "sum", "batch noise", "the statistics of random batches, in training", shapley("N")),
    Row(
        "statistics", "sum", "statistics' gradient", "statistics that follow, and their gradient",
        {"statistics": 1.0, "CSN": -1.0},
    ),
    Row("gain", "sum", "gain and offset", "gamma and beta", {"bn": 1.0, "statistics": -1.0}),
    Row(
        "moving", "sum", "moving averages", "instead of population statistics, for the same weights",
        {"moving": 1.0, "bn": -1.0},
    ),
    Row("total", "total", "all together", "the difference itself", _TOTAL),
    Row(
        "neutral", "beside", "neutral initial guess", "no class preferred before the first step",
        _less(_TOTAL, {"neutral bn": 1.0, "neutral": -1.0}),
    ),
    Row(
        "no_decay", "beside", "no decay of the FC", "no weight decay of the FC that reads the features",
        _less(_TOTAL, {"no decay bn": 1.0, "no decay": -1.0}),
    ),
    Row(
        "feature_decay", "beside", "decay in features' units", "its decay on W diag(gamma / sd)",
        _less(_TOTAL, {"feature decay bn": 1.0, "": -1.0}),
    ),
)  # fmt: skip
_CONTROLS = {"neutral": NEUTRAL, "no decay": NO_DECAY, "feature decay": FEATURE_DECAY}


def cause_tables(plan: Plan, outcomes: Sequence[Outcome], reason: str = "") -> list[dict[str, Any]]:
    """A cause table for each outcome of `OUTCOMES` that the study measures; none without a chain.

    Only seeds with a score in every cell count. A run that did not train has its chance, as in a verdict.

    Args:
        plan: the plan.
        outcomes: of its runs.
        reason: why the runs cannot be compared; the tables then have no numbers.

    Returns:
        For each outcome its name, `reason`, `n`, `seeds`, `images`, `level` of the intervals, `rows` (in the
        order of `ROWS`: `name`, `part`, `mean`, `sd`, `interval`, `interval_seeds`, `differences` by seed,
        and `share` of the difference, None where its interval holds 0), and `scores`: `cell`, `statistics`
        ("run", as the run ended, or "population") and `values` by seed.
    """
    if not plan.causes:
        return []
    measures = [measure for measure in plan.measures if measure.name in OUTCOMES]
    return [_cause_table(plan, measure, [] if reason else outcomes, reason) for measure in measures]


def _cells_of_scores(plan: Plan) -> dict[str, tuple[str, bool]]:
    """Score -> the cell it is of, and whether it is with population statistics."""
    chain = plan.causes
    cells = {link: (name, True) for link, name in chain.items()} | {"moving": (chain["bn"], False)}
    by_settings = {(cell.head, tuple(cell.stratum.items())): cell.name for cell in plan.cells}
    for score, away in _CONTROLS.items():
        for suffix, link in (("", ""), (" bn", "bn")):
            key = plan.cell(chain[link]).head, tuple(away.items())
            if key in by_settings:
                cells[score + suffix] = by_settings[key], False
    return cells


def _cause_table(
    plan: Plan, planned: PlannedMeasure, outcomes: Sequence[Outcome], reason: str
) -> dict[str, Any]:
    name, cells = planned.name, _cells_of_scores(plan)
    rows = [row for row in ROWS if row.weights.keys() <= cells.keys()]
    level = plan.level(len(rows))
    by_run = {(outcome.run.cell, outcome.run.seed): outcome for outcome in outcomes}
    values: dict[str, dict[int, np.ndarray]] = {}  # score -> seed -> numbers
    for score, (cell, is_population) in cells.items():
        runs = {seed: by_run[cell, seed] for seed in plan.seeds if (cell, seed) in by_run}
        numbers = {seed: _numbers(run, name, is_population) for seed, run in runs.items()}
        values[score] = {seed: array for seed, array in numbers.items() if array is not None}
    seeds = [seed for seed in plan.seeds if all(seed in of_seed for of_seed in values.values())]
    layers = {outcome.layer for outcome in outcomes if outcome.layer and outcome.run.seed in seeds}
    if not reason and name == "dead_share" and len(layers) > 1:
        reason = f"the cells count other layers: {', '.join(sorted(layers))}"
    if not reason and len(seeds) < 2:
        reason = "fewer than two seeds have a score in every cell"
    table = {"outcome": name, "reason": reason, "n": len(seeds), "seeds": seeds, "images": None,
             "level": 1 - level, "rows": [], "scores": []}  # fmt: skip
    if reason:
        return table | {"n": 0, "seeds": []}
    images = max(len(of_seed[seed]) for of_seed in values.values() for seed in seeds)
    stacked = {
        score: np.stack([np.broadcast_to(of_seed[seed], (images,)) for seed in seeds])
        for score, of_seed in values.items()
    }
    table["images"] = images if planned.measure.is_per_image else None
    table["rows"] = [_effect_row(row, stacked, level) for row in rows]
    total = next(row for row in table["rows"] if row["part"] == "total")
    differs = total["interval"][0] > 0 or total["interval"][1] < 0
    for row in table["rows"]:
        row["share"] = row["mean"] / total["mean"] if differs else None
    table["scores"] = [
        {
            "cell": cell,
            "statistics": "population"
            if is_population and any(name in by_run[cell, seed].population for seed in seeds)
            else "run",
            "values": [math.fsum(row) / images for row in stacked[score]],
        }
        for score, (cell, is_population) in cells.items()
    ]
    return table


def _numbers(outcome: Outcome, name: str, is_population: bool) -> np.ndarray | None:
    """The numbers of a run; those with population statistics where it has averages that they replace."""
    if is_population and name in outcome.population:
        return outcome.population[name]
    return outcome.values.get(name)


def _effect_row(row: Row, scores: Mapping[str, np.ndarray], level: float) -> dict[str, Any]:
    """The numbers of a row. Scores are `(seeds, images)`."""
    combined = sum(weight * scores[score] for score, weight in row.weights.items() if weight)
    differences = [math.fsum(values) / combined.shape[1] for values in combined]
    result = crossed(combined)
    return {
        "name": row.name,
        "part": row.part,
        "mean": result.mean,
        "sd": statistics.describe(differences)["sd"],
        "interval": [float(bound) for bound in result.interval(level)],
        "interval_seeds": [float(bound) for bound in result.interval(level, seeds_only=True)],
        "differences": differences,
    }


# ---- a table in words: an entry of `causes` in `verdict.json` -----------------------------------

OF_NAME = {row.name: row for row in ROWS}
HEADINGS = {"sum": "adds up to the difference", "total": "the difference", "beside": "goes away with"}


def is_clear(row: Mapping[str, Any]) -> bool:
    """Whether the interval of a row excludes 0."""
    return row["interval"][0] > 0 or row["interval"][1] < 0


def as_share(row: Mapping[str, Any]) -> str:
    """The share of the difference in ASCII: "47%", "-5%"; empty where the difference is not clear."""
    return "" if row["share"] is None else f"{round(row['share'], 2) + 0.0:.0%}"


def cause_sentence(table: Mapping[str, Any], control: str, treatment: str) -> str:
    """A table in a few sentences, in ASCII: the difference, and the rows whose intervals exclude 0."""
    name = table["outcome"]
    title = wording.metric_name(name)
    title = f"{title[0].upper()}{title[1:]}, {treatment} less {control}"
    if table["reason"]:
        return f"{title}: no cause table, since {table['reason']}."

    def amount(row: Mapping[str, Any]) -> str:
        return " ".join(filter(None, (wording.ascii_difference(row["mean"], name), wording.unit(name))))

    by_part = {part: [row for row in table["rows"] if row["part"] == part] for part in HEADINGS}
    (total,) = by_part["total"]
    low, high = (wording.ascii_difference(bound, name) for bound in total["interval"])
    text = f"{title}: {amount(total)} ({low} to {high})."
    clear = sorted(filter(is_clear, by_part["sum"]), key=lambda row: -abs(row["mean"]))
    parts = [f"{OF_NAME[row['name']].title} ({amount(row)})" for row in clear]
    verb = "differs" if len(parts) == 1 else "differ"
    text += f" Of its parts {wording.as_list(parts)} {verb} from 0." if parts else " No part differs from 0."
    away = [f"{OF_NAME[row['name']].title} ({amount(row)})" for row in by_part["beside"] if is_clear(row)]
    return text + (f" Of it goes away with {wording.as_list(away)}." if away else "")


def cause_rows(table: Mapping[str, Any]) -> list[list[str]]:
    """The rows for the terminal, in ASCII: title, mean (* where the interval excludes 0), interval, share."""
    rows, part, name = [], "sum", table["outcome"]
    for row in table["rows"]:
        if row["part"] != part:
            rows.append([""] * 4)
            part = row["part"]
        bounds = " to ".join(wording.ascii_difference(bound, name) for bound in row["interval"])
        prefix = "less with " if part == "beside" else ""
        mean = wording.ascii_difference(row["mean"], name) + "*" * is_clear(row)
        rows.append([prefix + OF_NAME[row["name"]].title, mean, bounds, as_share(row)])
    return rows
