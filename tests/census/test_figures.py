import numpy as np
import pytest

from bnhead.census.figures import (
    DISPLAYS,
    FIGURES,
    NEEDS,
    OF_COUNTS,
    UNITS,
    figures_at,
    meaning_of,
    rule_of_three,
)
from tests.census.batches import counts_of_batch
from tests.census.test_counts import added

pytestmark = pytest.mark.quick

VALUES = {"per_input": 0.5, "per_input_p05": 0.25, "per_input_p95": 0.75, "dataset": 0.125, "bound": 0.01}
ROWS = {row.name: row for row in FIGURES}


def test_every_row_is_whole():
    assert len(ROWS) == len(FIGURES) == len({row.heading for row in FIGURES})
    for row in FIGURES:
        assert (
            row.name.isidentifier() and row.needs in NEEDS and row.unit in UNITS and row.display in DISPLAYS
        )
        assert row.heading and row.meaning and "\n" not in row.meaning and row.meaning[-1] != "."
        assert row.display != "charts" or row.unit == "share", "the axis of a chart is of shares"


def test_figures_by_hand():
    # four inputs, four units: unit 0 dead, unit 1 always on, unit 2 on inputs 0 and 1, unit 3 on input 0
    activations = np.array([[0, 5, 1, 2], [0, 5, 1, 0], [0, 5, 0, 0], [0, 5, 0, 0]], float)[:, None, :]
    counts = added(activations)
    counts.ablated_loss, counts.ablated_metric = np.array([0, 0.5, -0.25]), np.array([0, -0.125, 1])
    counts.causes = np.array([2, 1, 0, 0])
    assert counts.inputs == 4 and counts.units == 4
    assert counts.figures() == {
        **dict.fromkeys(("unseen", "unseen_low", "unseen_high"), 0),  # one unit was active on one input
        "joint_bound": 3 / 4,
        # unit 0 alone is dead: one run, of 1 * (4 - 1 + 1) / 4 expected
        "runs": 1,
        "runs_expected": 1,
        "runs_p": 1,
        # silences 1000 1001 1011 1011: 2, 3, 3 and 3 runs; with 1 of 4 silent 2.5 are expected, variance 1/4;
        # with 2 of 4 silent 3, variance 2/3
        "runs_z_per_input": pytest.approx(((2 - 2.5) * 2 + 0 + (3 - 2.5) * 2 * 2) / 4),
        # one of two units in the first group is dead, none of two in the second: every table is as extreme
        "blocks_p": pytest.approx(1),
        # mean activations 0, 5, 1/2, 1/2: mean 3/2
        "dormant_0": 1 / 4,
        "dormant_0025": 1 / 4,
        "dormant_01": 1 / 4,
        "constant": 2 / 4,
        # classes 0 1 2 0: unit 2 is silent on class 2, unit 3 on classes 1 and 2
        "class_dead": 2 / 4,
        "gradient_dead": 1 / 4,
        # the same magnitudes: 0, 20, 2 and 2, mean 6
        "gradient_dormant_0": 1 / 4,
        "gradient_dormant_0025": 1 / 4,
        "gradient_dormant_01": 1 / 4,
        # units 2 and 3 correlate by 1 / sqrt(3), the others are constant
        "clones": 0,
        "ablated_dead_loss": 0,
        "ablated_dead_metric": 0,
        "ablated_dormant_loss": 0.5,
        "ablated_dormant_metric": -0.125,
        "ablated_rarely_active_loss": -0.25,
        "ablated_rarely_active_metric": 1,
        # units 2 and 3 change: 1100 and 1000, phi = (2 - 1 - ... ) worked out as 1 / sqrt(3)
        "patterns": pytest.approx(4 / (2 + 2 / 3)),
        "per_input": (1 + 2 + 3 + 3) / 16,
        "per_input_p05": pytest.approx(np.percentile([1, 2, 3, 3], 5) / 4),
        "per_input_p50": 2.5 / 4,
        "per_input_p95": 3 / 4,
        "dataset": 1 / 4,
        "rarely_active": 1 / 4,
        "always_on": 1 / 4,
        # unit 0 is weight-dead; unit 1 was active, whatever a certificate says
        "certified": 1 / 4,
        "weight_dead": 1 / 4,
        "bias_dead": 0,
        "unused": 0,
    }
    assert set(counts.figures()) == {row.name for row in OF_COUNTS}


