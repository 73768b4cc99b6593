import ctypes
import fcntl
import gc
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from bnhead import heads, models
from bnhead.errors import DataError, UsageError
from bnhead.layers import fold_batch_norm, plain, recompute_batch_stats
from bnhead.models import existing
from bnhead.models.existing import pixel_preprocessing
from tests.heads.test_surgery import chain, conv

LITE0 = Path(__file__).parents[3] / "shared" / "data" / "efficientnet_lite0_imagenet.keras"


NAMES = ["MobileNetV2"]


@pytest.fixture(autouse=True)
def one_net_at_a_time(tmp_path_factory):
    """Nets of a gigabyte are built by one worker at a time, and each is freed before the next."""
    with open(tmp_path_factory.getbasetemp().parent / "nets.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        keras.backend.clear_session()
        gc.collect()
        # glibc keeps what is freed: after some large nets a worker held 10 GB
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


@pytest.mark.parametrize(
    "name",
    [*NAMES, *(pytest.param(n, marks=pytest.mark.slow) for n in existing.applications() if n not in NAMES)],
)
def test_any_net_of_keras_applications(name):
    size = 96 if name not in ("NASNetLarge",) else 331
    options = {"norm": None, "seed": 0, "preprocessing": pixel_preprocessing(name)}
    model = models.build(f"keras:{name}", (size, size, 3), "bn_fc16", 4, **options)
    original = existing.applications()[name](include_top=False, weights=None, input_shape=(size, size, 3))
    assert model.get_layer("head_gap").input.shape == original.output.shape
    assert model.output.shape == (None, 4)
    twin = keras.Model(model.inputs, model.get_layer("head_gap").input)
    original.set_weights([w for w in twin.get_weights()][2:])  # the first two are the preprocessing's
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype("float32")
    preprocess = sys.modules[existing.applications()[name].__module__].preprocess_input
    expected = original.predict(preprocess(pixels.copy()), verbose=0)
    np.testing.assert_allclose(
        twin.predict(pixels, verbose=0), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()
    )


def as_trained(net, pixels):
    """The net with statistics as after training, the adapted ones among them."""
    for layer in net.layers:
        if isinstance(layer, layers.Normalization) and layer.input_mean is None:
            layer.adapt(pixels / 255)
    recompute_batch_stats(net, pixels)
    return net


@pytest.mark.slow
@pytest.mark.parametrize("name", existing.applications())
def test_every_copy_of_any_net_computes_the_same(name, tmp_path):
    size = 96 if name != "NASNetLarge" else 331
    pixels = np.random.default_rng(1).uniform(0, 255, (4, size, size, 3)).astype("float32")
    build = existing.applications()[name]
    shape = (size, size, 3)
    net = as_trained(build(classes=7, weights=None, input_shape=shape, classifier_activation=None), pixels)
    expected = net.predict(pixels, verbose=0)
    # MobileNet's classifier is a 1 x 1 convolution, which insert_bn must be told
    (last, *_) = (layer for layer in reversed(net.layers) if isinstance(layer, layers.Conv2D | layers.Dense))
    copies = (
        plain,
        fold_batch_norm,
        lambda net: heads.fold(net).model,
        lambda net: heads.insert_bn(net, pixels, last.name),
    )
    for copy in copies:
        check_close(copy(net).predict(pixels, verbose=0), expected)
        gc.collect()  # the largest net has 1.4 GB of weights, and the copies hold each other in cycles
    swapped = heads.swap(net, "bn_fc8", 3)
    reads = keras.Model(swapped.inputs, swapped.get_layer("head_bn").input)
    features = keras.layers.GlobalAveragePooling2D()(heads.feature_map(net))
    check_close(
        reads.predict(pixels, verbose=0), keras.Model(net.inputs, features).predict(pixels, verbose=0)
    )
    del net, swapped, reads, features
    gc.collect()
    bare = as_trained(build(include_top=False, weights=None, input_shape=(size, size, 3)), pixels)
    bare.save(tmp_path / "net.keras")
    expected = bare.predict(pixels, verbose=0)
    del bare
    keras.backend.clear_session()
    gc.collect()
    built = models.build(f"keras:{name}", (size, size, 3), weights=str(tmp_path / "net.keras"))
    (tmp_path / "net.keras").unlink()  # tmp_path outlives the test, and 38 nets fill a disk
    check_close(built.predict(pixels, verbose=0), expected)


def check_close(got, expected):
    # deep nets make 5e-4 of a change of their inputs by 1e-6, and a fold rounds in each layer
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "DenseNet121", "EfficientNetB0"])
def test_preprocessing_is_that_of_keras_applications(name):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("float32")
    preprocess = sys.modules[existing.applications()[name].__module__].preprocess_input
    np.testing.assert_allclose(
        pixel_preprocessing(name)(pixels), preprocess(pixels.copy()), rtol=1e-4, atol=1e-4
    )


def test_the_seed_decides_the_initial_weights():
    first, repeated, different = (
        models.build("keras:MobileNetV2", (32, 32, 3), seed=s).get_weights()[0] for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, repeated)
    assert not np.array_equal(first, different)


@pytest.fixture
def file(tmp_path):
    keras.utils.set_random_seed(0)
    stack = conv(name="c"), layers.BatchNormalization(name="b"), layers.ReLU(name="r")
    model, _ = chain(*stack, layers.GlobalAveragePooling2D(), layers.Dense(3, name="old_classifier"))
    model.save(tmp_path / "net.keras")
    return str(tmp_path / "net.keras"), model


