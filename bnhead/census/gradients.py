"""Derivatives of the loss by the pre-activations, on every Keras backend."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bnhead.census.reductions import wide

Taps = dict[Any, Any]
# factors of the loss of a float16 model: a gradient below 6e-8 is 0 in float16, and one above 65,504 infinite
SCALES = (1.0, 2.0**8, 2.0**16, 2.0**24)


def sensitivities(forward: Callable[[Callable], tuple[Taps, Any]]) -> Taps:
    """dL / dz of every tapped pre-activation z.

    Args:
        forward: `forward(watch) -> (taps, loss)` runs the model; it puts `z = watch(name, z)` after each
            pre-activation and goes on with what comes back. The loss is a scalar.

    Returns:
        name -> gradient, of z's shape.
    """
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()](forward)


def magnitudes(forward: Callable[[Callable], tuple[Taps, Any]], *, half: bool) -> Taps:
    """|dL / dz| of every tapped pre-activation z, in float32 or float64.

    Args:
        forward: as for `sensitivities`.
        half: whether something of the model computes in float16. There the loss is scaled, by several
            factors, and the largest result that is finite is taken: a gradient is 0 only if it is 0 at every
            scale.
    """

    def scaled(scale):
        def run(watch):
            found, loss = forward(watch)
            return found, ops.cast(loss, "float32") * scale if half else loss

        return run

    largest: Taps = {}
    for scale in SCALES if half else (1.0,):
        for name, gradient in sensitivities(scaled(scale)).items():
            size = ops.abs(wide(gradient))
            if half:
                size = ops.where(ops.isfinite(size), size / scale, 0.0)
                size = ops.maximum(size, largest[name]) if name in largest else size
            largest[name] = size
    return largest


def _tensorflow(forward):
    import tensorflow as tf

    with tf.GradientTape() as tape:

        def watch(name, tensor):
            tensor = tf.identity(tensor)
            tape.watch(tensor)
            return tensor

        taps, loss = forward(watch)
    return tape.gradient(loss, taps, unconnected_gradients="zero")


def _jax(forward):
    import jax

    shapes = jax.eval_shape(lambda: forward(lambda name, tensor: tensor)[0])
    zeros = {name: ops.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}

    def loss(offsets):
        return forward(lambda name, tensor: tensor + offsets[name] if name in offsets else tensor)[1]

    return jax.grad(loss)(zeros)


def _torch(forward):
    import torch

    with torch.enable_grad():
        taps, loss = forward(lambda name, z: z if z.requires_grad else z.detach().requires_grad_())
        found = torch.autograd.grad(loss, list(taps.values()), allow_unused=True)
    pairs = zip(taps.items(), found, strict=True)
    return {name: torch.zeros_like(z) if gradient is None else gradient for (name, z), gradient in pairs}
