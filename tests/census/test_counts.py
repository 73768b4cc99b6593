import json

import numpy as np
import pytest

from bnhead.census.census import Census
from bnhead.census.counts import Counts, Moments
from bnhead.census.figures import OF_COUNTS
from bnhead.errors import UsageError
from tests.census.batches import added, counts_of_batch, parts, random_activations

pytestmark = pytest.mark.quick

NAMES = {row.name for row in OF_COUNTS if not row.name.startswith("ablated_")}  # that merge


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
    assert added(activations, sizes=sizes).figures() == pytest.approx(added(activations).figures(), abs=1e-12)


def equal(first, second):
    """Whether two counts are the same, floats to rounding."""
    assert first.figures() == pytest.approx(second.figures(), abs=1e-12, nan_ok=True)
    first, second = first.to_dict(), second.to_dict()
    for name in ("moments", "comoments"):
        moments = Moments.from_dict(first.pop(name)), Moments.from_dict(second.pop(name))
        for key in ("values", "mean", "squares"):
            a, b = (getattr(one, key) for one in moments)
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for key in ("magnitude", "gradient", "runs"):
        np.testing.assert_allclose(first.pop(key), second.pop(key), rtol=1e-12, atol=1e-12)
    assert first == second


@pytest.mark.parametrize("seed", range(4))
def test_merging_in_any_order_and_grouping_gives_the_counts_of_all_inputs(seed):
    activations = random_activations(1)
    finite = np.ones(40, bool)
    finite[[25, 30]] = False
    expected = added(activations, finite)
    assert (expected.nonfinite, expected.first_nonfinite, expected.nonfinite_at) == (2, 25, "layer25")
    rng = np.random.default_rng(seed)
    remaining = parts(activations, finite, [11, 9, 6, 10, 4])  # inputs 25 and 30 lie in different parts
    while len(remaining) > 1:
        i, j = rng.choice(len(remaining), 2, replace=False)
        merged = remaining[i].merge(remaining[j])
        remaining = [counts for k, counts in enumerate(remaining) if k not in (i, j)] + [merged]
    merged = remaining[0]
    # the first bad input keeps the layer that its own part recorded
    assert merged.nonfinite_at == "layer25"
    equal(merged, expected)


def test_counts_of_nothing_change_nothing():
    counts = added(random_activations(0))
    equal(counts.merge(Counts.empty(7)), counts)
    equal(Counts.empty(7).merge(counts), counts)


def test_counts_of_other_layers_do_not_merge():
    with pytest.raises(UsageError, match="counts of 7 and of 5 units do not merge"):
        added(random_activations(0)).merge(added(random_activations(0, units=5)))


def test_a_sum_that_one_part_lacks_is_missing_after_merging():
    full, bare = parts(random_activations(0), sizes=[20, 20])
    bare.magnitude = bare.moments = None
    merged = full.merge(bare)
    assert merged.magnitude is None and merged.moments is None and merged.gradient is not None
    assert NAMES - set(merged.figures()) == {"dormant_0", "dormant_0025", "dormant_01", "constant"}
    with pytest.raises(UsageError, match="dormant units need the magnitudes, which were not counted"):
        merged.dormant(0.1)


def test_plain_counts_have_no_optional_figures():
    counts = counts_of_batch(np.array([1, 0]), np.array([1, 2]), np.array([0, 2]))
    assert set(counts.figures()) == {row.name for row in OF_COUNTS if not row.needs}


def test_json_and_back():
    finite = np.ones(40, bool)
    finite[3] = False
    for counts in (added(random_activations(0), finite), Counts.empty(3)):
        again = Counts.from_dict(json.loads(json.dumps(counts.to_dict())))
        assert again.to_dict() == counts.to_dict()
        assert again.unknown == counts.unknown
    census = Census({"a": added(random_activations(0)), "b": Counts.empty(2)})
    again = Census.from_dict(json.loads(json.dumps(census.to_dict())))
    assert again.layers["a"].figures() == census.layers["a"].figures()
    assert again.layers["a"].active.dtype == np.int64 and again.layers["a"].magnitude.dtype == np.float64
    equal(
        again.layers["a"].merge(added(random_activations(2))),
        added(random_activations(0)).merge(added(random_activations(2))),
    )
    with pytest.raises(UsageError, match="counts have no 'activ'"):
        Counts.from_dict({"activ": [1]})


