"""Layers and models that users define."""

import keras
from keras import layers, ops

from tests.census.zoo.reference import activation
from tests.census.zoo.table import called, case, images, on, relu, sequences, vectors


class Block(layers.Layer):
    """A transformer block, with layers and an `activation`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.activation = keras.activations.relu
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")
        self.norm = layers.LayerNormalization(name="norm")
        self.up, self.down = layers.Dense(8, "relu", name="up"), layers.Dense(6, name="down")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.norm.build(shape)
        self.up.build(shape)
        self.down.build((*shape[:-1], 8))

    def call(self, x):
        x = x + self.attention(x, x)
        return x + self.down(self.up(self.norm(x)))

    def compute_output_shape(self, shape):
        return shape


@case("block/up", "second/up", "fc")
def transformer_blocks():
    return on(sequences(), Block(name="block"), Block(name="second"), layers.GlobalAveragePooling1D(), relu())


class InvertedBottleneck(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.activation = keras.activations.get("relu6")
        self.expand = layers.Conv2D(6, 1, name="expand")
        self.depthwise = layers.DepthwiseConv2D(3, padding="same", name="depthwise")
        self.project = layers.Conv2D(3, 1, name="project")

    def build(self, shape):
        self.expand.build(shape)
        self.depthwise.build((*shape[:-1], 6))
        self.project.build((*shape[:-1], 6))

    def call(self, x):
        h = self.activation(self.expand(x))
        return x + self.project(self.activation(self.depthwise(h)))

    def compute_output_shape(self, shape):
        return shape


@case("block/relu6", "block/relu6#2")
def inverted_bottleneck():
    return on(images(), InvertedBottleneck(name="block"))


class Residual(layers.Dense):
    def call(self, x):
        return x + super().call(x)


@case("res/relu", "fc")
def a_subclass_of_dense_with_a_call_of_its_own():
    return on(vectors(), Residual(6, "relu", name="res"), relu())


class MyReLU(layers.ReLU):
    pass


@case("mine")
def a_subclass_of_relu():
    return on(vectors(), layers.Dense(6), MyReLU(name="mine"))


@activation
def sharper(x, a=0.1):
    return ops.where(x > 0, x, a * x)


sharper.__name__ = "relu"


@case("fc")
def a_function_that_is_called_relu():
    return on(vectors(), layers.Dense(7, sharper, name="fc"))


class Stack(layers.Layer):
    def __init__(self, depth=3, **options):
        super().__init__(**options)
        self.parts = [layers.Dense(6, "relu", name=f"part{i}") for i in range(depth)]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def call(self, x):
        for part in self.parts:
            x = ops.relu(part(x) - 0.01)
        return x

    def compute_output_shape(self, shape):
        return shape


@case("stack/part0", "stack/relu", "stack/part1", "stack/relu#2", "stack/part2", "stack")
def layers_in_a_list():
    return on(vectors(), Stack(name="stack"))


# users' models


class Own(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.fc, self.out = relu(), layers.Dense(3, name="out")

    def call(self, x):
        return self.out(self.fc(x))


@case("fc")
def subclassed():
    return called(Own(), vectors())


class OwnStep(keras.Model):
    """Trains on half of each batch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.halves = 1

    def train_step(self, *arguments):
        *state, data = arguments
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        half = ops.shape(x)[0] // 2
        return super().train_step(*state, keras.utils.pack_x_y_sample_weight(x[:half], y[:half], weight))


@case("fc")
def with_a_train_step_of_its_own():
    inputs = keras.Input((6,))
    return OwnStep(inputs=inputs, outputs=layers.Dense(3)(relu()(inputs))), vectors()


class Sampling(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, mean):
        return mean + keras.random.normal(ops.shape(mean), seed=self.seeds)


class VAE(keras.Model):
    def __init__(self):
        super().__init__(name="vae")
        self.encoder = keras.Sequential([keras.Input((6,)), relu(8, "a"), layers.Dense(2)], name="encoder")
        self.decoder = keras.Sequential([keras.Input((2,)), relu(8, "b"), layers.Dense(3)], name="decoder")
        self.sampling = Sampling()

    def build(self, shape):
        self.built = True

    def call(self, x, training=False):
        mean = self.encoder(x)
        return self.decoder(self.sampling(mean) if training else mean)


@case("encoder/a", "decoder/b")
def variational():
    return called(VAE(), vectors())


class TwoInputs(keras.Model):
    def __init__(self):
        super().__init__(name="two")
        self.a, self.b, self.out = relu(4, "a"), relu(5, "b"), layers.Dense(3)

    def call(self, pair):
        a, b = pair
        return self.out(ops.concatenate([self.a(a), self.b(b)], axis=-1))


@case("a", "b")
def subclassed_with_two_inputs():
    return called(TwoInputs(), (vectors(), vectors(4)))


@case("own/fc", "fc")
def subclassed_and_nested():
    return on(vectors(), Own(), relu())
