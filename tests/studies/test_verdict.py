import dataclasses
import json
import random

import numpy as np
import pytest
from scipy import stats

from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import with_data
from bnhead.studies.statistics import seeds_to_decide
from bnhead.studies.verdict import judge
from tests.studies.fake import ENVIRONMENT, FACTS, plan_of

pytestmark = pytest.mark.quick

RESULT = {"data": {"name": "digits/1.0.0", "train": 1437, "test": 360}}


def outcomes_of(plan, scores, statuses=None):
    """Outcomes whose scores are those of `scores`: cell -> a number for each seed."""
    made = []
    for run in plan.runs:
        status = (statuses or {}).get((run.cell, run.seed), "finished")
        score = scores[run.cell][plan.seeds.index(run.seed)] if status == "finished" else plan.chance
        if status in ("missing", "failed", "damaged"):
            score = None
        reason = "" if status == "finished" else status
        made.append(Outcome(run, status, score, reason, result=RESULT, environment=ENVIRONMENT))
    return made


def verdict_of(differences, statuses=None, control=0.9, **settings):
    plan = with_data(plan_of(seeds=len(differences), **settings), FACTS)
    scores = {"fc": [control] * len(differences), "bn_fc": [control + d for d in differences]}
    return judge(plan, outcomes_of(plan, scores, statuses))


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        ([0.02, 0.03, 0.025, 0.02], "HELPS"),
        ([-0.02, -0.03, -0.025, -0.02], "HURTS"),
        ([0.001, -0.001, 0.0, 0.0], "NO MATERIAL DIFFERENCE"),
        ([0.0, 0.0, 0.0], "NO MATERIAL DIFFERENCE"),
        ([0.003, 0.003, 0.0031, 0.003], "NO MATERIAL DIFFERENCE"),  # not 0, and not material
        ([0.02, -0.02, 0.03, -0.01], "UNDECIDED"),
        ([0.02, 0.03], "INVALID"),
    ],
)
def test_the_words(differences, word):
    verdict = verdict_of(differences)
    assert verdict["word"] == verdict["comparisons"][0]["word"] == word
    assert f": {word}" in verdict["sentence"] and verdict["sentence"].endswith(".")


def test_the_sentence():
    assert verdict_of([0.02, 0.03, 0.025, 0.02])["sentence"] == (
        "On digits with resnet20, bn_fc against fc: test accuracy +2.38 points "
        "(95 % interval +1.61 to +3.14), 4 seeds: HELPS."
    )
    undecided = verdict_of([0.02, -0.02, 0.03, -0.01])
    more = undecided["comparisons"][0]["more_seeds"]
    assert more > 0 and f"UNDECIDED, about {more} more seeds would decide." in undecided["sentence"]
    assert "INVALID, 2 seeds, at least 3 are needed." in verdict_of([0.02, 0.03])["sentence"]
    nothing = verdict_of([0.0] * 3)["sentence"]
    assert nothing.endswith("NO MATERIAL DIFFERENCE, less than 1 point either way.")


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        ({("bn_fc", 0): "diverged"}, "UNSTABLE"),  # more than the control
        ({("bn_fc", 0): "diverged", ("fc", 3): "failed_to_learn"}, "HELPS"),  # as many, under a fifth
        ({("bn_fc", 0): "diverged", ("fc", 0): "diverged"}, "HELPS"),
        ({("fc", k): "diverged" for k in range(6)}, "HELPS"),  # the control's own trouble
        ({(c, k): "failed_to_learn" for c in ("fc", "bn_fc") for k in (0, 1)}, "UNSTABLE"),  # a fifth
        ({("bn_fc", 0): "missing"}, "INVALID"),
        ({("fc", 0): "failed", ("bn_fc", 0): "diverged"}, "INVALID"),
    ],
)
def test_what_does_not_train(statuses, word):
    verdict = verdict_of([0.09 + 0.001 * k for k in range(10)], statuses, control=0.15)
    assert verdict["word"] == word


