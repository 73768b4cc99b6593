"""Derivatives of the loss with respect to tensors inside a model, on every Keras backend."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bnhead.census.reductions import at_least_float32

Taps = dict[Any, Any]
# Loss scales for a model that computes in float16: there a gradient below 6e-8 becomes 0 and one above 65,504
# becomes infinite. One scale is not enough: a net may have gradients near both ends.
SCALES = (1.0, 2.0**8, 2.0**16, 2.0**24)


def sensitivities(forward: Callable[[Callable], tuple[Taps, Any]]) -> Taps:
    """dL / dz of every watched tensor z, all in one backward pass.

    Args:
        forward: `forward(watch) -> (taps, loss)` runs the model. It replaces each tensor z by
            `watch(name, z)` and continues with the result. The loss is a scalar.

    Returns:
        name -> gradient, of z's shape.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:

            def watch(name, tensor):
                tensor = tf.identity(tensor)  # one tensor may be watched under several names
                tape.watch(tensor)
                return tensor

            taps, loss = forward(watch)
        return tape.gradient(loss, taps, unconnected_gradients="zero")
    if backend == "jax":
        import jax

        # JAX differentiates with respect to arguments only: dL / dz is the gradient of an offset of 0 on z
        shapes = jax.eval_shape(lambda: forward(lambda name, tensor: tensor)[0])
        zeros = {name: ops.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}

        def loss_of(offsets):
            return forward(lambda name, tensor: tensor + offsets[name] if name in offsets else tensor)[1]

        return jax.grad(loss_of)(zeros)
    import torch

    with torch.enable_grad():
        # with frozen weights z has no history, so it becomes a leaf; otherwise it must stay in the graph
        taps, loss = forward(lambda name, z: z if z.requires_grad else z.detach().requires_grad_())
        gradients = torch.autograd.grad(loss, list(taps.values()), allow_unused=True)
    pairs = zip(taps.items(), gradients, strict=True)
    return {name: torch.zeros_like(z) if gradient is None else gradient for (name, z), gradient in pairs}


def magnitudes(forward: Callable[[Callable], tuple[Taps, Any]], *, half: bool) -> Taps:
    """|dL / dz| of every watched tensor z, in float32 or float64.

    Args:
        forward: as for `sensitivities`.
        half: whether a layer of the model computes in float16. The loss is then scaled by each of `SCALES`,
            and the largest finite result is used: a gradient is 0 only if it is 0 at every scale.
    """

    def scaled(scale):
        def run(watch):
            taps, loss = forward(watch)
            return taps, ops.cast(loss, "float32") * scale if half else loss

        return run

    largest: Taps = {}
    for scale in SCALES if half else (1.0,):
        for name, gradient in sensitivities(scaled(scale)).items():
            size = ops.abs(at_least_float32(gradient))
            if half:
                size = ops.where(ops.isfinite(size), size / scale, 0.0)
                size = ops.maximum(size, largest[name]) if name in largest else size
            largest[name] = size
    return largest


def inputs_per_loss(loss: Any, inputs: Any) -> Any:
    """The factor that turns the gradient of a batch's loss into those of its inputs' own losses.

    The number of inputs if the loss is a mean over the batch, so that no figure depends on the batch size; 1
    if a loss is a sum.

    Args:
        loss: the `CompileLoss` of a compiled model, which has been called.
        inputs: number of inputs of the batch.
    """
    sums = any(getattr(part.loss, "reduction", None) == "sum" for part in loss._flat_losses)
    return 1 if sums else inputs
