import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from bnhead import graph, heads
from bnhead.errors import CopyError
from bnhead.graph.agreement import _PART, outputs, random_inputs, relative_difference, require_agreement
from bnhead.layers import fold_batch_norm, plain


@keras.saving.register_keras_serializable("test_agreement")
class Offset(layers.Layer):
    """Adds a value that is neither in its config nor in its weights."""

    offset = 0.0

    def call(self, x):
        return x + self.offset


def with_hidden_state():
    inputs = keras.Input((4, 4, 3))
    hidden = Offset(name="offset")
    x = layers.Conv2D(6, 3)(hidden(inputs))
    model = keras.Model(
        inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.ReLU()(x))), name="net"
    )
    hidden.offset = 100.0
    return model


@pytest.mark.parametrize(
    "make",
    [
        plain,
        fold_batch_norm,
        heads.fold,
        lambda model: heads.swap(model, "bn_fc8", 2),
        lambda model: heads.insert_bn(model, np.zeros((8, 4, 4, 3), "float32")),
    ],
    ids=["plain", "fold_batch_norm", "fold", "swap", "insert_bn"],
)
def test_a_copy_that_loses_state_is_not_handed_out(make):
    with pytest.raises(CopyError, match=r"a copy of model 'net' differs from it by .* a layer holds state"):
        make(with_hidden_state())


@keras.saving.register_keras_serializable("test_agreement")
class AlwaysDrops(layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


def test_what_is_random_in_inference_compares_too():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(AlwaysDrops(0.5)(layers.Dense(40)(inputs))))
    copied = graph.copy(model)
    x = next(random_inputs(model, pixels=False))
    assert relative_difference(model, copied, x) == 0
    assert not np.array_equal(model(x), model(x)), "it is random"
    copied.layers[-1].kernel.assign(copied.layers[-1].kernel * 2)
    assert relative_difference(model, copied, x) > 0.1


def test_nothing_in_the_model_changes():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, AlwaysDrops(0.5)(layers.BatchNormalization()(inputs)))
    values = [np.array(v) for v in model.variables]
    outputs(model, np.ones((3, 4), "float32"))
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_what_cannot_be_compared_is_none():
    inputs = keras.Input((4,))
    unseeded = keras.Model(inputs, layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x)))(inputs))
    assert relative_difference(unseeded, unseeded, np.ones((2, 4), "float32")) is None
    nothing = keras.Model(inputs, layers.Lambda(lambda x: x * float("nan"))(inputs))
    assert relative_difference(nothing, nothing, np.ones((2, 4), "float32")) is None


def test_a_model_that_takes_no_random_inputs_inputs_is_said():
    inputs = keras.Input((4,))
    picky = keras.Model(inputs, layers.Lambda(lambda x: ops.reshape(x, (3, 4)), output_shape=(4,))(inputs))
    with pytest.warns(UserWarning, match="the copy of model .* is not compared with it: .*reshape"):
        require_agreement(picky, picky, np.zeros((2, 4), "float32"))
    require_agreement(picky, picky, np.zeros((3, 4), "float32"))


def test_a_copy_that_does_not_run_is_not_handed_out():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(4)(inputs), name="net")
    broken = keras.Model(inputs, layers.Lambda(lambda x: ops.reshape(x, (3, 4)), output_shape=(4,))(inputs))
    with pytest.raises(CopyError, match=r"a copy of model 'net' does not run: .*reshape"):
        require_agreement(model, broken)


def test_inputs_are_random_inputs_in_the_models_structure_and_of_its_kinds():
    model = keras.Model(
        {
            "image": (image := keras.Input((None, None, 3), name="image")),
            "word": (word := keras.Input((5,), dtype="int32", name="word")),
        },
        layers.Concatenate()([layers.GlobalAveragePooling2D()(image), ops.cast(word, "float32")]),
    )
    tried = list(random_inputs(model, pixels=True))
    assert [x["image"].shape for x in tried] == [(2, size, size, 3) for size in (64, 32, 224, 8)]
    assert set(np.unique(tried[0]["word"])) <= {0, 1} and 200 < np.max(tried[0]["image"]) <= 255
    assert abs(np.mean(next(random_inputs(model, pixels=False))["image"])) < 0.1
    require_agreement(model, graph.copy(model))


def test_each_range_of_inputs_is_judged_by_its_own_outputs():
    """Outputs for pixels are hundreds of times larger, and would hide a difference for normal inputs."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="out")(inputs))
    copied = graph.copy(model)
    copied.get_layer("out").bias.assign([0.1, 0.1, 0.1])
    assert relative_difference(model, copied, next(random_inputs(model, pixels=True))) < 0.01
    with pytest.raises(CopyError, match=r"differs from it by 0\.\d"):
        require_agreement(model, copied)


def test_half_precision_may_round_more():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, dtype="mixed_bfloat16")(inputs)
    x = layers.BatchNormalization(dtype="mixed_bfloat16")(x)
    model = keras.Model(inputs, layers.Dense(3, dtype="float32")(layers.GlobalAveragePooling2D()(x)))
    model.layers[2].moving_mean.assign(np.linspace(-3, 3, 8))
    folded = fold_batch_norm(model)
    assert 1e-5 < relative_difference(model, folded, next(random_inputs(model, pixels=False))) < 0.1


def test_examples_are_run_a_few_at_a_time():
    """Eager passes of 64 images of NASNetLarge at once would need 77 GB."""
    sizes = []
    side = int(_PART**0.5)
    image, vector = keras.Input((side, side, 1)), keras.Input((3,))
    counted = keras.layers.Lambda(lambda x: sizes.append(x.shape[0]) or x)
    model = keras.Model([image, vector], [counted(keras.layers.GlobalMaxPooling2D()(image)), vector])
    sizes.clear()
    arrays = [np.random.default_rng(0).normal(size=(5, *t.shape[1:])).astype("float32") for t in model.inputs]
    results = outputs(model, arrays)
    assert sizes == [1] * 5
    np.testing.assert_array_equal(np.concatenate(results[0::2]), arrays[0].max((1, 2)))
    np.testing.assert_array_equal(np.concatenate(results[1::2]), arrays[1])
    fixed = keras.Input((side, side, 1), batch_size=5)
    (result,) = outputs(keras.Model(fixed, keras.layers.Flatten()(fixed)), arrays[0])
    assert len(result) == 5


@pytest.mark.parametrize("steps, compares", [(4, True), (60, False)])
def test_a_difference_that_rounding_explains_is_no_lost_state(steps, compares):
    """Each step doubles a difference: after 60, rounding has become everything."""
    inputs = keras.Input((8,))
    x = ops.sigmoid(layers.Dense(8)(layers.BatchNormalization()(inputs)))
    for _ in range(steps):
        x = 4 * x * (1 - x)
    model = keras.Model(inputs, x)
    model.layers[1].moving_mean.assign(np.linspace(-3, 3, 8))
    folded = fold_batch_norm(model)  # compares and does not raise
    difference = relative_difference(model, folded, next(random_inputs(model, pixels=False)))
    assert (difference < 1e-3) == compares
    weight = folded.trainable_variables[0]
    weight.assign(weight + 0.1)
    with pytest.raises(CopyError, match="state") if compares else contextlib.nullcontext():
        require_agreement(model, folded)
