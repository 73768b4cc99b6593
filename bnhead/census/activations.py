"""Activation functions by name, and the bounds of their values."""

import math
from typing import Any

import keras
import numpy as np

from bnhead.census.boxes import Box

_RANGES = {  # name -> least and greatest value of a function that is 0 at 0 and grows above 0
    "tanh": (-1, 1),
    "softsign": (-1, 1),
    "hard_tanh": (-1, 1),
    "silu": (-0.2785, math.inf),
    "swish": (-0.2785, math.inf),
    "gelu": (-0.1701, math.inf),
    "mish": (-0.3089, math.inf),
    "hard_silu": (-0.3751, math.inf),
    "hard_swish": (-0.3751, math.inf),
    "elu": (-1, math.inf),  # times its alpha
    "selu": (-1.7582, math.inf),
    "celu": (-1, math.inf),
}
_POSITIVE = {
    "sigmoid": 1,
    "hard_sigmoid": 1,
    "softmax": 1,
    "softplus": math.inf,  # but by less than 0.6932 above its input
    "exponential": math.inf,
}  # name -> greatest value of a function that is never below 0
_SHAPED = ("relu", "relu6", "leaky_relu", "linear", *_RANGES, *_POSITIVE)
_LIBRARIES = ("tensorflow.", "jax.", "torch.")  # their functions are what their names say


def activation_name(function: Any) -> str:
    """Name of an activation function, layer or operation with known bounds; "" for any other."""
    if isinstance(function, keras.Operation):
        cls = type(function)
        if not cls.__module__.startswith("keras."):
            return ""
        # an operation's class is named after its function in camel case: `LeakyRelu` is `leaky_relu`
        name = cls.__name__.replace("ReLU", "Relu").replace("ELU", "Elu")
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
    else:
        module, name = (getattr(function, key, "") or "" for key in ("__module__", "__name__"))
        is_keras = module.startswith("keras.")
        if not is_keras and (not module.startswith(_LIBRARIES) or name == "leaky_relu"):  # of several slopes
            return ""
    return name if name in _SHAPED else ""


def activated(function: Any, box: Box) -> Box:
    """The box of an activation's output, unbounded if the activation is not known.

    Args:
        function: a function, a layer or an operation.
        box: that of its input.
    """
    name = activation_name(function)
    if name == "linear":
        return box
    low, high = box.low, box.high
    # of a rectifier: slope below the threshold, threshold, greatest value
    slope = float(getattr(function, "negative_slope", 0.2 if name == "leaky_relu" else 0.0) or 0)
    least = float(getattr(function, "threshold", 0) or 0)
    most = getattr(function, "max_value", None)
    most = 6.0 if name == "relu6" else math.inf if most is None else float(most)
    if name in ("relu", "relu6", "leaky_relu") and slope == 0:
        # threshold and more pass, and at 0 passing is 0 too
        low = np.where(low < least, 0, np.minimum(low, most))
        high = np.where(high < least, 0, np.minimum(high, most))
        low, high = np.minimum(low, high), np.maximum(low, high)  # a negative threshold jumps below 0
        if least < 0:
            low, high = np.minimum(low, np.minimum(least, 0)), np.maximum(high, 0)
    elif name in ("relu", "leaky_relu") and least == 0 and slope > 0:
        low, high = (np.minimum(np.where(end > 0, end, slope * end), most) for end in (low, high))
        low, high = np.where(low < 0, low * (1 + 1e-3), low), np.where(high < 0, high * (1 - 1e-3), high)
    elif name in _RANGES:
        least, most = _RANGES[name]
        low = np.where(low >= 0, 0, 1.001 * least * float(getattr(function, "alpha", 1)))
        high = np.where(high <= 0, 0, np.minimum(1.06 * high, 1.001 * most))
    elif name in _POSITIVE:
        most = np.maximum(high, 0) + 0.7 if name == "softplus" else 1.001 * _POSITIVE[name]
        low, high = np.zeros_like(low), np.full_like(high, most)
    else:
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    return Box(low, high, box.norms)
