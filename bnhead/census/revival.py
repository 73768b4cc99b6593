"""Reviving dormant units: ReDo, Sokar et al. 2023, "The dormant neuron phenomenon in deep RL", algorithm 1.

A revived unit's incoming weights are drawn anew, its outgoing weights become zero (so that the net's outputs
change by no more than what the dormant unit had said), and the optimizer forgets what it knew of exactly
these entries. Units whose incoming or outgoing weights cannot be told apart (those behind a residual sum)
are left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bnhead import seeds
from bnhead.census.sites import Site
from bnhead.graph import Call, calls, functional

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

# lists of an optimizer that hold the variables themselves, or averages of them
_NO_SLOTS = ("_trainable_variables", "_variables", "_model_variables_moving_average")


@dataclass
class Revival:
    """What was done to one layer.

    Attributes:
        layer: the layer whose dormant units were to be revived.
        units: which units were.
        incoming: paths of the variables in which their entries were drawn or set anew.
        outgoing: paths of the variables in which their entries were set to zero.
        slots: number of optimizer variables of which entries were reset.
        skipped: why nothing was done; empty when something was.
    """

    layer: str
    units: list[int]
    incoming: list[str] = field(default_factory=list)
    outgoing: list[str] = field(default_factory=list)
    slots: int = 0
    skipped: str = ""

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.layer}: {len(self.units)} dormant units left as they are, {self.skipped}"
        return (
            f"{self.layer}: {len(self.units)} dormant units revived; {', '.join(self.incoming)} drawn anew, "
            f"{', '.join(self.outgoing)} set to 0, {self.slots} optimizer variables reset there"
        )


def revive(model: keras.Model, site: Site, dormant: np.ndarray, seed: int) -> Revival:
    """Revives units of one layer.

    Args:
        model: the model that is trained, with or without an optimizer.
        site: the counted layer, an activation.
        dormant: `(units,)` bool, the units to revive.
        seed: seed of the new incoming weights; nothing else draws from it.
    """
    units = np.flatnonzero(dormant)
    found = Revival(site.name, units.tolist())
    if not len(units):
        found.skipped = "there are none"
        return found
    try:
        graph, call = _located(model, site)
        incoming = _incoming(graph, call)
        _outgoing(graph, call)  # whether they can be told apart, before anything is changed
    except _Mixed as mixed:
        found.skipped = str(mixed)
        return found
    for number, (variable, initializer) in enumerate(incoming):
        fresh = _drawn(initializer, variable, seeds.stream(seed, site.name, number))
        entries = (..., units)
        found.slots += _set(model, variable, entries, fresh[entries])
        found.incoming.append(variable.path)
    found.outgoing, slots = _set_outgoing_to_zero(model, site, units)
    found.slots += slots
    return found


def revive_layers(model: keras.Model, layers: Sequence[tuple[Site, np.ndarray]], seed: int) -> list[Revival]:
    """Revives units of several layers, each a site with its dormant units as for `revive`.

    Where one layer reads another, a kernel holds the outgoing weights of the first and the incoming ones of
    the second. What both share is 0 in the end, so that the net's outputs do not change.
    """
    done = [revive(model, site, dormant, seed) for site, dormant in layers]
    for (site, _), revival in zip(layers, done, strict=True):
        if not revival.skipped:
            _set_outgoing_to_zero(model, site, revival.units)
    return done


def _set_outgoing_to_zero(model: keras.Model, site: Site, units: Sequence[int]) -> tuple[list[str], int]:
    """Sets what reads the units to 0; returns the variables' paths and the number of optimizer slots."""
    paths, slots = [], 0
    for variable, rows in _outgoing(*_located(model, site)):
        slots += _set(model, variable, (..., np.flatnonzero(np.isin(rows, units)), slice(None)), 0.0)
        paths.append(variable.path)
    return paths, slots


class _Mixed(Exception):
    """A unit's weights cannot be told from other units'."""


def _located(model: keras.Model, site: Site) -> tuple[Any, Call]:
    """The call that makes the site's units, and the functional graph, of this or a nested model, it is in.

    Raises:
        _Mixed: there is no such call, or there are several.
    """
    if functional(model) is None:
        raise _Mixed("the model is no functional one, so what reads them is not known")
    if not site.is_layer_output:
        raise _Mixed(f"{site.layer.name!r} does something with them before it returns")
    found = list(_calls_of(functional(model), site.layer))
    if not found:
        raise _Mixed("their layer is inside a layer that is no functional model")
    if len(found) > 1:
        raise _Mixed("their layer, or the nested model it is in, is called in several places")
    return found[0]


