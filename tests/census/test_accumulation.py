import json
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from bnhead.census.accumulation import Accumulation, chao2
from bnhead.census.counts import Counts
from bnhead.errors import UsageError
from tests.census.batches import counts_of_batch

pytestmark = pytest.mark.quick


def part(active, start=0, stop=None):
    """Counts of the inputs `start` to `stop` of `(inputs, units)` bool, by loops over units and inputs."""
    rows = active[start:stop]
    first = [next((start + n for n, row in enumerate(rows) if row[u]), -1) for u in range(active.shape[1])]
    counts = counts_of_batch((~rows).sum(1), rows.sum(0), rows.sum(0))
    counts.accumulation = Accumulation(np.array(first), ((start, start + len(rows)),))
    return counts


@st.composite
def nets(draw):
    """Which of a net's units are active on each of some inputs, and the sizes of batches."""
    seed, units = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 9))
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    rng = np.random.default_rng(seed)
    rates = rng.choice([0, 0.01, 0.03, 0.3, 1], units)
    return rng.random((sum(sizes), units)) < rates, sizes, seed


@settings(max_examples=150, deadline=None)
@given(nets())
def test_dead_units_and_chao2_are_the_same_for_every_split_and_order_of_merging(net):
    active, sizes, seed = net
    stops = np.cumsum(sizes).tolist()
    parts = [part(active, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
    rng = np.random.default_rng(seed)
    while len(parts) > 1:
        i, j = rng.choice(len(parts), 2, replace=False)
        merged = parts[i].merge(parts[j])
        parts = [counts for k, counts in enumerate(parts) if k not in (i, j)] + [merged]
    counts, whole = parts[0], part(active)
    assert counts.accumulation.spans == ((0, len(active)),)
    for inputs in range(len(active) + 1):
        expected = [not any(active[n, u] for n in range(inputs)) for u in range(active.shape[1])]
        assert counts.dead_after(inputs).tolist() == expected
    inputs, dead = counts.accumulation.curve
    expected = [n for n in range(1, len(active) + 1) if n & (n - 1) == 0 or n == len(active)]
    assert inputs.tolist() == expected
    assert dead.tolist() == [(active[:n].sum(0) == 0).sum() for n in expected]
    assert (counts.dead == counts.dead_after(len(active))).all()
    assert counts.unseen == whole.unseen


def test_parts_with_a_gap_keep_the_order_of_the_inputs_counted():
    active = np.zeros((10, 3), bool)
    active[8, 0] = active[2, 1] = True
    late, early = part(active, 7, 10), part(active, 0, 3)
    for counts in (late.merge(early), early.merge(late)):
        assert counts.accumulation.spans == ((0, 3), (7, 10))
        assert counts.accumulation.inputs_until_active.tolist() == [5, 3, 0]  # inputs 0, 1, 2, 7, 8
        assert [counts.dead_after(n).sum() for n in range(7)] == [3, 3, 3, 2, 2, 1, 1]


def test_counts_without_an_order_have_no_accumulation():
    active = np.eye(4, dtype=bool)
    twice = part(active).merge(part(active, 1, 3))
    assert twice.accumulation is None and twice.inputs == 6
    assert twice.merge(part(np.eye(9, 4, dtype=bool), 4, 9)).accumulation is None
    with pytest.raises(UsageError, match="dead_after needs the order of the inputs"):
        twice.dead_after(2)
    assert Counts.empty(4).merge(part(active)).accumulation is not None


@pytest.mark.parametrize("inputs", [-1, 5])
def test_more_inputs_than_counted_are_refused(inputs):
    with pytest.raises(UsageError, match=f"inputs must be 0 to 4, the number counted, got {inputs}"):
        part(np.eye(4, dtype=bool)).dead_after(inputs)


def test_json_and_back():
    counts = part(np.eye(5, 3, dtype=bool)[:, ::-1], 1, 4)
    again = Counts.from_dict(json.loads(json.dumps(counts.to_dict()))).accumulation
    assert again.first_active.tolist() == [2, 1, -1] and again.spans == ((1, 4),)


@pytest.mark.parametrize(
    ("active", "inputs", "bound"),
    [
        ([0] * 9 + [1] * 4 + [2], 10, 0.9 * 4 * 3 / 4),
        ([0] * 9 + [1] * 4, 10, 0.9 * 4 * 3 / 2),
        ([0] * 3 + [1] * 4, 10, 3),  # never more than the dead
        ([0] * 9 + [1] + [2] * 5, 10, 0),
        ([0] * 9 + [5] * 7, 10, 0),
        ([1] * 4, 10, 0),
        ([0] * 4, 1, 0),
    ],
)
def test_chao2_by_hand(active, inputs, bound):
    unseen = chao2(np.array(active), inputs)
    assert unseen.units == pytest.approx(bound, abs=1e-12)
    if bound:
        assert 0 < unseen.low <= unseen.units <= unseen.high <= active.count(0)
    else:
        assert unseen == (0, 0, 0)


def test_the_interval_by_hand():
    # N = 10, f1 = 4, f2 = 1: bound 2.7; derivatives 0.9 * 7 / 4 by f1, -0.9 * 12 / 8 by f2
    variance = 2.7 + (0.9 * 7 / 4) ** 2 * 4 + (0.9 * 12 / 8) ** 2 * 1
    factor = math.exp(1.96 * math.sqrt(math.log(1 + variance / 2.7**2)))
    assert chao2(np.array([0] * 99 + [1] * 4 + [2]), 10)[1:] == pytest.approx((2.7 / factor, 2.7 * factor))
    # f2 = 0, and 6 units seen: less the covariance
    variance = 5.4 + (0.9 * 7 / 2) ** 2 * 4 - (0.9 * 16 / 2) ** 2 / (6 + 5.4)
    factor = math.exp(1.96 * math.sqrt(math.log(1 + variance / 5.4**2)))
    assert chao2(np.array([0] * 99 + [1] * 4 + [9, 8]), 10)[1:] == pytest.approx((5.4 / factor, 5.4 * factor))


@pytest.mark.parametrize(("low", "high", "share"), [(1 / 80, 1 / 80, 0.9), (1e-3, 0.1, 0.4), (1e-4, 1, 0.2)])
def test_planted_rates_have_at_least_so_many_living_units_among_the_dead(low, high, share):
    """N = 128, 400 units with rates log-uniform from low to high, 100 that never fire."""
    rng = np.random.default_rng(7)
    bounds, alive = [], []
    for _ in range(200):
        rates = np.concatenate([np.exp(rng.uniform(math.log(low), math.log(high), 400)), np.zeros(100)])
        active = rng.binomial(128, rates)
        bounds.append(chao2(active, 128))
        alive.append(((active == 0) & (rates > 0)).sum())
        assert bounds[-1].units <= (active == 0).sum()
    units, lows, highs = np.array(bounds).T
    assert share * np.mean(alive) < units.mean() <= 1.02 * np.mean(alive)
    assert np.mean(lows <= alive) > 0.96
    if low == high:  # of equal rates it is no bound but the number, which the interval covers
        assert np.mean((lows <= alive) & (alive <= highs)) > 0.9
