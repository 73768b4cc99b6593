"""Batch norms taken out of a trained model for a while, without a change of its layers."""

import contextlib
from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import ops


@contextlib.contextmanager
def norms_removed(model: keras.Model, names: Iterable[str]) -> Iterator[None]:
    """Inside, norms are the identity in inference; at the end, they have the values that they had before.

    Their moving means and offsets are 0 inside, their gains 1, and their moving variances 1 - epsilon. The
    layers after them see features that they were not trained on. Nothing is traced again.

    Args:
        model: a functional model.
        names: of layers that normalise by moving averages; a norm may lack some of the four variables.
    """
    kept = []
    for name in names:
        norm = model.get_layer(name)
        identity = {"moving_mean": 0.0, "moving_variance": 1 - norm.epsilon, "gamma": 1.0, "beta": 0.0}
        for attribute, value in identity.items():
            if (variable := getattr(norm, attribute, None)) is not None:
                kept.append((variable, np.array(ops.convert_to_numpy(variable)), value))
    try:
        for variable, before, value in kept:
            variable.assign(np.full(before.shape, value, before.dtype))
        yield
    finally:
        for variable, before, _ in kept:
            variable.assign(before)