def test_the_net_of_a_file_keeps_its_weights_and_loses_its_classifier(file):
    path, original = file
    scale = layers.Rescaling(1 / 128, offset=-1.0)
    model = models.build(path, (16, 16, 3), "bn_fc8", 2, preprocessing=scale, seed=0)
    names = [layer.name for layer in model.layers]
    assert names[2:] == ["c", "b", "r", "head_gap", "head_bn", "head_fc", "head_out"]
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    expected = keras.Model(original.input, original.get_layer("r").output)(x / 128 - 1)
    features = keras.Model(model.input, model.get_layer("head_gap").input)
    np.testing.assert_allclose(features(x), expected, rtol=1e-5, atol=1e-6)
    assert models.build(path, (16, 16, 3)).output.shape == (None, 4, 4, 6)


def test_the_seed_decides_the_dropout_masks_of_a_file(tmp_path):
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(2, 3)(image := keras.Input((8, 8, 3))))
    keras.Model(image, x).save(tmp_path / "net.keras")

    def dropped(seed):
        model = models.build(str(tmp_path / "net.keras"), (8, 8, 3), "fc", 2, seed=seed)
        return np.array(model(np.ones((1, 8, 8, 3)), training=True))

    np.testing.assert_array_equal(dropped(1), dropped(1))
    assert not np.array_equal(dropped(1), dropped(2))


def test_the_units_of_a_file_are_counted_after_the_preprocessing(file):
    from bnhead.census import count

    path, _ = file
    model = models.build(path, (16, 16, 3), "out", 2, preprocessing=layers.Rescaling(0.1), seed=0)
    x = np.random.default_rng(0).normal(size=(20, 16, 16, 3)).astype("float32")
    out = keras.Model(model.inputs, model.get_layer("head_gap").input).predict(x, verbose=0)
    assert count(model, x).figures()["dead/r/per_input"] == pytest.approx((out == 0).all((1, 2)).mean())


@pytest.mark.skipif(not LITE0.is_file(), reason="the pre-trained EfficientNet-Lite0 is not there")
def test_a_strangers_file():
    model = models.build(str(LITE0), (224, 224, 3), "bn_fc", 10, seed=0)
    assert model.get_layer("head_gap").input.shape == (None, 7, 7, 1280)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "keras:MobilNetV2",
            (96, 96, 3),
            "backbone 'keras:MobilNetV2' is not known; did you mean 'MobileNetV2'",
        ),
        ("keras:VGG16", (16, 16, 3), r"backbone 'keras:VGG16' does not take images of \(16, 16, 3\): "),
        ("{file}", (16, 16, 1), r"takes images of \(16, 16, 3\), got \(16, 16, 1\)"),
        ("{file}", (32, 16, 3), r"takes images of \(16, 16, 3\), got \(32, 16, 3\)"),
        ("{broken}", (16, 16, 3), "cannot be loaded: it is not a .keras file"),
    ],
)
def test_an_unusable_net_is_an_error_of_one_line(file, tmp_path, name, shape, message):
    (tmp_path / "broken.keras").write_bytes(b"PK\3\4 no model")
    name = name.format(file=file[0], broken=tmp_path / "broken.keras")
    with pytest.raises(UsageError, match=message) as caught:
        models.build(name, shape, "fc", 3)
    assert "\n" not in str(caught.value)


def test_existing_nets_take_no_norm(file):
    for name in (file[0], "keras:VGG16"):
        with pytest.raises(UsageError, match="it brings its own norms"):
            models.build(name, (32, 32, 3), norm=lambda name: None)


def test_weights_that_cannot_be_downloaded_are_a_data_error(monkeypatch):
    def fail(*arguments, **options):
        raise Exception("URL fetch failure on somewhere: None -- refused")

    monkeypatch.setattr(keras.src.applications.mobilenet_v2.file_utils, "get_file", fail)
    with pytest.raises(
        DataError, match=r"cannot download the ImageNet weights of MobileNetV2: URL fetch failure"
    ):
        models.build("keras:MobileNetV2", (96, 96, 3), "fc", 10, weights="imagenet")


def test_hub_presets_need_keras_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UsageError, match=r"needs keras-hub: pip install bnhead\[hub\]"):
        models.build("hub:resnet_18_imagenet", (32, 32, 3))


def test_a_hub_backbone_is_opened_by_its_preset(monkeypatch):
    """With a stand-in for the package: the real one downloads."""
    net, _ = chain(conv(name="c"), layers.ReLU())

    def from_preset(preset):
        if preset != "small":
            raise ValueError(f"Unknown preset identifier {preset}\nand a long list")
        return net

    hub = types.SimpleNamespace(
        models=types.SimpleNamespace(Backbone=types.SimpleNamespace(from_preset=from_preset))
    )
    monkeypatch.setitem(sys.modules, "keras_hub", hub)
    assert models.build("hub:small", (16, 16, 3), "fc8", 2).get_layer("head_gap").input.shape == (
        None,
        4,
        4,
        6,
    )
    with pytest.raises(UsageError, match=r"'hub:smal' cannot be opened: Unknown preset identifier smal$"):
        models.build("hub:smal", (16, 16, 3))
