"""Reviving dormant units: ReDo, Sokar et al. 2023, "The dormant neuron phenomenon in deep RL", algorithm 1.

A revived unit gets new random incoming weights and outgoing weights of zero, so that the net's outputs change
by at most the dormant unit's contribution. The optimizer's state of exactly these entries is reset. Units are
skipped if their incoming or outgoing weights cannot be separated from those of other units, as after a
residual sum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bnhead import seeds
from bnhead.census.sites import Site
from bnhead.graph import Call, functional, model_calls

_DENSE = (keras.layers.Dense,)
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_ELEMENTWISE = frozenset(  # functions of `keras.ops` and `keras.activations`, as operations of a graph
    {
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh"),
        *("leaky_relu", "mish", "relu", "relu6", "selu", "silu", "soft_shrink", "softplus", "softsign"),
        *("sparse_plus", "squareplus", "tanh", "tanh_shrink", "threshold", "sigmoid"),
    }
)
_CHANNELWISE = (
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
)

# lists of an optimizer that are not slots: the variables themselves, and averages of them
_NO_SLOTS = ("_trainable_variables", "_variables", "_model_variables_moving_average")


@dataclass
class Revival:
    """The revival of one layer's dormant units.

    Attributes:
        layer: name of the layer.
        units: its dormant units.
        incoming: paths of the variables whose entries were redrawn.
        outgoing: paths of the variables whose entries were set to zero.
        slots: number of optimizer variables with reset entries.
        skipped: why nothing was changed; empty if the units were revived.
    """

    layer: str
    units: list[int]
    incoming: list[str] = field(default_factory=list)
    outgoing: list[str] = field(default_factory=list)
    slots: int = 0
    skipped: str = ""

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.layer}: {len(self.units)} dormant units not revived: {self.skipped}"
        return (
            f"{self.layer}: {len(self.units)} dormant units revived; {', '.join(self.incoming)} redrawn, "
            f"{', '.join(self.outgoing)} set to 0, {self.slots} optimizer variables reset there"
        )


class _NotSeparable(Exception):
    """A unit shares weights with other units."""


def revive(model: keras.Model, site: Site, dormant: np.ndarray, seed: int) -> Revival:
    """Revives units of one layer.

    Args:
        model: the model in training, with or without an optimizer.
        site: the layer's activation.
        dormant: `(units,)` bool, the units to revive.
        seed: seed of the new incoming weights.
    """
    units = np.flatnonzero(dormant)
    revival = Revival(site.name, units.tolist())
    if not len(units):
        revival.skipped = "no unit is dormant"
        return revival
    try:
        graph, call = _located(model, site)
        incoming = _incoming(graph, call)
        _outgoing(graph, call)  # raises before anything is changed
    except _NotSeparable as error:
        revival.skipped = str(error)
        return revival
    entries = (..., units)
    for number, (variable, initializer) in enumerate(incoming):
        config = initializer.get_config()
        if "seed" in config:
            config["seed"] = seeds.stream(seed, site.name, number)
            initializer = type(initializer).from_config(config)
        # the full variable, since an initializer's scale depends on its shape
        fresh = keras.ops.convert_to_numpy(initializer(tuple(variable.shape), dtype=variable.dtype))
        revival.slots += _set(model, variable, entries, np.asarray(fresh)[entries])
        revival.incoming.append(variable.path)
    revival.outgoing, slots = _set_outgoing_to_zero(model, site, units)
    revival.slots += slots
    return revival


def revive_layers(model: keras.Model, layers: Sequence[tuple[Site, np.ndarray]], seed: int) -> list[Revival]:
    """Revives units of several layers, each a site with its dormant units as for `revive`."""
    revivals = [revive(model, site, dormant, seed) for site, dormant in layers]
    # If one layer reads another, one kernel holds outgoing weights of the first and incoming weights of the
    # second layer, which were redrawn after they were set to zero. The shared entries must be 0 in the end.
    for (site, _), revival in zip(layers, revivals, strict=True):
        if not revival.skipped:
            _set_outgoing_to_zero(model, site, revival.units)
    return revivals


def _set_outgoing_to_zero(model: keras.Model, site: Site, units: Sequence[int]) -> tuple[list[str], int]:
    """Sets the outgoing weights to 0; returns the variables' paths and the number of optimizer slots."""
    paths, slots = [], 0
    for variable, rows in _outgoing(*_located(model, site)):
        slots += _set(model, variable, (..., np.flatnonzero(np.isin(rows, units)), slice(None)), 0.0)
        paths.append(variable.path)
    return paths, slots


