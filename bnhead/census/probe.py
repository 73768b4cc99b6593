"""Reading a Keras model's layers: which to count, and the compiled pass that counts them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census.counters import Census, Counts
from bnhead.errors import UsageError, nearest
from bnhead.graph import Call, calls
from bnhead.inputs import batches, check_data

_RECTIFIERS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
)


def default_layers(model: keras.Model) -> list[str]:
    """The layer that is counted when none is named: the last activation before the output.

    In a head with an FC layer that is the FC layer; in a net that goes from the pooling straight to the
    output it is the backbone's last activation, the units that the pooling reads. A nested model that ends
    in an activation is counted at its output.

    Raises:
        UsageError: there is no activation before the output, or the last one is inside a nested model.
    """
    last = {id(tensor) for tensor in model.outputs}
    for call in reversed(calls(model)):
        if _activates(call.operation) and not last & set(map(id, call.outputs)):
            return [call.operation.name]
        if isinstance(call.operation, keras.Model):
            inside = f"the last activation may be inside the nested model {call.operation.name!r}"
            raise UsageError(f"model {model.name!r}: {inside}; name the layers to count")
    raise UsageError(f"model {model.name!r} has no activation before its output; name the layers to count")


def _activates(operation: keras.Operation) -> bool:
    """Whether an operation returns activations; a nested model does when its last operation does."""
    if isinstance(operation, keras.Model):
        nested = getattr(operation, "outputs", None)
        return bool(nested) and len(nested) == 1 and _activates(nested[0]._keras_history.operation)
    activation = getattr(operation, "activation", None)
    linear = None, keras.activations.linear, keras.activations.softmax
    return isinstance(operation, _RECTIFIERS) or activation not in linear


class Probe:
    """Counts silent units of a model's layers, in one compiled pass over a set of inputs.

    The model's own layers are reused, in evaluation mode, so a probe built once sees the weights as they are
    whenever it counts. What leaves the graph is, per batch and layer, one number per input and two per unit.

    Args:
        model: a built functional or Sequential model.
        layers: names of the layers to count, or the layers; None for `default_layers`. A layer that is called
            in several places is counted where it is called first.
        eps: a unit is silent where its absolute output is at most this.

    Raises:
        UsageError: a subclassed model, a layer the model does not have, or one without a single output.
    """

    def __init__(self, model: keras.Model, layers: Sequence[Any] | None = None, *, eps: float = 0.0):
        if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
            raise UsageError(f"model {model.name!r} must be a built functional or Sequential model")
        if not eps >= 0:
            raise UsageError(f"eps must be at least 0, got {eps}")
        if keras.config.image_data_format() != "channels_last":
            raise UsageError("units are counted with Keras' image data format channels_last alone")
        names = default_layers(model) if layers is None else [getattr(x, "name", x) for x in layers]
        names = list(dict.fromkeys(names))
        if not names:
            raise UsageError("layers must name at least one layer, or be None for the last activation")
        found = [_call(model, name) for name in names]
        self.layers = [call.operation for call in found]
        self._units = {call.operation.name: call.outputs[0].shape[-1] for call in found}
        read = [tensor for tensor in model.inputs if keras.backend.is_float_dtype(tensor.dtype)]
        tensors = {str(i): _batch_counts(call, read, eps) for i, call in enumerate(found)}
        self._weighted = model
        self._model = keras.Model(model.inputs, tensors, name=f"{model.name}_probe")
        # XLA would compile anew for the last, smaller batch of every pass.
        jit = False if keras.backend.backend() == "tensorflow" else "auto"
        self._model.compile(jit_compile=jit)

    def count(self, data: Any, *, batch_size: int = 256) -> Census:
        """Counts on all of `data`, the last partial batch included.

        Args:
            data: inputs as an array, a tuple `(x, y)` whose x is used, or a batched `tf.data.Dataset` of x or
                of such tuples.
            batch_size: inputs at a time, where `data` is arrays.
        """
        check_data(data, batch_size)
        census = Census({name: Counts.empty(units) for name, units in self._units.items()})
        for inputs in batches(data, batch_size):
            batch = self._model.predict_on_batch(inputs)
            for i, counts in enumerate(census.layers.values()):
                counts.add(*(np.asarray(array) for array in batch[str(i)]))
        finite = all(np.isfinite(weight).all() for weight in self._weighted.get_weights())
        for counts in census.layers.values():
            counts.finite_weights = finite
        return census


def count(
    model: keras.Model,
    data: Any,
    layers: Sequence[Any] | None = None,
    *,
    batch_size: int = 256,
    eps: float = 0.0,
) -> Census:
    """Counts the silent units of `model`'s layers on `data`, in evaluation mode.

    Arguments and errors are those of `Probe` and `Probe.count`.
    """
    return Probe(model, layers, eps=eps).count(data, batch_size=batch_size)


def _call(model: keras.Model, name: str) -> Call:
    """The first call of the layer `name`."""
    found = {call.operation.name: call for call in reversed(calls(model))}
    if name not in found:
        raise UsageError(f"layers: model {model.name!r} has no layer {name!r}{nearest(str(name), found)}")
    outputs = found[name].outputs
    if len(outputs) != 1 or len(outputs[0].shape) < 2 or outputs[0].shape[-1] is None:
        raise UsageError(f"layers: {name!r} must have one output of shape (batch, ..., units)")
    return found[name]


def _batch_counts(call: Call, read: Sequence[keras.KerasTensor], eps: float) -> list[keras.KerasTensor]:
    """One batch's arguments of `Counts.add`, as tensors behind a layer's call.

    Finite are the inputs for which `read` (the model's inputs) and what the layer reads and returns are: the
    net's fused kernels between them turn NaN into 0, so the layer alone cannot tell.
    """
    outputs = call.outputs[0]
    positions = tuple(range(1, len(outputs.shape) - 1))
    # "not <=" rather than ">", so that NaN counts as active, whatever became of it on the way
    active = ops.logical_not(ops.abs(outputs) <= eps)
    somewhere, everywhere = active, active
    if positions:
        somewhere, everywhere = ops.any(active, positions), ops.all(active, positions)
    silent = ops.sum(ops.cast(ops.logical_not(somewhere), "int32"), axis=1)
    near = [tensor for tensor in call.inputs if keras.backend.is_float_dtype(tensor.dtype)]
    return [
        silent,
        ops.sum(ops.cast(somewhere, "int32"), axis=0),
        ops.sum(ops.cast(everywhere, "int32"), axis=0),
        ops.all(ops.stack([_finite(tensor) for tensor in [outputs, *near, *read]], axis=1), axis=1),
    ]


def _finite(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """`(batch,)` bool: whether all values of the input are finite."""
    return ops.all(ops.isfinite(tensor), axis=tuple(range(1, len(tensor.shape))))
