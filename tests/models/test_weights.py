import keras
import numpy as np
import pytest

from bnhead import models
from bnhead.errors import CopyError, DataError, UsageError
from bnhead.models import existing
from bnhead.models.weights import TWINS, copy_layers, load_weights, transplant


def shaken(model, seed):
    """The model with random values everywhere, small enough to keep 152 layers tame."""
    rng = np.random.default_rng(seed)

    def value(weight):
        noise = rng.normal(size=weight.shape)
        if weight.path.endswith("variance"):
            return 1 + 0.1 * np.abs(noise)
        return np.asarray(keras.ops.convert_to_numpy(weight)) * (1 + 0.1 * noise) + 0.01 * noise * (
            noise.ndim == 1
        )

    model.set_weights([value(weight) for weight in model.weights])
    return model


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in TWINS])
def test_weights_of_keras_applications_give_the_same_outputs_both_ways(name):
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    application = shaken(getattr(keras.applications, TWINS[name])(include_top=False, weights=None), 1)
    model = shaken(models.find(name)((64, 64, 3)), 2)
    initial = model.predict(images, verbose=0)
    expected = application.predict(images, verbose=0)
    scale = np.abs(expected).max()
    assert np.abs(initial - expected).max() > 1e-2 * scale
    transplant(application, model)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5 * max(1, scale))
    third = shaken(models.find(name)((64, 64, 3)), 3)
    transplant(third, application)
    expected = third.predict(images, verbose=0)
    np.testing.assert_allclose(
        application.predict(images, verbose=0), expected, atol=1e-5 * max(1, np.abs(expected).max())
    )


@pytest.mark.slow
def test_imagenet_goes_through_keras_applications(monkeypatch):
    source = shaken(keras.applications.ResNet50V2(include_top=False, weights=None), 1)

    def stand_in(include_top, weights):
        assert (include_top, weights) == (False, "imagenet")
        return source

    monkeypatch.setattr(models.existing, "applications", lambda: {"ResNet50V2": stand_in})
    model = models.build("resnet50_v2", (64, 64, 3), "bn_fc", 4, weights="imagenet", seed=0)
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, source.get_layer("conv1_conv").kernel)

    def refused(**options):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(models.existing, "applications", lambda: {"ResNet50V2": refused})
    with pytest.raises(
        DataError, match="cannot download the ImageNet weights of ResNet50V2: URL fetch failure"
    ):
        models.build("resnet50_v2", (64, 64, 3), weights="imagenet")


@pytest.fixture
def trained(tmp_path):
    model = shaken(models.resnet8((8, 8, 1), "fc16", 10, seed=0), 4)
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run" / "model.keras")
    model.save_weights(tmp_path / "run" / "net.weights.h5")
    return tmp_path / "run", model


@pytest.mark.parametrize("source", ["", "model.keras"])
def test_a_run_or_a_file_gives_the_backbones_weights_and_not_the_heads(trained, source):
    run, source_model = trained
    model = models.build("resnet8", (8, 8, 1), "bn_fc16", 10, seed=9, weights=str(run / source))
    check_backbone_weights(model, source_model, models.resnet8((8, 8, 1), "bn_fc16", 10, seed=9))


def check_backbone_weights(model, source, fresh):
    for layer in model.layers:
        expected = (fresh if layer.name.startswith(("head_", "scale_")) else source).get_layer(layer.name)
        for weight, expected_weight in zip(layer.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected_weight)


@pytest.mark.parametrize("head", [None, "fc16", "bn_fc32_bn"])
def test_weights_h5_give_the_backbones_weights_whatever_head_they_were_saved_with(tmp_path, head):
    source = shaken(models.resnet8((8, 8, 1), head, 10 if head else None, seed=0), 4)
    source.save_weights(tmp_path / "net.weights.h5")
    model = models.resnet8((8, 8, 1), "bn_fc16", 5, seed=9)
    load_weights(model, str(tmp_path / "net.weights.h5"))
    check_backbone_weights(model, source, models.resnet8((8, 8, 1), "bn_fc16", 5, seed=9))


