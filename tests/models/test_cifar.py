import keras
import numpy as np
import pytest

from bnhead import models
from bnhead.errors import UsageError
from bnhead.models import resnet8, resnet20, resnet_cifar

# He et al. 2015, table 6, in millions; the exact numbers are those of the parameter-free shortcut, worked out
# by hand: 3x3 convolutions, two parameters per channel and norm, 64 x 10 + 10 in the output layer.
PUBLISHED = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def by_hand(depth, channels=3, classes=10):
    n = (depth - 2) // 6
    total = 9 * channels * 16 + 2 * 16
    for width, before in ((16, 16), (32, 16), (64, 32)):
        total += 9 * before * width + (2 * n - 1) * 9 * width**2 + 2 * n * 2 * width
    return total + 64 * classes + classes


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_papers(name):
    model = models.find(name)((32, 32, 3), "out", 10)
    assert trainable(model) == by_hand(int(name[6:]))
    digits = 1 if name == "resnet110" else 2
    assert round(trainable(model) / 1e6, digits) == pytest.approx(PUBLISHED[name], abs=10**-digits / 2 + 1e-9)


def test_resnet20_has_269722_parameters():
    assert trainable(resnet20((32, 32, 3), "out", 10)) == 269_722


@pytest.mark.parametrize("name", [name for name in models.__all__ if name != "resnet_cifar"])
def test_every_named_depth_has_that_many_weight_layers(name):
    model = models.find(name)((32, 32, 3), "out", 10)
    weighted = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    assert model.name == name
    assert len(weighted) == int(name.removeprefix("resnet"))


@pytest.mark.parametrize("size", [(32, 32, 3), (28, 28, 1), (9, 11, 2)])
def test_feature_map(size):
    model = resnet8(size)
    expected = (None, -(-size[0] // 4), -(-size[1] // 4), 64)
    assert model.output.shape == expected
    assert resnet8((None, None, 3)).output.shape == (None, None, None, 64)


def test_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    model = resnet8((8, 8, 3), seed=0)
    before = model.get_layer("stage1_block1_relu2").output
    shortcut = next(
        t for t in model.get_layer("stage2_block1_add").input if "pad" in t._keras_history.operation.name
    )
    taken, given = keras.Model(model.inputs, [before, shortcut]).predict(x, verbose=0)
    np.testing.assert_array_equal(given[..., 8:24], taken[:, ::2, ::2])
    np.testing.assert_array_equal(given[..., :8], 0)
    np.testing.assert_array_equal(given[..., 24:], 0)


def test_a_strided_convolution_is_centred_on_the_pixels_the_shortcut_keeps():
    model = resnet8((8, 8, 1), seed=0)
    layer = model.get_layer("stage2_block1_conv1")
    kernel = np.zeros((3, 3, 16, 32), "float32")
    kernel[1, 1, 0, 0] = 1
    layer.kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype("float32")
    before = model.get_layer("stage1_block1_relu2").output
    taken, given = keras.Model(model.inputs, [before, layer.output]).predict(x, verbose=0)
    np.testing.assert_array_equal(given[0, ..., 0], taken[0, ::2, ::2, 0])


def test_every_weight_receives_a_gradient():
    import tensorflow as tf

    model = resnet8((8, 8, 1), "bn_fc", 10, seed=0)
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=True) ** 2)
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True
    ):
        assert gradient is not None and np.any(gradient.numpy()), weight.path


def test_heads_share_the_backbones_initial_weights():
    one, other = resnet8((8, 8, 1), "fc", 10, seed=1), resnet8((8, 8, 1), "bn_dropout0.5_fc", 10, seed=1)
    shared = [layer.name for layer in one.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(shared) == 7
    for name in shared:
        np.testing.assert_array_equal(one.get_layer(name).kernel, other.get_layer(name).kernel)
    twins = (one.get_layer(f"stage1_block1_conv{i}").kernel for i in (1, 2))
    assert not np.array_equal(*twins), "every layer has a stream of its own"
    third = resnet8((8, 8, 1), "fc", 10, seed=2)
    assert not np.array_equal(one.get_layer("stem_conv").kernel, third.get_layer("stem_conv").kernel)


def test_norm_and_preprocessing_are_pluggable():
    model = resnet8(
        (8, 8, 1),
        norm=lambda name: keras.layers.GroupNormalization(4, name=name),
        preprocessing=keras.layers.Rescaling(2.0, name="scale"),
    )
    assert model.layers[1].name == "scale"
    assert isinstance(model.get_layer("stage3_block1_bn2"), keras.layers.GroupNormalization)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_saved_model_round_trips(tmp_path):
    model = resnet_cifar(14, (12, 12, 2), "catpool_bn_fc16", 5, seed=3, fc_activation="elu")
    x = np.random.default_rng(0).normal(size=(3, 12, 12, 2)).astype("float32")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))


@pytest.mark.parametrize("depth", [2, 7, 9, 50.0, 21])
def test_depth_must_be_6n_plus_2(depth):
    with pytest.raises(UsageError, match=r"depth must be 6n \+ 2"):
        resnet_cifar(depth, (32, 32, 3))


def test_shape_must_be_an_images():
    with pytest.raises(UsageError, match=r"input_shape must be \(height, width, channels\), got \(32, 32\)"):
        resnet8((32, 32))
