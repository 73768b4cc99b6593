"""The cause table against a slow NumPy version, its exact sum, and its intervals where nothing differs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bnhead.studies.causes import ROWS, cause_tables, shapley
from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import make, with_data
from bnhead.studies.study import named_study
from bnhead.training.config import TrainConfig
from tests.studies.fake import FACTS

pytestmark = pytest.mark.quick

IMAGES = 40
SUM = ("centring", "scaling", "noise", "statistics", "gain", "moving")


def planned(seeds=5, **settings):
    plan = make("causes", named_study("causes"), TrainConfig(**settings), looks=(seeds,))
    return with_data(plan, FACTS)


def drawn(plan, random, effects=None, spread=0.05):
    """Outcomes with drawn accuracies; `effects` adds to a cell's; batch norms have population statistics."""
    by_seed = {seed: random.normal(0, spread, IMAGES) for seed in plan.seeds}
    outcomes = []
    for run in plan.runs:

        def values(extra=0.0, run=run):
            accuracy = 0.8 + by_seed[run.seed] + random.normal(0, spread, IMAGES)
            accuracy = accuracy + (effects or {}).get(run.cell, 0.0) + extra
            return {"accuracy": accuracy, "nll": 1 - accuracy, "dead_share": random.normal(0.1, 0.01, 1)}

        population = values() if run.cell.startswith("bn") else {}
        outcomes.append(Outcome(run, "finished", 0.8, values(), "head_fc", population=population))
    return outcomes


def reference(plan, outcomes, seed):
    """The rows of one seed, from the definition of the Shapley value over orders of arrival."""
    of = {o.run.cell: o for o in outcomes if o.run.seed == seed}

    def v(cell, population=True):
        values = of[cell].population if population and of[cell].population else of[cell].values
        return values["accuracy"].mean()

    def head(factors):
        norm = "fbn-beta-gamma_" if {"C", "S"} <= factors else "fcenter_" if "C" in factors else ""
        norm = norm or ("fscale_" if "S" in factors else "")
        return "noise_" * ("N" in factors) + norm + "fc"

    arrivals = list(itertools.permutations("CSN"))
    rows = dict.fromkeys("CSN", 0.0)
    for order in arrivals:
        present = set()
        for factor in order:
            before = v(head(present))
            present.add(factor)
            rows[factor] += (v(head(present)) - before) / len(arrivals)
    total = v("bn_fc", False) - v("fc")
    return {
        "centring": rows["C"],
        "scaling": rows["S"],
        "noise": rows["N"],
        "statistics": v("bn-beta-gamma_fc") - v("noise_fbn-beta-gamma_fc"),
        "gain": v("bn_fc") - v("bn-beta-gamma_fc"),
        "moving": v("bn_fc", False) - v("bn_fc"),
        "total": total,
        "neutral": total - v("bn_fc at neutral_init True", False) + v("fc at neutral_init True"),
        "no_decay": total - v("bn_fc at fc_decay none", False) + v("fc at fc_decay none"),
        "feature_decay": total - v("bn_fc at fc_decay features", False) + v("fc"),
    }


def test_every_row_and_their_exact_sum_for_every_seed():
    plan = planned()
    outcomes = drawn(plan, np.random.default_rng(0))
    tables = {table["outcome"]: table for table in cause_tables(plan, outcomes)}
    assert list(tables) == ["accuracy", "dead_share", "nll"]
    rows = {row["name"]: row for row in tables["accuracy"]["rows"]}
    assert list(rows) == [row.name for row in ROWS]
    for index, seed in enumerate(plan.seeds):
        expected = reference(plan, outcomes, seed)
        for name, value in expected.items():
            assert rows[name]["differences"][index] == pytest.approx(value, abs=1e-12), name
    for table in tables.values():
        rows = {row["name"]: row for row in table["rows"]}
        for index in range(5):
            parts = [rows[name]["differences"][index] for name in SUM]
            assert math.fsum(parts) == pytest.approx(rows["total"]["differences"][index], abs=1e-15)
        assert math.fsum(rows[name]["mean"] for name in SUM) == pytest.approx(
            rows["total"]["mean"], abs=1e-15
        )
        assert all(row["sd"] > 0 for row in rows.values())


