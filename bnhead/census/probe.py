"""Reading a Keras model's layers: which to count, and the compiled pass that counts them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census.counters import Census, Counts
from bnhead.errors import UsageError, nearest
from bnhead.graph import Call, calls

_RECTIFIERS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
)


def default_layers(model: keras.Model) -> list[str]:
    """The layer that is counted when none is named: the last activation before the output.

    In a head with an FC layer that is the FC layer; in a net that goes from the pooling straight to the
    output it is the backbone's last activation, the units that the pooling reads.

    Raises:
        UsageError: the model has no activation before its output.
    """
    last = {id(tensor) for tensor in model.outputs}
    found = [
        call.operation.name
        for call in calls(model)
        if _activates(call.operation) and not last & set(map(id, call.outputs))
    ]
    if not found:
        raise UsageError(
            f"model {model.name!r} has no activation before its output; name the layers to count"
        )
    return found[-1:]


def _activates(layer: keras.Operation) -> bool:
    activation = getattr(layer, "activation", None)
    return isinstance(layer, _RECTIFIERS) or activation not in (None, keras.activations.linear)


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
        names = default_layers(model) if layers is None else [getattr(x, "name", x) for x in layers]
        found = [_call(model, name) for name in names]
        self.layers = [call.operation for call in found]
        self._units = [call.outputs[0].shape[_unit_axis(len(call.outputs[0].shape))] for call in found]
        tensors = {str(i): _batch_counts(call, eps) for i, call in enumerate(found)}
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
        names = [layer.name for layer in self.layers]
        census = Census({name: Counts.empty(units) for name, units in zip(names, self._units, strict=True)})
        for inputs in _batches(data, batch_size):
            batch = self._model.predict_on_batch(inputs)
            for i, counts in enumerate(census.layers.values()):
                counts.add(*(np.asarray(array) for array in batch[str(i)]))
        for layer in self.layers:
            census.layers[layer.name].finite_weights = all(np.isfinite(w).all() for w in _weights(layer))
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


def _weights(layer: keras.Operation) -> list[np.ndarray]:
    return layer.get_weights() if isinstance(layer, keras.layers.Layer) else []


def _unit_axis(rank: int) -> int:
    return 1 if rank > 2 and keras.config.image_data_format() == "channels_first" else rank - 1


def _batch_counts(call: Call, eps: float) -> list[keras.KerasTensor]:
    """One batch's arguments of `Counts.add`, as tensors behind a layer's call."""
    outputs = call.outputs[0]
    rank = len(outputs.shape)
    positions = tuple(axis for axis in range(1, rank) if axis != _unit_axis(rank))
    # "not <=" rather than ">", so that NaN counts as active, whatever became of it on the way
    active = ops.logical_not(ops.abs(outputs) <= eps)
    somewhere, everywhere = active, active
    if positions:
        somewhere, everywhere = ops.any(active, positions), ops.all(active, positions)
    silent = ops.sum(ops.cast(ops.logical_not(somewhere), "int32"), axis=1)
    read = [t for t in call.inputs if keras.backend.is_float_dtype(t.dtype)]
    finite = [_finite(tensor) for tensor in [outputs, *read]]
    return [
        silent,
        ops.sum(ops.cast(somewhere, "int32"), axis=0),
        ops.sum(ops.cast(everywhere, "int32"), axis=0),
        ops.all(ops.stack(finite, axis=1), axis=1),
    ]


def _finite(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """`(batch,)` bool: whether all values of the input are finite."""
    return ops.all(ops.isfinite(tensor), axis=tuple(range(1, len(tensor.shape))))


def _batches(data: Any, batch_size: int) -> Iterator[Any]:
    if hasattr(data, "element_spec") and isinstance(data, Iterable):
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]
        return
    x = keras.utils.unpack_x_y_sample_weight(data)[0] if isinstance(data, tuple) else data
    arrays = keras.tree.map_structure(np.asarray, x)
    size = len(keras.tree.flatten(arrays)[0])
    for start in range(0, size, batch_size):
        yield keras.tree.map_structure(lambda array, i=start: array[i : i + batch_size], arrays)