def _located(model: keras.Model, site: Site) -> tuple[Any, Call]:
    """The functional graph, of the model or a nested one, and the call in it that computes the site's units.

    Raises:
        _NotSeparable: such a call does not exist, or several do.
    """
    if functional(model) is None:
        raise _NotSeparable("the model is not functional, so the layers that read them are unknown")
    if not site.is_layer_output:
        raise _NotSeparable(f"{site.layer.name!r} modifies them before it returns them")
    matches = list(_calls_of(functional(model), site.layer))
    if not matches:
        raise _NotSeparable("their layer is inside a layer that is not a functional model")
    if len(matches) > 1:
        raise _NotSeparable("their layer, or a nested model around it, is called several times")
    return matches[0]


def _calls_of(graph: Any, layer: Any) -> Iterator[tuple[Any, Call]]:
    for call in model_calls(graph):
        if call.operation is layer:
            yield graph, call
        elif (inner := functional(call.operation)) is not None:
            yield from _calls_of(inner, layer)


def _incoming(graph: Any, call: Call) -> list[tuple[Any, Any]]:
    """The variables whose last axis is the site's units, with their initializers: kernel, bias, norm.

    Walks back from the site to the first layer with a kernel.

    Raises:
        _NotSeparable: a layer in between mixes units.
    """
    producers = {id(tensor): producer for producer in model_calls(graph) for tensor in producer.outputs}
    variables: list[tuple[Any, Any]] = []
    while True:
        layer = call.operation
        if isinstance(layer, keras.layers.BatchNormalization):
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            pairs = [(getattr(layer, name, None), getattr(layer, f"{name}_initializer")) for name in names]
            variables += [(variable, initializer) for variable, initializer in pairs if variable is not None]
        elif _is_one_kernel(layer):
            kernel = [(layer.kernel, layer.kernel_initializer)]
            return kernel + ([(layer.bias, layer.bias_initializer)] if layer.use_bias else []) + variables
        elif len(call.inputs) != 1 or not _keeps_units(layer):
            raise _NotSeparable(f"{layer.name!r}, before them, mixes units")
        if id(call.inputs[0]) not in producers:
            raise _NotSeparable("their incoming weights are outside of the nested model")
        call = producers[id(call.inputs[0])]


def _is_one_kernel(layer: keras.Operation) -> bool:
    """Whether a layer is a Dense or a convolution with Keras' own `call` and one kernel."""
    return _has_call_of(layer, _DENSE + _CONVOLUTIONS) and getattr(layer, "groups", 1) == 1


def _keeps_units(layer: keras.Operation) -> bool:
    """Whether channel u of a layer's output depends on channel u of its input only.

    That is known for operations and for Keras' own layers. An attribute `activation` proves nothing: a
    recurrent layer or a block may have one.
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        return True
    if isinstance(layer, keras.Layer):
        return _has_call_of(layer, _CHANNELWISE)
    # an operation's class is named after its function in camel case: `LeakyRelu` is `leaky_relu`
    name = type(layer).__name__.replace("ReLU", "Relu").replace("ELU", "Elu")
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    return type(layer).__module__.startswith("keras.") and snake in _ELEMENTWISE


def _has_call_of(layer: keras.Operation, classes: tuple[type, ...]) -> bool:
    """Whether a layer's `call` is inherited from one of these classes and not overridden."""
    return any(isinstance(layer, each) and type(layer).call is each.call for each in classes)


def _outgoing(graph: Any, source: Call) -> list[tuple[Any, np.ndarray]]:
    """The kernels that read a call's output, each with the unit that each of its input rows reads, or -1.

    Walks forward from the site along all paths to the next layers with a kernel.

    Raises:
        _NotSeparable: a layer in between mixes units, or the units are an output of the graph.
    """
    readers: dict[int, list[Call]] = {}
    for call in model_calls(graph):
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    outputs = {id(tensor) for tensor in graph.outputs}
    kernels: dict[int, tuple[Any, np.ndarray]] = {}
    waiting = [(source.outputs[0], np.arange(source.outputs[0].shape[-1]))]
    while waiting:
        tensor, rows = waiting.pop()
        if id(tensor) in outputs:
            raise _NotSeparable("they are an output of their model")
        for call in readers.get(id(tensor), []):
            if not _is_one_kernel(call.operation):
                waiting.append((call.outputs[0], _units_after(call, tensor, rows)))
                continue
            kernel, kernel_rows = call.operation.kernel, rows
            if id(kernel) in kernels:  # reached on a second path, which ends in the same concatenation
                earlier = kernels[id(kernel)][1]
                kernel_rows = np.where(earlier >= 0, earlier, rows)
            kernels[id(kernel)] = kernel, kernel_rows
    return list(kernels.values())


