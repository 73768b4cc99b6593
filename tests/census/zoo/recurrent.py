"""Recurrent and wrapped layers."""

import keras
import numpy as np
from keras import layers

from tests.census.zoo.table import INPUTS, case, inner, on, relu, sequences, vectors


@case("lstm", "fc")
def recurrent():
    return on(sequences(), layers.LSTM(7, name="lstm"), relu())


@case("gru", "simple")
def recurrent_over_time():
    return on(
        sequences(),
        layers.GRU(7, return_sequences=True, name="gru"),
        layers.SimpleRNN(4, "relu", name="simple"),
    )


@case("bi/forward_lstm", "bi/backward_lstm", "fc")
def recurrent_in_both_directions():
    return on(sequences(), layers.Bidirectional(layers.LSTM(4, name="lstm"), name="bi"), relu())


@case("rnn")
def recurrent_by_cell():
    return on(sequences(), layers.RNN(layers.SimpleRNNCell(5), name="rnn"))


@case("lstm")
def recurrent_with_states():
    return on(sequences(), layers.LSTM(5, return_state=True, name="lstm"), lambda parts: parts[0] + parts[1])


@case("lstm", "fc")
def recurrent_and_stateful():
    inputs = keras.Input(batch_shape=(INPUTS, 5, 6))
    h = relu()(layers.LSTM(4, stateful=True, name="lstm")(inputs))
    return keras.Model(inputs, layers.Dense(3)(h)), sequences()


@case("conv_lstm")
def recurrent_convolution():
    x = np.random.default_rng(0).normal(size=(INPUTS, 3, 5, 5, 2)).astype("float32")
    return on(x, layers.ConvLSTM2D(3, 3, name="conv_lstm"))


@case("each/relu")
def over_time():
    return on(sequences(), layers.TimeDistributed(relu(), name="each"))


@case("each/a", "each/b")
def a_model_over_time():
    return on(sequences(), layers.TimeDistributed(inner(), name="each"))


@case("spectral/fc")
def wrapped():
    return on(vectors(), layers.SpectralNormalization(relu(), name="spectral"))
