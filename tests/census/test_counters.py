import numpy as np
import pytest

from bnhead.census.counters import FIGURES, Census, Counts


def added(activations, finite=None, sizes=None):
    """Counts of `(inputs, positions, units)` activations, added in batches of the given sizes."""
    counts = Counts.empty(activations.shape[-1])
    finite = np.ones(len(activations), bool) if finite is None else finite
    start = 0
    for size in sizes or [len(activations)]:
        active = activations[start : start + size] != 0
        somewhere, everywhere = active.any(1), active.all(1)
        counts.add((~somewhere).sum(1), somewhere.sum(0), everywhere.sum(0), finite[start : start + size])
        start += size
    return counts


def random_activations(seed, inputs=40, positions=3, units=7):
    rng = np.random.default_rng(seed)
    activations = rng.normal(size=(inputs, positions, units)) * (rng.random((inputs, positions, units)) < 0.4)
    activations[..., 0] = 0  # dead
    activations[..., 1] = 1  # always on
    return activations


def test_figures_by_hand():
    # four inputs, four units: unit 0 dead, unit 1 always on, unit 2 on inputs 0 and 1, unit 3 on input 0
    activations = np.array([[0, 5, 1, 2], [0, 5, 1, 0], [0, 5, 0, 0], [0, 5, 0, 0]], float)[:, None, :]
    counts = added(activations)
    assert counts.inputs == 4 and counts.units == 4
    assert counts.figures() == {
        "per_input": (1 + 2 + 3 + 3) / 16,
        "per_input_p05": pytest.approx(np.percentile([1, 2, 3, 3], 5) / 4),
        "per_input_p50": 2.5 / 4,
        "per_input_p95": 3 / 4,
        "dataset": 1 / 4,
        "rarely_active": 1 / 4,
        "always_on": 1 / 4,
    }
    assert counts.dead.tolist() == [True, False, False, False]
    assert counts.always_on.tolist() == [False, True, False, False]


def test_always_on_needs_every_position_and_silent_needs_all_silent():
    activations = np.array([[[1, 0], [0, 0]], [[1, 1], [1, 0]]], float)  # (2 inputs, 2 positions, 2 units)
    counts = added(activations)
    assert counts.always_on.tolist() == [False, False]
    assert counts.active.tolist() == [2, 1]
    assert counts.figures()["per_input"] == 0.25


@pytest.mark.parametrize("active_on", [0, 1, 9, 10, 11])
def test_rarely_active_is_less_than_one_percent(active_on):
    activations = np.zeros((1000, 1, 1))
    activations[:active_on] = 1
    assert added(activations).rarely_active.tolist() == [active_on < 10]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("percent", [0, 5, 33.3, 50, 95, 100])
def test_percentiles_are_numpys(seed, percent):
    activations = random_activations(seed, inputs=11 + seed)
    shares = (~(activations != 0).any(1)).mean(1)
    assert added(activations).silent_share(percent) == pytest.approx(
        np.percentile(shares, percent), abs=1e-12
    )


@pytest.mark.parametrize("sizes", [[40], [16, 16, 8], [1] * 40, [39, 1]])
def test_batches_do_not_matter(sizes):
    activations = random_activations(0)
    assert added(activations, sizes=sizes).figures() == added(activations).figures()


def test_merged_counts_are_those_of_one_go():
    activations = random_activations(1)
    finite = np.ones(40, bool)
    finite[[25, 30]] = False
    one = added(activations, finite)
    merged = added(activations[:20], finite[:20]).merge(added(activations[20:], finite[20:]))
    np.testing.assert_array_equal(merged.inputs_by_silent, one.inputs_by_silent)
    np.testing.assert_array_equal(merged.active, one.active)
    np.testing.assert_array_equal(merged.saturated, one.saturated)
    assert (merged.nonfinite, merged.first_nonfinite) == (one.nonfinite, one.first_nonfinite) == (2, 25)
    both = merged.merge(merged)
    assert (both.first_nonfinite, both.inputs, both.nonfinite) == (25, 80, 4)


def test_rule_of_three():
    assert added(random_activations(0, inputs=300)).bound == 0.01
    assert added(random_activations(0, inputs=2)).bound == 1.0
    # the rule approximates the exact bound 1 - 0.05 ** (1 / N)
    assert added(random_activations(0, inputs=1000)).bound == pytest.approx(1 - 0.05 ** (1 / 1000), rel=5e-3)


def test_nan_is_never_dead():
    finite = np.ones(40, bool)
    finite[[7, 9]] = False
    counts = added(np.zeros((40, 1, 5)), finite, sizes=[5, 35])
    assert counts.unknown == "values are not finite on 2 inputs, first on input 7"
    assert set(counts.figures()) == set(FIGURES) and all(np.isnan(list(counts.figures().values())))
    counts = added(np.zeros((40, 1, 5)))
    counts.finite_weights = False
    assert counts.unknown == "the model's weights are not finite"
    assert "weights" in Counts.empty(5).merge(counts).unknown


def test_nothing_counted_is_unknown():
    assert Counts.empty(3).unknown == "no inputs were counted"
    assert np.isnan(Counts.empty(3).figures()["dataset"])


def test_census_names_and_prints():
    census = Census({"head_fc": added(random_activations(0, inputs=300)), "other": Counts.empty(2)})
    assert list(census.figures())[:2] == ["dead/head_fc/per_input", "dead/head_fc/per_input_p05"]
    assert census.figures()["dead/head_fc/dataset"] == pytest.approx(1 / 7)
    text = str(census)
    assert "head_fc: 7 units, 300 inputs" in text
    assert "dead on all inputs  1 units, 14.3% (such a unit fires on less than 1.00% of inputs" in text
    assert "other: unknown, no inputs were counted" in text
