import keras
import numpy as np
import pytest

from bnhead import models
from bnhead.errors import DataError, UsageError
from bnhead.models.weights import TWINS, load, transplant


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
    theirs = shaken(getattr(keras.applications, TWINS[name])(include_top=False, weights=None), 1)
    ours = shaken(models.find(name)((64, 64, 3)), 2)
    before = ours.predict(images, verbose=0)
    expected = theirs.predict(images, verbose=0)
    scale = np.abs(expected).max()
    assert np.abs(before - expected).max() > 1e-2 * scale
    transplant(theirs, ours)
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, atol=1e-5 * max(1, scale))
    other = shaken(models.find(name)((64, 64, 3)), 3)
    transplant(other, theirs)
    expected = other.predict(images, verbose=0)
    np.testing.assert_allclose(
        theirs.predict(images, verbose=0), expected, atol=1e-5 * max(1, np.abs(expected).max())
    )


@pytest.mark.slow
def test_imagenet_goes_through_keras_applications(monkeypatch):
    given = shaken(keras.applications.ResNet50V2(include_top=False, weights=None), 1)

    def stand_in(include_top, weights):
        assert (include_top, weights) == (False, "imagenet")
        return given

    monkeypatch.setattr(models.existing, "applications", lambda: {"ResNet50V2": stand_in})
    model = models.build("resnet50_v2", (64, 64, 3), "bn_fc", 4, weights="imagenet", seed=0)
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, given.get_layer("conv1_conv").kernel)

    def refused(**options):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(models.existing, "applications", lambda: {"ResNet50V2": refused})
    with pytest.raises(DataError, match="weights 'imagenet' of ResNet50V2 cannot be had: URL fetch failure"):
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
    place, given = trained
    model = models.build("resnet8", (8, 8, 1), "bn_fc16", 10, seed=9, weights=str(place / source))
    fresh = models.resnet8((8, 8, 1), "bn_fc16", 10, seed=9)
    for layer in model.layers:
        expected = (fresh if layer.name.startswith("head_") else given).get_layer(layer.name).get_weights()
        for one, other in zip(layer.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_weights_h5_of_the_same_net(trained):
    place, given = trained
    model = models.resnet8((8, 8, 1), "fc16", 10, seed=9)
    load(model, str(place / "net.weights.h5"))
    for one, other in zip(model.get_weights(), given.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("backbone", "shape", "source", "message"),
    [
        ("resnet14", (8, 8, 1), "", "are of 'resnet8', which has no layer 'stage1_block2_.*' of 'resnet14'"),
        (
            "resnet8",
            (8, 8, 3),
            "",
            r"layer 'stem_conv' has shapes \[\(3, 3, 1, 16\)\] there, \[\(3, 3, 3, 16\)\] in",
        ),
        ("resnet8", (8, 8, 1), "nothing.keras", "nothing.keras' cannot be read: "),
        ("resnet14", (8, 8, 1), "net.weights.h5", "net.weights.h5' do not fit 'resnet14': "),
    ],
)
def test_weights_of_another_net_are_refused_and_change_nothing(trained, backbone, shape, source, message):
    model = models.find(backbone)(shape, "fc16", 10, seed=9)
    before = model.get_weights()
    with pytest.raises(UsageError, match=message) as caught:
        load(model, str(trained[0] / source))
    assert "\n" not in str(caught.value)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nets_without_imagenet_weights_say_which_have_them():
    with pytest.raises(UsageError, match=r"'imagenet' are not there for backbone 'resnet8' .*resnet50_v1"):
        models.build("resnet8", (32, 32, 3), weights="imagenet")


def test_an_adapted_normalization_comes_with_its_mean(tmp_path):
    """EfficientNet's weights are of no use without the mean and variance that it subtracts from pixels."""

    def net():
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, name="conv")(keras.layers.Normalization(name="normalization")(inputs))
        return keras.Model(inputs, x, name="net")

    trained, fresh = net(), net()
    images = np.random.default_rng(0).normal(120, 40, (6, 8, 8, 3)).astype("float32")
    trained.get_layer("normalization").adapt(images)
    trained.get_layer("conv").trainable = False
    trained.save(tmp_path / "net.keras")
    load(fresh, str(tmp_path / "net.keras"))
    np.testing.assert_allclose(fresh(images), trained(images), rtol=1e-4, atol=1e-5)
    assert fresh.get_layer("conv").trainable  # what is frozen is the run's affair, not the file's
