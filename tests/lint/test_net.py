import keras
import numpy as np
import pytest
from keras import layers

from bnhead.layers import BatchCentering, BatchNoise, FrozenBatchNormalization, GhostBatchNormalization
from bnhead.lint.net import UNKNOWN, has_kernel, is_norm, is_random, read_net, trains


def by_name(net):
    return {call.name: call for call in net.calls}


def test_which_call_reads_which():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="add")([x, y]))
    net = read_net(keras.Model(inputs, layers.Dense(2, name="out")(pooled)))
    calls = by_name(net)
    assert [call.name for call in net.calls] == ["conv", "bn", "relu", "add", "pool", "out"]
    reads = {name: [net.calls[i].name for i in call.reads] for name, call in calls.items()}
    assert reads == {"conv": [], "bn": ["conv"], "relu": ["bn"], "add": ["conv", "relu"], "pool": ["add"],
                     "out": ["pool"]}  # fmt: skip
    assert [call.name for call in net.readers(calls["conv"].index)] == ["bn", "add"]
    assert {net.calls[i].name for i in net.before(calls["pool"])} == {"conv", "bn", "relu", "add"}
    assert net.made_by(calls["bn"]) is calls["conv"] and net.made_by(calls["add"]) is None
    assert net.feeding(calls["out"]) == [calls["conv"]]
    assert [net.calls[i].name for i in net.results] == ["out"]
    assert (calls["bn"].positions, calls["bn"].shape[-1], calls["out"].positions) == (64, 4, 1)


def test_nested_models_and_repeated_calls():
    parts = layers.Dense(3, name="fc"), layers.BatchNormalization(name="bn")
    inner = keras.Sequential([keras.Input((4,)), *parts], name="inner")
    first, second = keras.Input((4,)), keras.Input((4,))
    joined = layers.Concatenate(name="join")([inner(first), inner(second)])
    net = read_net(keras.Model([first, second], joined))
    names = [call.name for call in net.calls]
    assert names == ["inner/fc", "inner/bn", "inner", "inner/fc#2", "inner/bn#2", "inner#2", "join"]
    assert net.calls[-1].reads == (1, 4) and net.calls[2].inside == (0, 1)
    assert [call.index for call in net.readers(0)] == [1]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc, self.bn = layers.Dense(3), layers.BatchNormalization()
        self.drop, self.last = layers.Dropout(0.5), layers.Dense(1)

    def call(self, x, training=None):
        return self.last(self.bn(self.drop(self.fc(x), training=training) + 1.0, training=training))


def test_a_subclassed_model():
    model = Subclassed()
    x = np.ones((2, 4), "float32")
    model(x)
    assert read_net(model).untraced and read_net(model).calls == []
    net = read_net(model, x)
    (norm,) = net.norms
    assert norm.reads == (UNKNOWN,) and net.made_by(norm) is None
    assert net.before(norm) == {0, 1}, "a tensor of unknown origin may depend on all before"


def test_reading_changes_nothing():
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.BatchNormalization()])
    before = [np.array(v) for v in model.variables]
    read_net(model)
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(before, model.variables, strict=True))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.BatchNormalization(), (True, True)),
        (layers.BatchNormalization(trainable=False), (True, False)),
        (GhostBatchNormalization(8), (True, True)),
        (FrozenBatchNormalization(), (True, False)),
        (BatchCentering(), (True, True)),
        (layers.LayerNormalization(), (False, None)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_norms(layer, expected):
    layer.build((None, 4))
    assert is_norm(layer) == expected[0]
    assert expected[1] is None or trains(layer) == expected[1]


def test_random_layers():
    dropping = [layers.Dropout(0.1), layers.SpatialDropout2D(0.1), layers.GaussianNoise(0.1)]
    assert all(map(is_random, dropping))
    noise = BatchNoise()
    noise.build((None, 4))
    assert not any(map(is_random, [layers.Dropout(0.0), layers.Dense(2), layers.GaussianNoise(0.0), noise]))


def test_kernels():
    dense = layers.Dense(2)
    dense.build((None, 3))
    assert has_kernel(dense) and not has_kernel(layers.ReLU())
    dense.trainable = False
    assert has_kernel(dense)