def test_the_shapley_values_add_up_to_all_three_factors():
    total = {}
    for factor in "CSN":
        for name, weight in shapley(factor).items():
            total[name] = total.get(name, 0.0) + weight
    assert {name: round(weight, 12) for name, weight in total.items() if abs(weight) > 1e-12} == {
        "": -1,
        "CSN": 1,
    }


def test_intervals_hold_together():
    """Bonferroni over the rows of a table, and over looks; over seeds alone for the dead share."""
    plan = planned(seeds=6)
    outcomes = drawn(plan, np.random.default_rng(1))
    table = next(table for table in cause_tables(plan, outcomes) if table["outcome"] == "dead_share")
    assert table["level"] == pytest.approx(1 - 0.05 / 10) and table["images"] is None
    for row in table["rows"]:
        reach = stats.t.isf(0.05 / 10 / 2, 5) * np.std(row["differences"], ddof=1) / math.sqrt(6)
        assert row["interval"] == pytest.approx([row["mean"] - reach, row["mean"] + reach], abs=1e-12)


def test_where_nothing_differs_all_intervals_hold_zero_together():
    plan, random = planned(seeds=4), np.random.default_rng(2)
    missed = 0
    for _ in range(100):
        table = cause_tables(plan, drawn(plan, random))[0]
        missed += any(row["interval"][0] > 0 or row["interval"][1] < 0 for row in table["rows"])
    assert missed <= stats.binom.isf(1e-4, 100, 0.05)


def test_a_planted_effect_is_the_row_that_has_all_of_it():
    plan = planned(seeds=6)
    scaled = [name for name in plan.causes.values() if "fscale" in name or "bn" in name]
    scaled += ["bn_fc at neutral_init True", "bn_fc at fc_decay none"]
    table = cause_tables(plan, drawn(plan, np.random.default_rng(3), dict.fromkeys(scaled, 0.3)))[0]
    rows = {row["name"]: row for row in table["rows"]}
    assert rows["scaling"]["share"] == pytest.approx(1, abs=0.1) and rows["total"]["share"] == 1
    assert rows["feature_decay"]["share"] == pytest.approx(1, abs=0.1)
    for name in {*rows} - {"scaling", "total", "feature_decay"}:
        assert rows[name]["interval"][0] < 0 < rows[name]["interval"][1], name


def test_shares_of_no_difference_are_not_stated():
    table = cause_tables(planned(), drawn(planned(), np.random.default_rng(4)))[0]
    assert {row["share"] for row in table["rows"]} == {None}


def test_seeds_count_where_every_cell_has_a_score():
    plan = planned()
    outcomes = drawn(plan, np.random.default_rng(5))
    lost = next(i for i, o in enumerate(outcomes) if o.run.cell == "fscale_fc" and o.run.seed == 2)
    outcomes[lost] = dataclasses.replace(
        outcomes[lost], values={"accuracy": np.array([0.1])}, status="diverged"
    )
    accuracy, dead, _ = cause_tables(plan, outcomes)
    assert accuracy["seeds"] == [0, 1, 2, 3, 4] and dead["seeds"] == [0, 1, 3, 4]
    at_chance = next(s for s in accuracy["scores"] if s["cell"] == "fscale_fc")
    assert at_chance["values"][2] == pytest.approx(0.1) and at_chance["statistics"] == "run"


def test_runs_that_cannot_be_compared_have_no_numbers():
    for table in cause_tables(planned(), drawn(planned(), np.random.default_rng(6)), "two runs are missing"):
        assert (table["reason"], table["n"], table["rows"]) == ("two runs are missing", 0, [])
    plan = planned(seeds=1)
    table = cause_tables(plan, drawn(plan, np.random.default_rng(6)))[0]
    assert table["reason"] == "fewer than two seeds have a score in every cell"


def test_a_regression_has_no_row_of_the_guess():
    plan = planned(task="regression", dataset="digits_rotation")
    outcomes = [
        dataclasses.replace(o, values={**o.values, "r2": np.array([0.5])})
        for o in drawn(plan, np.random.default_rng(7))
    ]
    table = cause_tables(plan, outcomes)[0]
    assert table["outcome"] == "r2" and [row["name"] for row in table["rows"]] == [
        row.name for row in ROWS if row.name != "neutral"
    ]
