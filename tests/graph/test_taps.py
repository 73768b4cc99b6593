"""Each row: a model, an input, and the activations that its forward pass runs, with their values by hand."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from bnhead.graph import taps

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(5, 6)).astype("float32")
SERIES = RNG.normal(size=(5, 4, 6)).astype("float32")
IMAGES = RNG.random((5, 8, 8, 3)).astype("float32")


def relu(x):
    return np.maximum(x, 0)


def stack(*layers_in_order, shape=(6,)):
    inputs = keras.Input(shape)
    x = inputs
    for layer in layers_in_order:
        x = layer(x)
    return keras.Model(inputs, x)


class Block(layers.Layer):
    """A layer that holds a layer, and calls an activation between two sums."""

    def __init__(self, function=None, **options):
        super().__init__(**options)
        self.inner, self.function = layers.Dense(6, "relu", name="inner"), function

    def build(self, shape):
        self.inner.build(shape)

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        y = self.inner(x)
        return x + self.function(y - 0.1) if self.function else x + y


class ResidualDense(layers.Dense):
    def call(self, x):
        return x + super().call(x)


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.fc = layers.Dense(4, name="fc")

    def call(self, x):
        return ops.relu(self.fc(x))


def my_activation(x):
    return ops.maximum(x, 0.1 * x)


def shared():
    inputs, dense = keras.Input((6,)), layers.Dense(6, "relu", name="dense")
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, "relu", name="in")], name="inner")
    return keras.Model(inputs, inner(dense(inner(inputs=dense(inputs)))))


def subclassed():
    model = Subclassed()
    model(VECTORS)
    return model


by_value = tf.nn.relu


def forward_pass(model, x, **options):
    """The pass of an eager call in evaluation mode."""
    with taps.opened(model, evaluating=True, **options) as opened:
        model(x, training=False)
    assert len(opened.passes) == 1
    return opened.passes[0]


SITES = {  # name: (model, input, {name of the site: kind})
    "dense": (lambda: stack(layers.Dense(5, "relu", name="fc")), VECTORS, {"fc": "relu"}),
    "layers": (
        lambda: stack(
            layers.ReLU(name="a"),
            layers.LeakyReLU(name="b"),
            layers.PReLU(name="c"),
            layers.Softmax(name="d"),
        ),
        VECTORS,
        {"a": "relu", "b": "leaky_relu", "c": "prelu", "d": "softmax"},
    ),
    "threshold": (lambda: stack(layers.ReLU(threshold=0.1, name="a")), VECTORS, {"a": "leaky_relu"}),
    "six": (lambda: stack(layers.ReLU(max_value=6, name="a")), VECTORS, {"a": "relu6"}),
    "clipped": (lambda: stack(layers.ReLU(max_value=2, name="a")), VECTORS, {"a": "clipped_relu"}),
    "mish": (lambda: stack(layers.Activation("mish", name="a")), VECTORS, {"a": "mish"}),
    "linear": (lambda: stack(layers.Dense(5), layers.Activation("linear")), VECTORS, {}),
    "identity": (lambda: stack(layers.Dense(5, tf.identity)), VECTORS, {}),
    "exponential": (lambda: stack(layers.Dense(5, "exponential", name="a")), VECTORS, {"a": "function"}),
    "own function": (lambda: stack(layers.Dense(5, my_activation, name="a")), VECTORS, {"a": "function"}),
    "own wrapper": (
        lambda: stack(layers.Dense(5, lambda x: tf.nn.relu(x), name="a")),
        VECTORS,
        {"a": "relu"},
    ),
    "layer as function": (lambda: stack(layers.Dense(5, layers.ReLU(), name="a")), VECTORS, {"a": "relu"}),
    "lambda": (lambda: stack(layers.Lambda(tf.nn.relu, name="a")), VECTORS, {"a": "relu"}),
    "block": (lambda: stack(Block(name="b")), VECTORS, {"b/inner": "relu"}),
    "block, two": (lambda: stack(Block(ops.gelu, name="b")), VECTORS, {"b/inner": "relu", "b/gelu": "gelu"}),
    "native": (
        lambda: stack(Block(lambda x: tf.nn.elu(x), name="b")),
        VECTORS,
        {"b/inner": "relu", "b/elu": "elu"},
    ),
    "by value": (lambda: stack(Block(by_value, name="b")), VECTORS, {"b/inner": "relu", "b/relu": "relu"}),
    "residual": (lambda: stack(ResidualDense(6, "relu", name="r")), VECTORS, {"r/relu": "relu"}),
    "subclassed": (subclassed, VECTORS, {"relu": "relu"}),
    "shared": (
        shared,
        VECTORS,
        {"dense": "relu", "inner/in": "relu", "dense#2": "relu", "inner/in#2": "relu"},
    ),
    "separable": (
        lambda: stack(layers.SeparableConv2D(4, 3, activation="relu", name="a"), shape=(8, 8, 3)),
        IMAGES,
        {"a": "relu"},
    ),
    "spectral": (
        lambda: stack(layers.SpectralNormalization(layers.Dense(5, "relu", name="d"), name="s")),
        VECTORS,
        {"s/d": "relu"},
    ),
    "steps": (
        lambda: stack(layers.TimeDistributed(layers.Dense(5, "relu"), name="t"), shape=(4, 6)),
        SERIES,
        {"t/relu": "relu"},
    ),
    "augmentation": (
        lambda: stack(layers.RandomFlip(), layers.Conv2D(4, 3, activation="relu", name="a"), shape=(8, 8, 3)),
        IMAGES,
        {"a": "relu"},
    ),
    "lstm": (lambda: stack(layers.LSTM(3, name="l"), shape=(4, 6)), SERIES, {}),
    "attention": (
        lambda: stack(lambda x: layers.MultiHeadAttention(2, 3, name="m")(x, x), shape=(4, 6)),
        SERIES,
        {"m/softmax": "softmax"},
    ),
}


@pytest.mark.parametrize("name", SITES)
def test_every_activation_is_seen_under_its_name(name):
    build, x, expected = SITES[name]
    observed = forward_pass(build(), x)
    assert {tap.name: tap.kind for tap in observed.activations} == expected
    assert not observed.missed
    for tap in observed.activations:  # the function can be called again
        np.testing.assert_array_equal(tap.function(tap.pre_activation), tap.output)
        assert tap.units == tap.output.shape[-1]


def test_values_are_those_of_the_forward_pass():
    model = stack(ResidualDense(6, "relu", name="r"), Block(name="b"), layers.Dense(2))
    observed = {tap.name: tap for tap in forward_pass(model, VECTORS).activations}
    kernel, bias = model.get_layer("r").get_weights()
    np.testing.assert_allclose(
        observed["r/relu"].pre_activation, VECTORS @ kernel + bias, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(observed["r/relu"].output, relu(VECTORS @ kernel + bias), rtol=1e-5, atol=1e-6)
    x = VECTORS + relu(VECTORS @ kernel + bias)
    kernel, bias = model.get_layer("b").inner.get_weights()
    np.testing.assert_allclose(observed["b/inner"].output, relu(x @ kernel + bias), rtol=1e-5, atol=1e-6)


def test_the_steps_of_a_wrapped_layer_are_its_positions():
    model = stack(layers.TimeDistributed(layers.Dense(5, "relu"), name="t"), shape=(4, 6))
    (tap,) = forward_pass(model, SERIES).activations
    np.testing.assert_array_equal(tap.output, model(SERIES))


def test_the_steps_of_a_wrapped_layer_can_be_watched():
    """A watch with no paths to keep leaves no tensors to stack."""
    model = stack(layers.TimeDistributed(layers.Dense(5, "relu"), name="t"), shape=(4, 6))
    with taps.opened(model, evaluating=True, watch=lambda key, part, tensor: tensor, paths=()) as observed:
        model(SERIES)
    (tap,) = observed.passes[0].activations
    assert tap.output is None and len(tap.steps) == 4


LOOPS = {
    "cond": lambda x: ops.cond(ops.sum(x) > -1e9, lambda: ops.relu(x), lambda: x),
    "while_loop": lambda x: ops.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, ops.relu(h)), (0, x))[1],
    "scan": lambda x: ops.scan(lambda c, t: (ops.relu(c + t), t), ops.zeros((6,)), x)[1],
    "vectorized_map": lambda x: ops.vectorized_map(ops.relu, x),
}


@pytest.mark.parametrize("name", LOOPS)
def test_what_runs_in_a_loop_is_listed(name):
    observed = forward_pass(stack(Block(LOOPS[name], name="b")), VECTORS)
    assert observed.missed == {"b": f"relu inside ops.{name}"}
    assert [tap.name for tap in observed.activations] == ["b/inner"]


@pytest.mark.parametrize("unroll", [True, False])
def test_a_recurrent_layer_is_seen_at_its_output(unroll):
    model = stack(
        layers.Bidirectional(layers.SimpleRNN(3, "relu", unroll=unroll, name="r"), name="two"), shape=(4, 6)
    )
    observed = forward_pass(model, SERIES)
    assert not observed.activations and not observed.missed
    recurrent = [tap for tap in observed.outputs if tap.kind == "recurrent"]
    assert [tap.name for tap in recurrent] == ["two/forward_r", "two/backward_r"]
    np.testing.assert_array_equal(np.concatenate([tap.output for tap in recurrent], 1), model(SERIES))


def test_groups_and_axes_of_channels():
    inputs = keras.Input((8, 8, 3))
    joined = layers.Concatenate()([layers.Conv2D(4, 1)(inputs), layers.Conv2D(2, 1)(inputs)])
    x = layers.ReLU(name="a")(layers.BatchNormalization()(joined))
    (tap,) = forward_pass(keras.Model(inputs, x), IMAGES).activations
    assert tap.groups == (4, 2)
    first = layers.Conv2D(4, 3, data_format="channels_first", activation="relu", name="first")
    model = stack(first, layers.Dropout(0.5), layers.ReLU(name="then"), shape=(3, 8, 8))
    observed = {tap.name: tap for tap in forward_pass(model, IMAGES.transpose(0, 3, 1, 2)).activations}
    assert observed["first"].axis == observed["then"].axis == 1
    assert observed["first"].units == observed["then"].units == 4


def doubles_what_goes_in(key, part, tensor):
    return tensor * 2 if part == "pre_activation" else tensor


def test_outputs_masks_and_what_goes_back_in():
    tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Dense(3, "relu", name="d")(layers.Embedding(5, 6, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    (tap,) = forward_pass(model, tokens).activations
    np.testing.assert_array_equal(tap.mask, tokens > 0)
    doubled = forward_pass(model, tokens, watch=doubles_what_goes_in).activations[0]
    np.testing.assert_allclose(doubled.output, 2 * np.asarray(tap.output), rtol=1e-6)
    calls = []
    forward_pass(model, tokens, watch=lambda *call: calls.append(call[:2]) or call[2])
    assert [part for key, part in calls if key == tap.key] == ["pre_activation", "output"]
    assert [part for key, part in calls if key == ("d", 0, True)] == ["output"]
    (tap,) = forward_pass(stack(layers.Dense(3, "relu")), VECTORS).activations
    assert tap.is_output


def test_other_models_and_losses_are_not_looked_at():
    model, other_model = stack(layers.Dense(3, "relu", name="a")), stack(layers.Dense(3, "relu", name="b"))
    with taps.opened(model) as opened:
        other_model(VECTORS)
        tf.nn.relu(VECTORS)
        model(VECTORS)
        model(VECTORS)
    assert [[tap.name for tap in observed.activations] for observed in opened.passes] == [["a"], ["a"]]


def test_everything_is_as_it_was_after_an_interrupt_and_in_other_threads():
    class Stops(layers.Layer):
        def call(self, x):
            raise KeyboardInterrupt

    from keras.src import backend

    hooked = (
        backend.nn.relu,
        keras.Layer.__call__,
        keras.Operation.__call__,
        tf.nn.relu,
        keras.layers.PReLU.call,
    )
    model = stack(layers.Dense(3, my_activation, name="a"))
    stops = keras.Sequential([layers.Dense(3, my_activation), Stops()])
    with pytest.raises(KeyboardInterrupt), taps.opened(stops):
        stops(VECTORS)
    counts = []

    def work():
        for _ in range(20):
            counts.append(len(forward_pass(model, VECTORS).activations))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 60
    restored = (
        backend.nn.relu,
        keras.Layer.__call__,
        keras.Operation.__call__,
        tf.nn.relu,
        keras.layers.PReLU.call,
    )
    assert all(a is b for a, b in zip(hooked, restored, strict=True))
    assert model.get_layer("a").activation is my_activation and stops.layers[0].activation is my_activation
