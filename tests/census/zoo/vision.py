"""Image models in the style of public examples."""

import keras
import numpy as np
from keras import layers, ops

from tests.census.zoo.table import INPUTS, called, case, images, on, policy, relu


class Patches(layers.Layer):
    """Patches of an image as a sequence."""

    def __init__(self, size, **options):
        super().__init__(**options)
        self.size = size

    def call(self, x):
        patches = ops.image.extract_patches(x, self.size)
        return ops.reshape(patches, (-1, patches.shape[1] * patches.shape[2], patches.shape[3]))


class ClassToken(layers.Layer):
    """Puts a trained vector before a sequence, and adds a trained position to each element."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal", name="token")
        self.positions = layers.Embedding(shape[1] + 1, shape[-1], name="positions")
        self.positions.build(())

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        x = ops.concatenate([token, x], axis=1)
        return x + self.positions(ops.arange(x.shape[1]))


@case("block0_mlp", "block1_mlp", "head", rounds=True)
def vision_transformer():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0, -1.0)(inputs)
    x = ClassToken()(layers.Dense(6)(Patches(4)(x)))
    for i in range(2):
        normed = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([layers.MultiHeadAttention(2, 3, dropout=0.1)(normed, normed), x])
        mlp = layers.LayerNormalization(epsilon=1e-6)(x)
        mlp = layers.Dense(12, activation=keras.activations.gelu, name=f"block{i}_mlp")(mlp)
        x = layers.Add()([layers.Dense(6)(layers.Dropout(0.1)(mlp)), x])
    x = layers.LayerNormalization()(x)[:, 0]
    x = layers.Dropout(0.5)(layers.Dense(10, activation=ops.gelu, name="head")(x))
    return keras.Model(inputs, layers.Dense(3)(x)), images()


def convolved(x, filters, name):
    for i in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("relu", name=f"{name}_{i}")(layers.BatchNormalization()(x))
    return x


@case("down_0", "down_1", "middle_0", "middle_1", "up_0", "up_1", tolerance=1e-2)
def unet():
    """Skips by concatenation; a mask of a class per pixel at the output; mixed precision, as it is usual."""
    with policy("mixed_bfloat16"):
        inputs = keras.Input((8, 8, 3))
        skip = convolved(inputs, 4, "down")
        x = convolved(layers.MaxPooling2D(2)(skip), 6, "middle")
        x = layers.Concatenate()([layers.Conv2DTranspose(4, 2, strides=2)(x), skip])
        x = convolved(x, 4, "up")
        return keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax", dtype="float32")(x)), images()


class Mixer(layers.Layer):
    """Two small nets, over patches and over channels."""

    def __init__(self, patches, channels, **options):
        super().__init__(**options)
        self.over_patches = keras.Sequential(
            [layers.Dense(7), layers.Activation("gelu", name="gelu"), layers.Dense(patches)], name="patches"
        )
        self.over_channels = keras.Sequential(
            [layers.Dense(9, activation="gelu", name="wide"), layers.Dense(channels)], name="channels"
        )
        self.norm = layers.LayerNormalization(epsilon=1e-6)

    def build(self, shape):
        self.norm.build(shape)
        self.over_patches.build((shape[0], shape[2], shape[1]))
        self.over_channels.build(shape)

    def call(self, x):
        mixed = ops.transpose(self.over_patches(ops.transpose(self.norm(x), (0, 2, 1))), (0, 2, 1))
        x = x + mixed
        return x + self.over_channels(self.norm(x))


@case("mixer0/patches/gelu", "mixer0/channels/wide", "mixer1/patches/gelu", "mixer1/channels/wide")
def mlp_mixer():
    blocks = keras.Sequential([Mixer(4, 5, name=f"mixer{i}") for i in range(2)], name="blocks")
    return on(images(), Patches(4), layers.Dense(5), *blocks.layers, layers.GlobalAveragePooling1D())


@case("stem", "mix/depthwise", "mix/pointwise")
def conv_mixer():
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Activation("gelu", name="stem")(layers.Conv2D(6, 2, 2)(inputs)))
    inside = keras.Input((4, 4, 6))
    y = layers.DepthwiseConv2D(3, padding="same")(inside)
    y = layers.Add()([layers.BatchNormalization()(layers.Activation("gelu", name="depthwise")(y)), inside])
    y = layers.Activation("gelu", name="pointwise")(layers.Conv2D(6, 1)(y))
    x = keras.Model(inside, layers.BatchNormalization()(y), name="mix")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAvgPool2D()(x))), images()


@case("dense0_0", "dense0_1", "dense1_0", "dense1_1", "last")
def dense_block():
    """Norm and ReLU before each convolution; every layer reads all earlier ones."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    for i in range(2):
        y = layers.ReLU(name=f"dense{i}_0")(layers.BatchNormalization()(x))
        y = layers.Conv2D(6, 1, use_bias=False)(y)
        y = layers.ReLU(name=f"dense{i}_1")(layers.BatchNormalization()(y))
        x = layers.Concatenate()([x, layers.Conv2D(3, 3, padding="same", use_bias=False)(y)])
    x = layers.ReLU(name="last")(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))), images()


