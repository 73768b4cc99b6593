"""The claims on runs whose gains are planted, against intervals by SciPy."""

import numpy as np
import pytest
from scipy import stats

from bnhead.studies.claim_checks import word_of
from bnhead.studies.outcomes import read_outcomes
from tests.studies import unequal

pytestmark = pytest.mark.quick

STEP = 1 / 36  # a test image of each class more


def planted(config):
    """`fc_out_bn` gains by stratum and seed; `fc_bn` gains nothing."""
    if config.head != "fc_out_bn":
        return {"gain": 0.0, "bare": 0.0 if "bn" in config.head else None}
    gain = 8 + config.seed % 2
    gain -= 2 * (config.imbalance == "one_majority:5") + 3 * (config.imbalance == "one_majority:80")
    gain += 2 * (config.batch_size == 8)
    gain *= config.imbalance != "two_majorities:20" and config.task != "multilabel"
    return {"gain": gain * STEP, "bare": (4 + config.seed % 3) * STEP}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    return unequal.write_study(tmp_path_factory.mktemp("claims") / "study", planted, seeds=6)


def row_of(verdict, claim, head="fc_out_bn"):
    return next(row for row in verdict["claims"]["rows"] if (row["claim"], row["head"]) == (claim, head))


def interval(values, alpha):
    n = len(values)
    reach = stats.t.isf(alpha / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return [np.mean(values) - reach, np.mean(values) + reach]


@pytest.mark.parametrize(
    ("claim", "expected", "word"),
    [
        ("removable", [4, 5, 6, 4, 5, 6], "CONFIRMED"),
        ("threshold", [2] * 6, "CONFIRMED"),  # the smaller of 2 and 3
        ("batch", [2] * 6, "CONFIRMED"),
        ("general", [8, 9, 8, 9, 8, 9], "CONFIRMED"),
        ("majority", [8, 9, 8, 9, 8, 9], "CONFIRMED"),
        ("softmax", [8, 9, 8, 9, 8, 9], "CONFIRMED"),
    ],
)
def test_the_differences_are_the_planted_ones(verdict, claim, expected, word):
    row = row_of(verdict, claim)
    values = np.array(expected) * STEP
    assert row["differences"] == pytest.approx(values, abs=1e-12) and row["seeds"] == list(range(6))
    assert row["interval"] == pytest.approx(interval(values, 0.05 / 16), abs=1e-12)
    assert row["level"] == pytest.approx(1 - 0.05 / 16) and row["word"] == word
    assert row_of(verdict, claim, "fc_bn")["word"] == "REFUTED"


def test_calibration_is_compared_above_the_floor(verdict):
    row = row_of(verdict, "calibration")
    assert row["outcome"] == "ece_excess" and row["mean"] < -0.1 and row["word"] == "REFUTED"


def test_the_words():
    assert word_of([0.02, 0.05], 0.01) == "CONFIRMED"
    assert word_of([-0.05, 0.009], 0.01) == "REFUTED"
    assert word_of([0.001, 0.009], 0.01) == "REFUTED"  # above 0, and nothing material
    assert word_of([-0.001, 0.02], 0.01) == "UNDECIDED"
    assert word_of([-0.05, -0.02], 0.01) == "REFUTED"
    assert word_of([-0.05, -0.02], 0.01, two_sided=True) == "CONFIRMED"
    assert word_of([-0.009, 0.009], 0.01, two_sided=True) == "REFUTED"
    assert word_of([-0.02, 0.009], 0.01, two_sided=True) == "UNDECIDED"


def test_a_gain_that_is_a_shift_of_the_prior_vanishes_with_the_prior(tmp_path):
    """All logits carry the log prior, of range 3; those of `fc_out_bn` are too sharp to be moved by it."""

    def draw(config):
        sharpness = 12.0 if config.head == "fc_out_bn" else 2.0
        bare = 0.4 if "bn" in config.head else None
        return {"gain": 0.4, "bare": bare, "prior_shift": True, "sharpness": sharpness}

    verdict = unequal.write_study(tmp_path / "study", draw)
    pair = next(pair for pair in verdict["comparisons"] if pair["treatment"] == "fc_out_bn")
    assert pair["outcome"] == "balanced_accuracy" and pair["word"] == "HELPS" and pair["mean"] > 0.1
    after = pair["secondary"][0]
    assert (after["outcome"], after["word"]) == ("adjusted_balanced_accuracy", "NO MATERIAL DIFFERENCE")
    assert after["control_mean"] == pytest.approx(0.5 + 14 * STEP)
    by_cell = {row["cell"]: row for row in verdict["classes"]["rows"]}
    assert by_cell["fc"]["recall"][-1] < 0.1 and by_cell["fc"]["adjusted_recall"][-1] > 0.8


def test_classes(verdict, tmp_path):
    classes = verdict["classes"]
    assert classes["counts"] == [144, 103, 74, 53, 38, 27, 19, 14, 10, 7]
    assert classes["minority"] == [False] * 4 + [True] * 6
    by_cell = {row["cell"]: row for row in classes["rows"]}
    assert list(by_cell) == [
        pair for pair in dict.fromkeys(["fc", *(c["treatment"] for c in verdict["comparisons"])])
    ]
    assert by_cell["fc_out_bn"]["recall"] == pytest.approx([0.5 + 8.5 * STEP] * 10)
    assert by_cell["fc"]["n"] == 6


def test_a_cell_without_runs_leaves_its_claims_invalid(tmp_path):
    unequal.write_study(tmp_path / "study", planted)
    from bnhead.studies.claim_checks import judge_claims

    plan = unequal.plan_of()
    outcomes = read_outcomes(plan, tmp_path / "study")
    without = [outcome for outcome in outcomes if outcome.run.cell != "fc_bn at imbalance two_majorities:20"]
    rows = {(row["claim"], row["head"]): row for row in judge_claims(plan, without)["rows"]}
    assert rows["majority", "fc_bn"]["word"] == "INVALID" and rows["majority", "fc_bn"]["n"] == 0
    assert rows["majority", "fc_out_bn"]["word"] == "CONFIRMED"
    rows = judge_claims(plan, outcomes, "mixed code")["rows"]
    assert {row["word"] for row in rows} == {"INVALID"}
