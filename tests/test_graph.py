import keras
import numpy as np
from keras import layers, ops

from bnhead.graph import calls, replay


def branched():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(4, name="shared")
    x = ops.maximum(shared(a), shared(b))
    outputs = layers.Add(name="sum")([x, a * 2.0])
    return keras.Model([a, b], [outputs, layers.Dense(2, name="out")(x)])


def test_calls_come_after_what_they_read():
    model = branched()
    known = {id(tensor) for tensor in model.inputs}
    found = calls(model)
    for call in found:
        assert {id(tensor) for tensor in call.inputs} <= known
        known |= {id(tensor) for tensor in call.outputs}
    assert {id(tensor) for tensor in model.outputs} <= known
    names = [call.operation.name for call in found]
    assert names.count("shared") == 2 and names.count("sum") == names.count("out") == 1 and len(names) == 6


def test_calls_in_another_model_do_not_count():
    model = branched()
    model.get_layer("shared")(keras.Input((4,)))
    assert [call.operation.name for call in calls(model)].count("shared") == 2


def test_replay_gives_the_same_function_with_the_same_layers():
    model = branched()
    inputs = [keras.Input((4,)), keras.Input((4,))]
    again = keras.Model(inputs, replay(model, inputs))
    x = [np.random.default_rng(i).normal(size=(3, 4)).astype("float32") for i in (0, 1)]
    for one, other in zip(model(x), again(x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.get_layer("shared") is model.get_layer("shared")


def test_replay_can_replace_an_operation():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.ReLU(name="relu")(layers.Dense(4, name="dense")(inputs)))

    def perform(operation, *arguments, **keywords):
        return arguments[0] if operation.name == "relu" else operation(*arguments, **keywords)

    (outputs,) = replay(model, [inputs], perform)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(keras.Model(inputs, outputs)(x), model.get_layer("dense")(x))