def test_diverged_runs_are_scored_at_chance_and_converged_ones_told_beside():
    differences = [0.05, 0.051, 0.052, 0.053, 0.054, 0.055]
    verdict = verdict_of(differences, {("fc", 2): "diverged"})
    (one,) = verdict["comparisons"]
    assert one["control_scores"][2] == 0.1 and one["differences"][2] == pytest.approx(0.852)
    assert one["diverged"] == {"control": 1, "treatment": 0} and one["n"] == 6
    assert one["converged"]["n"] == 5 and one["converged"]["mean"] == pytest.approx(0.0526)
    assert verdict["exclusions"] == [
        {"run": verdict["exclusions"][0]["run"], "cell": "fc", "seed": 2, "reason": "diverged"}
    ]
    assert verdict["flow"]["diverged"] == 1 and verdict["flow"]["analysed"] == 12
    assert verdict_of(differences)["comparisons"][0]["converged"] is None


@pytest.mark.parametrize(
    "name", ["bnhead", "source_sha256", "keras", "backend_version", "devices", "threads"]
)
def test_mixed_code_is_invalid(name):
    plan = with_data(plan_of(), FACTS)
    outcomes = outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.95] * 4})
    outcomes[5] = dataclasses.replace(outcomes[5], environment={**ENVIRONMENT, name: "other"})
    verdict = judge(plan, outcomes)
    assert verdict["word"] == "INVALID" and f"its runs differ in {name}: " in verdict["sentence"]


@pytest.mark.parametrize("which", [slice(2, 3), slice(None)])
def test_mixed_or_other_data_is_invalid(which):
    plan = with_data(plan_of(), FACTS)
    outcomes = outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.95] * 4})
    other = {"data": {**RESULT["data"], "test": 359}}
    outcomes[which] = [dataclasses.replace(one, result=other) for one in outcomes[which]]
    assert "INVALID, its runs differ in their data set (test)" in judge(plan, outcomes)["sentence"]


def test_amendments_are_told():
    plan = dataclasses.replace(with_data(plan_of(), FACTS), amendments=("delta was changed",))
    outcomes = outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.95] * 4})
    assert judge(plan, outcomes)["exploratory"] == ["delta was changed"]


def test_neither_the_order_of_rows_nor_that_of_figures_matters():
    plan = with_data(plan_of("placement", seeds=5), FACTS)
    rng = np.random.default_rng(1)
    scores = {cell.name: rng.normal(0.9, 0.01, 5).tolist() for cell in plan.cells}
    outcomes = outcomes_of(plan, scores, {("fc", 1): "diverged", ("bn_fc", 2): "missing"})
    expected = json.dumps(judge(plan, outcomes))
    for seed in range(10):
        random.Random(seed).shuffle(outcomes)
        assert json.dumps(judge(plan, outcomes)) == expected


def test_a_family_is_adjusted_and_has_the_word_its_members_share():
    plan = with_data(plan_of("placement", seeds=5), FACTS)
    shape = np.array([-1, -0.5, 0, 0.5, 1]) * 0.004
    p_alone = 0.03  # of the first comparison: enough alone, too little of four
    mean = stats.t.isf(p_alone / 2, 4) * shape.std(ddof=1) / np.sqrt(5)
    scores = {cell.name: (0.9 + shape + mean).tolist() for cell in plan.cells}
    scores["fc"] = [0.9] * 5
    verdict = judge(dataclasses.replace(plan, delta=1e-3), outcomes_of(plan, scores))
    assert verdict["word"] == "UNDECIDED"
    needed = seeds_to_decide(mean, shape.std(ddof=1), 1e-3, 0.05 / 4)  # by Holm's first step
    assert {one["more_seeds"] for one in verdict["comparisons"]} == {needed - 5}
    for one in verdict["comparisons"]:
        assert one["p"] == pytest.approx(p_alone) and one["p_holm"] == pytest.approx(4 * p_alone)
    scores["bn_fc"] = [0.95, 0.951, 0.952, 0.953, 0.954]
    verdict = judge(dataclasses.replace(plan, delta=1e-3), outcomes_of(plan, scores))
    assert verdict["word"] == "MIXED" and "HELPS: bn_fc against fc" in verdict["sentence"]
    lacking = outcomes_of(plan, scores, {("fc_bn", 0): "missing"})
    verdict = judge(plan, lacking)
    assert verdict["word"] == "INVALID" and verdict["comparisons"][1]["word"] == "HELPS"


