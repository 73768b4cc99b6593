"""Models of text and series in the style of public examples."""

import keras
import numpy as np
from keras import layers, ops

from tests.census.zoo.table import INPUTS, case, on, relu, sequences, tokens


class TokensAndPositions(layers.Layer):
    """Sum of two embeddings, with the mask of the tokens."""

    def __init__(self, time, vocabulary, size, **options):
        super().__init__(**options)
        self.token = layers.Embedding(vocabulary, size, mask_zero=True, name="token")
        self.position = layers.Embedding(time, size, name="position")

    def build(self, shape):
        self.token.build(shape)
        self.position.build(shape)

    def call(self, x):
        return self.token(x) + self.position(ops.arange(ops.shape(x)[-1]))

    def compute_mask(self, x, mask=None):
        return self.token.compute_mask(x)


class DecoderBlock(layers.Layer):
    """Attention to earlier tokens, and to another sequence if there is one, and a feed-forward net."""

    def __init__(self, size, **options):
        super().__init__(**options)
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")
        self.cross = layers.MultiHeadAttention(2, 3, name="cross")
        self.ffn = keras.Sequential([layers.Dense(9, "relu", name="wide"), layers.Dense(size)], name="ffn")
        self.norms = [layers.LayerNormalization(name=f"norm{i}") for i in range(3)]
        self.add = layers.Add()

    def build(self, x_shape, memory_shape=None):
        self.attention.build(x_shape, x_shape)
        if memory_shape is not None:
            self.cross.build(x_shape, memory_shape, memory_shape)
        for part in (self.ffn, *self.norms):
            part.build(x_shape)

    def call(self, x, memory=None, mask=None):
        x = self.norms[0](self.add([x, self.attention(x, x, use_causal_mask=True)]))
        if memory is not None:
            x = self.add([x, self.cross(query=x, value=memory, key=memory)])
        x = self.norms[1](x)
        return self.norms[2](x + self.ffn(x))


@case("block/ffn/wide", "fc", masks={"block/ffn/wide": tokens() > 0, "fc": tokens() > 0})
def causal_decoder():
    inputs = keras.Input((5,), dtype="int32")
    x = DecoderBlock(6, name="block")(TokensAndPositions(5, 9, 6)(inputs))
    return keras.Model(inputs, layers.Dense(9)(relu()(x))), tokens()


@case("encoder/wide", "decoder/ffn/wide", masks={"decoder/ffn/wide": tokens()[::-1] > 0})
def encoder_and_decoder():
    """Translation: two sequences in a dict, both with padding."""
    source = keras.Input((None,), dtype="int64", name="source")
    x = TokensAndPositions(5, 9, 6)(source)
    y = layers.MultiHeadAttention(1, 4)(x, x, x)
    x = layers.LayerNormalization()(x + y)
    wide = layers.Dense(8, "relu", name="wide")
    memory = layers.LayerNormalization()(x + layers.Dense(6)(wide(x)))
    encoder = keras.Model(source, memory, name="encoder")
    target = keras.Input((None,), dtype="int64", name="target")
    h = TokensAndPositions(5, 9, 6)(target)
    h = DecoderBlock(6, name="decoder")(h, encoder(source))
    outputs = layers.Dense(9, activation="softmax")(layers.Dropout(0.5)(h))
    model = keras.Model({"source": source, "target": target}, outputs)
    return model, {"source": tokens(), "target": tokens()[::-1].copy()}


