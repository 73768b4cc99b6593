import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.layers.removal import norms_removed


def net(text):
    features = keras.Input((2, 2, 6))
    outputs = heads.apply(text, features, 3, fc_units=8)
    model = keras.Model(features, outputs)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.3, 2, weight.shape))
    return model


@pytest.mark.parametrize("text", ["bn_gap_fc", "bn_fc", "fc_bn", "fc_out_bn", "gbn2_fc", "bn-beta_fc"])
def test_inside_the_model_is_the_one_without_the_norm(text):
    model, x = net(text), np.random.default_rng(1).normal(size=(5, 2, 2, 6)).astype("float32")
    (norm,) = [layer.name for layer in model.layers if hasattr(layer, "moving_variance")]
    plain = net("fc")
    for layer in plain.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights() if layer.weights else [])
    before, values = np.asarray(model(x)), model.get_weights()
    with norms_removed(model, [norm]):
        np.testing.assert_allclose(np.asarray(model(x)), np.asarray(plain(x)), rtol=1e-4, atol=1e-5)
    assert np.array_equal(before, np.asarray(model(x)))
    assert all(map(np.array_equal, values, model.get_weights()))
    assert np.abs(before - np.asarray(plain(x))).max() > 0.1


def test_the_values_come_back_after_an_error():
    model = net("bn_fc")
    values = model.get_weights()
    with pytest.raises(ZeroDivisionError), norms_removed(model, ["head_bn"]):
        1 / 0  # noqa: B018
    assert all(map(np.array_equal, values, model.get_weights()))
