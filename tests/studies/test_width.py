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


def law_of(laws, head, figure):
    return next(law for law in laws if (law["head"], law["figure"]) == (head, figure))


def planted(slopes):
    return lambda head, width, seed: 0.4 + slopes[head][seed] * (math.log2(width) - 8)


def test_planted_slopes_are_measured_with_an_interval_over_seeds():
    plan = with_data(plan_of("width", seeds=3), FACTS)
    slopes = {"fc": [0.02, 0.025, 0.036], "bn_fc": [0.0, 0.001, -0.001]}
    laws = width_law(plan, outcomes_of(plan, planted(slopes)))
    assert {(law["head"], law["figure"]) for law in laws} == {
        (head, figure) for head in slopes for figure in ("per_input", "dataset")
    }
    for head, values in slopes.items():
        law = law_of(laws, head, "per_input")
        assert law["slope"] == pytest.approx(np.mean(values)) and law["n"] == 3
        # two slopes and their difference are one family
        assert law["interval"] == pytest.approx(DescrStatsW(values).tconfint_mean(0.05 / 3))
        assert len(law["points"]) == 21 and law["points"][0]["fc_units"] == 32


def test_slopes_of_logits_need_five_dead_units_at_every_width():
    plan = with_data(plan_of("width", seeds=3), FACTS)

    def share(head, width, seed):
        return 1 / (1 + math.exp(2 - 0.2 * math.log2(width))) if head == "fc" else 4 / width

    laws = width_law(plan, outcomes_of(plan, share))
    assert law_of(laws, "fc", "per_input")["logit"]["slope"] == pytest.approx(0.2, abs=1e-5)
    assert law_of(laws, "bn_fc", "per_input")["logit"] is None
    assert law_of(laws, "fc", "dataset")["logit"] is None  # nothing is dead, and the slope in points is 0
    assert law_of(laws, "fc", "dataset")["slope"] == 0


def test_a_seed_without_all_widths_does_not_count():
    plan = with_data(plan_of("width", seeds=3), FACTS)
    outcomes = outcomes_of(plan, lambda head, width, seed: None if (width, seed) == (64, 1) else 0.3)
    outcomes[2] = dataclasses.replace(outcomes[2], status="diverged")  # fc at 32, seed 2
    laws = width_law(plan, outcomes)
    law = law_of(laws, "fc", "per_input")
    assert (law["n"], law["interval"], len(law["points"])) == (1, None, 19)
    assert law_of(laws, "bn_fc", "per_input")["n"] == 2


def test_only_where_the_width_varies():
    plan = with_data(plan_of(), FACTS)
    assert judge(plan, outcomes_of(plan, lambda *_: 0.3))["width_law"] == []
