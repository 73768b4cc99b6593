import keras
import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.mechanisms.backward import gradient_norms
from bnhead.mechanisms.split import Split
from tests.mechanisms.nets import data, image_net, images, numpy, vector_net


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_hand(model, x, y, batch):
    """The gradients of `bn-beta-gamma_out` on features relu(x W + b), batch norm by its formula."""
    layer, norm, out = (model.get_layer(n) for n in ("features", "head_bn", "head_out"))
    squares = np.zeros(2)
    for start in range(0, len(x), batch):
        xs, ys = x[start : start + batch].astype("float64"), y[start : start + batch]
        h = np.maximum(xs @ numpy(layer.kernel) + numpy(layer.bias), 0)
        deviation = np.sqrt(h.var(0) + norm.epsilon)
        z = (h - h.mean(0)) / deviation
        g_out = softmax(z @ numpy(out.kernel) + numpy(out.bias)) - np.eye(4)[ys]  # B times that of the mean
        g = g_out @ numpy(out.kernel).T
        g_h = (g - g.mean(0) - z * (g * z).mean(0)) / deviation
        squares += (g_out**2).sum(), (g_h**2).sum()
    return np.sqrt(squares / len(x))


@pytest.mark.parametrize("batch", [8, 40])
def test_gradients_are_those_worked_out_by_hand(batch):
    model, (x, y) = vector_net("bn-beta-gamma_out"), data(40)
    norms = gradient_norms(Split(model), (x, y), training_batch=batch)
    np.testing.assert_allclose([norms.fc, norms.backbone], by_hand(model, x, y, batch), rtol=1e-3)
    assert norms.ratio == pytest.approx(norms.backbone / norms.fc)


def test_one_hot_labels_and_softmax_give_the_same():
    model, (x, y) = vector_net("bn_fc8"), data(40)
    first = gradient_norms(Split(model), (x, y), training_batch=40)
    assert gradient_norms(Split(model), (x, np.eye(4)[y]), training_batch=40).fc == pytest.approx(first.fc)
    soft = keras.Model(model.input, keras.layers.Softmax()(model.output))
    assert gradient_norms(Split(soft), (x, y), training_batch=40).fc == pytest.approx(first.fc, rel=1e-3)


def test_only_whole_batches_up_to_the_limit():
    model, (x, y) = vector_net("bn_fc8"), data(50)
    split = Split(model)
    first = gradient_norms(split, (x[:32], y[:32]), training_batch=16)
    assert gradient_norms(split, (x, y), training_batch=16, limit=32).fc == pytest.approx(first.fc, rel=1e-5)
    whole = gradient_norms(split, (x[:48], y[:48]), training_batch=16).fc
    assert gradient_norms(split, (x, y), training_batch=16).fc == pytest.approx(whole, rel=1e-5)


def test_nets_of_images_do_not_change():
    model, (x, y) = image_net("bn_dropout0.5_fc8"), images()
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    norms = gradient_norms(Split(model), (x, y), training_batch=30)
    assert norms.fc > 0 and norms.backbone > 0
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))


def test_data_without_labels_and_a_head_on_the_input():
    from bnhead import heads

    model, (x, y) = vector_net("bn_fc8"), data(20)
    with pytest.raises(UsageError, match="labels of classes"):
        gradient_norms(Split(model), x, training_batch=8)
    inputs = keras.Input((12,))
    bare = heads.attach("bn_fc8", inputs, inputs, 4, name="net", seed=0)
    assert np.isnan(gradient_norms(Split(bare), (x, y), training_batch=8).backbone)
