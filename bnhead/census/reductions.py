"""Reductions of a layer's activations to small arrays, inside the graph. Activations are not kept."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.graph.taps import RECTIFIERS, Tap


def units_last(tensor: Any, tap: Tap) -> Any:
    """The tensor with its units on the last axis."""
    return tensor if tap.axis == -1 else ops.moveaxis(tensor, tap.axis, -1)


def at_least_float32(tensor: Any) -> Any:
    """The tensor in float32 or float64, so that a threshold is not rounded to a smaller dtype."""
    name = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if name in ("float32", "float64") else ops.cast(tensor, "float32")


def extremes(values: Any, mask: Any = None) -> tuple[Any, Any]:
    """Largest and smallest value of each unit over the positions, two `(batch, units)`.

    Args:
        values: `(batch, ..., units)`.
        mask: `(batch, time)` bool; positions with False are ignored. An input without positions has
            -inf and -inf, so no unit is active on it.
    """
    if mask is not None:
        valid = ops.expand_dims(ops.cast(mask, "bool"), -1)
        lowest, highest = (ops.cast(limit, values.dtype) for limit in (-np.inf, np.inf))
        high = ops.max(ops.where(valid, values, lowest), 1)
        low = ops.min(ops.where(valid, values, highest), 1)
        low = ops.where(ops.any(valid, 1), low, lowest)
    else:
        axes = _position_axes(values)
        high, low = (ops.max(values, axes), ops.min(values, axes)) if axes else (values, values)
    return at_least_float32(high), at_least_float32(low)


def activity(tap: Tap, eps: float, by_slope: bool = False, limit: int | None = None) -> tuple[Any, Any]:
    """Whether each unit is active somewhere and everywhere, two `(batch, units)` bool.

    NaN is active, whatever the activation makes of it.

    Args:
        tap: an activation or a layer's output.
        eps: threshold of silence, at least 0.
        by_slope: whether to compare |da/dz| instead of |a|.
        limit: number of inputs to read; None for all.
    """
    # max(0, z) > eps exactly if z > eps: for a rectifier, its input is compared, without an array for |a|.
    # relu6 outputs at most 6, so this holds for eps < 6 only.
    if by_slope:
        size = absolute_slope(tap.function, tap.pre_activation[:limit])
    elif tap.kind == "relu" or (tap.kind in RECTIFIERS and eps < 6):
        size = tap.pre_activation[:limit]
    else:
        size = ops.abs(tap.output[:limit])
    mask = None if tap.mask is None else tap.mask[:limit]
    high, low = extremes(units_last(size, tap), mask)
    return ops.logical_not(high <= eps), ops.logical_not(low <= eps)  # not `> eps`, which is False for NaN


def silence(somewhere: Any, everywhere: Any) -> dict[str, Any]:
    """Integer counts of silent and active units.

    Args:
        somewhere, everywhere: as returned by `activity`.

    Returns:
        int32 `inputs_by_silent` `(units + 1,)`, `runs` `(units + 1,)` (runs of silent and of active units,
        summed over the inputs with k silent units), `active` and `active_everywhere` `(units,)`.
    """
    units = somewhere.shape[-1]
    silent = ops.logical_not(somewhere)
    number = ops.sum(ops.cast(silent, "int32"), axis=1)
    runs = 1 + ops.sum(ops.cast(silent[:, 1:] != silent[:, :-1], "int32"), axis=1)
    return {
        "inputs_by_silent": ops.segment_sum(ops.ones_like(number), number, num_segments=units + 1),
        "runs": ops.segment_sum(runs, number, num_segments=units + 1),
        "active": ops.sum(ops.cast(somewhere, "int32"), axis=0),
        "active_everywhere": ops.sum(ops.cast(everywhere, "int32"), axis=0),
    }


def first_active(somewhere: Any) -> Any:
    """`(units,)` int32: index of the first input on which the unit is active; -1 if there is none.

    Args:
        somewhere: `(batch, units)` bool.
    """
    rows = ops.shape(somewhere)[0]
    index = ops.arange(rows, dtype="int32")[:, None]
    first = ops.min(ops.where(somewhere, index, rows), axis=0)  # PyTorch's argmax need not be the first
    return ops.where(first < rows, first, -1)


def magnitude(outputs: Any, mask: Any = None) -> Any:
    """`(units,)` float32 or float64: sum over inputs of the mean over positions of |a|."""
    size, axes = ops.abs(at_least_float32(outputs)), _position_axes(outputs)
    if mask is not None:
        valid = ops.expand_dims(ops.cast(mask, size.dtype), -1)
        return ops.sum(ops.sum(size * valid, 1) / ops.maximum(ops.sum(valid, 1), 1), axis=0)
    return ops.sum(ops.mean(size, axes) if axes else size, axis=0)


def output_moments(outputs: Any, mask: Any = None) -> dict[str, Any]:
    """The attributes of `counts.Moments` for one batch: number of values, mean and squares per unit."""
    number, mean, centred = _centred(outputs, mask)
    return {"values": number, "mean": mean, "squares": ops.sum(ops.square(centred), axis=0)}


def output_comoments(outputs: Any, mask: Any = None) -> dict[str, Any]:
    """The same with `(units, units)` squares: the products of the differences of every pair of units.

    The values of a feature map are those of all its positions.
    """
    number, mean, centred = _centred(outputs, mask)
    return {"values": number, "mean": mean, "squares": ops.matmul(ops.transpose(centred), centred)}


def _centred(outputs: Any, mask: Any) -> tuple[Any, Any, Any]:
    """Number of values, their mean `(units,)`, and the differences from it `(values, units)`, 0 if masked."""
    values = ops.reshape(at_least_float32(outputs), (-1, outputs.shape[-1]))
    if mask is None:
        valid = ops.ones_like(values[:, :1])
    else:
        valid = ops.reshape(ops.cast(mask, values.dtype), (-1, 1))
    # relative to the first value, then to the mean: a constant unit has squares of exactly 0, at any value
    number, shifted = ops.sum(valid), values - values[:1]
    mean = ops.sum(shifted * valid, axis=0) / ops.maximum(number, 1)
    return number, values[0] + mean, (shifted - mean) * valid


def class_activity(somewhere: Any, one_hot: Any) -> Any:
    """`(classes, units)` float32: inputs of each class on which the unit is active.

    Args:
        somewhere: `(batch, units)` bool.
        one_hot: `(batch, classes)` float32.
    """
    return ops.matmul(ops.transpose(one_hot), ops.cast(somewhere, "float32"))


def coactivity(somewhere: Any) -> Any:
    """`(units, units)` float32, whole numbers: inputs on which both units are active."""
    active = ops.cast(somewhere, "float32")
    return ops.matmul(ops.transpose(active), active)


def finite_rows(tensor: Any) -> Any:
    """`(batch,)` bool: whether all values of an input are finite."""
    # NaN and infinity propagate through one sum, which is cheaper than a test of every value. As a
    # consequence, values that add up to more than 3e38 (1.7e308 in float64) are not finite either.
    flat = ops.reshape(at_least_float32(tensor), (ops.shape(tensor)[0], -1))
    return ops.isfinite(ops.sum(flat, axis=1))


def per_input(finite: Any, inputs: int | Any) -> Any:
    """`(inputs,)` bool from `(rows,)` bool, with one or several rows per input.

    A model may fold positions into the batch: the rows of an input are then adjacent. If the number of rows
    is not a multiple of the inputs, each input gets the conjunction of all rows.
    """
    rows = ops.shape(finite)[0]
    if isinstance(rows, int) and isinstance(inputs, int) and rows == inputs:
        return finite
    each = rows // inputs
    grouped = ops.all(ops.reshape(finite[: each * inputs], (inputs, each)), axis=1)
    return ops.where(ops.equal(each * inputs, rows), grouped, ops.all(finite))


def absolute_slope(function: Callable, z: Any) -> Any:
    """|f'(z)| of an elementwise function, by the backend's automatic differentiation.

    Args:
        function: the activation.
        z: pre-activations.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(z)
            a = function(z)
        return ops.abs(tape.gradient(a, z, unconnected_gradients="zero"))
    if backend == "jax":
        import jax

        a, pull = jax.vjp(function, z)
        return ops.abs(pull(ops.ones_like(a))[0])
    import torch

    with torch.enable_grad():  # the probe itself runs without gradients
        leaf = z.detach().requires_grad_()
        return ops.abs(torch.autograd.grad(function(leaf).sum(), leaf)[0])


def _position_axes(tensor: Any) -> tuple[int, ...]:
    """The axes between the batch and the units; () for a vector."""
    return tuple(range(1, len(tensor.shape) - 1))