def _units_after(call: Call, tensor: Any, rows: np.ndarray) -> np.ndarray:
    """The unit in each channel of a call's output, -1 in channels of other tensors.

    Args:
        call: a call that reads `tensor`.
        tensor: a tensor with the units on its last axis.
        rows: the unit in each channel of `tensor`.
    """
    layer = call.operation
    if isinstance(layer, keras.layers.Flatten) and None not in tensor.shape[1:]:
        return np.tile(rows, int(np.prod(tensor.shape[1:-1])))
    if isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(tensor.shape) - 1):
        parts = [rows if t is tensor else np.full(t.shape[-1], -1) for t in call.inputs]
        return np.concatenate(parts)
    if len(call.inputs) == 1 and _keeps_units(layer):
        return rows
    raise _NotSeparable(f"{layer.name!r}, after them, mixes units")


def _set(model: keras.Model, variable: Any, entries: tuple, values: Any) -> int:
    """Sets entries of a variable and resets those of its optimizer slots; returns the number of slots."""
    _assign(variable, entries, values)
    optimizer = getattr(model, "optimizer", None)
    slots = optimizer_slots(optimizer, variable)
    for slot, initial in slots:
        _assign(slot, entries, values if initial is None else initial)
    number = len(slots)
    for trainer, index in _trainers(optimizer, variable):
        # with `use_ema` the averages replace the weights when training ends, so they are set too
        averages = getattr(trainer, "_model_variables_moving_average", None) or []
        if index < len(averages) and averages[index] is not None:
            _assign(averages[index], entries, values)
        # Adafactor keeps means of squared gradients per row (`_r`) and per column (`_c`) of a kernel
        is_row = isinstance(entries[-1], slice)  # entries are (..., rows, :) or (..., columns)
        moments = getattr(trainer, "_r" if is_row else "_c", None) or []
        if index < len(moments) and moments[index] is not None and len(variable.shape) > 1:
            _assign(moments[index], entries[:-1] if is_row else entries, 0.0)
            number += 1
    return number


def _assign(variable: Any, entries: tuple, values: Any) -> None:
    array = np.array(keras.ops.convert_to_numpy(variable))
    array[entries] = values
    variable.assign(array)


def _trainers(optimizer: Any, variable: Any) -> Iterator[tuple[Any, int]]:
    """The optimizers that train a variable, also inside a loss scale or a `MultiOptimizer`, and its index."""
    inner = getattr(optimizer, "inner_optimizer", None)
    wrapped = [inner] if inner is not None else getattr(optimizer, "_inner_optimizers", None)
    if wrapped:
        for each in wrapped:
            yield from _trainers(each, variable)
    elif optimizer is not None:
        for index, trained in enumerate(getattr(optimizer, "_trainable_variables", None) or []):
            if trained is variable:
                yield optimizer, index


def optimizer_slots(optimizer: Any, variable: Any) -> Sequence[tuple[Any, float | None]]:
    """The optimizer's slots of a trainable variable, each with its initial value.

    The initial value is None if a slot starts as a copy of the variable.
    """
    slots: list[tuple[Any, float | None]] = []
    for trainer, index in _trainers(optimizer, variable):
        initial = {"_accumulators": getattr(trainer, "initial_accumulator_value", 0.0)}
        if type(trainer).__name__ == "ScheduleFreeAdamW":
            initial["_momentums"] = None
        # Keras has no list of slots: each type (`_momentums`, `_velocities`, ...) is an attribute, a list
        # parallel to the trained variables
        for name, candidates in vars(trainer).items():
            parallel = isinstance(candidates, list) and len(candidates) == len(trainer._trainable_variables)
            if not parallel or name in _NO_SLOTS:
                continue
            slot = candidates[index]
            if hasattr(slot, "assign") and tuple(slot.shape) == tuple(variable.shape):
                slots.append((slot, initial.get(name, 0.0)))
    return slots
