"""Small nets whose head is all that training mode changes, and data for them."""

import keras
import numpy as np

from bnhead import heads
from bnhead.models import resnet8


def data(examples=120, units=12, classes=4, seed=0):
    """`(x, y)`: skewed features of unequal classes."""
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, examples, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    x = (
        rng.exponential(size=(examples, units)) * rng.uniform(0.2, 2, units)
        + rng.normal(size=(classes, units))[y]
    )
    return x.astype("float32"), y.astype("int32")


def vector_net(head, units=12, classes=4, seed=0):
    """A Dense, and the head on its outputs: `head` normalises the only batch norm of the net."""
    inputs = keras.Input((units,))
    features = keras.layers.Dense(10, "relu", name="features", kernel_initializer=_draw(seed))(inputs)
    model = heads.attach(head, inputs, features, classes, name="net", seed=seed, fc_units=6)
    return moved(model, seed)


def image_net(head, classes=5, seed=0):
    return moved(resnet8((8, 8, 1), head, classes, seed=seed, fc_units=8), seed)


def images(examples=60, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    y = (np.arange(examples) % classes).astype("int32")
    return (rng.normal(size=(examples, 8, 8, 1)) + y[:, None, None, None]).astype("float32"), y


def moved(model, seed=0):
    """The model with weights, gains, offsets and statistics other than the initial ones."""
    rng = np.random.default_rng(seed + 100)
    for layer in model.layers:
        for weight in layer.weights:
            if "seed" in weight.path or "int" in str(weight.dtype):
                continue
            value = np.asarray(keras.ops.convert_to_numpy(weight))
            positive = weight.name in ("gamma", "moving_variance")
            shift = rng.uniform(0, 0.5, value.shape) if positive else rng.normal(size=value.shape) * 0.1
            weight.assign((value * rng.uniform(0.8, 1.2, value.shape) + shift).astype("float32"))
    return model


def _draw(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")
