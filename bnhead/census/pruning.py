"""Removing units that cannot fire from a copy of a model."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bnhead import graph
from bnhead.census.activations import activation_name
from bnhead.census.census import Census
from bnhead.census.certificates import certificates_of
from bnhead.census.sites import Site, inventory_of
from bnhead.errors import UsageError
from bnhead.graph import Call, agreement, model_calls
from bnhead.graph.calls import calls_as
from bnhead.layers.folding import inference_affine
from bnhead.texts import counted

_KERNELS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_KEEPS = (  # layers without weights that leave units apart and constants as they are
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D),
    *(keras.layers.GlobalAveragePooling3D, keras.layers.GlobalMaxPooling1D),
    *(keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D),
    *(keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D),
    *(keras.layers.SpatialDropout3D, keras.layers.Identity),
)
_PADDINGS = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)


@dataclass(frozen=True, eq=False)
class Pruned:
    """The result of `prune_dead`.

    Attributes:
        model: the smaller copy.
        removed: name of a layer -> indices of the units that the copy lacks, `(units,)` int64.
        kept: name of a layer -> why its certified units remain.
        parameters: numbers of parameters of the model and of the copy.
        difference: largest absolute difference of an output on random inputs, divided by the largest absolute
            output if that is above 1.
    """

    model: keras.Model
    removed: dict[str, np.ndarray]
    kept: dict[str, str]
    parameters: tuple[int, int]
    difference: float

    def __str__(self) -> str:
        before, after = self.parameters
        units = sum(map(len, self.removed.values()))
        gone = f"{counted(units, 'unit')} of {counted(len(self.removed), 'layer')} removed"
        share = (before - after) / max(before, 1)
        first = f"{gone}, {before - after:,} of {counted(before, 'parameter')} ({share:.1%})"
        lines = [f"{name}: {counted(len(indices), 'unit')} removed" for name, indices in self.removed.items()]
        return "\n".join([first, *lines, *(f"{name}: kept, {why}" for name, why in self.kept.items())])


class _Kept(Exception):
    """Units cannot be removed; the text is the reason."""


@dataclass
class _Lost:
    """Units that a tensor will lack: `mask` `(units,)` bool on its last axis, and their constant values."""

    mask: np.ndarray
    values: np.ndarray


@dataclass
class _Plan:
    """What each layer of the copy lacks.

    Attributes:
        outputs: name of a layer with a kernel, or of a norm -> `(units,)` bool, units that it lacks.
        inputs: name of a layer with a kernel -> what its input lacks.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, _Lost] = field(default_factory=dict)