@pytest.mark.parametrize("scaled", [False, True])
def test_weights_h5_of_a_net_with_and_without_the_preprocessing(tmp_path, scaled):
    """The preprocessing of keras.applications is a convolution, the first one in the file."""
    name, shape = "keras:MobileNetV2", (32, 32, 3)
    scaling = existing.pixel_preprocessing("MobileNetV2") if scaled else None
    source = shaken(models.build(name, shape, "fc16", 10, preprocessing=scaling), 4)
    source.save_weights(tmp_path / "net.weights.h5")
    options = {"preprocessing": existing.pixel_preprocessing("MobileNetV2"), "seed": 9}
    keras.backend.clear_session()
    model = models.build(name, shape, "bn_fc16", 5, **options, weights=str(tmp_path / "net.weights.h5"))
    check_backbone_weights(model, source, models.build(name, shape, "bn_fc16", 5, **options))


def numbered_net(width=4, classes=None):
    """A net whose layers Keras names, in the way of Xception."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(width, 3, name="stem")(inputs)
    for _ in range(3):
        x = keras.layers.Conv2D(width, 3, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    if classes:
        x = keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x, name="numbered")


def test_layers_that_keras_numbers_correspond_by_order():
    """The numbers differ between processes: conv2d of one is conv2d_2 of the other."""
    keras.backend.clear_session()
    keras.layers.Conv2D(1, 1), keras.layers.Conv2D(1, 1)
    source = shaken(numbered_net(classes=7), 1)
    keras.backend.clear_session()
    target = numbered_net()
    names = [{layer.name for layer in net.layers if "conv2d" in layer.name} for net in (source, target)]
    assert names[0] != names[1] and names[0] & names[1], "by name some weights would go to the wrong layer"
    copy_layers(source, target, "source")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    features = keras.Model(source.input, source.layers[-3].output)
    np.testing.assert_allclose(target(x), features(x), rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_give_the_sources_features_are_refused():
    """Here the two nets have the same layers and weights, and other activations."""

    def net(activation):
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, activation=activation, name="conv")(inputs)
        return keras.Model(inputs, keras.layers.Conv2D(4, 3, name="last")(x), name="net")

    with pytest.raises(
        CopyError, match="the backbone with weights 'given' of model 'net' differs from it by"
    ):
        copy_layers(net("relu"), net("tanh"), "given")


@pytest.mark.parametrize(
    ("backbone", "shape", "source", "message"),
    [
        ("resnet14", (8, 8, 1), "", "are of 'resnet8', which has no layer 'stage1_block2_.*' of 'resnet14'"),
        (
            "resnet8",
            (8, 8, 3),
            "",
            r"layer 'stem_conv' has shapes \[\(3, 3, 1, 16\)\] in the source, \[\(3, 3, 3, 16\)\] in",
        ),
        ("resnet8", (8, 8, 1), "nothing.keras", "nothing.keras' cannot be read: "),
        ("resnet14", (8, 8, 1), "net.weights.h5", "net.weights.h5' do not fit 'resnet14': "),
    ],
)
def test_weights_of_another_net_are_refused_and_change_nothing(trained, backbone, shape, source, message):
    model = models.find(backbone)(shape, "fc16", 10, seed=9)
    initial = model.get_weights()
    with pytest.raises(UsageError, match=message) as caught:
        load_weights(model, str(trained[0] / source))
    assert "\n" not in str(caught.value)
    for weight, expected in zip(model.get_weights(), initial, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_the_error_for_missing_imagenet_weights_lists_the_nets_that_have_them():
    with pytest.raises(UsageError, match=r"backbone 'resnet8' has no weights 'imagenet' .*resnet50_v1"):
        models.build("resnet8", (32, 32, 3), weights="imagenet")


def test_an_adapted_normalization_comes_with_its_mean(tmp_path):
    """EfficientNet's weights need the mean and variance with which it normalises pixels."""

    def net():
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, name="conv")(keras.layers.Normalization(name="normalization")(inputs))
        return keras.Model(inputs, x, name="net")

    trained, fresh = net(), net()
    images = np.random.default_rng(0).normal(120, 40, (6, 8, 8, 3)).astype("float32")
    trained.get_layer("normalization").adapt(images)
    trained.get_layer("conv").trainable = False
    trained.save(tmp_path / "net.keras")
    load_weights(fresh, str(tmp_path / "net.keras"))
    np.testing.assert_allclose(fresh(images), trained(images), rtol=1e-4, atol=1e-5)
    assert fresh.get_layer("conv").trainable  # the run decides what is frozen, not the file


def test_a_run_with_its_head_alone_has_no_weights_of_a_backbone(tmp_path):
    (tmp_path / "head.keras").touch()
    with pytest.raises(UsageError, match=r"the run has no model\.keras but its head alone"):
        load_weights(models.find("resnet8")((8, 8, 1)), str(tmp_path))
