import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings, strategies as st
from scipy import stats

from bnhead.studies.intervals import crossed

pytestmark = pytest.mark.quick


def differences(rng, n, images, seed_sd, image_sd, sd, mean=0.0, studies=()):
    """Paired differences of the crossed model."""
    draw = lambda *shape: rng.standard_normal((*studies, *shape))  # noqa: E731
    return mean + seed_sd * draw(n, 1) + image_sd * draw(1, images) + sd * draw(n, images)


@pytest.mark.parametrize(("n", "images"), [(2, 2), (3, 50), (10, 360)])
def test_mean_squares_are_those_of_the_two_way_table(n, images):
    d = differences(np.random.default_rng(n), n, images, 0.3, 0.5, 1.0, mean=0.2)
    result, grand = crossed(d), d.mean()
    by_seed, by_image = d.mean(1, keepdims=True), d.mean(0, keepdims=True)
    assert result.mean == pytest.approx(grand, rel=1e-12)
    assert result.mean_squares == pytest.approx(
        (
            images * d.mean(1).var(ddof=1),
            n * d.mean(0).var(ddof=1),
            ((d - by_seed - by_image + grand) ** 2).sum() / ((n - 1) * (images - 1)),
        ),
        rel=1e-10,
    )


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_one_number_a_seed_gives_the_t_interval(alpha):
    values = np.random.default_rng(3).normal(0.1, 1, 7)
    result = crossed(values[:, None])
    expected = stats.ttest_1samp(values, 0).confidence_interval(1 - alpha)
    assert result.interval(alpha) == pytest.approx(tuple(expected), rel=1e-12)
    assert result.interval(alpha, seeds_only=True) == result.interval(alpha)


def test_the_interval_over_seeds_alone_is_the_t_interval_of_their_means():
    d = differences(np.random.default_rng(5), 6, 40, 0.2, 2.0, 1.0)
    result = crossed(d)
    expected = stats.ttest_1samp(d.mean(1), 0).confidence_interval(0.95)
    assert result.interval(0.05, seeds_only=True) == pytest.approx(tuple(expected), rel=1e-10)
    low, high = result.interval(0.05)
    assert low < expected.low < expected.high < high


def reml_design(design):
    """A design whose variance components are all positive."""
    rng = np.random.default_rng(100 + design)
    n, images = int(rng.integers(4, 9)), int(rng.integers(12, 25))
    d = differences(rng, n, images, *rng.uniform(0.6, 2.0, 2), 1.0)
    assert min(crossed(d).components) > 0
    return d


@pytest.mark.parametrize("design", range(10))
def test_variance_components_are_those_of_reml(design):
    d = reml_design(design)
    _n, _images = d.shape
    seed, image = np.indices(d.shape)
    frame = pd.DataFrame({"d": d.ravel(), "seed": seed.ravel(), "image": image.ravel(), "all": 1})
    parts = {"seed": "0 + C(seed)", "image": "0 + C(image)"}
    model = smf.mixedlm("d ~ 1", frame, groups="all", vc_formula=parts, re_formula="0")
    fit = model.fit(reml=True, method="powell", maxiter=5000, ftol=1e-12)
    theirs = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    ours = crossed(d).components
    assert ours == pytest.approx((theirs["seed"], theirs["image"], fit.scale), rel=1e-3)


def test_no_component_is_negative():
    d = np.array([[1.0, -1.0], [-1.0, 1.0]])  # interaction alone
    assert crossed(d).components == (0, 0, 4)
    assert crossed(d).image_variance == 0


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_the_order_of_seeds_and_images_changes_no_bit(seed, n, images):
    rng = np.random.default_rng(seed)
    d = rng.normal(0, 1, (n, images)) * 10.0 ** rng.integers(-6, 6, (n, images))
    assert crossed(d) == crossed(d[rng.permutation(n)][:, rng.permutation(images)])


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3])
def test_equal_differences_have_no_variance(value):
    result = crossed(np.full((7, 11), value))
    assert (result.mean, result.mean_squares) == (value, (0, 0, 0))
    assert result.interval(0.05) == (value, value)


@pytest.mark.parametrize("shape", [(1, 5), (3, 0)])
def test_too_few_differences(shape):
    with pytest.raises(ValueError, match="at least 2 seeds and 1 image"):
        crossed(np.zeros(shape))


def test_a_batch_of_studies_is_each_study():
    d = differences(np.random.default_rng(0), 4, 9, 1, 1, 1, studies=(5,))
    batch = crossed(d)
    for index, study in enumerate(d):
        single = crossed(study)
        assert batch.mean[index] == single.mean
        assert [square[index] for square in batch.mean_squares] == list(single.mean_squares)
    assert math.isclose(batch.interval(0.05)[1][0], crossed(d[0]).interval(0.05)[1])
