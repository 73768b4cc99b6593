import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.layers import BatchNormalization, needs_bnhead, plain
from bnhead.models import resnet8


def images(shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 3 + 1).astype("float32")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_plain_has_keras_layers_and_the_same_outputs(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = resnet8((8, 8, 1), "bn_fc", 10, seed=0)
    finally:
        keras.config.set_dtype_policy(previous)
    x = images((20, 8, 8, 1))
    model(x, training=True)
    copied = plain(model)
    assert all(type(layer).__module__.startswith("keras.") for layer in copied.layers)
    policies = [[layer.dtype_policy.name for layer in m.layers[1:]] for m in (copied, model)]
    assert policies[0] == policies[1]
    tolerance = 1e-5 if policy == "float32" else 0.05
    np.testing.assert_allclose(copied.predict(x, verbose=0), model.predict(x, verbose=0), atol=tolerance)
    for actual, expected in zip(copied.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("text", [token.example for token in heads.TOKENS.values()])
def test_every_token_predicts_the_same_in_plain_layers(text):
    model = resnet8((8, 8, 1), text, 3, seed=0, fc_units=8, class_counts=[3, 2, 1])
    x = images((20, 8, 8, 1))
    model([x, np.zeros(20, "int32")] if heads.parse(text).needs_labels else x, training=True)
    copied = plain(model)
    assert len(copied.inputs) == 1
    np.testing.assert_allclose(copied(x), heads.inference(model)(x), atol=2e-5)
    assert needs_bnhead(copied) == (text in ("l2", "gem"))


def test_a_frozen_norm_in_place_of_a_part_cannot_train_into_a_batch_norm():
    copied = plain(resnet8((8, 8, 1), "center_scale_out", 3, seed=0))
    for name in ("head_center", "head_scale"):
        assert not copied.get_layer(name).trainable and not copied.get_layer(name).trainable_weights


def test_nested_models_and_renorm():
    inner = keras.Sequential([keras.Input((3,)), BatchNormalization(renorm=True, name="renorm")])
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    assert needs_bnhead(model)
    copied = plain(model)
    assert not needs_bnhead(copied) and copied.get_layer("renorm").renorm
    x = images((5, 3))
    np.testing.assert_allclose(copied(x), model(x), rtol=1e-5)
