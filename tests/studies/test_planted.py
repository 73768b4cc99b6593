"""Planted causes are the rows that have the difference; where nothing is planted every interval holds 0."""

import math

import pytest

from tests.studies.planted import PLANTS, table_of

SEEDS = 5
LEAST = 0.8  # of the difference


def holds_zero(row):
    return row["interval"][0] <= 0 <= row["interval"][1]


def rows_of(name):
    table = table_of(name, SEEDS)[0]
    assert table["outcome"] == "accuracy" and table["n"] == SEEDS
    rows = {row["name"]: row for row in table["rows"]}
    for seed in range(SEEDS):
        parts = [row["differences"][seed] for row in rows.values() if row["part"] == "sum"]
        assert math.fsum(parts) == pytest.approx(rows["total"]["differences"][seed], abs=1e-12)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noise", "moving", "scaling", "centring"])
def test_a_planted_part_has_the_difference_and_no_other_part_differs_from_zero(name):
    rows = rows_of(name)
    assert abs(rows["total"]["mean"]) > 0.2 and not holds_zero(rows["total"])
    assert LEAST <= rows[name]["share"] <= 1 / LEAST
    assert not holds_zero(rows[name])
    for other, row in rows.items():
        if row["part"] == "sum" and other != name:
            assert holds_zero(row), other


@pytest.mark.slow
@pytest.mark.parametrize(("name", "other"), [("neutral", "feature_decay"), ("penalty", "neutral")])
def test_a_planted_guess_or_penalty_takes_the_difference_away(name, other):
    rows = rows_of(name)
    planted = rows[PLANTS[name].row]
    assert not holds_zero(rows["total"]) and not holds_zero(planted)
    assert LEAST <= planted["share"] <= 1 / LEAST
    assert holds_zero(rows[other])


@pytest.mark.slow
def test_where_nothing_is_planted_every_interval_holds_zero():
    for name, row in rows_of("nothing").items():
        assert holds_zero(row), name
