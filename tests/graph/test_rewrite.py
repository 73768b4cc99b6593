import keras
import numpy as np
import pytest
from keras import layers, ops

from bnhead.errors import UsageError
from bnhead.graph import clone_layer, copy, flattened, inlined, replay
from tests.graph.test_calls import branched


def test_replay_gives_the_same_function_with_the_same_layers():
    model = branched()
    inputs = [keras.Input((4,)), keras.Input((4,))]
    replayed = keras.Model(inputs, replay(model, inputs))
    x = [np.random.default_rng(i).normal(size=(3, 4)).astype("float32") for i in (0, 1)]
    for first, second in zip(model(x), replayed(x), strict=True):
        np.testing.assert_array_equal(first, second)
    assert replayed.get_layer("shared") is model.get_layer("shared")


def test_replay_can_replace_an_operation():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.ReLU(name="relu")(layers.Dense(4, name="dense")(inputs)))

    def perform(operation, *arguments, **keywords):
        return arguments[0] if operation.name == "relu" else operation(*arguments, **keywords)

    (outputs,) = replay(model, [inputs], perform)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(keras.Model(inputs, outputs)(x), model.get_layer("dense")(x))


def test_a_copy_has_layers_and_weights_of_its_own_and_the_same_structure():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(4, name="shared")
    outputs = {"sum": layers.Add()([shared(a), shared(b)]), "product": ops.multiply(shared(a), 2.0)}
    model = keras.Model({"a": a, "b": b}, outputs, name="net")
    copied = copy(model)
    x = {n: np.random.default_rng(i).normal(size=(3, 4)).astype("float32") for i, n in enumerate("ab")}
    first, second = model(x), copied(x)
    assert set(first) == set(second) and copied.name == "net"
    assert list(copied.input) == ["a", "b"], "inputs by name, as before"
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
    assert copied.get_layer("shared") is not model.get_layer("shared")
    copied.get_layer("shared").kernel.assign(np.zeros((4, 4)))
    np.testing.assert_array_equal(model(x)["sum"], first["sum"])


def test_a_copy_without_a_layer_drops_inputs_that_nothing_reads():
    image, label = keras.Input((4,), name="image"), keras.Input((), name="label", optional=True)

    class Reads(layers.Layer):
        def call(self, x, labels=None):
            return x if labels is None else x * 0 + labels[:, None]

    model = keras.Model([image, label], layers.Dense(2)(Reads(name="reads")(image, label)))
    copied = copy(model, lambda layer: None if layer.name == "reads" else clone_layer(layer))
    assert [tensor.name for tensor in copied.inputs] == ["image"]
    x = np.ones((3, 4), "float32")
    np.testing.assert_array_equal(copied(x), model.layers[-1](x))
    copied = copy(model)
    assert copied.inputs[1]._keras_history.operation.optional


def test_a_copy_can_perform_calls_otherwise_and_remake_layers():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(4, name="dense")(inputs))

    def remake(layer):
        fresh, source = clone_layer(layer)
        return fresh, [2 * weight for weight in source.get_weights()]

    copied = copy(model, remake, perform=lambda layer, x: -layer(x), name="other")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(copied(x), -2 * model(x), rtol=1e-5)
    assert copied.name == "other"


def test_inlined_models_share_layers_and_compute_the_same():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.ReLU(name="b")], name="inner"
    )
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="c")], name="outer")
    flat = inlined(model)
    data = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(flat(data), model(data))
    assert [layer.name for layer in flat.layers[1:]] == ["a", "b", "c"] and flat.name == "outer"
    assert flat.get_layer("a") is inner.get_layer("a")
    functional_model = branched()
    assert inlined(functional_model) is functional_model


def member(name, scale):
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="same")(inputs)
    return keras.Model(inputs, layers.ReLU(name="relu")(ops.multiply(x, scale)), name=name)


def test_layers_with_one_name_are_distinguished_by_their_paths():
    """An ensemble: Keras takes two nets with the same layer names, but not in one functional model."""
    first, second = member("one", 2.0), member("other", 3.0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Average(name="mean")([first(inputs), second(inputs)]))
    flat = flattened(model)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(flat.model(x), model(x))
    assert {"one_same", "other_same", "one_relu", "other_relu", "mean"} <= set(flat.paths)
    assert flat.paths["one_same"] == "one/same" and flat.paths["mean"] == "mean"
    assert flat.originals["other_same"] is second.get_layer("same")
    assert flat.model.get_layer("mean") is model.get_layer("mean"), "the others are the model's own"
    assert flat.name("other/same") == "other_same" and flat.name("nothing") == "nothing"
    assert first.get_layer("same").name == "same", "the model is left as it is"


def test_functions_with_one_name_are_distinguished_too():
    first, second = member("one", 2.0), member("other", 3.0)
    for net in (first, second):
        (scaled,) = (op for op in net.operations if type(op).__name__ == "Multiply")
        scaled.name = "times"
    inputs = keras.Input((4,))
    model = keras.Model(inputs, first(inputs) + second(inputs))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(inlined(model)(x), model(x))


def test_a_path_that_is_taken_gets_a_number():
    first, second = member("a", 1.0), member("b", 1.0)
    inputs = keras.Input((4,), name="a_same")
    flat = flattened(keras.Model(inputs, layers.Add()([first(inputs), second(inputs)])))
    assert "a_same_2" in flat.paths and "b_same" in flat.paths


class Stack(layers.Layer):
    """A layer that holds layers, one of which may be frozen."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = layers.Dense(4, name="first"), layers.Dense(4, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x):
        return self.second(self.first(x))

    def compute_output_shape(self, shape):
        return shape


def adapted(**options):
    layer = layers.Normalization(**options)
    layer.adapt(np.random.default_rng(0).normal(50, 9, (40, 4)).astype("float32"))
    return layer


def with_lora():
    dense = layers.Dense(4, name="dense")
    dense.build((None, 4))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    return dense


@pytest.mark.parametrize(
    "layer",
    [adapted, lambda: adapted(invert=True), Stack, with_lora],
    ids=["adapted", "inverted", "stack", "lora"],
)
def test_a_copy_computes_what_the_layer_does_with_all_its_state(layer):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(layer()(inputs)))
    x = np.random.default_rng(1).normal(50, 9, (5, 4)).astype("float32")
    np.testing.assert_allclose(copy(model)(x), model(x), rtol=1e-5, atol=1e-5)


def test_what_is_frozen_inside_a_layer_stays_frozen_in_a_copy():
    inputs, stack = keras.Input((4,)), Stack(name="stack")
    model = keras.Model(inputs, stack(inputs))
    stack.first.trainable = False
    copied = copy(model)
    assert [v.path.split("/")[-2:] for v in copied.trainable_variables] == [
        ["second", "kernel"],
        ["second", "bias"],
    ]


class Forgetful(layers.Layer):
    """Its config lacks an argument."""

    def __init__(self, width, **options):
        super().__init__(**options)

    def get_config(self):
        return super().get_config()

    def call(self, x):
        return x


def test_a_layer_whose_config_makes_no_layer_is_named():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Forgetful(3, name="odd")(inputs))
    with pytest.raises(UsageError, match=r"layer 'odd' \(Forgetful\) cannot be copied, its config .*width"):
        copy(model)
