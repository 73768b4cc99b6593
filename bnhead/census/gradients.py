"""Derivatives of the loss by the pre-activations, on every Keras backend."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Taps = dict[str, Any]


def sensitivities(forward: Callable[[Callable], tuple[Taps, Any]]) -> Taps:
    """dL / dz of every tapped pre-activation z.

    Args:
        forward: `forward(watch) -> (taps, loss)` runs the model; it puts `z = watch(name, z)` behind each
            pre-activation and goes on with what comes back. The loss is a scalar.

    Returns:
        name -> gradient, of z's shape.
    """
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()](forward)


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
