"""Inputs and labels in the forms that users pass: arrays, or an iterable of batches."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bnhead.errors import UsageError

FORMS = "arrays, a tuple (x, y) of arrays, or batches (a tf.data.Dataset, a PyDataset, a DataLoader)"


def check_data(data: Any, batch_size: int, *, again: bool = False) -> None:
    """Raises UsageError unless `batches` can read all of `data`.

    Args:
        data: as for `batches`.
        batch_size: inputs per batch if `data` is arrays.
        again: whether `data` will be read several times, which an iterator does not allow.
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise UsageError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if _is_dataset(data):
        if data.cardinality() == -1:  # tf.data.INFINITE_CARDINALITY
            raise UsageError("data must be a tf.data.Dataset that ends; this one repeats for ever")
    elif isinstance(data, Iterator):
        if again:
            raise UsageError(f"data is read after every epoch, and a {type(data).__name__} only once")
    elif not _is_stream(data):
        _check_arrays(*_unpack(data), name=type(data).__name__)


def _check_arrays(x: Any, y: Any, name: str = "batch") -> None:
    """Raises UsageError unless x and y are arrays of one length. None in x is an omitted optional input."""
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    if not leaves or not all(len(getattr(leaf, "shape", ())) >= 1 for leaf in leaves):
        numbers = isinstance(x, list) and all(isinstance(leaf, int | float) for leaf in keras.tree.flatten(x))
        advice = " of numbers; np.asarray makes an array" if numbers and x else ""
        raise UsageError(f"data must be {FORMS}, got {name}{advice}")
    if any(type(leaf).__name__ == "RaggedTensor" for leaf in leaves):
        raise UsageError("data must be arrays of one shape, got a RaggedTensor; to_tensor() pads it")
    if isinstance(y, list) and not any(hasattr(leaf, "shape") for leaf in keras.tree.flatten(y)):
        raise UsageError("labels must be an array, got a list; np.asarray makes one")
    sizes = {len(leaf) for leaf in leaves + ([y] if hasattr(y, "shape") else [])}
    if len(sizes) > 1:
        raise UsageError(f"data must be arrays of one length, got {', '.join(map(str, sorted(sizes)))}")


def batches(data: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """`(x, y)` of each batch; y is None without labels, and the last batch may be smaller.

    Args:
        data: an array, a list or dict of arrays for a model with several inputs, a tuple `(x, y)` of these,
            or an iterable of such batches: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a PyTorch
            `DataLoader`, or an iterator.
        batch_size: inputs per batch if `data` is arrays.
    """
    if _is_dataset(data) or _is_stream(data):
        for batch in _native_batches(data):
            x, y = keras.utils.unpack_x_y_sample_weight(batch)[:2]
            _check_arrays(x, y)
            yield x, y
        return
    arrays = keras.tree.map_structure(lambda leaf: None if leaf is None else on_host(leaf), _unpack(data))
    size = next(len(leaf) for leaf in keras.tree.flatten(arrays) if leaf is not None)
    for start in range(0, size, batch_size):

        def part(leaf, i=start):
            return None if leaf is None else leaf[i : i + batch_size]

        yield keras.tree.map_structure(part, arrays)


def _native_batches(data: Any) -> Iterator[Any]:
    """The batches; tensors of a library other than the backend become arrays."""
    backend = keras.backend.backend()

    def native(leaf):
        library = type(leaf).__module__.split(".")[0]
        return on_host(leaf) if library in ("tensorflow", "torch") and library != backend else leaf

    is_loader = type(data).__module__.startswith("torch.")
    for batch in (data[i] for i in range(len(data))) if isinstance(data, keras.utils.PyDataset) else data:
        batch = tuple(batch) if is_loader and isinstance(batch, list) else batch
        yield keras.tree.map_structure(native, batch)


def arrays_of(data: Any) -> tuple[Any, Any] | None:
    """`(x, y)` if `data` is arrays, y None without labels; None if `data` is an iterable of batches."""
    return None if _is_dataset(data) or _is_stream(data) else _unpack(data)


def on_host(array: Any) -> np.ndarray:
    """A tensor of any backend, on any device, as an array."""
    if type(array).__module__.startswith("torch"):
        array = array.detach().cpu()
        return array.numpy() if str(array.dtype) != "torch.bfloat16" else array.float().numpy()
    return np.asarray(array)


def class_numbers(y: Any, classes: int) -> np.ndarray | None:
    """Labels as class numbers; None for other labels than one class of several per example.

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
    y = on_host(y)
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


def _is_stream(data: Any) -> bool:
    """Whether `data` is an iterable of batches, not an array or a structure of arrays."""
    if isinstance(data, Iterator | keras.utils.PyDataset):
        return True
    return (
        isinstance(data, Iterable)
        and not isinstance(data, tuple | list | dict | str)
        and not hasattr(data, "shape")
    )


def _is_dataset(data: Any) -> bool:
    return hasattr(data, "element_spec") and isinstance(data, Iterable)
