import dataclasses
import math

import numpy as np
import pytest
from statsmodels.stats.weightstats import DescrStatsW

from bnhead.studies import wording
from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import make, with_data
from bnhead.studies.study import Study
from bnhead.studies.verdict import judge
from bnhead.studies.width import trends, width_law
from bnhead.training.config import TrainConfig
from tests.studies.fake import ENVIRONMENT, FACTS, plan_of

pytestmark = pytest.mark.quick

WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)
SLOPES = {"fc": [0.2, 0.25, 0.36], "bn_fc": [0.0, 0.01, -0.01]}
LEVEL = 0.05 / 3  # of each interval: two heads and their difference


def outcomes_of(plan, share, dataset=lambda head, width, seed: 0.0):
    """Outcomes with the shares `share(head, width, seed)` per input, and `dataset(...)` on the data set."""
    made = []
    for run in plan.runs:
        cell = plan.cell(run.cell)
        at = (cell.head, cell.settings.get("fc_units", 256), run.seed)
        result = {
            "dead/head_fc/per_input": share(*at),
            "dead/head_fc/dataset": dataset(*at),
            "dead/head_fc/inputs": 10**6,
            "data": {key: FACTS[key] for key in ("name", "train", "test")},
        }
        values = {"accuracy": np.array([0.9])}
        if result["dead/head_fc/dataset"] is not None:
            values["dead_share"] = np.array([result["dead/head_fc/dataset"]])
        parts = {"result": result, "environment": ENVIRONMENT}
        made.append(Outcome(run, "finished", 0.9, values, "head_fc", **parts))
    return made


def planted(head, width, seed):
    """A share whose logit has the slope `SLOPES[head][seed]`."""
    return 1 / (1 + math.exp(1 - SLOPES[head][seed] * math.log2(width)))


def slopes_of(share, head, seeds=3, transform=lambda value: value):
    """The slope of each seed by NumPy."""
    return np.array(
        [
            np.polyfit(np.log2(WIDTHS), [transform(share(head, width, seed)) for width in WIDTHS], 1)[0]
            for seed in range(seeds)
        ]
    )


def test_planted_slopes_come_back_with_an_interval_over_seeds():
    plan = with_data(plan_of("width", seeds=3), FACTS)
    laws = width_law(plan, outcomes_of(plan, planted))
    heads_and_figures = {(head, figure) for head in SLOPES for figure in ("per_input", "dataset")}
    assert {(law["head"], law["figure"]) for law in laws} == heads_and_figures and len(laws) == 4
    for law in (law for law in laws if law["figure"] == "per_input"):
        own = slopes_of(planted, law["head"])
        assert law["slope"] == pytest.approx(own.mean(), rel=1e-9, abs=1e-12) and law["n"] == 3
        assert law["interval"] == pytest.approx(DescrStatsW(own).tconfint_mean(LEVEL), rel=1e-9)
        own = np.array(SLOPES[law["head"]])
        assert law["logit"]["slope"] == pytest.approx(own.mean(), abs=1e-5)
        assert law["logit"]["interval"] == pytest.approx(DescrStatsW(own).tconfint_mean(LEVEL), abs=1e-4)
        assert len(law["points"]) == 21
        assert law["points"][0] == {"fc_units": 32, "seed": 0, "share": planted(law["head"], 32, 0)}


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_where_every_unit_is_alike_the_slope_is_0(end):
    plan = with_data(plan_of("width", seeds=3), FACTS)
    for law in width_law(plan, outcomes_of(plan, lambda *_: end, lambda *_: end)):
        assert law["slope"] == 0 and law["interval"] == [0, 0] and law["n"] == 3
        assert (law["logit"] is None) == (end == 0)


def test_a_slope_of_logits_needs_five_dead_units_at_every_width():
    plan = with_data(plan_of("width", seeds=3), FACTS)
    for units, has_logit in ((5, True), (4, False)):
        laws = width_law(plan, outcomes_of(plan, lambda *_: 0.5, lambda head, width, seed: units / 32))  # noqa: B023
        assert {law["figure"]: law["logit"] is not None for law in laws} == {
            "per_input": True,
            "dataset": has_logit,
        }