def prune_dead(model: keras.Model, census: Census | None = None) -> Pruned:
    """Removes units that cannot fire on any input from a copy of a model.

    The certificates are computed from the model's present weights (`certify`); a unit that is only unused on
    a probe set stays. A unit of a Dense layer or convolution goes with its incoming weights and with the
    weights that read it. Between the two may be batch norms, activations, poolings, dropout, `Flatten`, zero
    paddings and concatenations. A batch norm turns a dead unit into a constant, which is added to the next
    bias. Units stay where another layer reads them, as in a sum, or if they are an output, and a layer keeps
    at least one.

    Args:
        model: a functional or Sequential model, which does not change; nested models are inlined in the copy.
        census: counts of the model; only its layers are pruned. None for all layers.

    Returns:
        The copy, for inference and training, with lists of the removed and the kept units. Its outputs equal
        the model's in evaluation mode up to rounding, about 1e-7.

    Raises:
        UsageError: a model that is not functional, or a census that is not of this model.
        CopyError: the copy's outputs differ from the model's.
    """
    flat = graph.flattened(model)
    sites = [site for site in inventory_of(model).activations if site.rectifies]
    if census is not None:
        names = {site.name: site.units for site in inventory_of(model).sites}
        for name, counts in census.layers.items():
            if names.get(name) != counts.units:
                size = counted(counts.units, "unit")
                raise UsageError(f"census: the model has no layer {name!r} of {size}")
        sites = [site for site in sites if site.name in census.layers]
    certificates = certificates_of(model, sites)
    certified = {site: certificates[site.name].certified for site in sites if site.name in certificates}
    removed: dict[str, np.ndarray] = {}
    kept: dict[str, str] = {}
    plan = _Plan()
    # one layer at a time: a layer whose units stay leaves the others' plan as it was
    removable: dict[Site, np.ndarray] = {}
    for site, mask in certified.items():
        if not mask.any():
            continue
        if mask.all():
            mask = np.arange(len(mask)) > 0
        if not mask.any():
            kept[site.name] = "a layer needs a unit"
            continue
        try:
            plan = _removal_plan(flat, {**removable, site: mask})
        except _Kept as reason:
            kept[site.name] = str(reason)
            continue
        removable[site] = mask
        removed[site.name] = np.flatnonzero(mask)
    copied = graph.copy(flat.model, lambda layer: _remade(layer, plan))
    graph.require_agreement(flat.model, copied)
    inputs = next(agreement.random_inputs(flat.model, pixels=False, examples=16))
    expected, results = (agreement.outputs(each, inputs) for each in (flat.model, copied))
    difference = max(np.abs(a - b).max(initial=0) for a, b in zip(expected, results, strict=True))
    scale = max(1.0, *(np.abs(array).max(initial=0) for array in expected))
    numbers = model.count_params(), copied.count_params()
    return Pruned(copied, removed, kept, numbers, float(difference / scale))


def _removal_plan(flat: graph.Flat, removable: dict[Site, np.ndarray]) -> _Plan:
    """The units that layers lack once the chosen ones are removed.

    Raises:
        _Kept: some of them cannot be removed.
    """
    calls = model_calls(flat.model)
    producers = {id(tensor): call for call in calls for tensor in call.outputs}
    names = [call.operation.name for call in calls]
    plan, dead = _Plan(), {}
    for site, mask in removable.items():
        name = flat.name(site.key[0])
        if names.count(name) != 1:
            raise _Kept("their layer is called several times, or inside another layer")
        call = calls[names.index(name)]
        dead[id(call.outputs[0])] = _Lost(mask, np.zeros(len(mask)))
        while not _has_one_kernel(call.operation):
            if len(call.inputs) != 1 or not _is_elementwise(call.operation):
                raise _Kept(f"{call.operation.name!r}, before them, does not have a kernel")
            if isinstance(call.operation, keras.layers.BatchNormalization):
                plan.outputs[call.operation.name] = mask
            source = call.inputs[0]
            readers = [c for c in calls if id(source) in map(id, c.inputs)]
            is_output = id(source) in map(id, flat.model.outputs)
            if len(readers) > 1 or is_output or id(source) not in producers:
                raise _Kept(f"more than one layer reads what {call.operation.name!r} reads")
            call = producers[id(source)]
        if names.count(call.operation.name) != 1:
            raise _Kept(f"{call.operation.name!r} is called several times")
        plan.outputs[call.operation.name] = mask
    lost: dict[int, _Lost] = {}
    for call in calls:
        output = id(call.outputs[0])
        if any(id(tensor) in lost for tensor in call.inputs):
            lost |= {output: after} if (after := _after(call, lost, plan, names)) else {}
        if output in dead:
            lost[output] = dead[output]
    if any(id(tensor) in lost for tensor in flat.model.outputs):
        raise _Kept("they are an output of the model")
    return plan


