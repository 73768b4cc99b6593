import keras
import numpy as np
import pytest

from bnhead.mechanisms.dropout import norms_after_dropout, variance_shift
from tests.mechanisms.nets import image_net, images


def net(rate, center=0.0, layer=keras.layers.Dropout):
    inputs = keras.Input((30,))
    x = keras.layers.BatchNormalization(name="first")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(layer(rate, seed=1)(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("rate", [0.2, 0.5])
@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_the_shift_is_the_papers(rate, mean):
    """Variance (v + m^2) / p - m^2 while dropping: 1 / p for m = 0."""
    x = (np.random.default_rng(0).normal(size=(8000, 30)) + mean).astype("float32")
    shifts = variance_shift(net(rate), x, batch_size=500)
    assert list(shifts) == ["norm"]
    expected = (1 + mean**2) / (1 - rate) - mean**2
    assert shifts["norm"].median == pytest.approx(expected, rel=0.03)
    np.testing.assert_allclose(shifts["norm"].whole, x.var(0), rtol=0.01)


def test_masks_differ_from_batch_to_batch():
    """One mask for all batches of one example would drop half of the channels for good."""
    x = np.random.default_rng(0).normal(size=(400, 30)).astype("float32")
    dropping = variance_shift(net(0.5), x, batch_size=1)["norm"].dropping
    assert dropping.min() > 1.2


def test_the_model_does_not_change_and_the_figures_repeat():
    model, x = net(0.5), np.random.default_rng(0).normal(size=(40, 30)).astype("float32")
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    first, second = (variance_shift(model, x)["norm"] for _ in range(2))
    np.testing.assert_array_equal(first.dropping, second.dropping)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))


def test_only_norms_after_dropout_are_measured():
    x, _ = images()
    assert variance_shift(image_net("bn_dropout0.5_fc8"), x) == {}
    model = image_net("fastai")
    assert norms_after_dropout(model) == ["head_bn_2"]
    assert variance_shift(model, x)["head_bn_2"].median > 1.02
    maps = image_net("dropout0.5_bn_gap_fc8")
    assert variance_shift(maps, x)["head_bn"].dropping.shape == (64,)


def test_class_conditional_dropout_reads_labels():
    from bnhead.models import resnet8

    model = resnet8((8, 8, 1), "cdropout0.5_bn_fc8", 5, seed=0, class_counts=[1, 2, 3, 4, 40])
    x, y = images()
    shifts = variance_shift(model, ((x, y), y))
    assert shifts["head_bn"].median > 1.1


def test_layers_of_other_kinds_and_constant_channels():
    x = np.random.default_rng(0).normal(size=(4000, 30)).astype("float32")
    x[:, 0] = 0
    shift = variance_shift(net(0.5, layer=keras.layers.GaussianDropout), x)["norm"]
    assert np.isnan(shift.shift[0]) and shift.median == pytest.approx(2, rel=0.06)
