import keras
import numpy as np
import pytest
from keras import layers, ops

from bnhead import DeadUnits, census, heads
from bnhead.errors import UsageError
from bnhead.graph import model_calls
from bnhead.graph.calls import calls_as


def branched():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(4, name="shared")
    x = ops.maximum(shared(a), shared(b))
    outputs = layers.Add(name="sum")([x, a * 2.0])
    return keras.Model([a, b], [outputs, layers.Dense(2, name="out")(x)])


def test_a_subclass_computes_as_its_class_unless_it_overrides_call():
    class Named(layers.Dense):
        pass

    class Twice(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    assert calls_as(Named(2), (layers.Conv2D, layers.Dense)) and not calls_as(Twice(2), (layers.Dense,))
    assert not calls_as(layers.Flatten(), (layers.Dense,))


def test_calls_come_after_what_they_read():
    model = branched()
    computed = {id(tensor) for tensor in model.inputs}
    order = model_calls(model)
    for call in order:
        assert {id(tensor) for tensor in call.inputs} <= computed
        computed |= {id(tensor) for tensor in call.outputs}
    assert {id(tensor) for tensor in model.outputs} <= computed
    names = [call.operation.name for call in order]
    assert names.count("shared") == 2 and names.count("sum") == names.count("out") == 1 and len(names) == 6


def test_calls_in_another_model_do_not_count():
    model = branched()
    model.get_layer("shared")(keras.Input((4,)))
    assert [call.operation.name for call in model_calls(model)].count("shared") == 2


def test_a_model_of_another_keras_is_an_error():
    foreign = type("Functional", (), {"__module__": "tf_keras.src.engine.functional"})
    model = type("Own", (foreign,), {"name": "theirs", "built": True})()
    data = np.zeros((4, 6), "float32")
    callback = DeadUnits(data)
    for use in (
        lambda: heads.insert_bn(model, data),
        lambda: heads.fold(model),
        lambda: census.count(model, data),
        lambda: callback.set_model(model),
    ):
        with pytest.raises(
            UsageError, match=r"model 'theirs' is of another Keras \(tf_keras\); build it with"
        ):
            use()
    torch = type("Linear", (), {"__module__": "torch.nn.modules.linear"})()
    with pytest.raises(
        UsageError, match=r"model must be a Keras model, got torch\.nn\.modules\.linear\.Linear"
    ):
        census.count(torch, data)
