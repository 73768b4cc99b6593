import keras
import pytest
import tensorflow as tf
from keras import layers, ops

from bnhead.graph import trace


class Own(layers.Layer):
    def __init__(self, function, **options):
        super().__init__(**options)
        self.inner, self.function = layers.Dense(5, "gelu", name="inner"), function

    def call(self, x):
        return self.function(self.inner(x))


def missed(function):
    inputs = keras.Input((6,))
    x = keras.Sequential([Own(function, name="own")], name="nested")(inputs)
    model = keras.Model(inputs, layers.Dense(2, "relu")(x))
    return trace.forward(model, trace.specs(model)).missed


def test_a_maximum_with_zero_is_listed_with_its_layer():
    assert missed(lambda x: ops.maximum(x, 0.0)) == {"nested/own": "maximum with 0 that no hook saw"}
    assert missed(lambda x: ops.maximum(x, 0.1)) == {}


@pytest.mark.parametrize("function", [tf.nn.relu, ops.relu, tf.nn.tanh, keras.activations.mish])
def test_what_the_hooks_saw_is_not_listed(function):
    assert missed(lambda x: function(x)) == {}
    assert missed(function) == {}


def test_a_function_that_was_compiled_before_is_listed():
    compiled = tf.function(lambda x: tf.nn.relu(x))
    compiled(tf.ones((3, 5)))
    assert missed(compiled)["nested/own"].startswith("relu")
    assert missed(compiled)["nested/own"].startswith("relu")  # from the cache, with an old mark


def test_what_a_recurrent_layer_does_inside_is_not_listed():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.SimpleRNN(3, "relu", name="r")(inputs))
    traced = trace.forward(model, trace.specs(model))
    assert not traced.missed
    assert [tap.kind for tap in traced.outputs if tap.name == "r"] == ["recurrent"]
