import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from bnhead.errors import UsageError
from bnhead.graph import trace


def net():
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dense(5, "relu", name="fc")(inputs), training=True)
    x = layers.Dropout(0.5)(x, training=True)
    return keras.Model(inputs, layers.GaussianNoise(1.0)(layers.Dense(2)(x)))


def state(model):
    return [np.array(ops.convert_to_numpy(v)) for v in model.variables]


def test_a_traced_pass_leaves_nothing_in_the_model():
    model = net()
    initial = state(model)
    traced = trace.forward(model, trace.specs(model))
    assert [tap.name for tap in traced.activations] == ["fc"] and not traced.missed
    for expected, actual in zip(initial, state(model), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_what_is_compiled_reads_the_present_weights_and_assigns_nothing():
    model = net()
    run = trace.compiled(lambda x: ops.sum(model(x, training=True)), model)
    x, initial = tf.ones((4, 6)), state(model)
    first = float(run(x))
    assert float(run(x)) == first  # the random state has not changed
    for expected, actual in zip(initial, state(model), strict=True):
        np.testing.assert_array_equal(expected, actual)
    model.set_weights([w * 0 + 3 for w in model.get_weights()])
    assert float(run(x)) != first


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends take every name")
@pytest.mark.parametrize("name", ["<script>", "=cmd", "$x^$", "a\x1b[31m", "a\nb", "\xfc", " "])
def test_names_that_tensorflow_cannot_trace_are_errors_and_leave_no_scope_open(name):
    inputs = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu", name=name)], name="inner")
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)), name="_net")
    for attempt in (lambda: trace.forward(model, trace.specs(model)), lambda: trace.compiled(model, model)):
        with pytest.raises(
            UsageError, match=r"of model '_net' has a name that TensorFlow cannot trace; lett"
        ):
            attempt()
        with keras.name_scope("outer"):
            variable = keras.Variable(0.0, name="free")
        assert variable.path == "outer/free"


def test_inputs_that_are_not_known():
    class Own(keras.Model):
        def call(self, x):
            return x

    model = Own()
    assert trace.specs(model) is None
    with pytest.raises(UsageError, match="must be built: call it on a batch of inputs first"):
        trace.require_built(model)
    model(np.zeros((1, 2)))
    trace.require_built(model)
