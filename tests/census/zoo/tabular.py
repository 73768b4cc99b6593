"""Models of tables, of several inputs and of several outputs."""

import keras
import numpy as np
from keras import layers, ops

from tests.census.zoo.table import INPUTS, called, case, on, relu, vectors


def table() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "age": rng.normal(40, 10, (INPUTS, 1)).astype("float32"),
        "town": rng.integers(0, 5, (INPUTS, 1)),
        "amounts": rng.normal(size=(INPUTS, 4)).astype("float32"),
    }


def columns() -> tuple[dict[str, keras.KerasTensor], list[keras.KerasTensor]]:
    """The inputs of `table`, and each as numbers."""
    inputs = {
        "age": keras.Input((1,), name="age"),
        "town": keras.Input((1,), dtype="int64", name="town"),
        "amounts": keras.Input((4,), name="amounts"),
    }
    town = layers.Flatten()(layers.Embedding(5, 3)(inputs["town"]))
    return inputs, [layers.Normalization(mean=40, variance=100)(inputs["age"]), town, inputs["amounts"]]


@case("deep0", "deep1", unseen=(2,))
def deep_and_cross():
    inputs, parts = columns()
    start = layers.concatenate(parts)
    crossed = start
    for _ in range(2):
        crossed = start * layers.Dense(8)(crossed) + crossed
    deep = start
    for i in range(2):
        deep = layers.Dense(6)(deep)
        deep = layers.Dropout(0.2)(layers.ReLU(name=f"deep{i}")(layers.BatchNormalization()(deep)))
    outputs = layers.Dense(1, activation="sigmoid")(layers.concatenate([crossed, deep]))
    return keras.Model(inputs, outputs), table()


@case("deep0", "deep1")
def wide_and_deep():
    inputs, parts = columns()
    wide = layers.CategoryEncoding(5, output_mode="multi_hot")(inputs["town"])
    deep = layers.concatenate(parts)
    for i in range(2):
        deep = layers.Dense(6, keras.activations.selu, name=f"deep{i}")(deep)
    outputs = {"bought": layers.Dense(1)(layers.concatenate([wide, deep])), "sum": layers.Dense(1)(deep)}
    return keras.Model(inputs, outputs), table()


