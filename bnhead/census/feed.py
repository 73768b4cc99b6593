"""Batches of data in the form that a model takes, with errors of one line."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from bnhead.errors import UsageError
from bnhead.graph import flat_inputs, functional
from bnhead.texts import cause, first_line


def batch_size_of(model: keras.Model, batch_size: int) -> int:
    """The model's own batch size if it is fixed, as for a stateful model."""
    graph = functional(model)
    sizes = {tensor.shape[0] for tensor in getattr(graph, "inputs", None) or ()} - {None}
    return sizes.pop() if len(sizes) == 1 else batch_size


def arranged(model: keras.Model, x: Any) -> Any:
    """A batch's inputs in the structure that the model takes.

    Raises:
        UsageError: inputs of the wrong number, rank or fixed batch size.
    """
    graph = functional(model)
    if graph is None:
        return keras.tree.map_structure(lambda leaf: leaf if leaf is None else ops.convert_to_tensor(leaf), x)
    leaves, inputs = keras.tree.flatten(x), graph.inputs
    if len(leaves) != len(inputs) and not isinstance(x, dict):
        raise UsageError(f"data must have the {len(inputs)} inputs of the model, got {len(leaves)}")
    if len(leaves) == len(inputs) == 1 and len(leaves[0].shape) == len(inputs[0].shape) - 1 > 1:
        expected, actual = _batch_shape(inputs[0]), _batch_shape(leaves[0])
        raise UsageError(f"data must yield batches of shape {expected}, got {actual}: is it batched?")
    try:
        flat = flat_inputs(model, x)
    except (ValueError, KeyError, TypeError) as error:
        if len(leaves) == len(inputs) == 1:  # of several, Keras names the one
            _require_shape(leaves[0], inputs[0])
        raise UsageError(f"data does not fit the model: {first_line(error)}") from error
    for tensor, declared in zip(flat, inputs, strict=True):
        if tensor is None:  # an optional input
            continue
        _require_shape(tensor, declared)
        size, rows = declared.shape[0], tensor.shape[0]
        if size not in (None, rows):
            raise UsageError(f"data must be whole batches of {size}, the model's own size; one has {rows}")
    return keras.tree.pack_sequence_as(graph._inputs_struct, flat)


@contextlib.contextmanager
def fitting(x: Any) -> Iterator[None]:
    """Turns an error of the model's pass on a batch into one line; its traceback stays as the cause."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in keras.tree.flatten(x) if leaf is not None)
        raise UsageError(f"data does not fit the model: inputs of shape {shapes}: {cause(error)}") from error


def _require_shape(tensor: Any, declared: Any) -> None:
    """Raises UsageError if a batch has not the shape that the model declares."""
    sizes = zip(tensor.shape[1:], declared.shape[1:], strict=False)
    if len(tensor.shape) != len(declared.shape) or any(b not in (None, a) for a, b in sizes):
        raise UsageError(
            f"data does not fit the model: input {declared.name!r} is {_batch_shape(declared)}, "
            f"got {_batch_shape(tensor)}"
        )


def _batch_shape(tensor: Any) -> str:
    return f"({', '.join(['batch', *map(str, tensor.shape[1:])])})" if len(tensor.shape) else "()"
