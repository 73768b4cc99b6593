"""Three classes of 90 inputs, and nets of a moment, that the tests of `bnhead.compare` share."""

import json

import keras
import numpy as np

from bnhead.comparison.compare import compare

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (90, 5)).astype("float32")
Y = (X[:, 0] > 0).astype("int64") + (X[:, 1] > 1)
DATA = (X[:60], Y[:60]), (X[60:], Y[60:])


def build(head, seed, width=6, loss=None, outputs=3, last=None, initial=None):
    inputs = keras.Input((5,))
    glorot = keras.initializers.GlorotUniform(initial)
    features = keras.layers.Dense(width, "relu", name="features", kernel_initializer=glorot)(inputs)
    features = keras.layers.BatchNormalization()(features) if "bn" in head else features
    model = keras.Model(inputs, keras.layers.Dense(outputs, last)(features))
    model.compile("adam", loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def compared(folder, build=build, data=DATA, names=("fc", "bn_fc"), **options):
    options = {"seeds": 2, "epochs": 1, "batch_size": 16, "progress": False, **options}
    return compare(build, data, names, dir=str(folder), **options)


def results(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("runs/*/result.json")}