def test_a_seed_without_all_widths_does_not_count():
    plan = with_data(plan_of("width", seeds=3), FACTS)
    outcomes = outcomes_of(plan, lambda head, width, seed: None if (width, seed) == (64, 1) else 0.3)
    outcomes[2] = dataclasses.replace(outcomes[2], status="diverged")  # fc at 32, seed 2
    laws = [law for law in width_law(plan, outcomes) if law["figure"] == "per_input"]
    assert [law["n"] for law in laws] == [1, 2]
    assert laws[0]["interval"] is None and len(laws[0]["points"]) == 19


def test_only_where_the_width_varies():
    plan = with_data(plan_of(), FACTS)
    verdict = judge(plan, outcomes_of(plan, lambda *_: 0.3))
    assert verdict["width_law"] == [] and verdict["trends"] == []


def dead(head, width, seed):
    """A dead share that is no straight line, and differs from seed to seed."""
    rng = np.random.default_rng([seed, width, len(head)])
    return (0.02 * math.log2(width / 16) if head == "fc" else 0.0) + 0.01 * rng.random()


def test_a_trend_is_the_slope_per_doubling_of_each_head_and_their_difference():
    plan = with_data(plan_of("width", seeds=4, delta=0.03), FACTS)
    rows = trends(plan, outcomes_of(plan, lambda *_: 0.3, dead))
    own = {head: slopes_of(dead, head, seeds=4) for head in ("fc", "bn_fc")}
    expected = [own["fc"], own["bn_fc"], own["bn_fc"] - own["fc"]]
    assert [(row["control"], row["treatment"]) for row in rows] == [
        ("", "fc"),
        ("", "bn_fc"),
        ("fc", "bn_fc"),
    ]
    for row, slopes in zip(rows, expected, strict=True):
        assert row["differences"] == pytest.approx(slopes, rel=1e-9)
        assert row["mean"] == pytest.approx(slopes.mean()) and row["sd"] == pytest.approx(slopes.std(ddof=1))
        assert row["interval"] == pytest.approx(DescrStatsW(slopes).tconfint_mean(LEVEL), rel=1e-9)
        assert row["level"] == pytest.approx(1 - LEVEL) and row["seeds"] == [0, 1, 2, 3]
        # six doublings from 32 to 2048
        assert row["margin"] == pytest.approx(0.03 / 6)
        assert (row["outcome"], row["per"]) == ("dead_share", "fc_units")


@pytest.mark.parametrize(
    ("slope", "word"), [(0.02, "HELPS"), (-0.02, "HURTS"), (0.0001, "NO MATERIAL DIFFERENCE")]
)
def test_the_verdict_of_a_trend_is_about_the_difference_of_slopes(slope, word):
    """The control's share grows by `slope` per doubling, the treatment's does not."""

    def share(head, width, seed):
        return 0.2 + 1e-5 * seed * math.log2(width) + (slope * math.log2(width / 32) if head == "fc" else 0)

    plan = with_data(plan_of("width", seeds=4), FACTS)
    verdict = judge(plan, outcomes_of(plan, lambda *_: 0.3, share))
    assert verdict["word"] == word and verdict["next"] is None
    assert [row["word"] for row in verdict["trends"]] == ["", "", word]
    assert f": {word} after 4 seeds. Per doubling of fc_units, dead units change by " in verdict["sentence"]
    assert " with bn_fc and by " in verdict["sentence"] and ": the difference is " in verdict["sentence"]


FALLING = dict(zip(WIDTHS, np.linspace(0.2, 0.05, 7), strict=True))
NONE_DEAD = dict.fromkeys(WIDTHS, 0.0)
GROWING = dict(zip(WIDTHS, np.linspace(0.0, 0.5, 7), strict=True))


