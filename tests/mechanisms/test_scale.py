import numpy as np
import pytest
import scipy.special

from bnhead.mechanisms.scale import ScaleSums, scale_floor

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("classes", "scale"), [(2, 1.0), (10, 3.0), (10, 0.0), (5, 20.0)])
def test_an_equiangular_frame_reaches_the_floor(classes, scale):
    """Weights and features on one frame, of norms whose product is the scale."""
    frame = (np.eye(classes) - 1 / classes) / np.sqrt(1 - 1 / classes)  # of norm 1
    logits = scale * frame @ frame.T
    loss = -np.diag(scipy.special.log_softmax(logits, 1)).mean()
    assert scale_floor(scale, classes) == pytest.approx(loss, rel=1e-9)


def test_no_features_and_weights_of_the_scale_have_a_smaller_loss():
    rng = np.random.default_rng(0)
    for _ in range(200):
        w, h = rng.normal(size=(2, 4, 6))
        w, h = w / np.linalg.norm(w, axis=1, keepdims=True), h / np.linalg.norm(h, axis=1, keepdims=True)
        loss = -np.diag(scipy.special.log_softmax(2.5 * h @ w.T, 1)).mean()
        assert loss >= scale_floor(2.5, 4)


def test_the_figures_written_out():
    rng = np.random.default_rng(0)
    h, w, z = rng.normal(size=(50, 6)), rng.normal(size=(6, 4)), rng.normal(size=(50, 3)) * 2
    logits = h @ w + 7
    sums = ScaleSums(w, 5)
    for part in np.array_split(np.arange(50), 3):
        sums.add(h[part], logits[part], z[part])
    scale = sums.result()
    assert scale.feature_norm == pytest.approx(np.linalg.norm(h, axis=1).mean())
    assert scale.weight_norm == pytest.approx(np.linalg.norm(w, axis=0).mean())
    centred = logits - logits.mean(1, keepdims=True)
    assert scale.logit_norm == pytest.approx(np.linalg.norm(centred, axis=1).mean())
    largest = np.linalg.norm(w, axis=0).max() * np.linalg.norm(h, axis=1).max()
    assert scale.floor == pytest.approx(scale_floor(largest, 4))
    assert scale.beyond == (np.abs(z) > 2).mean() > 0


def test_a_value_of_a_batch_is_never_beyond():
    rng = np.random.default_rng(0)
    x = rng.standard_cauchy(size=(8, 1000))
    z = (x - x.mean(0)) / x.std(0)
    sums = ScaleSums(None, 8)
    sums.add(None, np.zeros((8, 2)), z)
    assert sums.result().beyond == 0 and np.abs(z).max() == pytest.approx(np.sqrt(7), rel=1e-2)
    assert np.isnan([sums.result().feature_norm, sums.result().weight_norm, sums.result().floor]).all()
