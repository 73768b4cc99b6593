"""Graphs, point clouds, fields and operators."""

import keras
import numpy as np
from keras import layers, ops

from tests.census.zoo.table import INPUTS, called, case, relu, sequences, vectors


class GraphConvolution(layers.Layer):
    """Features of the neighbours of each node, by the adjacency that is an input."""

    def __init__(self, units, activation=None, **options):
        super().__init__(**options)
        self.transform, self.activation = layers.Dense(units), keras.activations.get(activation)

    def call(self, inputs):
        nodes, adjacency = inputs
        degrees = ops.sum(adjacency, axis=-1, keepdims=True)
        return self.activation(ops.matmul(adjacency, self.transform(nodes)) / ops.maximum(degrees, 1.0))


@case("first", "second", "fc")
def graph_convolution():
    nodes, adjacency = keras.Input((5, 6)), keras.Input((5, 5))
    x = GraphConvolution(4, "relu", name="first")([nodes, adjacency])
    x = GraphConvolution(3, "elu", name="second")([x, adjacency])
    x = relu()(layers.GlobalAveragePooling1D()(x))
    links = (np.random.default_rng(1).random((INPUTS, 5, 5)) < 0.5).astype("float32")
    return keras.Model([nodes, adjacency], layers.Dense(3)(x)), [sequences(), links]


class OneGraph(keras.Model):
    """The inputs are indices of nodes; the net always runs on all nodes of one graph."""

    def __init__(self):
        super().__init__(name="one_graph")
        rng = np.random.default_rng(0)
        self.nodes = rng.normal(size=(20, 6)).astype("float32")
        self.links = rng.integers(0, 20, (2, 40))
        self.update = keras.Sequential([layers.Dense(5, "relu", name="wide"), layers.Dense(6)], name="update")
        self.out = layers.Dense(3)

    def call(self, index):
        nodes = ops.convert_to_tensor(self.nodes)
        messages = ops.take(self.update(nodes), self.links[1], axis=0)
        nodes = nodes + ops.segment_sum(messages, self.links[0], num_segments=20)
        return self.out(ops.take(nodes, index, axis=0))


@case("update/wide")
def nodes_of_one_graph():
    return called(OneGraph(), np.arange(INPUTS))


def point_net(x, filters, name, positions=True):
    layer = layers.Conv1D(filters, 1) if positions else layers.Dense(filters)
    return layers.Activation("relu", name=name)(layers.BatchNormalization(momentum=0.0)(layer(x)))


@case("t_points", "t_fc", "points", "wide", "fc")
def point_net_with_a_transform():
    """A small net turns the points before the large one."""
    inputs = keras.Input((9, 3))
    x = layers.GlobalMaxPooling1D()(point_net(inputs, 5, "t_points"))
    x = point_net(x, 4, "t_fc", positions=False)
    start = keras.initializers.Constant(np.eye(3).reshape(-1))
    turn = layers.Reshape((3, 3))(layers.Dense(9, kernel_initializer="zeros", bias_initializer=start)(x))
    x = layers.Dot(axes=(2, 1))([inputs, turn])
    x = layers.GlobalMaxPooling1D()(point_net(point_net(x, 4, "points"), 6, "wide"))
    x = layers.Dropout(0.3)(point_net(x, 5, "fc", positions=False))
    return keras.Model(inputs, layers.Dense(3, "softmax")(x)), sequences(9, 3)


@case("layer0", "layer1", "layer2", "layer3")
def radiance_field():
    """Rays in, a colour per point out; positions as sines, and the input again in the middle."""

    def encoded(x):
        waves = [x]
        for i in range(2):
            waves += [ops.sin(2.0**i * x), ops.cos(2.0**i * x)]
        return ops.concatenate(waves, axis=-1)

    inputs = keras.Input((4, 3))
    features = layers.Lambda(encoded)(inputs)
    x = features
    for i in range(4):
        x = relu(6, f"layer{i}")(x)
        if i == 1:
            x = layers.concatenate([x, features], axis=-1)
    return keras.Model(inputs, layers.Dense(4)(x)), sequences(4, 3)


class OperatorNet(keras.Model):
    """Branch and trunk, from two inputs, and their product."""

    def __init__(self):
        super().__init__(name="operator")
        self.branch = [layers.Dense(6, "tanh", name=f"branch{i}") for i in range(2)]
        self.trunk = [layers.Dense(6, "silu", name=f"trunk{i}") for i in range(2)]
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

    def call(self, inputs):
        function, points = inputs["function"], inputs["points"]
        for branch, trunk in zip(self.branch, self.trunk, strict=True):
            function, points = branch(function), trunk(points)
        return ops.sum(function * points, axis=-1, keepdims=True) + self.bias


@case("branch0", "trunk0", "branch1", "trunk1")
def operator_net():
    return called(OperatorNet(), {"function": vectors(), "points": vectors(2)})