def test_a_figure_appears_in_its_display_and_in_all_later_ones():
    assert [row.name for row in figures_at("charts")] == ["dataset", "per_input"]
    assert [row.name for row in figures_at("summaries")] == [
        "dataset",
        "per_input",
        "rarely_active",
        "always_on",
    ]
    assert set(figures_at("summaries")) < set(figures_at("tables")) < set(figures_at("files")) == set(FIGURES)


def test_a_summary_is_the_value_and_the_note():
    assert ROWS["per_input"].summary(VALUES) == "50.0% (25.0% to 75.0% for 90 % of the inputs)"
    assert ROWS["dataset"].summary(VALUES) == "12.5% (each fires on less than 1.00% of inputs, at 95 %)"
    assert ROWS["always_on"].summary({"always_on": 0.0625}) == "6.2%"
    assert ROWS["per_input"].summary({}) == "not finite (not finite to not finite for 90 % of the inputs)"


def test_a_cell_is_the_value_or_more():
    assert ROWS["per_input"].table_cell(VALUES, 8) == "50.0%"
    assert ROWS["per_input_p95"].table_cell(VALUES, 8) == "25.0% to 75.0%"
    assert ROWS["dataset"].table_cell(VALUES, 8) == "1 (12.5%)"
    assert ROWS["patterns"].table_cell({"patterns": float("nan")}, 8) == "not finite"
    runs = {"runs": 3, "runs_expected": 3.75, "runs_p": 0.0123}
    assert ROWS["runs_p"].table_cell(runs, 8) == "3 (3.8), 0.012"
    unseen = {"unseen": 73.2, "unseen_low": 41.0, "unseen_high": 119.0}
    assert ROWS["unseen"].table_cell(unseen, 256) == "73 (41 to 119)"
    assert ROWS["patterns"].text(2.345) == "2.3" and ROWS["patterns"].text(float("nan")) == "not finite"


def test_a_figure_is_counted_if_its_input_is():
    counts = counts_of_batch(np.array([1, 0]), np.array([1, 2]), np.array([0, 2]), groups=())
    assert ROWS["per_input"].is_counted(counts)
    for name in ("runs_z_per_input", "dormant_0", "blocks_p", "class_dead", "births"):
        assert not ROWS[name].is_counted(counts)
    counts.groups, counts.magnitude = (1, 1), np.zeros(2)
    assert ROWS["blocks_p"].is_counted(counts) and ROWS["dormant_0"].is_counted(counts)


def test_the_meaning_of_a_key():
    assert meaning_of("dead/encoder/relu/deaths") == "share of units that died since the last count"
    assert meaning_of("loss") == meaning_of("deaths") == meaning_of("dead/fc/births_of_others") == ""


def test_the_bound_of_several_dead_units_at_once():
    assert rule_of_three(2048, 100) == pytest.approx(-np.log(0.05 / 100) / 2048)
    assert rule_of_three(3, 100) == 1 and rule_of_three(0, 100) == 1
    assert rule_of_three(300, 0) == rule_of_three(300, 1) == 0.01
    # 200 units that fire on exactly this share of inputs: all are silent on fewer than 5 % of samples
    rate, rng = rule_of_three(500, 200), np.random.default_rng(0)
    assert np.mean(rng.binomial(500, rate, (4000, 200)).min(1) == 0) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(("inputs", "bound"), [(0, 1.0), (2, 1.0), (300, 0.01), (360.0, 3 / 360)])
def test_rule_of_three(inputs, bound):
    assert rule_of_three(inputs) == bound
