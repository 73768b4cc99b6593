import keras
import numpy as np
import pytest

from bnhead import models
from bnhead.errors import UsageError
from bnhead.models import allcnn, plain20, preresnet20, resnet8, resnet20, vgg16_bn, wrn16_8
from bnhead.models.cifar import preresnet_cifar, resnet_cifar, wide_resnet


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def by_hand(depth, channels=3, classes=10):
    """The parameter-free ResNet: 3x3 convolutions, two parameters per channel and norm, the output layer."""
    n = (depth - 2) // 6
    total = 9 * channels * 16 + 2 * 16
    for width, previous in ((16, 16), (32, 16), (64, 32)):
        total += 9 * previous * width + (2 * n - 1) * 9 * width**2 + 2 * n * 2 * width
    return total + 64 * classes + classes


@pytest.mark.parametrize(
    ("name", "exact", "published"),
    [  # He et al. 2015, table 6; Zagoruyko & Komodakis 2016, table 5; Springenberg et al. 2014, table 3
        ("resnet20", by_hand(20), 0.27),
        ("resnet32", by_hand(32), 0.46),
        ("resnet44", by_hand(44), 0.66),
        ("resnet56", by_hand(56), 0.85),
        ("resnet110", by_hand(110), 1.7),
        ("preresnet110", by_hand(110), 1.7),
        ("plain20", by_hand(20), 0.27),
        ("wrn16_8", 10_961_370, 11.0),
        ("wrn40_4", 8_949_210, 8.9),
        ("wrn28_10", 36_479_194, 36.5),
        ("vgg16_bn", 14_724_042, 14.7),
    ],
)
def test_parameters_are_the_published(name, exact, published):
    model = models.find(name)((32, 32, 3), "out", 10)
    assert model.name == name
    assert trainable(model) == exact
    assert exact / 1e6 == pytest.approx(published, rel=0.02)


def test_all_cnn_has_its_published_parameters_with_its_class_convolution():
    model = allcnn((32, 32, 3))
    assert trainable(model) + 192 * 10 + 10 == 1_369_738
    assert not any(isinstance(layer, keras.layers.MaxPooling2D) for layer in model.layers)


def test_shortcut_b_adds_its_projections():
    assert trainable(resnet20((32, 32, 3), shortcut="B")) - trainable(resnet20((32, 32, 3))) == (
        16 * 32 + 32 * 64 + 2 * (32 + 64)
    )
    projections = 16 * 32 + 32 * 64
    assert (
        trainable(preresnet20((32, 32, 3), shortcut="B")) - trainable(preresnet20((32, 32, 3))) == projections
    )


@pytest.mark.parametrize(
    ("build", "size", "expected"),
    [
        (resnet8, (32, 32, 3), (8, 8, 64)),
        (resnet8, (28, 28, 1), (7, 7, 64)),
        (resnet8, (9, 11, 2), (3, 3, 64)),
        (resnet8, (None, None, 3), (None, None, 64)),
        (preresnet20, (32, 32, 3), (8, 8, 64)),
        (plain20, (32, 32, 3), (8, 8, 64)),
        (wrn16_8, (32, 32, 3), (8, 8, 512)),
        (vgg16_bn, (64, 32, 3), (2, 1, 512)),
        (allcnn, (32, 32, 3), (8, 8, 192)),
    ],
)
def test_feature_map(build, size, expected):
    assert build(size).output.shape[1:] == expected


def test_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    model = resnet8((8, 8, 3), seed=0)
    previous = model.get_layer("stage1_block1_relu2").output
    inputs = model.get_layer("stage2_block1_add").input
    shortcut = next(t for t in inputs if "pad" in t._keras_history.operation.name)
    block_input, carried = keras.Model(model.inputs, [previous, shortcut]).predict(x, verbose=0)
    np.testing.assert_array_equal(carried[..., 8:24], block_input[:, ::2, ::2])
    np.testing.assert_array_equal(carried[..., :8], 0)
    np.testing.assert_array_equal(carried[..., 24:], 0)


def test_a_strided_convolution_is_centred_on_the_pixels_the_shortcut_keeps():
    model = resnet8((8, 8, 1), seed=0)
    layer = model.get_layer("stage2_block1_conv1")
    kernel = np.zeros((3, 3, 16, 32), "float32")
    kernel[1, 1, 0, 0] = 1
    layer.kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype("float32")
    previous = model.get_layer("stage1_block1_relu2").output
    block_input, output = keras.Model(model.inputs, [previous, layer.output]).predict(x, verbose=0)
    np.testing.assert_array_equal(output[0, ..., 0], block_input[0, ::2, ::2, 0])


def test_heads_share_the_backbones_initial_weights():
    short, long = resnet8((8, 8, 1), "fc", 10, seed=1), resnet8((8, 8, 1), "bn_dropout0.5_fc", 10, seed=1)
    shared = [layer.name for layer in short.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(shared) == 7
    for name in shared:
        np.testing.assert_array_equal(short.get_layer(name).kernel, long.get_layer(name).kernel)
    twins = (short.get_layer(f"stage1_block1_conv{i}").kernel for i in (1, 2))
    assert not np.array_equal(*twins), "every layer has a separate stream"
    third = resnet8((8, 8, 1), "fc", 10, seed=2)
    assert not np.array_equal(short.get_layer("stem_conv").kernel, third.get_layer("stem_conv").kernel)


def test_a_plain_net_is_the_resnet_without_its_sums():
    assert not any("add" in layer.name for layer in plain20((32, 32, 3)).layers)
    assert sum("add" in layer.name for layer in resnet20((32, 32, 3)).layers) == 9


@pytest.mark.parametrize("depth", [2, 7, 9, 50.0, 21])
def test_depth_must_be_6n_plus_2(depth):
    with pytest.raises(UsageError, match=r"depth must be 6n \+ 2 \(8, 14, 20, ...\), got"):
        resnet_cifar(depth, (32, 32, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wide_resnet(20, 4, (32, 32, 3)), r"depth must be 6n \+ 4 \(10, 16, 22, ...\), got 20"),
        (lambda: wide_resnet(16, 0, (32, 32, 3)), "width must be a whole number of at least 1, got 0"),
        (lambda: resnet8((32, 32, 3), shortcut="C"), "shortcut must be 'A', 'B' or 'none', got 'C'"),
        (
            lambda: preresnet_cifar(20, (32, 32, 3), shortcut="none"),
            "shortcut must be 'A' or 'B', got 'none'",
        ),
        (lambda: vgg16_bn((28, 28, 1)), "at least 32 x 32 for a net of stride 32, got 28 x 28"),
        (lambda: resnet8((32, 32)), r"input_shape must be \(height, width, channels\), got \(32, 32\)"),
        (lambda: resnet8((32, 32, 3), fc_units=3), "fc_units needs a head"),
    ],
)
def test_invalid_arguments(call, message):
    with pytest.raises(UsageError, match=message):
        call()
