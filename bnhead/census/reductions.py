"""From a layer's activations to small arrays, in the graph: a few reductions, nothing kept."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def positions(tensor: Any) -> tuple[int, ...]:
    """The axes between the batch and the units, none for a vector."""
    return tuple(range(1, len(tensor.shape) - 1))


def active_of_rectifier(before: Any, eps: float) -> tuple[Any, Any]:
    """Where a unit is active somewhere and everywhere, from the pre-activation of a ReLU or ReLU6.

    max(0, z) > eps where z > eps: two reductions, and no array as large as the activations is made.

    Args:
        before: `(batch, ..., units)` pre-activations.
        eps: threshold of silence, at least 0.

    Returns:
        Two `(batch, units)` bool.
    """
    axes = positions(before)
    high, low = (ops.max(before, axes), ops.min(before, axes)) if axes else (before, before)
    return high > eps, low > eps


def active_of_size(size: Any, eps: float) -> tuple[Any, Any]:
    """The same where any activation counts by its size.

    Args:
        size: `(batch, ..., units)`, |a|, or the slope of the activation.
        eps: threshold of silence, at least 0.
    """
    axes = positions(size)
    high, low = (ops.max(size, axes), ops.min(size, axes)) if axes else (size, size)
    # "not <=" rather than ">", so that NaN counts as active, whatever became of it on the way
    return ops.logical_not(high <= eps), ops.logical_not(low <= eps)


def silence(somewhere: Any, everywhere: Any) -> dict[str, Any]:
    """The counts of `Counts.of_batch` from where units are active; `(batch,)` or `(units,)` int32."""
    silent = ops.logical_not(somewhere)
    return {
        "silent": ops.sum(ops.cast(silent, "int32"), axis=1),
        "active": ops.sum(ops.cast(somewhere, "int32"), axis=0),
        "saturated": ops.sum(ops.cast(everywhere, "int32"), axis=0),
        "switches": ops.sum(ops.cast(silent[:, 1:] != silent[:, :-1], "int32"), axis=1),
    }


def magnitude(outputs: Any) -> Any:
    """`(units,)` float32: sum over the inputs of the mean over the positions of |a|."""
    size = ops.abs(ops.cast(outputs, "float32"))
    axes = positions(outputs)
    return ops.sum(ops.mean(size, axes) if axes else size, axis=0)


def moments(outputs: Any) -> dict[str, Any]:
    """Number of values, mean and squared deviations per unit, for `counters.Moments`.

    Differences are taken from the batch's first value of the unit, and then from the mean, so a unit that is
    constant at any value has exactly 0 deviation.
    """
    values = ops.reshape(ops.cast(outputs, "float32"), (-1, outputs.shape[-1]))
    shifted = values - values[:1]
    mean = ops.mean(shifted, axis=0)
    deviation = ops.sum(ops.square(shifted - mean), axis=0)
    return {"first": values[0], "mean": mean, "deviation": deviation}


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

    One sum, which NaN and infinity go through: so values that add up to more than 3e38 are not finite.
    """
    flat = ops.reshape(ops.cast(tensor, "float32"), (ops.shape(tensor)[0], -1))
    return ops.isfinite(ops.sum(flat, axis=1))


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
