"""How often simulated studies, and one that is really run, are wrong. docs/studies.md has the rates."""

import importlib.util
import pathlib

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

PATH = pathlib.Path(__file__).resolve().parents[2] / "docs" / "generate_power.py"
_spec = importlib.util.spec_from_file_location("generate_power", PATH)
generator = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generator)


def simulated(studies, effect, seeds=10, name="bn_before_fc", delta=1e-4):
    """The verdicts of simulated studies whose differences have the standard deviation 1 / 100."""
    plan = with_data(plan_of(name, seeds=seeds, delta=delta), FACTS)
    rng = np.random.default_rng(0)
    for _ in range(studies):
        noise = {cell.name: rng.normal(0.5, 0.01 / np.sqrt(2), len(plan.seeds)) for cell in plan.cells}
        scores = {n: (x + effect / 100 * (n != "fc")).tolist() for n, x in noise.items()}
        yield judge(plan, outcomes_of(plan, scores))


@pytest.fixture
def no_estimates(monkeypatch):
    """The number of seeds that would decide takes no part in the word, and takes long."""
    monkeypatch.setattr("bnhead.studies.statistics.seeds_to_decide", lambda *_: None)


@pytest.mark.parametrize(
    ("name", "studies", "looks"),
    [
        ("bn_before_fc", 2000, 10),
        ("placement", 300, 10),
        pytest.param("bn_before_fc", 1000, (4, 8, 16), marks=pytest.mark.slow),
    ],
)
def test_of_a_a_studies_at_most_5_percent_find_a_difference(name, studies, looks, no_estimates):
    found = sum(
        any(row["word"] in ("HELPS", "HURTS") for row in verdict["comparisons"])
        for verdict in simulated(studies, 0.0, name=name, seeds=looks)
    )
    # at a rate of exactly 5 %, the number of findings is at most this in 999 of 1,000 repetitions
    assert found <= stats.binom.ppf(0.999, studies, 0.05)
    if (name, looks) == ("bn_before_fc", 10):  # one interval of level alpha, no equivalence at this margin
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


@pytest.mark.parametrize(
    ("effect", "tabulated"),
    [
        (1.0, 0.8031),
        pytest.param(0.5, 0.2932, marks=pytest.mark.slow),
        pytest.param(1.5, 0.9873, marks=pytest.mark.slow),
    ],
)
def test_planted_effects_are_found_at_the_tabulated_power(effect, tabulated, no_estimates):
    # tabulated: Cohen's d of a paired t test, n = 10, alpha = 0.05 two-sided (statsmodels' TTestPower)
    assert power(10, effect, 0.05) == pytest.approx(tabulated, abs=1e-4)
    words = [verdict["word"] for verdict in simulated(1000, effect)]
    low, high = stats.binom.ppf([0.0005, 0.9995], 1000, tabulated)
    assert low <= words.count("HELPS") <= high and words.count("HURTS") <= 2


def test_the_simulation_judges_as_verdicts_do(no_estimates):
    """Ten studies of the simulation, given to `judge` as outcomes."""
    looks, images, variances = (3, 5), 8, (1e-4, 1e-4, 1e-3)
    plan = with_data(plan_of(seeds=looks), FACTS)
    for study in range(10):
        d = generator.differences(np.random.default_rng(study), 1, 5, images, variances)[0] + 0.01
        scores = {"fc": np.full((5, images), 0.5), "bn_fc": 0.5 + d}
        results = [generator.crossed(d[None, :n]) for n in looks]
        assert judge(plan, outcomes_of(plan, scores))["word"] == generator.words(results, 0.0, 0.01)[0]


@pytest.mark.parametrize("looks", [(3,), (4, 8)])
def test_few_simulated_studies_keep_the_bounds(looks):
    studies = 1000
    results = generator.simulated(looks, (1e-4, 1e-3, 1e-3), studies, images=40)
    rates = generator.rates(results)
    assert rates["found"] * studies <= stats.binom.ppf(0.999, studies, 0.05)
    assert rates["missed"] * studies <= stats.binom.ppf(0.999, studies, 0.025)
    assert rates["coverage"] * studies >= stats.binom.ppf(0.001, studies, 0.95)
    assert rates["seeds_only"] < rates["coverage"]


def test_where_images_vary_most_the_interval_over_seeds_alone_covers_about_half():
    results = generator.simulated((20,), (0.0, 0.35, 1.0), 1000, images=40)
    assert generator.coverage(results, seeds_only=True) == pytest.approx(0.54, abs=0.05)
    assert generator.coverage(results) >= 0.94


@pytest.mark.slow
def test_error_rates_and_power_are_those_of_the_page():
    """10,000 studies for each design and each variance; minutes."""
    simulations = generator.simulations()
    assert len(simulations) == 5 * 6
    for case, results in simulations.items():
        rates = generator.rates(results)
        assert len(results[0].mean) == 10_000
        assert rates["found"] <= 0.057 and rates["missed"] <= 0.030 and rates["coverage"] >= 0.943, case
    text = generator.PAGE.read_text()
    assert generator.with_tables(text, simulations) == text, "run python docs/generate_power.py"
