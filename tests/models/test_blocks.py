"""Properties of every backbone."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead import heads, models
from bnhead.errors import UsageError
from bnhead.layers import batch_norm
from bnhead.models import cifar, existing, imagenet
from bnhead.models.blocks import endpoints

LIGHT = ["resnet8", "resnet20", "preresnet20", "plain20", "vgg16_bn", "allcnn", "resnet18_v2"]


EVERY_NAME = [pytest.param(n, marks=[] if n in LIGHT else pytest.mark.slow) for n in models.BUILDERS]


def build(name, head="bn_fc", **options):
    return models.find(name)((32, 32, 3), head, 5, seed=0, fc_units=8, **options)


@pytest.mark.parametrize("name", EVERY_NAME)
def test_every_weight_receives_a_gradient(name):
    model = build(name)
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=True) ** 2)
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True
    ):
        assert gradient is not None and np.any(gradient.numpy()), weight.path


@pytest.mark.parametrize("name", EVERY_NAME)
def test_every_name_round_trips_with_arguments_that_are_not_the_defaults(name, tmp_path):
    scale = keras.layers.Rescaling(0.5, offset=0.1, name="scale")
    head = "catpool_dropout0.2_fc12_bn"
    model = models.find(name)((36, 40, 2), head, 4, seed=3, preprocessing=scale, fc_activation="elu")
    x = np.random.default_rng(0).normal(size=(2, 36, 40, 2)).astype("float32")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]


BUILDERS = {  # builder -> positional arguments before the shared ones, keyword arguments
    cifar.resnet_cifar: (["depth"], ["shortcut"]),
    cifar.preresnet_cifar: (["depth"], ["shortcut"]),
    cifar.wide_resnet: (["depth", "width"], []),
    cifar.vgg16_bn: ([], []),
    cifar.allcnn: ([], []),
    imagenet.resnet: (["depth", "version"], []),
    existing.from_applications: (["name"], ["weights"]),
    existing.from_hub: (["preset"], []),
    existing.from_file: (["path"], []),
}


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_a_builder_shows_and_describes_all_its_arguments(builder):
    (positional, by_name), signature = BUILDERS[builder], inspect.signature(builder)
    shared = ["norm", "preprocessing", "seed", "head_options"]
    assert list(signature.parameters) == [*positional, "input_shape", "head", "outputs", *by_name, *shared]
    assert signature.parameters["norm"].kind is inspect.Parameter.KEYWORD_ONLY
    assert signature.return_annotation is keras.Model
    described = re.findall(
        r"^    (\w+): ", builder.__doc__.split("Args:")[1].split("Raises:")[0], re.MULTILINE
    )
    assert sorted(described) == sorted(signature.parameters)
    with pytest.raises(TypeError, match="missing a required argument"):
        builder()


def test_a_name_shows_its_arguments():
    parameters = inspect.signature(models.resnet20).parameters
    assert ["depth", *parameters] == list(inspect.signature(cifar.resnet_cifar).parameters)
    assert parameters["norm"].default is batch_norm and parameters["head"].default is None


def test_a_builder_takes_a_parsed_head():
    model = models.resnet8((8, 8, 1), heads.parse("bn_fc8"), 3, seed=0)
    assert heads.read(model) == "bn_fc8"


@pytest.mark.parametrize("name", LIGHT)
def test_every_norm_comes_from_the_argument(name):
    named = []

    def norm(name):
        named.append(name)
        return keras.layers.GroupNormalization(4, name=name)

    model = models.find(name)((32, 32, 3), norm=norm)
    norms = [layer.name for layer in model.layers if isinstance(layer, keras.layers.GroupNormalization)]
    assert sorted(named) == sorted(norms)
    assert named and not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


@pytest.mark.parametrize("name", LIGHT)
def test_endpoints_are_the_stages_in_order(name):
    outputs = endpoints(build(name, head="out"))
    stages = [stage for stage in outputs if stage.startswith("stage")]
    assert stages == [f"stage{i}" for i in range(1, len(stages) + 1)] and len(stages) >= 3
    sizes = [outputs[stage].shape[1] for stage in stages]
    assert sizes == sorted(sizes, reverse=True)


def test_endpoints_make_a_model():
    model = models.find("resnet8")((32, 32, 3))
    outputs = keras.Model(model.input, endpoints(model))(np.zeros((1, 32, 32, 3)))
    assert {name: tuple(t.shape[1:]) for name, t in outputs.items()} == {
        "stem": (32, 32, 16),
        "stage1": (32, 32, 16),
        "stage2": (16, 16, 32),
        "stage3": (8, 8, 64),
    }
    np.testing.assert_array_equal(outputs["stage3"], model(np.zeros((1, 32, 32, 3))))


@pytest.mark.parametrize("name", LIGHT)
def test_channels_first_is_refused(name):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(UsageError, match="channels_last"):
            build(name)
    finally:
        keras.config.set_image_data_format("channels_last")