def _calls_of(graph: Any, layer: Any) -> Iterator[tuple[Any, Call]]:
    for call in calls(graph):
        if call.operation is layer:
            yield graph, call
        elif (inside := functional(call.operation)) is not None:
            yield from _calls_of(inside, layer)


def _incoming(graph: Any, call: Call) -> list[tuple[Any, Any]]:
    """The variables whose last axis is the site's units, with their initializers: kernel, bias, norm."""
    makers = {id(tensor): other for other in calls(graph) for tensor in other.outputs}
    variables: list[tuple[Any, Any]] = []
    while True:
        layer = call.operation
        if isinstance(layer, keras.layers.BatchNormalization):
            variables += _norm_variables(layer)
        elif _is_one_kernel(layer):
            kernel = [(layer.kernel, layer.kernel_initializer)]
            return kernel + ([(layer.bias, layer.bias_initializer)] if layer.use_bias else []) + variables
        elif len(call.inputs) != 1 or not _keeps_units(layer):
            raise _Mixed(f"what comes in through {layer.name!r} is not theirs alone")
        if id(call.inputs[0]) not in makers:
            raise _Mixed("their incoming weights lie outside of the nested model")
        call = makers[id(call.inputs[0])]


def _norm_variables(layer: Any) -> list[tuple[Any, Any]]:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    pairs = [(getattr(layer, name, None), getattr(layer, f"{name}_initializer")) for name in names]
    return [(variable, initializer) for variable, initializer in pairs if variable is not None]


def _is_one_kernel(layer: keras.Operation) -> bool:
    """Whether a layer is a Dense or a convolution whose `call` is Keras' own, with one kernel."""
    return _runs(layer, _DENSE + _CONVOLUTIONS) and getattr(layer, "groups", 1) == 1


def _keeps_units(layer: keras.Operation) -> bool:
    """Whether channel u of what a layer returns is made of channel u of what it reads, and of nothing else.

    That is known of operations and of Keras' own layers. An `activation` says nothing: a recurrent layer has
    one, and so may a whole block.
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        return True
    if isinstance(layer, keras.Layer):
        return _runs(layer, _CHANNELWISE)
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in _plain_name(layer)).lstrip("_")
    return type(layer).__module__.startswith("keras.") and snake in _ELEMENTWISE


def _plain_name(operation: keras.Operation) -> str:
    return type(operation).__name__.replace("ReLU", "Relu").replace("ELU", "Elu")


def _runs(layer: keras.Operation, classes: tuple[type, ...]) -> bool:
    """Whether a layer's `call` is that of one of these classes, and not a subclass's own."""
    return any(isinstance(layer, each) and type(layer).call is each.call for each in classes)


def _outgoing(graph: Any, made: Call) -> list[tuple[Any, np.ndarray]]:
    """Kernels that read what a call returns, each with the unit that its input rows read, -1 for others."""
    readers: dict[int, list[Call]] = {}
    for call in calls(graph):
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    outputs = {id(tensor) for tensor in graph.outputs}
    found: list[tuple[Any, np.ndarray]] = []
    waiting = [(made.outputs[0], np.arange(made.outputs[0].shape[-1]))]
    while waiting:
        tensor, rows = waiting.pop()
        if id(tensor) in outputs:
            raise _Mixed("they are an output of their model")
        for call in readers.get(id(tensor), []):
            layer = call.operation
            if _is_one_kernel(layer):
                _join(found, layer.kernel, rows)
            else:
                waiting.append((call.outputs[0], _passed_on(call, tensor, rows)))
    return found


def _join(found: list[tuple[Any, np.ndarray]], kernel: Any, rows: np.ndarray) -> None:
    """Adds a kernel; one that is reached on two ways, as behind a concatenation, is there once."""
    for i, (other, known) in enumerate(found):
        if other is kernel:
            found[i] = (kernel, np.where(known >= 0, known, rows))
            return
    found.append((kernel, rows))


def _passed_on(call: Call, tensor: Any, rows: np.ndarray) -> np.ndarray:
    """Which unit each channel of a call's output is, -1 for channels of others."""
    layer = call.operation
    if isinstance(layer, keras.layers.Flatten) and None not in tensor.shape[1:]:
        return np.tile(rows, int(np.prod(tensor.shape[1:-1])))
    if isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(tensor.shape) - 1):
        parts = [rows if t is tensor else np.full(t.shape[-1], -1) for t in call.inputs]
        return np.concatenate(parts)
    if len(call.inputs) == 1 and (_keeps_units(layer) or isinstance(layer, keras.layers.BatchNormalization)):
        return rows
    raise _Mixed(f"what goes out through {layer.name!r} is not theirs alone")