@pytest.mark.parametrize(
    ("control", "treatment", "trend", "word"),
    [
        (FALLING, NONE_DEAD, "NOT JUDGED", "HELPS"),  # a batch norm has no dead unit to lose
        (NONE_DEAD, FALLING, "NOT JUDGED", "HURTS"),
        (GROWING, NONE_DEAD, "HELPS", "HELPS"),  # its share does not grow: a finding
        (NONE_DEAD, GROWING, "HURTS", "HURTS"),
        (NONE_DEAD, NONE_DEAD, "NO MATERIAL DIFFERENCE", "NO MATERIAL DIFFERENCE"),
    ],
)
def test_a_head_without_room_to_improve_is_not_called_worse_for_its_slope(control, treatment, trend, word):
    plan = with_data(plan_of("width", seeds=4), FACTS)
    shares = {"fc": control, "bn_fc": treatment}
    verdict = judge(plan, outcomes_of(plan, lambda *_: 0.3, lambda head, width, seed: shares[head][width]))
    assert verdict["trends"][-1]["word"] == trend and verdict["word"] == word
    assert {row["word"] for row in verdict["comparisons"]} <= {word, "NO MATERIAL DIFFERENCE"}
    if trend == "NOT JUDGED":
        first, second = wording.headline_lines(plan, verdict)
        assert f"Dead units by fc_units: 7 {word} (32 " in first
        assert second.endswith("there is no room to improve, so these slopes are not judged.")
        assert f"with {'fc' if control is NONE_DEAD else 'bn_fc'} there is no room" in second


def test_the_margin_of_a_relative_outcome_is_a_share_of_the_controls_mean():
    strata = ({"fc_units": 32}, {"fc_units": 256})
    study = Study("?", ("fc", "bn_fc"), lambda base: strata, ("fc_units",), "nll", trend=True)
    plan = with_data(make("t", study, TrainConfig(epochs=2), looks=(3,)), FACTS)
    values = {("fc", 32): 0.5, ("fc", 256): 0.3, ("bn_fc", 32): 9.0, ("bn_fc", 256): 9.0}
    outcomes = [
        Outcome(run, "finished", 0.9, {"nll": np.full(5, values[cell.head, cell.stratum["fc_units"]])})
        for run in plan.runs
        if (cell := plan.cell(run.cell))
    ]
    rows = trends(plan, outcomes)
    assert [row["margin"] for row in rows] == pytest.approx([0.05 * 0.4 / 3] * 3)
    assert rows[0]["mean"] == pytest.approx((0.3 - 0.5) / 3)


def test_an_undecided_trend_asks_for_seeds_by_its_slopes():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, (2, len(WIDTHS), 4))

    def share(head, width, seed):
        return 0.5 + noise[int(head == "fc"), WIDTHS.index(width), seed]

    plan = with_data(plan_of("width", seeds=4, delta=0.01), FACTS)
    verdict = judge(plan, outcomes_of(plan, lambda *_: 0.3, share))
    assert verdict["word"] == "UNDECIDED" and verdict["next"]["kind"] == "seeds"
    # at 4 seeds all comparisons in each stratum are beside the question, and judged in one family
    levels = {row["level"] for one in verdict["comparisons"] for row in (one, *one["secondary"])}
    assert levels == {1 - 0.05 / (7 * 4)}


def test_two_looks_halve_the_level_of_a_trend():
    plan = with_data(plan_of("width", seeds=(3, 4)), FACTS)
    rows = trends(plan, [one for one in outcomes_of(plan, lambda *_: 0.3, dead) if one.run.seed < 3])
    slopes = slopes_of(dead, "fc")
    assert rows[0]["interval"] == pytest.approx(DescrStatsW(slopes).tconfint_mean(LEVEL / 2), rel=1e-9)


def test_a_seed_without_the_outcome_at_every_width_has_no_slope():
    plan = with_data(plan_of("width", seeds=4), FACTS)
    outcomes = outcomes_of(
        plan, lambda *_: 0.3, lambda head, width, seed: None if (head, width, seed) == ("fc", 64, 1) else 0.1
    )
    assert [row["seeds"] for row in trends(plan, outcomes)] == [[0, 2, 3], [0, 1, 2, 3], [0, 2, 3]]
