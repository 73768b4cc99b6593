"""A model's inputs and labels, as people pass them: arrays, tuples of arrays, a batched `tf.data.Dataset`."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bnhead.errors import UsageError


def check_data(data: Any, batch_size: int) -> None:
    """Raises UsageError unless `batches` can read `data`, once and to its end."""
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise UsageError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if _is_dataset(data):
        if data.cardinality() == -1:  # tf.data.INFINITE_CARDINALITY
            raise UsageError("data must be a tf.data.Dataset that ends; this one repeats for ever")
        return
    x, y = _unpack(data)
    leaves = [
        leaf for leaf in keras.tree.flatten(x) if leaf is not None
    ]  # None is an optional input left out
    if not leaves or not all(len(getattr(leaf, "shape", ())) >= 1 for leaf in leaves):
        kind = type(data).__name__
        raise UsageError(
            f"data must be arrays, a tuple (x, y) of arrays or a batched tf.data.Dataset, got {kind}"
        )
    sizes = {len(leaf) for leaf in leaves + ([y] if hasattr(y, "shape") else [])}
    if len(sizes) > 1:
        raise UsageError(f"data must be arrays of one length, got {', '.join(map(str, sorted(sizes)))}")


def batches(data: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """`(x, y)` of each batch, y None where there are no labels; the last batch may be smaller."""
    if _is_dataset(data):
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)[:2]
        return
    pair = _unpack(data)
    arrays = keras.tree.map_structure(lambda leaf: None if leaf is None else np.asarray(leaf), pair)
    size = next(len(leaf) for leaf in keras.tree.flatten(arrays) if leaf is not None)
    for start in range(0, size, batch_size):

        def part(leaf, i=start):
            return None if leaf is None else leaf[i : i + batch_size]

        yield keras.tree.map_structure(part, arrays)


def class_numbers(y: Any, classes: int) -> np.ndarray | None:
    """Labels as class numbers; None where they are no labels of one of several classes.

    Args:
        y: whole numbers `(batch,)` or `(batch, 1)` of any dtype, or one-hot `(batch, classes)`.
        classes: number of classes.

    Returns:
        `(batch,)` int32.

    Raises:
        UsageError: integers outside of 0 to classes - 1.
    """
    if y is None or not hasattr(y, "shape") or classes < 2:
        return None
    y = np.asarray(keras.ops.convert_to_numpy(y))
    if y.ndim == 2 and y.shape[1] == classes:
        one_hot = np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()
        return y.argmax(1).astype(np.int32) if one_hot else None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iubf" or not np.array_equal(y, np.floor(y)):
        return None
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        if y.dtype.kind == "f":
            return None
        raise UsageError(f"labels must be 0 to {classes - 1}, got {y.min()} to {y.max()}")
    return y.astype(np.int32)


def _unpack(data: Any) -> tuple[Any, Any]:
    return keras.utils.unpack_x_y_sample_weight(data)[:2] if isinstance(data, tuple) else (data, None)


def _is_dataset(data: Any) -> bool:
    return hasattr(data, "element_spec") and isinstance(data, Iterable)
