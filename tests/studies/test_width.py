import dataclasses
import math

import numpy as np
import pytest
from statsmodels.stats.weightstats import DescrStatsW

from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import with_data
from bnhead.studies.verdict import judge
from bnhead.studies.width import width_law
from tests.studies.fake import FACTS, plan_of

pytestmark = pytest.mark.quick


def outcomes_of(plan, share):
    """Outcomes with the shares that `share(head, width, seed)` gives."""
    made = []
    for run in plan.runs:
        cell = plan.cell(run.cell)
        value = share(cell.head, cell.settings.get("fc_units", 256), run.seed)
        result = {"dead/head_fc/per_input": value, "dead/head_fc/dataset": 0.0, "dead/head_fc/inputs": 10**6}
        made.append(Outcome(run, "finished", 0.9, result=result))
    return made


def planted(slopes):
    def share(head, width, seed):
        return 1 / (1 + math.exp(2 - slopes[head][seed] * math.log2(width)))

    return share


def test_planted_slopes_are_found_with_an_interval_over_seeds():
    plan = with_data(plan_of("width", seeds=3), FACTS)
    slopes = {"fc": [0.2, 0.25, 0.36], "bn_fc": [0.0, 0.01, -0.01]}
    laws = width_law(plan, outcomes_of(plan, planted(slopes)))
    assert [(law["head"], law["figure"]) for law in laws] == [
        ("fc", "dataset"),
        ("fc", "per_input"),
        ("bn_fc", "dataset"),
        ("bn_fc", "per_input"),
    ]
    for law in (laws[1], laws[3]):
        own = np.array(slopes[law["head"]])
        assert law["slope"] == pytest.approx(own.mean(), abs=1e-5) and law["n"] == 3
        assert law["interval"] == pytest.approx(DescrStatsW(own).tconfint_mean(), abs=1e-5)
        assert len(law["points"]) == 21
        assert law["points"][0] == {
            "fc_units": 32,
            "seed": 0,
            "share": planted(slopes)(law["head"], 32, 0),
        }


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_no_dead_unit_at_any_width_or_only_dead_ones_have_no_slope(end):
    plan = with_data(plan_of("width", seeds=3), FACTS)
    laws = width_law(plan, outcomes_of(plan, lambda head, width, seed: 0.3 if seed else end))
    for law in (
        law for law in laws if law["figure"] == "per_input"
    ):  # the half trials alone would give the same slope for each seed: an interval of no width
        assert law["slope"] is None and law["interval"] is None and law["n"] == 0
        assert len(law["points"]) == 21
    some = width_law(plan, outcomes_of(plan, lambda head, width, seed: end if width < 64 else 0.3))[1]
    assert math.isfinite(some["slope"]) and some["n"] == 3


def test_a_seed_without_all_widths_does_not_count():
    plan = with_data(plan_of("width", seeds=3), FACTS)
    outcomes = outcomes_of(plan, lambda head, width, seed: None if (width, seed) == (64, 1) else 0.3)
    outcomes[2] = dataclasses.replace(outcomes[2], status="diverged")  # fc at 32, seed 2
    laws = width_law(plan, outcomes)
    assert [law["n"] for law in laws if law["figure"] == "per_input"] == [1, 2]
    assert laws[1]["interval"] is None and len(laws[1]["points"]) == 19


def test_only_where_the_width_varies():
    plan = with_data(plan_of(), FACTS)
    assert judge(plan, outcomes_of(plan, lambda *_: 0.3))["width_law"] == []