def test_a_comparison_without_a_number_is_still_one_of_the_family():
    plan = with_data(plan_of("placement", seeds=5), FACTS)
    rng = np.random.default_rng(3)
    scores = {cell.name: rng.normal(0.9, 0.01, 5).tolist() for cell in plan.cells}
    missing = outcomes_of(plan, scores, {("fc_bn", seed): "missing" for seed in range(5)})
    compared = judge(plan, missing)["comparisons"]
    lacking = compared.pop(2)
    assert lacking["p"] is lacking["p_holm"] is lacking["p_holm_tost"] is None
    for name in ("p", "p_tost"):
        smallest = min(compared, key=lambda one: one[name])
        assert smallest[name.replace("p", "p_holm", 1)] == pytest.approx(min(1, 4 * smallest[name]))


@pytest.mark.parametrize(("control", "word"), [(0.1, "INVALID"), (0.12, "NO MATERIAL DIFFERENCE")])
def test_two_heads_that_learned_nothing_are_no_comparison(control, word):
    verdict = verdict_of([0.001, -0.001, 0.0, 0.0], control=control)
    assert verdict["word"] == word
    assert ("neither head is more than 1 point above chance" in verdict["sentence"]) == (word == "INVALID")
    unstable = {(cell, seed): "diverged" for cell in ("fc", "bn_fc") for seed in range(4)}
    assert verdict_of([0.0] * 4, unstable, control=control)["word"] == "UNSTABLE"


def test_a_count_that_is_no_number_is_left_out():
    plan = with_data(plan_of(), FACTS)
    outcomes = outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.95] * 4})
    shares = [0.5, float("nan"), None, 0.7, *[0.1] * 4]
    outcomes = [
        dataclasses.replace(one, result={**RESULT, "dead/head_fc/dataset": share})
        for one, share in zip(outcomes, shares, strict=True)
    ]
    cells = judge(plan, outcomes)["cells"]
    assert cells[0]["dead"]["head_fc/dataset"]["mean"] == pytest.approx(0.6)
    assert [cell["dead"]["head_fc/dataset"]["n"] for cell in cells] == [2, 4]
    json.dumps(cells, allow_nan=False)


@pytest.mark.parametrize(("p_value", "word"), [(0.04, "NO MATERIAL DIFFERENCE"), (0.07, "UNDECIDED")])
def test_equivalence_is_claimed_at_alpha(p_value, word):
    shape = np.array([-1, -0.5, 0, 0.5, 1]) * 0.004
    delta = stats.t.isf(p_value, 4) * shape.std(ddof=1) / np.sqrt(5)
    verdict = verdict_of(shape.tolist(), delta=float(delta))
    assert verdict["word"] == word and verdict["comparisons"][0]["p_tost"] == pytest.approx(p_value)


def test_every_number_is_finite_or_null_and_keys_are_in_order():
    verdict = verdict_of([0.02, 0.03, 0.025, 0.02], {("fc", 0): "missing"})
    text = json.dumps(verdict, allow_nan=False)
    assert list(json.loads(text)) == [
        "format",
        "plan_sha256",
        "exploratory",
        "word",
        "sentence",
        "flow",
        "exclusions",
        "comparisons",
        "cells",
        "width_law",
    ]
    assert verdict["flow"]["missing"] == 1 and verdict["comparisons"][0]["n"] == 3
