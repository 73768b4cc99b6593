"""Whether numbers of a model are finite."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.graph import trace


def all_finite(values: Any) -> bool:
    """Whether all values of a tensor are finite; True for whole numbers."""
    array = ops.convert_to_numpy(values)
    if array.dtype.kind == "V":  # bfloat16
        array = array.astype("float32")
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


class WeightCheck:
    """Looks for a weight that is not finite, moving averages included, each time it is called.

    All weights are read by one compiled pass and one transfer: a few operations for each weight of a small
    net would cost a tenth of a training step. The pass is traced once, so keep the object.

    Args:
        model: a built model.
    """

    def __init__(self, model: keras.Model):
        self._weights = [weight for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)]
        self._finite = trace.compiled(
            lambda: ops.stack([ops.all(ops.isfinite(weight.value)) for weight in self._weights]), model
        )

    def __call__(self) -> str:
        """Path of the first weight that is not finite; empty if all are."""
        if not self._weights:
            return ""
        finite = ops.convert_to_numpy(self._finite())
        return "" if finite.all() else self._weights[int(np.argmin(finite))].path
