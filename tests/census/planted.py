"""Nets with planted dead units, and the definitions of their figures in NumPy."""

import itertools
import math
import re

import keras
import numpy as np
from keras import layers

UNITS = 24
DEAD, ALWAYS_ON, RARE = slice(0, 5), slice(5, 8), 8


def planted_dense(seed, inputs=500):
    """A random net with a ReLU layer in which units are dead, always on, and active on 2 of the inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(inputs, 6)).astype("float32")
    features = keras.Input((6,), name="features")
    hidden = layers.Dense(
        UNITS, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed), name="hidden"
    )
    model = keras.Model(features, layers.Dense(3)(hidden(features)))
    kernel, bias = (np.array(w) for w in hidden.get_weights())
    products = np.sort(x @ kernel[:, RARE])
    bias[DEAD], bias[ALWAYS_ON], bias[RARE] = -1e3, 1e3, -(products[-2] + products[-3]) / 2
    hidden.set_weights([kernel, bias])
    return model, "hidden", x


def planted_conv(seed, inputs=300):
    """The same after a convolution, a batch norm in evaluation mode and ReLU, on a feature map."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(inputs, 5, 4, 2)).astype("float32")
    image = keras.Input((5, 4, 2))
    y = layers.Conv2D(UNITS, 3, kernel_initializer=keras.initializers.HeNormal(seed))(image)
    norm = layers.BatchNormalization()
    y = layers.Activation("relu", name="map")(norm(y))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    beta = rng.normal(-2.5, 1, UNITS).astype("float32")
    beta[DEAD], beta[ALWAYS_ON] = -1e3, 1e3
    norm.beta.assign(beta)
    norm.moving_mean.assign(rng.normal(size=UNITS))
    norm.moving_variance.assign(rng.uniform(0.5, 2, UNITS))
    return model, "map", x


def by_numpy(model, layer, x, eps=0.0, y=None, loss=None):
    """The definitions, on all activations at once, in the plainest way."""
    output = model.get_layer(layer).output
    out = keras.Model(model.inputs, output).predict(x, batch_size=len(x), verbose=0)
    a = out.reshape(len(x), -1, out.shape[-1]).astype("float64")  # (inputs, positions, units)
    loud = np.abs(a) > eps
    silent = ~loud.any(1)
    shares, dead = silent.mean(1), silent.all(0)
    score = np.abs(a).mean((0, 1)) / np.abs(a).mean()
    figures = {
        "per_input": shares.mean(),
        "per_input_p05": np.percentile(shares, 5),
        "per_input_p50": np.percentile(shares, 50),
        "per_input_p95": np.percentile(shares, 95),
        "dataset": dead.mean(),
        "rarely_active": ((~silent).mean(0) < 0.01).mean(),
        "always_on": loud.all((0, 1)).mean(),
        "runs": sum(1 for _ in re.finditer("1+", "".join(map(str, dead.astype(int))))),
        "runs_expected": dead.sum() * (len(dead) - dead.sum() + 1) / len(dead),
        "runs_z_per_input": np.mean([z for z in map(wald_wolfowitz, silent) if z is not None] or [0]),
        "dormant_0": (score <= 0).mean(),
        "dormant_0025": (score <= 0.025).mean(),
        "dormant_01": (score <= 0.1).mean(),
    }
    if len(out.shape) == 2:
        figures["constant"] = (a.var((0, 1)) <= 1e-12).mean()
    if y is not None:
        on_class = np.array([silent[y == c].all(0) & ~dead for c in np.unique(y)])
        figures["class_dead"] = on_class.any(0).mean()
    return figures


def wald_wolfowitz(silent):
    """z of one input's silent units, by the textbook."""
    first, second = silent.sum(), (~silent).sum()
    n = first + second
    runs = sum(1 for _ in itertools.groupby(silent))
    mean = 2 * first * second / n + 1
    variance = 2 * first * second * (2 * first * second - n) / (n * n * (n - 1))
    return (runs - mean) / math.sqrt(variance) if first and second and variance > 0 else None


def figures_of(counts, expected):
    """Those of the figures that have a plain counterpart; the others have tests of their own."""
    return {name: value for name, value in counts.figures().items() if name in expected}


def activations_of(model, layer, x, eps=0.0):
    """`(inputs, units)` bool: active somewhere."""
    out = keras.Model(model.inputs, model.get_layer(layer).output).predict(x, batch_size=len(x), verbose=0)
    return (np.abs(out.reshape(len(x), -1, out.shape[-1])) > eps).any(1)


def sequential(*stack):
    return keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3, activation="relu", name="map"), *stack]
    )


def nested(*stack):
    """Layers in a model of their own, called inside another, as in transfer learning."""
    inside = sequential(*stack)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 1, activation="relu", name="adapter")(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(inside(x)))), inside.name


def sequence_model(layer):
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layer(inputs))))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    return model, rng.normal(size=(20, 5, 6)).astype("float32"), rng.integers(0, 3, 20)
