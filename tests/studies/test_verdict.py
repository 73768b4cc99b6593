import dataclasses
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from bnhead.runs import schema
from bnhead.studies.outcomes import SCORED, UNTRAINED, Outcome
from bnhead.studies.plan import to_json, with_data
from bnhead.studies.statistics import seeds_to_decide
from bnhead.studies.study import Study
from bnhead.studies.verdict import judge, word_of
from tests.studies.fake import ENVIRONMENT, FACTS, plan_of

pytestmark = pytest.mark.quick

RESULT = {"data": {"name": "digits/1.0.0", "train": 1437, "test": 360}}


def outcomes_of(plan, scores, statuses=None, **others):
    """Outcomes whose values of the metric are those of `scores`: cell -> a number or an array for each seed.

    Args:
        plan: the plan.
        scores: cell -> for each seed a number, or one for each image.
        statuses: (cell, seed) -> another status than "finished".
        **others: name of another measure -> cell -> as `scores`.
    """
    made = []
    metric = "r2" if plan.task == "regression" else "accuracy"
    for run in plan.runs:
        status = (statuses or {}).get((run.cell, run.seed), "finished")
        chances = {row.name: plan.chance(row.name) for row in plan.measures}
        values = {name: np.array([chance]) for name, chance in chances.items() if chance is not None}
        if status not in UNTRAINED:
            tables = {metric: scores, **others}
            index = plan.seeds.index(run.seed)
            values = {name: np.atleast_1d(table[run.cell][index]) for name, table in tables.items()}
        if status not in SCORED:
            values = {}
        score = float(values[metric].mean()) if values else None
        layer = "head_fc" if status == "finished" else ""
        reason = "" if status == "finished" else status
        parts = {"reason": reason, "result": RESULT, "environment": ENVIRONMENT}
        made.append(Outcome(run, status, score, values, layer, **parts))
    return made


def verdict_of(differences, statuses=None, control=0.9, **settings):
    plan = with_data(plan_of(**{"seeds": len(differences), **settings}), FACTS)
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
        "On digits with resnet20: HELPS after 4 seeds. With bn_fc, test accuracy was 2.38 points higher on "
        "average than with fc (90.0% -> 92.4%); from 1.61 to 3.14 points higher fits these runs."
    )
    assert verdict_of([0.02, -0.02, 0.03, -0.01])["sentence"].endswith(
        "0.50 points higher on average than with fc (90.0% -> 90.5%), but anything from 3.29 points lower to "
        "4.29 points higher fits these runs."
    )
    assert (
        "INVALID. bn_fc against fc: 2 seeds, at least 3 are needed." in verdict_of([0.02, 0.03])["sentence"]
    )
    assert verdict_of([0.0] * 3)["sentence"] == (
        "On digits with resnet20: NO MATERIAL DIFFERENCE after 3 seeds. With bn_fc, test accuracy was "
        "neither higher nor lower on average than with fc (90.0% -> 90.0%); no difference fits these runs, "
        "less than 1 point either way."
    )


@given(
    st.lists(st.integers(-400, 400), min_size=3, max_size=8),
    st.sampled_from([0.001, 0.01, 0.1]),
    st.sampled_from([0.05, 0.01]),
)
@settings(max_examples=80, deadline=None)
def test_the_word_is_that_of_the_t_interval_of_scipy(thousandths, delta, alpha):
    """Where each run has one number, the interval is over seeds; once inside the margin, once against 0."""
    differences = np.array(thousandths) / 4000
    (row,) = verdict_of(differences.tolist(), control=0.5, delta=delta, alpha=alpha)["comparisons"]
    observed = np.array(row["differences"])
    if observed.std() == 0:
        low = high = observed[0]
    else:
        low, high = stats.ttest_1samp(observed, 0).confidence_interval(1 - alpha)
        assert row["interval"] == pytest.approx([low, high], rel=1e-9, abs=1e-12)
        assert row["interval"] == row["interval_seeds"]
    if max(abs(low), abs(high)) < delta:
        expected = "NO MATERIAL DIFFERENCE"
    elif low > 0:
        expected = "HELPS"
    else:
        expected = "HURTS" if high < 0 else "UNDECIDED"
    assert row["word"] == expected


