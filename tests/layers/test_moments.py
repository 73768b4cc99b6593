import keras
import numpy as np
import pytest
from keras import ops

from bnhead.layers.moments import PooledMoments, affine, ghost_moments, moments, moving_average, standardize


def batch(shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 3 + 1).astype("float32")


@pytest.mark.parametrize("shape", [(7, 4), (1, 4), (5, 3, 2, 4)])
def test_moments_against_numpy(shape):
    x = batch(shape)
    axes = tuple(range(len(shape) - 1))
    mean, variance = moments(x)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x.var(axes), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 4)])
def test_masked_elements_do_not_count_whatever_they_hold(shape):
    x = batch(shape)
    mask = np.random.default_rng(1).uniform(size=shape[:-1]) < 0.6
    x[~mask] = np.nan
    mean, variance = moments(x, mask)
    np.testing.assert_allclose(mean, x[mask].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x[mask].var(0), rtol=1e-4, atol=1e-6)


def test_an_empty_mask_gives_zeros():
    for values in moments(batch((4, 3)), np.zeros(4, bool)):
        np.testing.assert_array_equal(values, np.zeros(3))


def test_a_mask_of_the_wrong_rank_is_an_error():
    with pytest.raises(ValueError, match="mask must have one axis less"):
        moments(batch((4, 3, 2)), np.ones(4, bool))


@pytest.mark.parametrize("size", [2, 3, 16])
@pytest.mark.parametrize("examples", [1, 2, 3, 5, 16, 31, 33])
def test_ghosts_are_runs_of_the_batch_none_smaller_than_asked(size, examples):
    """Each example gets the moments of its ghost; distinct values identify the ghosts."""
    x = np.arange(examples, dtype="float32")[:, None]
    mean, variance = (np.asarray(m)[:, 0] for m in ghost_moments(x, size))
    ghosts = [np.flatnonzero(mean == value) for value in np.unique(mean)]
    assert len(ghosts) == max(1, examples // size)
    sizes = [len(ghost) for ghost in ghosts]
    assert max(sizes) - min(sizes) <= 1 and (examples < size or min(sizes) >= size)
    for ghost in ghosts:
        assert (np.diff(ghost) == 1).all()
        np.testing.assert_allclose(mean[ghost], ghost.mean())
        np.testing.assert_allclose(variance[ghost], ghost.var())


def test_ghosts_of_feature_maps_and_masks():
    x = batch((6, 3, 2, 4))
    mask = np.random.default_rng(1).uniform(size=(6, 3, 2)) < 0.7
    x[~mask] = np.inf
    mean, variance = ghost_moments(x, 3, mask)
    assert mean.shape == variance.shape == (6, 1, 1, 4)
    for half in (slice(0, 3), slice(3, 6)):
        counted = x[half][mask[half]]
        for i in range(half.start, half.stop):
            np.testing.assert_allclose(mean[i, 0, 0], counted.mean(0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(variance[i, 0, 0], counted.var(0), rtol=1e-4)


def test_pooled_moments_of_unequal_batches_are_those_of_all_values():
    x, pooled = batch((50, 3)).astype("float64") + 1e4, PooledMoments()
    for part in np.split(x, [1, 8, 41]):
        pooled.add(part.mean(0), part.var(0), len(part))
    assert pooled.count == 50
    np.testing.assert_allclose(pooled.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(pooled.squares / pooled.count, x.var(0), rtol=1e-9)


def test_normalisation_gain_offset_and_averages_by_hand():
    z = standardize(np.float32([5.0]), np.float32([1.0]), np.float32([3.0]), 1.0)
    np.testing.assert_array_equal(z, [2.0])
    np.testing.assert_array_equal(affine(z, np.float32([3.0]), np.float32([0.5])), [6.5])
    np.testing.assert_array_equal(affine(z), z)
    np.testing.assert_array_equal(moving_average(np.float32([8.0]), np.float32([4.0]), 0.75), [7.0])


def test_sums_are_in_float32():
    x = ops.cast(np.full((3000, 1), 1.0), "bfloat16")
    mean, _ = moments(x)
    assert keras.backend.standardize_dtype(mean.dtype) == "float32" and float(mean[0]) == 1


@pytest.mark.parametrize("masked", [False, True])
def test_of_several_replicas_they_are_those_of_all_examples_together(monkeypatch, masked):
    """NumPy computes the sums of the other replica, instead of `tf.distribute`."""
    rng = np.random.default_rng(3)
    local, remote = rng.normal(5, 1, (2, 4, 3, 2)).astype("float32") * [[[[1]]], [[[3]]]]
    mask = rng.random((2, 4, 3)) > 0.3 if masked else np.ones((2, 4, 3), bool)
    pooled = np.concatenate([local[mask[0]], remote[mask[1]]])
    remote_values = remote[mask[1]]
    totals = iter([len(remote_values), remote_values.sum(0), ((remote_values - pooled.mean(0)) ** 2).sum(0)])
    monkeypatch.setattr("bnhead.layers.moments._sum_over_replicas", lambda total: total + next(totals))
    mean, variance = moments(local, mask[0] if masked else None, synchronized=True)
    np.testing.assert_allclose(mean, pooled.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, pooled.var(0), rtol=1e-5)


def test_on_one_replica_synchronised_moments_are_its_own():
    x = np.random.default_rng(4).normal(3, 2, (5, 4, 2)).astype("float32")
    for mask in (None, x[..., 0] > 2):
        for expected, synchronized in zip(moments(x, mask), moments(x, mask, synchronized=True), strict=True):
            np.testing.assert_allclose(synchronized, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 1), (4, 1, 3), (1, 1, 1)])
def test_a_mask_that_broadcasts_holds_for_all_it_covers(shape):
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(4, 2, 3, 5)).astype("float32"), rng.random(shape) < 0.7
    mask.flat[0] = True
    full_mask = np.broadcast_to(mask, x.shape[:-1])
    for pair in (moments(x, mask), ghost_moments(x, 2, mask)):
        expected = moments(x, full_mask) if len(pair[0].shape) == 1 else ghost_moments(x, 2, full_mask)
        for actual, moment in zip(pair, expected, strict=True):
            np.testing.assert_allclose(actual, moment, rtol=1e-6)
    np.testing.assert_allclose(moments(x, mask)[0], x[full_mask].mean(0), rtol=1e-5)