def _drawn(initializer: Any, variable: Any, seed: int) -> np.ndarray:
    """A fresh draw of a whole variable, from a stream of its own."""
    config = initializer.get_config()
    if "seed" in config:
        initializer = type(initializer).from_config({**config, "seed": seed})
    return np.asarray(keras.ops.convert_to_numpy(initializer(tuple(variable.shape), dtype=variable.dtype)))


def _set(model: keras.Model, variable: Any, entries: tuple, values: Any) -> int:
    """Sets entries of a variable, and those of its optimizer slots back; returns the number of slots.

    An optimizer with `use_ema` puts its averages in the place of the weights when training ends, so that they
    are set too.
    """
    _assign(variable, entries, values)
    optimizer = getattr(model, "optimizer", None)
    if (average := _average(optimizer, variable)) is not None:
        _assign(average, entries, values)
    slots = optimizer_slots(optimizer, variable)
    for slot, initial in slots:
        _assign(slot, entries, values if initial is None else initial)
    moments = _factored_moments(optimizer, variable, entries)
    for moment, its_entries in moments:
        _assign(moment, its_entries, 0.0)
    return len(slots) + len(moments)


def _assign(variable: Any, entries: tuple, values: Any) -> None:
    array = np.array(keras.ops.convert_to_numpy(variable))
    array[entries] = values
    variable.assign(array)


def _optimizers(optimizer: Any) -> Iterator[Any]:
    """The optimizers that train variables themselves: those inside a loss scale or a `MultiOptimizer`."""
    inner = getattr(optimizer, "inner_optimizer", None)
    several = [inner] if inner is not None else getattr(optimizer, "_inner_optimizers", None)
    if several:
        for one in several:
            yield from _optimizers(one)
    elif optimizer is not None:
        yield optimizer


def _average(optimizer: Any, variable: Any) -> Any:
    """The optimizer's moving average of a trainable variable; None where it keeps none."""
    for one in _optimizers(optimizer):
        averages = getattr(one, "_model_variables_moving_average", None) or []
        trained = getattr(one, "_trainable_variables", None) or []
        for other, average in zip(trained, averages, strict=False):
            if other is variable:
                return average
    return None


def _factored_moments(optimizer: Any, variable: Any, entries: tuple) -> list[tuple[Any, tuple]]:
    """Adafactor's moments that are of whole columns, or rows, of a kernel, and which entries of them are.

    The moment of a column is a mean over its rows (`_c`), that of a row one over its columns (`_r`).
    """
    rows = isinstance(entries[-1], slice)  # (..., rows, :), else (..., columns)
    found = []
    for one in _optimizers(optimizer):
        trained = getattr(one, "_trainable_variables", None) or []
        moments = getattr(one, "_r" if rows else "_c", None) or []
        for other, moment in zip(trained, moments, strict=False):
            if other is variable and moment is not None and len(variable.shape) > 1:
                found.append((moment, entries[:-1] if rows else entries))
    return found


def optimizer_slots(optimizer: Any, variable: Any) -> Sequence[tuple[Any, float | None]]:
    """The optimizer's variables that belong to a trainable variable, each with its initial value.

    A Keras optimizer keeps each kind of slot (`_momentums`, `_velocities`, ...) in a list parallel to the
    variables it trains. The initial value is None where a slot begins as the variable itself.
    """
    found: list[tuple[Any, float | None]] = []
    for one in _optimizers(optimizer):
        trained = getattr(one, "_trainable_variables", None) or []
        index = next((i for i, other in enumerate(trained) if other is variable), None)
        if index is None:
            continue
        initial = {"_accumulators": getattr(one, "initial_accumulator_value", 0.0)}
        if type(one).__name__ == "ScheduleFreeAdamW":
            initial["_momentums"] = None
        for name, slots in vars(one).items():
            if not isinstance(slots, list) or len(slots) != len(trained) or name in _NO_SLOTS:
                continue
            slot = slots[index]
            if hasattr(slot, "assign") and tuple(slot.shape) == tuple(variable.shape):
                found.append((slot, initial.get(name, 0.0)))
    return found
