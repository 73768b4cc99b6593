"""How often simulated studies, and one that is really run, claim a difference."""

import numpy as np
import pytest
from scipy import stats

from bnhead.studies import pool_local
from bnhead.studies.plan import with_data
from bnhead.studies.pool import Job
from bnhead.studies.statistics import power
from bnhead.studies.verdict import judge
from bnhead.studies.worker import train_one
from tests.studies.fake import FACTS, plan_of
from tests.studies.test_verdict import outcomes_of


def simulated(studies, effect, seeds=10, name="bn_before_fc", delta=1e-4):
    """The words of simulated studies whose differences have the standard deviation 1 / 100."""
    plan = with_data(plan_of(name, seeds=seeds, delta=delta), FACTS)
    rng = np.random.default_rng(0)
    for _ in range(studies):
        noise = {cell.name: rng.normal(0.5, 0.01 / np.sqrt(2), seeds) for cell in plan.cells}
        scores = {n: (x + effect / 100 * (n != "fc")).tolist() for n, x in noise.items()}
        yield judge(plan, outcomes_of(plan, scores))


@pytest.mark.parametrize(("name", "studies"), [("bn_before_fc", 2000), ("placement", 500)])
def test_of_a_a_studies_at_most_5_percent_find_a_difference(name, studies, monkeypatch):
    # the number of seeds that would decide takes no part in the word, and takes long
    monkeypatch.setattr("bnhead.studies.statistics.seeds_to_decide", lambda *_: None)
    found = sum(
        any(one["word"] in ("HELPS", "HURTS") for one in verdict["comparisons"])
        for verdict in simulated(studies, 0.0, name=name)
    )
    # at a rate of exactly 5 %, the number of findings is at most this in 999 of 1,000 repetitions
    assert found <= stats.binom.ppf(0.999, studies, 0.05)
    if name == "bn_before_fc":  # one test at alpha, hardly any equivalence at this margin: it is about 5 %
        assert found >= stats.binom.ppf(0.001, studies, 0.05)


@pytest.mark.slow
def test_an_a_a_study_that_is_really_run_finds_no_difference(short_config):
    """One head twice, with other seeds; alpha is small, so that no other processor finds one by chance."""
    configs = [short_config(head="fc", seed=seed) for seed in range(10)]
    with pool_local.Pool(2) as pool:
        events = list(pool.run([Job(str(c.seed), "", c, train_one) for c in configs]))
    scores = {e.job.config.seed: e.detail["test_accuracy"] for e in events if e.state == "done"}
    by_seed = [scores[seed] for seed in range(10)]
    plan = with_data(plan_of(seeds=5, alpha=0.001), FACTS)
    word = judge(plan, outcomes_of(plan, {"fc": by_seed[:5], "bn_fc": by_seed[5:]}))["word"]
    assert word in ("UNDECIDED", "NO MATERIAL DIFFERENCE")


@pytest.mark.parametrize(("effect", "tabulated"), [(0.5, 0.2932), (1.0, 0.8031), (1.5, 0.9873)])
def test_planted_effects_are_found_at_the_tabulated_power(effect, tabulated, monkeypatch):
    # tabulated: Cohen's d of a paired t test, n = 10, alpha = 0.05 two-sided (statsmodels' TTestPower)
    monkeypatch.setattr("bnhead.studies.statistics.seeds_to_decide", lambda *_: None)
    assert power(10, effect, 0.05) == pytest.approx(tabulated, abs=1e-4)
    words = [verdict["word"] for verdict in simulated(1000, effect)]
    low, high = stats.binom.ppf([0.0005, 0.9995], 1000, tabulated)
    assert low <= words.count("HELPS") <= high and words.count("HURTS") <= 2
