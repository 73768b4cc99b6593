import dataclasses

import pytest

from bnhead.report.dead_units import dead_summary
from bnhead.report.limits import study_limits
from bnhead.studies.directory import read_study
from tests.studies.fake import write_study


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return read_study(write_study(tmp_path_factory.mktemp("two"), "two"))


def test_the_limits_are_those_of_the_plan(two):
    said = " ".join(study_limits(two))
    assert "one data set, digits; one backbone, resnet20, trained from initial weights" in said
    assert "one schedule: 15 epochs, batches of 128 and a peak learning rate of 0.1" in said
    assert "the same 360 examples, one of which is 0.28 points" in said
    assert "less than 0.83% of inputs" in said and "there are 10" in said and "below 1 point" in said
    low, high = two.verdict["comparisons"][0]["interval"]
    assert f"reach {50 * (high - low):.2f} points" in said
    assert "varied" not in said and "Holm" not in said and "must be confirmed" not in said


def test_what_varies_is_no_limit(tmp_path):
    said = " ".join(study_limits(read_study(write_study(tmp_path, "learning_rate"))))
    assert "a peak learning rate" not in said and "only learning_rate varied" in said
    assert (
        "hold together with 95 %, over all comparisons and 1 look; the secondary outcomes are another" in said
    )


def test_an_exploratory_study_confirms_nothing(two):
    verdict = {**two.verdict, "exploratory": ["more seeds"], "comparisons": []}
    said = " ".join(study_limits(dataclasses.replace(two, verdict=verdict)))
    assert "must be confirmed by a new study" in said and "reach" not in said


def test_a_study_without_runs_has_limits_too(two):
    said = " ".join(
        study_limits(dataclasses.replace(two, plan=dataclasses.replace(two.plan, settings={}), runs={}))
    )
    assert "It saw" not in said and "tested on" not in said and "A replicate is a seed" in said


def test_sizes_that_make_no_sense_are_left_out(two):
    for strange in ([1], {"a": 1}, None, 0, "x"):
        next(iter(two.runs.values())).result["data"] = {"test": strange}
        assert "the same 360 examples" in " ".join(study_limits(two))
    next(iter(two.runs.values())).result["data"] = {"test": 361}
    assert "tested on" not in " ".join(study_limits(two))


def test_runs_on_other_numbers_of_inputs_are_not_comparable(tmp_path):
    study = read_study(write_study(tmp_path, "two"))
    assert "comparable" not in " ".join(study_limits(study))
    next(iter(study.runs.values())).result["dead/head_fc/inputs"] = 120
    said = " ".join(study_limits(study))
    assert "silent on the 120 to 360 inputs counted: a dead unit fires on less than 2.50% of inputs" in said
    assert "runs with different numbers of inputs are not comparable" in said
    assert dead_summary(study)[0]["inputs"].startswith("120 to 360 test inputs (on fewer inputs more units")


def test_r2_has_no_points(tmp_path):
    said = " ".join(study_limits(read_study(write_study(tmp_path, "regression"))))
    assert "the same 360 examples. They" in said and "below 0.01 was called" in said and "points" not in said
