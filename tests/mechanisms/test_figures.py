import math
import re
from types import SimpleNamespace

import pytest

from bnhead.census.figures import UNITS
from bnhead.errors import UsageError
from bnhead.mechanisms import figures
from bnhead.mechanisms.figures import FIGURES, FIGURES_BY_GROUP, GROUPS, INITIAL, PREJUDICED, check_groups

pytestmark = pytest.mark.quick


def test_every_row_has_a_name_of_its_own_a_unit_and_a_meaning():
    rows = (*FIGURES, *INITIAL, PREJUDICED)
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch("[a-z0-9_]+", row.name) and row.unit in UNITS
        assert row.meaning and not row.meaning.endswith(".")
    assert list(FIGURES_BY_GROUP) == list(GROUPS)


def test_groups():
    assert check_groups("noise, gap") == ("noise", "gap") == check_groups(["gap", "noise"])
    assert check_groups("all") == tuple(GROUPS) and check_groups("") == ()
    with pytest.raises(
        UsageError, match="measure 'nois' is not known; did you mean 'noise'\\? \\(there are all, noise,"
    ):
        check_groups("nois")


def test_figures_that_are_not_measured_or_not_finite_are_left_out():
    scale = SimpleNamespace(
        feature_norm=2.0, weight_norm=math.nan, logit_norm=1.0, floor=math.inf, beyond=0.0
    )
    gap = SimpleNamespace(
        accuracy={}, loss={}, cka=0.5, averages=SimpleNamespace(typical=1.0, largest=2.0, log_variance=0.1)
    )
    measured = SimpleNamespace(scale=scale, gap=gap)
    assert figures.figures_of(measured) == {
        "mode_cka": 0.5, "average_bias": 1.0, "average_bias_largest": 2.0, "average_log_variance": 0.1,
        "feature_norm": 2.0, "logit_norm": 1.0, "beyond_batch": 0.0,
    }  # fmt: skip


def test_tables_of_a_run():
    values = {"mechanisms/nc1": 0.25, "mechanisms/nc2": None, "mechanisms/prejudiced_epochs": 3.0, "nll": 1.0}
    (guess, of_guess), (collapse, of_collapse) = figures.tables_of(values)
    assert (guess, collapse) == (GROUPS["guess"], GROUPS["collapse"])
    assert of_guess == [("prejudiced epochs", PREJUDICED.meaning, "3")]
    assert [(heading, text) for heading, _, text in of_collapse] == [("NC1", "0.25")]


def test_the_initial_guess_has_one_table():
    initial = {"mechanisms/initial_modal_share": 0.5}
    assert [about for about, _ in figures.tables_of(initial)] == [GROUPS["guess"]]
    alone = [(about, len(rows)) for about, rows in figures.tables_of({**initial, "mechanisms/nc1": 0.25})]
    assert alone == [(GROUPS["guess"], 1), (GROUPS["collapse"], 1)]


def test_meanings_by_key():
    assert figures.meaning_of("mechanisms/nc1").startswith("tr(pinv(Sb) Sw)")
    assert figures.meaning_of("mechanisms/prejudiced_epochs") == PREJUDICED.meaning
    assert figures.meaning_of("loss") == figures.meaning_of("nc1") == ""