@pytest.mark.parametrize("better", [1, -1])
def test_the_better_direction_and_the_bounds(better):
    assert word_of((0.02, 0.03), 0.01, better) == ("HELPS" if better > 0 else "HURTS")
    assert word_of((-0.03, -0.02), 0.01, better) == ("HURTS" if better > 0 else "HELPS")
    # a bound on the margin is not inside it, and one at 0 does not exclude 0
    assert word_of((0.0, 0.01), 0.01, better) == word_of((-0.01, 0.0), 0.01, better) == "UNDECIDED"
    assert word_of((0.001, 0.009), 0.01, better) == "NO MATERIAL DIFFERENCE"
    assert word_of(None, None, better) == "INVALID"


def drawn(plan, images=30, seed=0, effect=0.0):
    """Correct or not, for each image: cell -> seeds x images, with images that are harder than others."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 1, images)
    return {
        cell.name: (rng.normal(0, 1, (len(plan.seeds), images)) + hard + 1 + effect * index > 0).astype(float)
        for index, cell in enumerate(plan.cells)
    }


def test_images_widen_the_interval_by_the_formula():
    plan = with_data(plan_of(seeds=5, delta=0.2), FACTS)
    scores = drawn(plan, images=40, seed=3)
    (row,) = judge(plan, outcomes_of(plan, scores))["comparisons"]
    d = scores["bn_fc"] - scores["fc"]
    n, images = d.shape
    grand, by_seed, by_image = d.mean(), d.mean(1), d.mean(0)
    ms_s = images * ((by_seed - grand) ** 2).sum() / (n - 1)
    ms_i = n * ((by_image - grand) ** 2).sum() / (images - 1)
    rest = d - by_seed[:, None] - by_image + grand
    ms_e = (rest**2).sum() / ((n - 1) * (images - 1))
    assert ms_i > ms_e  # else this test tests nothing
    variance = (ms_s + ms_i - ms_e) / (n * images)
    reach = stats.t.ppf(0.975, n - 1) * np.sqrt(variance)
    assert row["interval"] == pytest.approx([grand - reach, grand + reach], rel=1e-10)
    alone = stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
    assert row["interval_seeds"] == pytest.approx(list(alone), rel=1e-10)
    assert row["variance"] == pytest.approx(
        {"seeds": ms_s / (n * images), "images": (ms_i - ms_e) / (n * images)}, rel=1e-9
    )
    assert (row["n"], row["images"]) == (5, 40)
    assert row["control_scores"] == pytest.approx(scores["fc"].mean(1).tolist())


def test_images_alone_can_leave_a_study_undecided():
    """Each seed finds the same difference, from two of ten images."""
    plan = with_data(plan_of(seeds=4), FACTS)
    control, treatment = np.ones((4, 10)), np.ones((4, 10))
    control[:, :2] = 0
    verdict = judge(plan, outcomes_of(plan, {"fc": control, "bn_fc": treatment}))
    (row,) = verdict["comparisons"]
    assert row["interval_seeds"] == [pytest.approx(0.2)] * 2
    assert row["interval"][0] < 0 and verdict["word"] == "UNDECIDED"
    assert verdict["next"] == {"kind": "images", "seeds": None}


def numbers(verdict):
    """The verdict without the lists that have an entry for each seed, and the run ids."""
    keep = {
        key: value for key, value in verdict.items() if key not in ("plan_sha256", "exclusions", "width_law")
    }
    lists = ("seeds", "differences", "control_scores", "treatment_scores")

    def without(row):
        row = {key: value for key, value in row.items() if key not in lists}
        return row | {"secondary": [without(inner) for inner in row.get("secondary", ())]}

    parts = {key: [without(row) for row in keep[key]] for key in ("comparisons", "trends")}
    return json.dumps({**keep, **parts})


@given(st.integers(0, 10**6), st.sampled_from(["bn_before_fc", "placement"]), st.sampled_from([4, (3, 5)]))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_seeds_and_images_changes_no_bit(seed, name, looks):
    plan = with_data(plan_of(name, seeds=looks), FACTS)
    scores, rng = drawn(plan, images=12, seed=seed), np.random.default_rng(seed)
    losses = {cell: rng.exponential(1, table.shape) for cell, table in scores.items()}
    first, count = plan.looks[0], len(plan.seeds)
    rows = rng.permutation(first)  # within the first look, else it would be another look
    seeds, images = np.r_[rows, first + rng.permutation(count - first)], rng.permutation(12)
    outcomes = outcomes_of(plan, scores, nll=losses)
    expected = judge(plan, outcomes)
    random.Random(seed).shuffle(outcomes)
    assert json.dumps(judge(plan, outcomes)) == json.dumps(expected)
    others = [
        {cell: table[seeds][:, images] for cell, table in tables.items()} for tables in (scores, losses)
    ]
    assert numbers(judge(plan, outcomes_of(plan, others[0], nll=others[1]))) == numbers(expected)


@pytest.mark.parametrize(("status", "word"), [("diverged", "UNSTABLE"), ("missing", "INVALID")])
def test_no_slope_counts_where_a_point_of_it_does_not(status, word):
    plan = with_data(plan_of("width", seeds=4), FACTS)
    shares = {cell.name: [0.1, 0.11, 0.12, 0.1] for cell in plan.cells}
    scores = {cell.name: [0.9] * 4 for cell in plan.cells}
    assert judge(plan, outcomes_of(plan, scores, dead_share=shares))["word"] == "NO MATERIAL DIFFERENCE"
    statuses = {("bn_fc at fc_units 64", 1): status}
    verdict = judge(plan, outcomes_of(plan, scores, statuses, dead_share=shares))
    assert verdict["word"] == word and verdict["next"] is None
    assert f": {word}. bn_fc against fc at fc_units 64: " in verdict["sentence"]


def test_the_order_changes_no_bit_of_a_trend():
    plan = with_data(plan_of("width", seeds=4), FACTS)
    rng = np.random.default_rng(0)
    shares = {cell.name: rng.uniform(0, 1, 4) for cell in plan.cells}
    accuracy = {cell.name: rng.uniform(0.8, 0.9, 4) for cell in plan.cells}
    expected = judge(plan, outcomes_of(plan, accuracy, dead_share=shares))
    assert len(expected["trends"]) == 3 and expected["trends"][2]["interval"]
    order = [2, 0, 3, 1]
    accuracy, shares = ({c: v[order] for c, v in table.items()} for table in (accuracy, shares))
    assert numbers(judge(plan, outcomes_of(plan, accuracy, dead_share=shares))) == numbers(expected)


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
    if word == "UNSTABLE":
        assert "UNSTABLE. bn_fc against fc: " in verdict["sentence"]
        assert verdict["sentence"].endswith(" of fc did not train.") and verdict["next"] is None
        assert verdict["sentence"].count("UNSTABLE") == 1


def test_diverged_runs_are_scored_at_chance_and_converged_ones_stand_beside():
    differences = [0.05, 0.051, 0.052, 0.053, 0.054, 0.055]
    verdict = verdict_of(differences, {("fc", 2): "diverged"})
    (row,) = verdict["comparisons"]
    assert row["control_scores"][2] == 0.1 and row["differences"][2] == pytest.approx(0.852)
    assert row["diverged"] == {"control": 1, "treatment": 0} and row["n"] == 6
    assert row["converged"]["n"] == 5 and row["converged"]["mean"] == pytest.approx(0.0526)
    assert verdict["exclusions"] == [
        {"run": verdict["exclusions"][0]["run"], "cell": "fc", "seed": 2, "reason": "diverged"}
    ]
    assert verdict["flow"]["diverged"] == 1 and verdict["flow"]["analysed"] == 12
    assert verdict_of(differences)["comparisons"][0]["converged"] is None


def test_diverged_runs_are_scored_at_chance_for_every_image():
    plan = with_data(plan_of(seeds=6), FACTS)
    scores = drawn(plan, seed=1)
    losses = {cell: 1 - table for cell, table in scores.items()}
    (row,) = judge(plan, outcomes_of(plan, scores, {("fc", 2): "diverged"}, nll=losses))["comparisons"]
    for name, table, chance in (("accuracy", scores, 0.1), ("nll", losses, np.log(10))):
        (judged,) = (one for one in (row, *row["secondary"]) if one["outcome"] == name)
        control = table["fc"].copy()
        control[2] = chance
        d = table["bn_fc"] - control
        assert judged["differences"] == pytest.approx(d.mean(1).tolist()) and judged["images"] == 30
        alone = stats.ttest_1samp(d.mean(1), 0).confidence_interval(judged["level"])
        assert judged["interval_seeds"] == pytest.approx(list(alone), rel=1e-9)


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
    assert (
        "INVALID. bn_fc against fc: its runs differ in their data set (test)"
        in judge(plan, outcomes)["sentence"]
    )


def test_images_in_another_size_have_another_fingerprint():
    """An arm of a study may read the same images in another size; its own runs still have one fingerprint."""
    plan = with_data(plan_of(), FACTS)
    cells = [
        dataclasses.replace(cell, settings={**cell.settings, "image_size": 32 * (cell.head == "bn_fc")})
        for cell in plan.cells
    ]
    plan = dataclasses.replace(plan, cells=tuple(cells))
    outcomes = outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.95] * 4})
    small = {"data": {**RESULT["data"], "train_sha256": "of 32", "test_sha256": "of 32"}}
    of_bn = [i for i, one in enumerate(outcomes) if one.run.cell == "bn_fc"]
    for i in of_bn:
        outcomes[i] = dataclasses.replace(outcomes[i], result=small)
    assert judge(plan, outcomes)["word"] != "INVALID"
    outcomes[of_bn[1]] = dataclasses.replace(outcomes[of_bn[1]], result=RESULT)
    assert "differ in their data set (train_sha256)" in judge(plan, outcomes)["sentence"]


def test_test_sets_of_different_sizes_are_invalid():
    plan = with_data(plan_of(seeds=3), FACTS)
    scores = {"fc": [np.ones(30)] * 3, "bn_fc": [np.ones(30), np.ones(29), np.ones(30)]}
    verdict = judge(plan, outcomes_of(plan, scores))
    assert verdict["word"] == "INVALID"


def test_amendments_are_listed():
    plan = dataclasses.replace(with_data(plan_of(), FACTS), amendments=("delta was changed",))
    outcomes = outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.95] * 4})
    assert judge(plan, outcomes)["exploratory"] == ["delta was changed"]


def test_every_interval_of_a_family_has_its_share_of_alpha():
    plan = with_data(plan_of("placement", seeds=5, delta=1e-3), FACTS)
    shape = np.array([-1, -0.5, 0, 0.5, 1]) * 0.004
    p_alone = 0.03  # of each comparison: enough alone, too little of four
    mean = stats.t.isf(p_alone / 2, 4) * shape.std(ddof=1) / np.sqrt(5)
    scores = {cell.name: (0.9 + shape + mean).tolist() for cell in plan.cells}
    scores["fc"] = [0.9] * 5
    verdict = judge(plan, outcomes_of(plan, scores))
    assert verdict["word"] == "UNDECIDED" and len(verdict["comparisons"]) == 4
    for row in verdict["comparisons"]:
        assert row["level"] == pytest.approx(1 - 0.05 / 4)
        expected = stats.ttest_1samp(row["differences"], 0).confidence_interval(1 - 0.05 / 4)
        assert row["interval"] == pytest.approx(list(expected), rel=1e-9)
    needed = seeds_to_decide(mean, shape.std(ddof=1), 1e-3, 0.05 / 4)
    assert verdict["next"] == {"kind": "seeds", "seeds": needed} and needed > 5
    alone = with_data(plan_of(seeds=5, delta=1e-3), FACTS)
    assert judge(alone, outcomes_of(alone, scores))["word"] == "HELPS"


def test_a_study_has_the_word_that_its_comparisons_share():
    plan = with_data(plan_of("placement", seeds=5, delta=1e-3), FACTS)
    scores = {cell.name: [0.9, 0.91, 0.89, 0.9, 0.92] for cell in plan.cells}
    scores["fc"] = [0.9] * 5
    scores["bn_fc"] = [0.95, 0.951, 0.952, 0.953, 0.954]
    verdict = judge(plan, outcomes_of(plan, scores))
    assert verdict["word"] == "MIXED"
    assert (
        "4 heads against fc. Test accuracy: 1 HELPS (bn_fc +5.20), 3 UNDECIDED (bn_gap_fc, fc_bn, fc_out_bn)."
        in verdict["sentence"]
    )
    verdict = judge(plan, outcomes_of(plan, scores, {("fc_bn", 0): "missing"}))
    assert verdict["word"] == "INVALID" and verdict["comparisons"][1]["word"] == "HELPS"


def test_a_comparison_without_a_number_is_still_one_of_the_family():
    plan = with_data(plan_of("placement", seeds=5), FACTS)
    rng = np.random.default_rng(3)
    scores = {cell.name: rng.normal(0.9, 0.01, 5).tolist() for cell in plan.cells}
    missing = outcomes_of(plan, scores, {("fc_bn", seed): "missing" for seed in range(5)})
    compared = judge(plan, missing)["comparisons"]
    lacking = compared.pop(2)
    assert lacking["interval"] is lacking["mean"] is lacking["level"] is None and lacking["n"] == 0
    assert {row["level"] for row in compared} == {1 - 0.05 / 4}


def test_secondary_outcomes_are_a_family_of_their_own():
    plan = with_data(plan_of("placement", seeds=(4, 6)), FACTS)
    rng = np.random.default_rng(0)
    tables = [{cell.name: rng.uniform(0.4, 0.6, (6, 20)) for cell in plan.cells} for _ in range(4)]
    names = ("dead_share", "silent_share", "nll")
    outcomes = outcomes_of(plan, tables[0], **dict(zip(names, tables[1:], strict=True)))
    rows = judge(plan, outcomes)["comparisons"]
    for row in rows:
        assert row["outcome"] == "accuracy" and row["level"] == pytest.approx(1 - 0.05 / (4 * 2))
        assert tuple(one["outcome"] for one in row["secondary"]) == names
        assert all(one["level"] == pytest.approx(1 - 0.05 / (4 * 3 * 2)) for one in row["secondary"])


def test_fewer_dead_units_and_a_smaller_loss_help():
    plan = with_data(plan_of(seeds=4), FACTS)
    jitter = np.array([0.0, 0.001, -0.001, 0.0005])
    tables = {
        "dead_share": {"fc": 0.09 + jitter, "bn_fc": np.zeros(4)},
        "silent_share": {"fc": 0.3 + jitter, "bn_fc": np.full(4, 0.31)},
        "nll": {"fc": 2.0 + jitter, "bn_fc": np.full(4, 1.95)},
    }
    (row,) = judge(plan, outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.9] * 4}, **tables))["comparisons"]
    words = {one["outcome"]: one["word"] for one in row["secondary"]}
    assert words == {
        "dead_share": "HELPS", "silent_share": "NO MATERIAL DIFFERENCE", "nll": "NO MATERIAL DIFFERENCE",
    }  # fmt: skip
    margins = {one["outcome"]: one["margin"] for one in row["secondary"]}
    # of the control's mean loss, a 20th
    assert margins == {"dead_share": 0.02, "silent_share": 0.02, "nll": pytest.approx(2.000125 / 20)}


def test_dead_units_of_other_layers_are_not_compared():
    plan = with_data(plan_of(seeds=4), FACTS)
    shares = {"fc": [0.1] * 4, "bn_fc": [0.0] * 4}
    outcomes = outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.95] * 4}, dead_share=shares, nll=shares)
    outcomes = [
        dataclasses.replace(one, layer="stage3_relu") if one.run.cell == "bn_fc" else one for one in outcomes
    ]
    (row,) = judge(plan, outcomes)["comparisons"]
    assert row["word"] == "HELPS" and [one["outcome"] for one in row["secondary"]] == ["nll"]


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


@pytest.mark.parametrize(("p_value", "word"), [(0.02, "NO MATERIAL DIFFERENCE"), (0.03, "UNDECIDED")])
def test_equivalence_is_claimed_by_the_interval_that_is_drawn(p_value, word):
    """Its one-sided tests have half of alpha each."""
    shape = np.array([-1, -0.5, 0, 0.5, 1]) * 0.004
    delta = stats.t.isf(p_value, 4) * shape.std(ddof=1) / np.sqrt(5)
    assert verdict_of(shape.tolist(), delta=float(delta))["word"] == word


LOOKED = [0.02, -0.02, 0.03]  # undecided


@pytest.mark.parametrize(
    ("differences", "number", "word"),
    [
        ([0.02, 0.021, 0.022, -0.5, 0.5], 1, "HELPS"),  # decided at the first look
        ([0.0, 0.0, 0.0, -0.5, 0.5], 1, "NO MATERIAL DIFFERENCE"),
        ([0.02, 0.021, 0.035, 0.021, 0.02], 2, "HELPS"),
        ([*LOOKED, 0.0, 0.0], 2, "UNDECIDED"),
    ],
)
def test_the_first_look_that_decides_is_the_verdict(differences, number, word):
    verdict = verdict_of(differences, seeds=(3, 5), alpha=0.02)
    (row,) = verdict["comparisons"]
    assert verdict["look"] == {"number": number, "seeds": (3, 5)[number - 1]}
    assert verdict["word"] == word and row["seeds"] == list(range((3, 5)[number - 1]))
    expected = stats.ttest_1samp(differences[: row["n"]], 0).confidence_interval(1 - 0.02 / 2)
    if differences[0]:  # else they have no spread
        assert row["interval"] == pytest.approx(list(expected), rel=1e-9)
    assert (verdict["next"] is None) == (word != "UNDECIDED")


def test_runs_of_later_looks_change_nothing():
    differences = [0.02, 0.021, 0.022, -0.5, 0.5]
    later = {(cell, seed) for cell in ("fc", "bn_fc") for seed in (3, 4)}
    expected = verdict_of(differences, dict.fromkeys(later, "missing"), seeds=(3, 5))
    assert expected["word"] == "HELPS" and expected["exclusions"] == []
    assert expected["flow"]["planned"] == 6 and expected["flow"]["missing"] == 0
    for statuses in ({}, dict.fromkeys(later, "diverged"), {("fc", 3): "failed"}):
        assert verdict_of(differences, statuses, seeds=(3, 5)) == expected


def test_undecided_is_followed_by_the_next_look_if_all_its_runs_exist():
    later = [(cell, seed) for cell in ("fc", "bn_fc") for seed in (3, 4)]
    for missing in (later, later[:1]):
        verdict = verdict_of([*LOOKED, 0.01, 0.01], dict.fromkeys(missing, "missing"), seeds=(3, 5))
        assert verdict["word"] == "UNDECIDED" and verdict["look"] == {"number": 1, "seeds": 3}
        assert verdict["next"] == {"kind": "look", "seeds": 5}
        assert verdict["flow"]["planned"] == (
            6 if missing == later else 10
        )  # begun, so that failures are seen
    verdict = verdict_of([*LOOKED, 0.01, 0.01], seeds=(3, 5))
    assert verdict["look"] == {"number": 2, "seeds": 5} and verdict["next"]["kind"] == "seeds"
    assert verdict_of([*LOOKED, 0.01, 0.01], {("fc", 1): "missing"}, seeds=(3, 5))["look"]["number"] == 1


def test_after_the_last_look_a_new_study_needs_as_many_seeds_as_would_decide():
    verdict = verdict_of([0.02, -0.02, 0.03, -0.01], alpha=0.04)
    (row,) = verdict["comparisons"]
    needed = seeds_to_decide(row["mean"], row["sd"], 0.01, 0.04)
    assert verdict["next"] == {"kind": "seeds", "seeds": needed} and needed > 4
    hopeless = verdict_of([0.3, -0.3, 0.31, -0.29], control=0.5, delta=0.001)
    assert hopeless["next"] == {"kind": "seeds", "seeds": None}


def test_a_study_may_have_another_primary_outcome(monkeypatch):
    study = Study("Does it remove dead units?", ("fc", "bn_fc"), primary="dead_share")
    monkeypatch.setitem(plan_of.__globals__["named_study"].__globals__["STUDIES"], "dead", study)
    plan = with_data(plan_of("dead", seeds=4, delta=0), FACTS)
    shares = {"fc": [0.1, 0.11, 0.12, 0.1], "bn_fc": [0.0] * 4}
    verdict = judge(plan, outcomes_of(plan, {"fc": [0.9] * 4, "bn_fc": [0.8] * 4}, dead_share=shares))
    (row,) = verdict["comparisons"]
    assert verdict["word"] == "HELPS" and row["outcome"] == "dead_share" and row["margin"] == 0.02
    assert [(one["outcome"], one["word"]) for one in row["secondary"]] == [("accuracy", "HURTS")]
    assert "dead units were 10.75 points lower" in verdict["sentence"]


def test_every_number_is_finite_or_null_and_keys_are_in_order():
    verdict = verdict_of([0.02, 0.03, 0.025, 0.02], {("fc", 0): "missing"})
    text = json.dumps(verdict, allow_nan=False)
    assert list(json.loads(text)) == [
        "format",
        "plan_sha256",
        "exploratory",
        "look",
        "word",
        "sentence",
        "next",
        "comparisons",
        "trends",
        "cells",
        "width_law",
        "flow",
        "exclusions",
    ]
    assert verdict["flow"]["missing"] == 1 and verdict["comparisons"][0]["n"] == 3


@pytest.mark.parametrize("name", ["bn_before_fc", "width"])
@pytest.mark.parametrize("status", ["finished", "diverged", "missing"])
def test_plan_and_verdict_have_the_shapes_that_readers_check(name, status):
    plan = with_data(plan_of(name, seeds=(3, 4)), FACTS)
    scores = {cell.name: [0.9, 0.8, 0.9, 0.7] for cell in plan.cells}
    statuses = {(cell.name, 1): status for cell in plan.cells}
    verdict = judge(plan, outcomes_of(plan, scores, statuses, dead_share=scores))
    for content, shape in ((verdict, schema.VERDICT), (to_json(plan), schema.PLAN)):
        schema.check_shape(json.loads(json.dumps(content)), shape)
    row = {**verdict["comparisons"][0], "interval": [0.1]}
    with pytest.raises(ValueError, match="interval must have 2 entries, got 1"):
        schema.check_shape({**verdict, "comparisons": [row]}, schema.VERDICT)