class RMSNorm(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale


class GatedBlock(layers.Layer):
    """A block of a large language model: grouped attention, and SiLU as the gate of a feed-forward net."""

    def __init__(self, size, **options):
        super().__init__(**options)
        self.norms = [RMSNorm(), RMSNorm()]
        self.attention = layers.GroupQueryAttention(4, 4, 2, use_bias=False, name="attention")
        self.gate = layers.EinsumDense("btd,dh->bth", (None, 10), name="gate")
        self.up = layers.EinsumDense("btd,dh->bth", (None, 10), name="up")
        self.down = layers.EinsumDense("bth,hd->btd", (None, size), name="down")

    def call(self, x):
        y = self.norms[0](x)
        x = x + self.attention(y, y, use_causal_mask=True)
        y = self.norms[1](x)
        return x + self.down(keras.activations.silu(self.gate(y)) * self.up(y))

    def compute_output_shape(self, shape):
        return shape


@case("conv_same", "conv", masks={"conv_same": tokens() > 0})
def text_by_convolutions():
    """A convolution loses the mask of padded text; the first one has fewer positions than it."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True)(inputs)
    shorter = layers.Conv1D(4, 3, activation="relu", name="conv")(x)
    equal = layers.Conv1D(5, 3, padding="same", activation="relu", name="conv_same")(x)
    x = layers.concatenate([layers.GlobalMaxPooling1D()(y) for y in (shorter, equal)])
    return keras.Model(inputs, layers.Dense(3)(x)), tokens()


@case("block0/silu", "block1/silu")
def language_model():
    x = tokens()
    blocks = [GatedBlock(6, name=f"block{i}") for i in range(2)]
    return on(x, layers.Embedding(9, 6), *blocks, RMSNorm(), dtype="int32")


@case("tanh0", "gate0", "tanh1", "gate1", "tanh2", "gate2", "skips", "before_out")
def wavenet():
    """Dilated causal convolutions with a gate; ReLU on the sum of what the blocks skip."""
    inputs = keras.Input((9, 2))
    x, skips = layers.Conv1D(4, 1)(inputs), []
    for i in range(3):
        dilated = {"padding": "causal", "dilation_rate": 2**i}
        filtered = layers.Conv1D(5, 2, activation="tanh", name=f"tanh{i}", **dilated)(x)
        gate = layers.Conv1D(5, 2, activation="sigmoid", name=f"gate{i}", **dilated)(x)
        gated = layers.Multiply()([filtered, gate])
        skips.append(layers.Conv1D(6, 1)(gated))
        x = layers.Add()([x, layers.Conv1D(4, 1)(gated)])
    h = layers.ReLU(name="skips")(layers.Add()(skips))
    h = layers.Conv1D(6, 1, activation="relu", name="before_out")(h)
    return keras.Model(inputs, layers.Conv1D(8, 1, activation="softmax")(h)), sequences(9, 2)


class Attention(layers.Layer):
    """Additive attention: a score per element from a tanh of one unit."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.hidden = layers.Dense(units, activation="tanh", name="hidden")
        self.score = layers.Dense(1, activation="tanh", name="score")

    def call(self, x):
        weights = ops.softmax(self.score(self.hidden(x)), axis=1)
        return ops.sum(weights * x, axis=1)


@case("encoder", "attention/hidden", "attention/score", "fc")
def attention_over_a_recurrent_layer():
    """The score has one unit: runs of silent units are not defined there."""
    lstm = layers.LSTM(4, return_sequences=True, name="encoder")
    return on(sequences(), lstm, Attention(5, name="attention"), relu())


@case("encoder", "decoder", "each/relu")
def sequence_to_sequence():
    source, target = keras.Input((5, 6)), keras.Input((5, 6))
    _, *state = layers.LSTM(4, return_state=True, name="encoder")(source)
    x = layers.LSTM(4, return_sequences=True, name="decoder")(target, initial_state=state)
    x = layers.TimeDistributed(layers.Dense(5, activation="relu"), name="each")(x)
    return keras.Model([source, target], layers.Dense(3)(x)), [sequences(), sequences()[::-1].copy()]


class Experts(layers.Layer):
    """A switch layer: each token goes to the expert that a router prefers."""

    def __init__(self, number, size, **options):
        super().__init__(**options)
        self.router = layers.Dense(number, name="router")
        self.experts = [
            keras.Sequential([layers.Dense(7, "relu", name="wide"), layers.Dense(size)], name=f"expert{i}")
            for i in range(number)
        ]

    def call(self, x, training=None):
        shares = ops.softmax(self.router(x))
        best, index = ops.top_k(shares, 1)
        chosen = ops.one_hot(index[..., 0], len(self.experts), dtype=x.dtype) * best
        outputs = ops.stack([expert(x) for expert in self.experts], axis=-2)
        self.add_loss(ops.sum(ops.square(ops.mean(shares, axis=(0, 1)))))
        return ops.sum(outputs * ops.expand_dims(chosen, -1), axis=-2)


@case("switch/expert0/wide", "switch/expert1/wide", "switch/expert2/wide", "fc")
def mixture_of_experts():
    x = Experts(3, 6, name="switch")
    return on(sequences(), x, layers.GlobalAveragePooling1D(), relu())


class StateSpace(layers.Layer):
    """A linear recurrence by an associative scan, with a gate; the scan holds no activation."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.inward, self.gate = layers.Dense(units, name="inward"), layers.Dense(units, name="gate")
        self.units = units

    def build(self, shape):
        self.decay = self.add_weight(shape=(self.units,), initializer="ones", name="decay")
        self.inward.build(shape)
        self.gate.build(shape)

    def call(self, x):
        def combine(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        driven = ops.silu(self.inward(x))
        decays = ops.broadcast_to(ops.sigmoid(self.decay), ops.shape(driven))
        _, states = ops.associative_scan(combine, (decays, driven), axis=1)
        states = ops.reshape(states, (-1, x.shape[1], self.units))  # TensorFlow's loop forgets the rank
        return states * ops.silu(self.gate(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)


@case("mamba/silu", "mamba/silu#2")
def state_space():
    return on(sequences(4), StateSpace(6, name="mamba"))


@case("conv", "fc", backends=("tensorflow",), trains=False)  # `fit` takes no strings of NumPy
def strings():
    words = ["dead", "unit", "alive", "layer"]
    inputs = keras.Input((), dtype="string")
    x = layers.TextVectorization(output_sequence_length=4, vocabulary=words)(inputs)
    x = layers.Conv1D(5, 2, activation="relu", name="conv")(layers.Embedding(8, 6)(x))
    x = relu()(layers.GlobalMaxPooling1D()(x))
    text = np.array([f"{words[i % 4]} {words[i // 4]} other" for i in range(INPUTS)])
    return keras.Model(inputs, layers.Dense(3)(x)), text