class GatedUnit(layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.linear, self.gate = layers.Dense(units), layers.Dense(units, activation="sigmoid", name="gate")

    def call(self, x):
        return self.linear(x) * self.gate(x)


class GatedResidual(layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.elu = layers.Dense(units, activation="elu", name="elu")
        self.linear, self.project = layers.Dense(units), layers.Dense(units)
        self.unit, self.norm = GatedUnit(units, name="unit"), layers.LayerNormalization()

    def call(self, x):
        x, h = (x if x.shape[-1] == self.units else self.project(x)), self.linear(self.elu(x))
        return self.norm(x + self.unit(h))


class Selection(layers.Layer):
    """Weighs its inputs, each after a net, by a softmax of all of them."""

    def __init__(self, number, units, **options):
        super().__init__(**options)
        self.nets = [GatedResidual(units, name=f"net{i}") for i in range(number)]
        self.all, self.shares = GatedResidual(units, name="all"), layers.Dense(number, activation="softmax")

    def call(self, parts):
        shares = ops.expand_dims(self.shares(self.all(ops.concatenate(parts, axis=-1))), -1)
        outputs = ops.stack([net(part) for net, part in zip(self.nets, parts, strict=True)], axis=1)
        return ops.sum(shares * outputs, axis=1)


class Selecting(keras.Model):
    """A subclassed model of a dict."""

    def __init__(self):
        super().__init__(name="selecting")
        self.town = layers.Embedding(5, 3)
        self.selection, self.out = Selection(3, 5, name="selection"), layers.Dense(1, activation="sigmoid")

    def call(self, inputs):
        town = ops.reshape(self.town(inputs["town"]), (-1, 3))
        return self.out(self.selection([inputs["age"] / 100, town, inputs["amounts"]]))


_EACH = ("net0", "net1", "net2")
_NETS = [
    f"selection/{net}/{part}" for net in ("all", "net0", "net1", "net2") for part in ("elu", "unit/gate")
]


@case(*_NETS, unseen=(8,))
def variable_selection():
    return called(Selecting(), table())


@case("trunk", "age", "mood")
def multiple_outputs():
    """Two heads with a loss each, by name; one of the losses has a weight."""
    inputs = keras.Input((6,))
    h = relu(8, "trunk")(inputs)
    age = layers.Dense(1, name="years")(relu(4, "age")(h))
    mood = layers.Dense(3, activation="softmax", name="kind")(layers.Dense(4, "tanh", name="mood")(h))
    return keras.Model(inputs, {"years": age, "kind": mood}), vectors()


class Embeds(keras.Model):
    """A triplet net: one encoder, three inputs, distances, and a training step with its loss."""

    def __init__(self, **options):
        super().__init__(**options)
        self.encoder = keras.Sequential(
            [keras.Input((6,)), relu(8, "hidden"), layers.BatchNormalization(), layers.Dense(4)],
            name="encoder",
        )
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def call(self, inputs):
        anchor, positive, negative = (self.encoder(x) for x in inputs)
        near, far = ops.sum((anchor - positive) ** 2, -1), ops.sum((anchor - negative) ** 2, -1)
        return ops.stack([near, far], axis=-1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.relu(y_pred[:, 0] - y_pred[:, 1] + 0.5))


@case("encoder/hidden", "encoder/hidden#2", "encoder/hidden#3")
def siamese():
    return called(Embeds(name="siamese"), [vectors(seed=i) for i in range(3)])


class Margin(layers.Layer):
    """The ReLU of a number per input, without units."""

    def call(self, pair):
        return ops.relu(ops.sum((pair[0] - pair[1]) ** 2, axis=-1) - 0.5)


@case("fc", "fc#2", missed={"margin": "axis of units is not known"}, unseen=(2,))
def a_relu_of_a_number():
    left, right = keras.Input((6,)), keras.Input((6,))
    shared = relu()
    return keras.Model([left, right], Margin(name="margin")([shared(left), shared(right)])), [
        vectors(),
        vectors(seed=1),
    ]


class Bag(layers.Layer):
    """Attention over the instances of a bag, with a gate, by weights of the layer itself."""

    def build(self, shapes):
        size = shapes[0][-1]
        self.v, self.u = (self.add_weight(shape=(size, 4), name=name) for name in "vu")
        self.w = self.add_weight(shape=(4, 1), name="w")

    def call(self, instances):
        scores = [ops.matmul(ops.tanh(x @ self.v) * ops.sigmoid(x @ self.u), self.w) for x in instances]
        shares = ops.split(ops.softmax(ops.concatenate(scores, axis=-1)), len(instances), axis=-1)
        return sum(x * share for x, share in zip(instances, shares, strict=True))

    def compute_output_shape(self, shapes):
        return shapes[0]


@case("each", "each#2", "bag/tanh", "bag/sigmoid", "bag/tanh#2", "bag/sigmoid#2")
def multiple_instances():
    each = relu(5, "each")
    inputs = [keras.Input((6,)) for _ in range(2)]
    bag = Bag(name="bag")([each(x) for x in inputs])
    return keras.Model(inputs, layers.Dense(1)(bag)), [vectors(seed=i) for i in range(2)]


@case("a/b/one", "a/b/two", "a/three", "fc")
def sequentials_in_sequentials():
    b = keras.Sequential([relu(5, "one"), layers.Dropout(0.1), relu(4, "two")], name="b")
    a = keras.Sequential([b, layers.BatchNormalization(), relu(6, "three")], name="a")
    model = keras.Sequential([keras.Input((6,)), a, relu(), layers.Dense(3)])
    return model, vectors()


@case("same", "same#2")
def layers_of_one_name():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = {"left": relu(4, "same"), "right": relu(5, "same")}
            self.out = layers.Dense(3)

        def call(self, x):
            return self.out(ops.concatenate([part(x) for part in self.parts.values()], axis=-1))

    return called(Twins(), vectors())


@case("hyper/generator", "hyper")
def hypernetwork():
    """A net whose output is the kernel of another layer, another one for each input."""

    class Hyper(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.generator, self.kernel = relu(4, "generator"), layers.Dense(30)

        def build(self, shape):
            self.generator.build(shape)
            self.kernel.build((shape[0], 4))

        def call(self, x):
            kernel = ops.reshape(self.kernel(self.generator(x)), (-1, 6, 5))
            return ops.relu(ops.einsum("bi,bij->bj", x, kernel))

    return on(vectors(), Hyper(name="hyper"))
