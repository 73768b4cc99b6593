"""Whether numbers of a model are finite."""

from typing import Any

import keras
import numpy as np
from keras import ops


def all_finite(values: Any) -> bool:
    """Whether all values of a tensor are finite; True for whole numbers."""
    array = ops.convert_to_numpy(values)
    if array.dtype.kind == "V":  # bfloat16
        array = array.astype("float32")
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def first_nonfinite_weight(model: keras.Model) -> str:
    """Path of the first weight, moving averages included, that is not finite; empty if all are.

    Computed on the host: on a CPU, starting a few operations for each weight takes longer than to read all
    weights of a small net.
    """
    return next((weight.path for weight in model.weights if not all_finite(weight)), "")