@case("five_reduce", "three_reduce", "one", "three", "five", "projected", "fc")
def inception_block():
    inputs = keras.Input((8, 8, 3))
    conv = {"padding": "same", "activation": "relu"}
    one = layers.Conv2D(3, 1, **conv, name="one")(inputs)
    three = layers.Conv2D(2, 1, **conv, name="three_reduce")(inputs)
    three = layers.Conv2D(4, 3, **conv, name="three")(three)
    five = layers.Conv2D(2, 1, **conv, name="five_reduce")(inputs)
    five = layers.Conv2D(2, 5, **conv, name="five")(five)
    pooled = layers.MaxPooling2D(3, strides=1, padding="same")(inputs)
    pooled = layers.Conv2D(2, 1, **conv, name="projected")(pooled)
    x = relu()(layers.GlobalAveragePooling2D()(layers.concatenate([one, three, five, pooled])))
    return keras.Model(inputs, layers.Dense(3)(x)), images()


@case("swish", "squeeze/reduce", "squeeze/expand", "fc")
def squeeze_and_excite():
    class SqueezeExcite(layers.Layer):
        def build(self, shape):
            self.reduce = layers.Dense(2, "relu", name="reduce")
            self.expand = layers.Dense(shape[-1], "sigmoid", name="expand")
            self.reduce.build((shape[0], shape[-1]))
            self.expand.build((shape[0], 2))

        def call(self, x):
            gate = self.expand(self.reduce(ops.mean(x, axis=(1, 2))))
            return x * gate[:, None, None, :]

    conv = layers.Conv2D(5, 3, activation="swish", name="swish")
    return on(images(), conv, SqueezeExcite(name="squeeze"), layers.GlobalAveragePooling2D(), relu())


class Capsules(layers.Layer):
    """Routing by agreement, with a softmax in each round. The squashing of a vector is no activation."""

    def __init__(self, number, size, **options):
        super().__init__(**options)
        self.number, self.size = number, size

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[1], self.number, shape[2], self.size), name="kernel")

    def call(self, x):
        votes = ops.einsum("bid,ijdk->bijk", x, self.kernel)
        logits = ops.zeros_like(votes[..., 0])
        for _ in range(2):
            total = ops.einsum("bij,bijk->bjk", ops.softmax(logits, axis=-1), votes)
            squares = ops.sum(ops.square(total), axis=-1, keepdims=True)
            output = total * squares / (1 + squares) / ops.sqrt(squares + 1e-7)
            logits = logits + ops.einsum("bijk,bjk->bij", votes, output)
        return output


@case("conv")
def capsules():
    conv = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")
    return on(images(), conv, layers.Reshape((9, 4)), Capsules(3, 4))


@case("features", "more", "upscaled", unseen=(3,))
def super_resolution():
    """Pixels of the larger image from channels; grey images of any size."""
    conv = {"activation": "relu", "padding": "same"}

    def shuffled(x):
        x = ops.reshape(x, (-1, 8, 8, 2, 2, 1))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, 16, 1))

    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 5, **conv, name="features")(inputs)
    x = layers.Conv2D(4, 3, **conv, name="more")(x)
    x = shuffled(layers.Conv2D(4, 3, padding="same")(x))
    x = layers.Conv2D(2, 3, **conv, name="upscaled")(x)
    return keras.Model(inputs, layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x)), images(8, 1)


class Perceiver(keras.Model):
    """A latent array that reads the pixels again and again, with the same weights in every round."""

    def __init__(self):
        super().__init__(name="perceiver")
        self.latents = self.add_weight(shape=(4, 6), initializer="normal", name="latents")
        self.pixels = layers.Dense(6)
        self.attention = layers.MultiHeadAttention(1, 6, name="attention")
        self.feed_forward = keras.Sequential(
            [layers.LayerNormalization(), layers.Dense(9, "gelu", name="wide"), layers.Dense(6)], name="ffn"
        )
        self.out = layers.Dense(3)

    def call(self, x):
        x = self.pixels(ops.reshape(x, (ops.shape(x)[0], 64, 3)))
        latents = ops.tile(self.latents[None], (ops.shape(x)[0], 1, 1))
        for _ in range(2):
            latents = latents + self.attention(latents, x)
            latents = latents + self.feed_forward(latents)
        return self.out(ops.mean(latents, axis=1))


@case("ffn/wide", "ffn/wide#2")
def perceiver():
    return called(Perceiver(), images())


@case("conv", "fc")
def bytes_as_images():
    """8-bit images, and a Normalization that was adapted to them."""
    x = np.random.default_rng(0).integers(0, 256, (INPUTS, 8, 8, 3)).astype("uint8")
    normalization = layers.Normalization()
    normalization.adapt(x.astype("float32"))
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    h = normalization(layers.Rescaling(1.0)(inputs))
    h = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, activation="relu", name="conv")(h))
    return keras.Model(inputs, layers.Dense(3)(relu()(h))), x


@case("map", "forward/forward_gru", "forward/backward_gru", "fc")
def text_in_images():
    """Columns of a feature map as a series, as in optical character recognition."""
    conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="map")
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True, name="gru"), name="forward")
    columns = [layers.Permute((2, 1, 3)), layers.Reshape((8, 32)), layers.Dense(5)]
    return on(images(), conv, *columns, both, layers.GlobalMaxPooling1D(), relu())


class StochasticDepth(layers.Layer):
    def __init__(self, rate, **options):
        super().__init__(**options)
        self.rate, self.seeds = rate, keras.random.SeedGenerator(5)

    def call(self, x, training=None):
        if not training:
            return x
        kept = keras.random.uniform((ops.shape(x)[0], 1, 1, 1), seed=self.seeds) > self.rate
        return x * ops.cast(kept, x.dtype) / (1 - self.rate)


@case("stem", "residual", "fc")
def stochastic_depth():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="hard_swish", name="stem")(inputs)
    residual = layers.Conv2D(4, 3, padding="same", activation="relu", name="residual")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, StochasticDepth(0.5)(residual)]))
    return keras.Model(inputs, layers.Dense(3)(relu()(x))), images()
