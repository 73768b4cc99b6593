"""From a layer's activations to small arrays, in the graph: a few reductions, nothing kept."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.graph.taps import RECTIFIERS, Tap


def units_last(tensor: Any, tap: Tap) -> Any:
    """The tensor with its units on the last axis."""
    return tensor if tap.axis == -1 else ops.moveaxis(tensor, tap.axis, -1)


def wide(tensor: Any) -> Any:
    """In float32, or in float64 where it is; so that a threshold is not rounded to a smaller type."""
    name = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if name in ("float32", "float64") else ops.cast(tensor, "float32")


def positions(tensor: Any) -> tuple[int, ...]:
    """The axes between the batch and the units, none for a vector."""
    return tuple(range(1, len(tensor.shape) - 1))


def extremes(values: Any, mask: Any = None) -> tuple[Any, Any]:
    """Largest and smallest value of each unit over an input's positions, two `(batch, units)`.

    Args:
        values: `(batch, ..., units)`.
        mask: `(batch, time)` bool; positions where it is False are not looked at. An input without a position
            has -inf and -inf, so that no unit is active on it.
    """
    if mask is not None:
        seen = ops.expand_dims(ops.cast(mask, "bool"), -1)
        high = ops.max(ops.where(seen, values, ops.cast(-np.inf, values.dtype)), 1)
        low = ops.min(ops.where(seen, values, ops.cast(np.inf, values.dtype)), 1)
        return wide(high), wide(ops.where(ops.any(seen, 1), low, ops.cast(-np.inf, values.dtype)))
    axes = positions(values)
    high, low = (ops.max(values, axes), ops.min(values, axes)) if axes else (values, values)
    return wide(high), wide(low)


def active(tap: Tap, eps: float, by_slope: bool = False, limit: int | None = None) -> tuple[Any, Any]:
    """Where a unit is active somewhere and everywhere, two `(batch, units)` bool.

    max(0, z) > eps where z > eps, so a rectifier needs no array as large as its activations. Of everything
    else |a| is compared, or the slope. NaN is active, whatever became of it on the way.

    Args:
        tap: an activation or a layer's output.
        eps: threshold of silence, at least 0.
        by_slope: whether to compare |da/dz| instead of |a|.
        limit: how many inputs are looked at; None for all.
    """
    if by_slope:
        size = slope(tap.function, tap.before[:limit])
    elif tap.kind == "relu" or (tap.kind in RECTIFIERS and eps < 6):
        size = tap.before[:limit]
    else:
        size = ops.abs(tap.after[:limit])
    mask = None if tap.mask is None else tap.mask[:limit]
    high, low = extremes(units_last(size, tap), mask)
    return ops.logical_not(high <= eps), ops.logical_not(low <= eps)


def silence(somewhere: Any, everywhere: Any) -> dict[str, Any]:
    """Whole numbers from where units are active.

    Returns:
        int32 `inputs_by_silent` `(units + 1,)`, `runs` `(units + 1,)` (the runs of silent and of active
        units, added up over the inputs with k silent units), `active` and `saturated` `(units,)`.
    """
    units = somewhere.shape[-1]
    silent = ops.logical_not(somewhere)
    number = ops.sum(ops.cast(silent, "int32"), axis=1)
    runs = 1 + ops.sum(ops.cast(silent[:, 1:] != silent[:, :-1], "int32"), axis=1)
    return {
        "inputs_by_silent": ops.segment_sum(ops.ones_like(number), number, num_segments=units + 1),
        "runs": ops.segment_sum(runs, number, num_segments=units + 1),
        "active": ops.sum(ops.cast(somewhere, "int32"), axis=0),
        "saturated": ops.sum(ops.cast(everywhere, "int32"), axis=0),
    }


def magnitude(outputs: Any, mask: Any = None) -> Any:
    """`(units,)` float32 or float64: sum over the inputs of the mean over the positions of |a|."""
    size, axes = ops.abs(wide(outputs)), positions(outputs)
    if mask is not None:
        seen = ops.expand_dims(ops.cast(mask, size.dtype), -1)
        return ops.sum(ops.sum(size * seen, 1) / ops.maximum(ops.sum(seen, 1), 1), axis=0)
    return ops.sum(ops.mean(size, axes) if axes else size, axis=0)


def moments(outputs: Any, mask: Any = None) -> dict[str, Any]:
    """Number of values, mean and squared deviations per unit, for `counters.Moments`.

    Differences are taken from the batch's first value of the unit, and then from the mean, so a unit that is
    constant at any value has exactly 0 deviation.
    """
    values = ops.reshape(wide(outputs), (-1, outputs.shape[-1]))
    seen = (
        ops.ones_like(values[:, :1]) if mask is None else ops.reshape(ops.cast(mask, values.dtype), (-1, 1))
    )
    number, shifted = ops.sum(seen), values - values[:1]
    mean = ops.sum(shifted * seen, axis=0) / ops.maximum(number, 1)
    deviation = ops.sum(ops.square(shifted - mean) * seen, axis=0)
    return {"values": number, "mean": values[0] + mean, "deviation": deviation}


def by_class(somewhere: Any, one_hot: Any) -> Any:
    """`(classes, units)` float32: inputs of each class on which the unit is active.

    Args:
        somewhere: `(batch, units)` bool.
        one_hot: `(batch, classes)` float32.
    """
    return ops.matmul(ops.transpose(one_hot), ops.cast(somewhere, "float32"))


def together(somewhere: Any) -> Any:
    """`(units, units)` float32, whole numbers: inputs on which both units are active."""
    active = ops.cast(somewhere, "float32")
    return ops.matmul(ops.transpose(active), active)


def finite(tensor: Any) -> Any:
    """`(batch,)` bool: whether all of an input's values are finite.

    One sum, which NaN and infinity go through: so values that add up to more than 3e38 are not finite (to
    more than 1.7e308 in float64).
    """
    flat = ops.reshape(wide(tensor), (ops.shape(tensor)[0], -1))
    return ops.isfinite(ops.sum(flat, axis=1))


def of_inputs(found: Any, inputs: int | Any) -> Any:
    """`(inputs,)` bool from `(rows,)`, which may be several for each input.

    A model may fold positions into the batch; their rows are then next to each other. Where the rows are no
    multiple of the inputs, all inputs share what one row is.
    """
    rows = ops.shape(found)[0]
    if isinstance(rows, int) and isinstance(inputs, int) and rows == inputs:
        return found
    each = rows // inputs
    grouped = ops.all(ops.reshape(found[: each * inputs], (inputs, each)), axis=1)
    return ops.where(ops.equal(each * inputs, rows), grouped, ops.all(found))


def slope(function: Callable, before: Any) -> Any:
    """|f'(z)| of an elementwise function, by the backend's automatic differentiation.

    Args:
        function: the activation.
        before: pre-activations.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(before)
            after = function(before)
        return ops.abs(tape.gradient(after, before, unconnected_gradients="zero"))
    if backend == "jax":
        import jax

        after, pull = jax.vjp(function, before)
        return ops.abs(pull(ops.ones_like(after))[0])
    import torch

    with torch.enable_grad():
        leaf = before.detach().requires_grad_()
        return ops.abs(torch.autograd.grad(function(leaf).sum(), leaf)[0])