def test_moments_of_large_means_do_not_cancel():
    rng = np.random.default_rng(0)
    values = np.stack([np.full(1000, 1e8), 1e8 + rng.normal(size=1000), rng.normal(size=1000)], 1)
    moments = [Moments(len(v), v.mean(0), ((v - v.mean(0)) ** 2).sum(0)) for v in np.split(values, [3, 500])]
    merged = moments[2].merge(moments[0]).merge(moments[1])
    np.testing.assert_allclose(merged.variance, values.var(0), rtol=1e-7)
    assert merged.variance[0] == 0 and merged.values == 1000


def test_dormant_by_the_share_of_the_layers_mean():
    counts = counts_of_batch(np.array([0]), np.ones(4), np.ones(4), magnitude=np.array([0, 0.1, 1, 2.9]))
    assert counts.scores.tolist() == [0, 0.1, 1, 2.9]
    assert counts.dormant(0).tolist() == [True, False, False, False]
    assert counts.dormant(0.1).tolist() == [True, True, False, False]
    counts.magnitude = np.zeros(4)
    assert counts.dormant(0).all()


def test_a_class_without_inputs_has_no_dead_units():
    counts = counts_of_batch(
        np.array([1, 1]),
        np.array([2, 0]),
        np.zeros(2),
        class_inputs=np.array([2, 0]),
        class_active=np.array([[2, 0], [0, 0]]),
    )
    assert not counts.class_dead.any()
    assert np.isnan(counts.class_activity[1]).all() and counts.class_activity[0].tolist() == [1, 0]


def test_rule_of_three():
    assert added(random_activations(0, inputs=300)).bound == 0.01
    assert added(random_activations(0, inputs=2)).bound == 1.0
    # the rule approximates the exact bound 1 - 0.05 ** (1 / N)
    assert added(random_activations(0, inputs=1000)).bound == pytest.approx(1 - 0.05 ** (1 / 1000), rel=5e-3)


def test_nan_is_never_dead():
    finite = np.ones(40, bool)
    finite[[7, 9]] = False
    counts = added(np.zeros((40, 1, 5)), finite, sizes=[5, 35])
    assert counts.unknown == "values are not finite on 2 inputs, first on input 7, at layer7"
    assert set(counts.figures()) == NAMES and all(np.isnan(list(counts.figures().values())))
    counts = added(np.zeros((40, 1, 5)))
    counts.bad_weights = "fc/kernel"
    assert counts.unknown == "the model's weights are not finite, first fc/kernel"
    assert "weights" in Counts.empty(5).merge(counts).unknown


def test_a_count_of_zero_inputs_is_unknown():
    assert Counts.empty(3).unknown == "no inputs were counted"
    assert np.isnan(Counts.empty(3).figures()["dataset"])


def test_masks_and_the_indices_of_their_units():
    counts = added(random_activations(0))
    assert set(counts.masks) == {"dead", "rarely_active", "always_on", "constant", "gradient_dead", "cloned"}
    assert counts.indices("dead").tolist() == [0] and counts.indices("always_on").tolist() == [1]
    assert counts.indices("constant").tolist() == [0, 1]
    plain = counts_of_batch(np.array([1, 0]), np.array([1, 2]), np.array([0, 2]))
    with pytest.raises(UsageError, match="mask 'ded' was not counted; did you mean 'dead'"):
        plain.indices("ded")
    assert set(plain.masks) == {"dead", "rarely_active", "always_on"}


def test_a_threshold_of_rare_activity_is_a_share_of_the_inputs():
    counts = counts_of_batch(np.zeros(20, int), np.array([0, 1, 2, 20]), np.zeros(4))
    assert counts.active_below(0.1).tolist() == [True, True, False, False]
    assert counts.active_below(0.05).tolist() == [True, False, False, False]
    assert counts.active_below(1).tolist() == [True, True, True, False]
    for share in (0, -1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"share must be in \(0, 1\], got"):
            counts.active_below(share)
