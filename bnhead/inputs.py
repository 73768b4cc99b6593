"""A model's inputs, as people pass them: arrays, a tuple `(x, y)`, a batched `tf.data.Dataset`."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bnhead.errors import UsageError


def check_data(data: Any, batch_size: int) -> None:
    """Raises UsageError unless `batches` can read `data`, once and to its end."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if _is_dataset(data):
        if data.cardinality() == -1:  # tf.data.INFINITE_CARDINALITY
            raise UsageError("data must be a tf.data.Dataset that ends; this one repeats for ever")
        return
    x = keras.utils.unpack_x_y_sample_weight(data)[0] if isinstance(data, tuple) else data
    leaves = keras.tree.flatten(x)
    if not leaves or not all(len(getattr(leaf, "shape", ())) >= 1 for leaf in leaves):
        kind = type(data).__name__
        raise UsageError(
            f"data must be arrays, a tuple (x, y) of arrays or a batched tf.data.Dataset, got {kind}"
        )


def _is_dataset(data: Any) -> bool:
    return hasattr(data, "element_spec") and isinstance(data, Iterable)


def batches(data: Any, batch_size: int) -> Iterator[Any]:
    if _is_dataset(data):
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]
        return
    x = keras.utils.unpack_x_y_sample_weight(data)[0] if isinstance(data, tuple) else data
    arrays = keras.tree.map_structure(np.asarray, x)
    size = len(keras.tree.flatten(arrays)[0])
    for start in range(0, size, batch_size):
        yield keras.tree.map_structure(lambda array, i=start: array[i : i + batch_size], arrays)
