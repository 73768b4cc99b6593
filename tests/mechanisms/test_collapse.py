import numpy as np
import pytest

from bnhead.mechanisms.collapse import ClassMoments, Collapse, effective_rank, neural_collapse, pillai

pytestmark = pytest.mark.quick


def moments(x, y, classes, sizes=None):
    pieces = np.array_split(np.arange(len(x)), 7) if sizes is None else sizes
    total = ClassMoments.of(x[pieces[0]], y[pieces[0]], classes)
    for piece in pieces[1:]:
        total = total.merge(ClassMoments.of(x[piece], y[piece], classes))
    return total


def example(n=600, units=12, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(classes, units))[y] * 2 + rng.normal(size=(n, units)) + 50, y


def of_means(means, noise=0.0, seed=0):
    """Moments of classes of 10 examples with exactly these means."""
    classes, units = means.shape
    return ClassMoments(np.full(classes, 10.0), means, noise * np.eye(units) * 10 * classes)


def frame(classes, units, seed=0):
    """An equiangular tight frame in a random subspace, off the origin."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(units, classes)))[0]
    return (np.eye(classes) - 1 / classes) @ basis.T + 3


def test_moments_by_class_equal_those_of_all_examples_at_once():
    x, y = example()
    total = moments(x, y, 5)
    for c in range(5):
        np.testing.assert_allclose(total.means[c], x[y == c].mean(0), rtol=1e-12)
    centred = x - total.means[y]
    np.testing.assert_allclose(total.within, centred.T @ centred, rtol=1e-9)
    np.testing.assert_allclose(total.total, np.cov(x.T) * (len(x) - 1), rtol=1e-9)


def test_the_figures_equal_the_formulas_written_out():
    x, y = example()
    total, w = moments(x, y, 5), np.random.default_rng(3).normal(size=(12, 5))
    means = np.stack([x[y == c].mean(0) for c in range(5)])
    sb = sum(np.outer(m - x.mean(0), m - x.mean(0)) for m in means) / 5
    sw = sum(np.outer(row - means[c], row - means[c]) for row, c in zip(x, y, strict=True)) / len(x)
    figures = neural_collapse(total, w)
    assert figures.nc1 == pytest.approx(np.trace(np.linalg.pinv(sb, rcond=1e-10) @ sw) / 5, rel=1e-6)
    assert figures.nc1_quotient == pytest.approx(np.trace(sw) / np.trace(sb))
    assert figures.pillai == pytest.approx(np.trace(sb @ np.linalg.inv(sb + sw)) / 4)
    g = w.T @ (means - x.mean(0)).T
    ideal = (np.eye(5) - np.ones((5, 5)) / 5) / np.sqrt(4)
    assert figures.nc3 == pytest.approx(np.linalg.norm(g / np.linalg.norm(g) - ideal))


@pytest.mark.parametrize(("classes", "units"), [(2, 3), (10, 64), (100, 256)])
def test_an_equiangular_tight_frame_has_no_distance(classes, units):
    means = frame(classes, units)
    figures = neural_collapse(of_means(means, noise=0.0), weights=(means - means.mean(0)).T)
    assert figures.nc1 == 0 and figures.nc1_quotient == 0
    assert figures.nc2 == pytest.approx(0, abs=1e-9) and figures.nc3 == pytest.approx(0, abs=1e-9)


GAUSSIAN = [(10, 64, 20, 0.361), (10, 512, 20, 0.137), (100, 512, 2, 0.413)]  # the last has a spread of 0.004


@pytest.mark.parametrize(("classes", "units", "draws", "expected"), GAUSSIAN)
def test_gaussian_class_means_are_as_far_from_a_frame_as_chance_puts_them(classes, units, draws, expected):
    rng = np.random.default_rng(0)
    values = [neural_collapse(of_means(rng.normal(size=(classes, units)))).nc2 for _ in range(draws)]
    assert np.mean(values) == pytest.approx(expected, abs=0.02)


def test_random_weights_are_sqrt_2_from_the_frame():
    rng = np.random.default_rng(0)
    values = [
        neural_collapse(of_means(rng.normal(size=(10, 512))), rng.normal(size=(512, 10))).nc3
        for _ in range(30)
    ]
    assert np.mean(values) == pytest.approx(np.sqrt(2), abs=0.03)


def test_an_affine_map_changes_nc_and_not_the_pillai_trace():
    x, y = example(n=2000)
    scale = np.random.default_rng(1).uniform(0.2, 2, 12)
    before, after = (neural_collapse(moments(v, y, 5)) for v in (x, (x - x.mean(0)) / x.std(0) * scale))
    assert after.pillai == pytest.approx(before.pillai, rel=1e-9)
    assert abs(after.nc2 - before.nc2) > 0.01 and abs(after.nc1_quotient / before.nc1_quotient - 1) > 0.02


def test_the_pillai_trace_of_noise_falls_with_the_examples_and_is_undefined_for_few():
    """At N = 360 and D = 256 pure noise has .71, which the figure does not report."""
    rng = np.random.default_rng(0)
    y, x = np.arange(360) % 10, rng.normal(size=(360, 256))
    few = moments(x, y, 10)
    assert np.isnan(pillai(few))
    means, sw = few.means - few.mean, few.within / 360
    sb = means.T @ means / 10
    assert np.trace(sb @ np.linalg.inv(sb + sw)) / 9 == pytest.approx(0.71, abs=0.03)
    y, x = np.arange(2560) % 10, rng.normal(size=(2560, 256))
    assert pillai(moments(x, y, 10)) == pytest.approx(0.1, abs=0.02)


def test_missing_classes_and_constant_features():
    x, y = example(n=300, classes=5)
    assert neural_collapse(moments(x, y, 9)).nc2 == pytest.approx(neural_collapse(moments(x, y, 5)).nc2)
    x[:, 3] = 7.0
    x[:, 4] = x[:, 5]
    figures = neural_collapse(moments(x, y, 5))
    assert 0 < figures.pillai < 1 and np.isfinite(figures.nc1)
    only = neural_collapse(moments(x, np.zeros(300, int), 5))
    assert all(np.isnan(getattr(only, name)) for name in Collapse.__dataclass_fields__)


def test_effective_ranks_equal_those_of_the_matrix_of_examples():
    x, y = example(n=500)
    total = moments(x, y, 5)

    def of_singular_values(matrix):
        p = np.linalg.svd(matrix, compute_uv=False)
        p = p / p.sum()
        return np.exp(-(p * np.log(p)).sum())

    assert effective_rank(total, centred=True) == pytest.approx(of_singular_values(x - x.mean(0)), rel=1e-6)
    assert effective_rank(total, centred=False) == pytest.approx(of_singular_values(x), rel=1e-6)
    assert effective_rank(total, centred=False) < 0.5 * effective_rank(total, centred=True)


def test_the_effective_rank_of_equal_directions_is_their_number():
    x = np.concatenate([np.eye(6), -np.eye(6)])
    total = moments(np.pad(x, ((0, 0), (0, 4))), np.zeros(12, int), 1)
    assert effective_rank(total, centred=True) == pytest.approx(6)