def _after(call: Call, lost: dict[int, _Lost], plan: _Plan, names: list[str]) -> _Lost | None:
    """The units that a call's output lacks; None after a layer whose kernel reads the input.

    Raises:
        _Kept: the layer needs the units.
    """
    layer, tensor = call.operation, call.inputs[0]
    if isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(tensor.shape) - 1):
        nothing = {id(t): _Lost(np.zeros(t.shape[-1], bool), np.zeros(t.shape[-1])) for t in call.inputs}
        parts = [{**nothing, **lost}[id(t)] for t in call.inputs]
        return _Lost(np.concatenate([p.mask for p in parts]), np.concatenate([p.values for p in parts]))
    if len(call.inputs) != 1:
        raise _Kept(f"{layer.name!r}, after them, combines them with others")
    arriving = lost[id(tensor)]
    constant = arriving.values[arriving.mask]
    if getattr(layer, "data_format", None) == "channels_first":
        raise _Kept(f"{layer.name!r}, after them, has its units on the first axis")
    if names.count(layer.name) > 1:
        raise _Kept(f"{layer.name!r}, after them, is called several times")
    if _has_one_kernel(layer):
        is_padded = getattr(layer, "padding", "valid") != "valid" and set(layer.kernel_size) != {1}
        if constant.any() and is_padded:
            raise _Kept(f"{layer.name!r}, after them, pads what a batch norm made of them")
        plan.inputs[layer.name] = arriving
        return None
    if isinstance(layer, keras.layers.Flatten) and None not in tensor.shape[1:]:
        positions = int(np.prod(tensor.shape[1:-1]))
        return _Lost(np.tile(arriving.mask, positions), np.tile(arriving.values, positions))
    if isinstance(layer, _PADDINGS) and not constant.any():
        return arriving
    if calls_as(layer, _KEEPS) and not (constant.any() and getattr(layer, "padding", "valid") != "valid"):
        return arriving
    if not _is_elementwise(layer):
        raise _Kept(f"{layer.name!r}, after them, reads them in its own way")
    if isinstance(layer, keras.layers.BatchNormalization):
        scale, shift = inference_affine(layer)
        plan.outputs[layer.name] = arriving.mask
        return _Lost(arriving.mask, scale * arriving.values + shift)
    values = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(arriving.values[None], "float32")))
    return _Lost(arriving.mask, np.asarray(values, np.float64)[0])


def _has_one_kernel(layer: keras.Operation) -> bool:
    """Whether a layer is a Dense or a convolution whose kernel has a row for each input and unit."""
    return (
        calls_as(layer, _KERNELS)
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "quantization_mode", None) is None
        and not getattr(layer, "lora_enabled", False)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
    )


def _is_elementwise(layer: keras.Operation) -> bool:
    """Whether unit u of a layer's output depends on unit u of its input alone, at the same position."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return inference_affine(layer) is not None and all(len(weight.shape) == 1 for weight in layer.weights)
    is_layer = calls_as(layer, (keras.layers.Activation,))
    return activation_name(layer.activation if is_layer else layer) not in ("", "softmax")


def _remade(layer: keras.layers.Layer, plan: _Plan) -> Any:
    """A copy of a layer without the units and inputs that the plan removes, and its weights."""
    missing, inputs = plan.outputs.get(layer.name), plan.inputs.get(layer.name)
    if missing is None and inputs is None:
        return graph.clone_layer(layer)
    weights = [np.asarray(weight, np.float64) for weight in layer.get_weights()]
    if isinstance(layer, keras.layers.BatchNormalization):
        return type(layer).from_config(layer.get_config()), [weight[~missing] for weight in weights]
    config, kernel = layer.get_config(), weights[0]
    bias = weights[1] if layer.use_bias else np.zeros(kernel.shape[-1])
    if inputs is not None:
        sums = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)  # over positions: the units are the same at all
        bias = bias + (inputs.values * inputs.mask) @ sums
        kernel = kernel[..., ~inputs.mask, :]
        config["use_bias"] = layer.use_bias or bool((inputs.values * inputs.mask).any())
    if missing is not None:
        kernel, bias = kernel[..., ~missing], bias[~missing]
        config["filters" if "filters" in config else "units"] = kernel.shape[-1]
    return type(layer).from_config(config), [kernel, bias] if config["use_bias"] else [kernel]
