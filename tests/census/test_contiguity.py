import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bnhead.census.contiguity import Runs, block_test, dead_runs
from bnhead.errors import UsageError

pytestmark = pytest.mark.quick


def mask(text):
    return np.array([c == "1" for c in text])


def runs_of(bits):
    return sum(1 for value, _ in itertools.groupby(bits) if value)


@pytest.mark.parametrize(
    ("text", "runs"), [("0", 0), ("1", 1), ("0110", 1), ("101", 2), ("11", 1), ("10011101", 3), ("0000", 0)]
)
def test_runs_of_dead_units(text, runs):
    assert dead_runs(mask(text)).runs == runs


@pytest.mark.parametrize(("units", "dead"), [(d, k) for d in range(1, 9) for k in range(d + 1)])
def test_small_layers_agree_with_all_arrangements(units, dead):
    every = [np.isin(range(units), positions) for positions in itertools.combinations(range(units), dead)]
    number = np.array([runs_of(arrangement) for arrangement in every])
    for arrangement, runs in zip(every, number, strict=True):
        result = dead_runs(arrangement)
        assert result.expected == pytest.approx(number.mean())
        assert result.p == pytest.approx(np.mean(number <= runs))
        assert result.mid_p == pytest.approx(np.mean(number < runs) + np.mean(number == runs) / 2)


def shuffled(units, dead, rng):
    out = np.zeros(units, bool)
    out[rng.choice(units, dead, replace=False)] = True
    return out


@pytest.mark.parametrize(("units", "dead"), [(512, 50), (2048, 1000), (256, 250)])
def test_large_layers_agree_with_simulation(units, dead):
    rng = np.random.default_rng(units)
    samples = np.array([dead_runs(shuffled(units, dead, rng)).runs for _ in range(4000)])
    assert dead_runs(shuffled(units, dead, rng)).expected == pytest.approx(
        samples.mean(), abs=4 * samples.std() / math.sqrt(len(samples))
    )
    for quantile in (0.05, 0.5, 0.9):
        runs = int(np.quantile(samples, quantile))
        assert np.mean(samples <= runs) == pytest.approx(
            Runs(dead, units, runs).p, abs=4 * math.sqrt(0.25 / len(samples))
        )


@pytest.mark.parametrize(("units", "dead"), [(12, 4), (64, 20), (256, 128)])
def test_p_values_are_uniform_for_exchangeable_units(units, dead):
    """The randomised p exactly so; p itself, of a discrete number, is never too small too often."""
    rng = np.random.default_rng(0)
    layers = [dead_runs(shuffled(units, dead, rng)) for _ in range(3000)]
    randomised = [runs.randomised_p(rng) for runs in layers]
    assert stats.kstest(randomised, "uniform").pvalue > 1e-3
    exact = np.array([runs.p for runs in layers])
    for alpha in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(exact <= alpha) <= alpha + 4 * math.sqrt(alpha / len(exact))
    assert np.mean([runs.mid_p for runs in layers]) == pytest.approx(
        0.5, abs=4 * 0.29 / math.sqrt(len(layers))
    )


def test_adjacent_dead_units_are_detected_and_scattered_ones_are_not():
    lump = mask("0" * 100 + "1" * 20 + "0" * 100)
    assert dead_runs(lump).p < 1e-15
    assert dead_runs(mask("10" * 50)).p == pytest.approx(1)
    assert dead_runs(lump).randomised_p(np.random.default_rng(0)) < 1e-15


def test_a_single_possible_arrangement_proves_nothing():
    for text in ("000", "111"):
        assert dead_runs(mask(text)).p == 1
        assert dead_runs(mask(text)).mid_p == 0.5
    draws = [dead_runs(mask("000")).randomised_p(np.random.default_rng(i)) for i in range(500)]
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("groups", [(3, 5), (2, 2, 4), (1, 7), (8,)])
def test_blocks_agree_with_all_arrangements(groups):
    units, edges = sum(groups), np.cumsum(groups)[:-1]
    for dead in range(1, units):
        every = [np.isin(range(units), positions) for positions in itertools.combinations(range(units), dead)]
        share = dead / units

        def statistic(arrangement, share=share):
            pairs = zip(np.split(arrangement, edges), groups, strict=True)
            return sum((part.sum() - n * share) ** 2 / (n * share * (1 - share)) for part, n in pairs)

        values = np.array([statistic(arrangement) for arrangement in every])
        for arrangement, value in list(zip(every, values, strict=True))[::5]:
            result = block_test(arrangement, groups)
            assert result.statistic == pytest.approx(value)
            assert result.p == pytest.approx(np.mean(values >= value - 1e-9))
            assert sum(result.dead) == dead and result.sizes == groups


def test_blocks_of_two_are_fishers_exact_test():
    dead = mask("1" * 9 + "0" * 11 + "1" * 2 + "0" * 18)
    table = [[9, 11], [2, 18]]
    assert block_test(dead, (20, 20)).p == pytest.approx(stats.fisher_exact(table)[1])


def test_many_blocks_by_drawing_agree_with_the_exact_value(monkeypatch):
    rng = np.random.default_rng(0)
    for _ in range(5):
        dead = shuffled(30, 9, rng)
        exact = block_test(dead, (10, 12, 8)).p
        monkeypatch.setattr("bnhead.census.contiguity.TABLES", 0)
        assert block_test(dead, (10, 12, 8)).p == pytest.approx(exact, abs=0.015)
        monkeypatch.undo()


@pytest.mark.slow
def test_drawn_p_values_of_blocks_are_uniform():
    rng = np.random.default_rng(1)
    p_values = [block_test(shuffled(320, 100, rng), (64,) * 5, seed=i).p for i in range(300)]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_blocks_see_a_group_that_died():
    assert block_test(mask("0" * 64 + "1" * 60 + "0" * 4), (64, 64)).p < 1e-20
    assert block_test(mask("0000"), (2, 2)).p == 1


@pytest.mark.parametrize("groups", [(), (3,), (4, 0), (2, 3), (-1, 5)])
def test_groups_that_do_not_add_up(groups):
    with pytest.raises(UsageError, match="groups must be sizes that add up to 4 units"):
        block_test(mask("0101"), groups)


def test_arrays_that_are_not_masks():
    with pytest.raises(UsageError, match=r"dead must be a mask of shape \(units,\), got float64"):
        dead_runs(np.zeros(3))
    with pytest.raises(UsageError, match=r"of shape \(2, 2\)"):
        dead_runs(np.zeros((2, 2), bool))
