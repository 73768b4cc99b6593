"""Numbers of a check: a few batches pass through the net as in training, and again as in inference.

Inference normalises by the statistics that training has just seen, not by the moving averages, which are
meaningless in an untrained net. So the two passes differ by dropout and batch noise alone. A net with dropout
runs once more in both modes without it, which separates the two. Nothing changes the model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src import backend
from keras.src.backend.common.stateless_scope import get_stateless_scope

from bnhead.census import feed, reductions
from bnhead.graph import hooks, taps, trace
from bnhead.layers.moments import broadcast_mask, moments
from bnhead.lint.net import Net, is_norm, is_random


@dataclass(frozen=True, eq=False)
class NormFeatures:
    """What reaches one call of a batch norm. All arrays are `(channels,)` float64.

    Attributes:
        mean: in training, mean over the batches.
        variance: in training, mean over the batches of the variance within each.
        evaluated_variance: the same in inference, without dropout.
        dropout_shift: `variance / evaluated_variance`, after dropout, relative to the same net without it,
            whose two variances differ by batch noise. NaN of a constant channel.
        active: examples on which the channel is not 0 at some position, in inference.
        lowest: smallest value in inference.
    """

    mean: np.ndarray
    variance: np.ndarray
    evaluated_variance: np.ndarray
    dropout_shift: np.ndarray
    active: np.ndarray
    lowest: np.ndarray


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers of a few batches.

    Attributes:
        examples: number of examples.
        batch_size: examples in a batch.
        norms: name of a call -> what reaches it.
        active: name of a rectifier -> `(units,)`, examples on which the unit fires, in inference.
        outputs: `(examples, outputs)` float64, the model's outputs in training; None for other shapes.
    """

    examples: int
    batch_size: int
    norms: dict[str, NormFeatures]
    active: dict[str, np.ndarray]
    outputs: np.ndarray | None = None


_SEED_STEP = 7919  # between the seeds of two batches


class _Watching(taps.Taps):
    """Taps that also reduce the input of every batch norm.

    Args:
        model: the model.
        active: whether to count on which examples each channel is active.
        dropping: whether dropout drops in training.
    """

    def __init__(self, model: keras.Model, *, active: bool = False, dropping: bool = True):
        super().__init__(model, evaluating=True, paths=None if active else ())
        self.norms: dict[str, dict[str, Any]] = {}
        self._active, self._dropping = active, dropping
        self._path: list[str] = []
        self._uses: Counter = Counter()

    def call(self, layer, original, args, kwargs):
        if layer is not self.model:
            self._path.append(layer.name)
        try:
            if is_norm(layer) and args and not self._loop and self.passes:
                self._reduce(layer, args[0], kwargs.get("mask"))
            if not self._dropping and is_random(layer) and getattr(layer, "_call_has_training_arg", False):
                kwargs = {**kwargs, "training": False}
            return super().call(layer, original, args, kwargs)
        finally:
            if layer is not self.model:
                self._path.pop()

    def _reduce(self, norm: keras.Layer, x: Any, mask: Any) -> None:
        path = "/".join(self._path)
        self._uses[path] += 1
        name = path if self._uses[path] == 1 else f"{path}#{self._uses[path]}"
        axis = getattr(norm, "axis", -1)
        axis = axis[0] if isinstance(axis, list | tuple) else axis
        mask = backend.get_keras_mask(x) if mask is None else mask
        x = ops.moveaxis(ops.cast(x, "float32"), axis, -1)
        mean, variance = moments(x, mask)
        self.norms[name] = {"mean": mean, "variance": variance}
        if self._active:
            values = x if mask is None else ops.where(broadcast_mask(x, mask), x, 0.0)
            positions = tuple(range(1, len(x.shape) - 1))
            active = ops.any(values != 0, positions) if positions else values != 0
            self.norms[name] |= {
                "active": ops.sum(ops.cast(active, "int32"), 0),
                "lowest": ops.min(values, tuple(range(len(x.shape) - 1))),
            }


def measure(net: Net, parts: Sequence[Any]) -> Measured | None:
    """Passes batches through the net.

    Args:
        net: its calls.
        parts: batches of inputs, each in the model's structure. Statistics are those of the batches of the
            first one's size; a smaller last one is only counted.

    Returns:
        The numbers; None without batches.
    """
    if not parts:
        return None
    parts = [feed.arranged(net.model, x) for x in parts]
    full = [x for x in parts if _size(x) == _size(parts[0])]
    in_training, in_evaluation = _in_both_modes(net, parts, full, dropping=True)
    statistics, evaluated = _batch_means(in_training), _batch_means(in_evaluation[: len(full)])
    shifts = _variance_ratios(statistics, evaluated)
    if any(net.random_before(call) for call in net.training_norms):
        control = _in_both_modes(net, full, full, dropping=False)
        without = _variance_ratios(*map(_batch_means, control))
        shifts = {name: ratio / without[name] for name, ratio in shifts.items()}
    norms = {
        name: NormFeatures(
            statistics[name]["mean"],
            statistics[name]["variance"],
            evaluated[name]["variance"],
            shifts[name],
            np.sum([batch["norms"][name]["active"] for batch in in_evaluation], axis=0),
            np.min([batch["norms"][name]["lowest"] for batch in in_evaluation], axis=0),
        )
        for name in statistics
    }
    active = {
        name: np.sum([batch["active"][name] for batch in in_evaluation], axis=0)
        for name in in_evaluation[0]["active"]
    }
    outputs = (
        np.concatenate([batch["outputs"] for batch in in_training]) if "outputs" in in_training[0] else None
    )
    return Measured(sum(map(_size, parts)), _size(full[0]), norms, active, outputs)


def _in_both_modes(net: Net, parts: Sequence[Any], full: Sequence[Any], dropping: bool) -> tuple[list, list]:
    """The results of the training passes on `full`, and of the passes in inference on all parts, on the host.

    Args:
        net: the net.
        parts: the batches, those of `full` first.
        full: the batches of whole size, which give the statistics.
        dropping: whether dropout drops in training.
    """
    training = trace.compiled(lambda x, number: _training_pass(net.model, x, number, dropping), net.model)
    in_training = [_on_host(training(x, np.uint32(number))) for number, x in enumerate(full)]
    values = _moving_values(net, _batch_means(in_training))
    evaluation = trace.compiled(lambda x, averages: _evaluation_pass(net, x, averages), net.model)
    return in_training, [_on_host(evaluation(x, values)) for x in parts]


def _variance_ratios(statistics: dict, evaluated: dict) -> dict[str, np.ndarray]:
    """Name of a norm -> `(channels,)`, variance in training / in inference; NaN if either is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {
            name: moments["variance"] / evaluated[name]["variance"] for name, moments in statistics.items()
        }
    return {name: np.where((ratio > 0) & np.isfinite(ratio), ratio, np.nan) for name, ratio in ratios.items()}


def _training_pass(model: keras.Model, x: Any, number: Any, dropping: bool) -> dict[str, Any]:
    """The pass in training; `number` of the batch gives its dropout another seed than that of the others."""
    generators = [generator for layer in model._flatten_layers() for generator in layer._seed_generators]
    seeds = [(g.state, g.state + ops.cast(number, g.state.dtype) * _SEED_STEP) for g in generators]
    watching = _Watching(model, dropping=dropping)
    with _with_values(model, seeds), hooks.reporting_to(watching):
        outputs = keras.tree.flatten(model(x, training=True))
    result = {"norms": watching.norms}
    if len(outputs) == 1 and len(outputs[0].shape) == 2:
        result["outputs"] = ops.cast(outputs[0], "float32")
    return result


def _with_values(model: keras.Model, values: list[tuple[keras.Variable, Any]]) -> keras.StatelessScope:
    """A scope in which some variables have other values; the rest have those of the outer scope."""
    outer = get_stateless_scope()
    current = [(variable, outer.get_current_value(variable)) for variable in model.variables]
    return keras.StatelessScope(
        [(variable, value) for variable, value in current if value is not None] + values
    )


def _evaluation_pass(net: Net, x: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The pass in inference with other moving averages, by the keys of `_moving_averages`."""
    averages = [(variable, values[key]) for key, variable in _moving_averages(net).items() if key in values]
    watching = _Watching(net.model, active=True)
    with _with_values(net.model, averages), hooks.reporting_to(watching):
        net.model(x, training=False)
    active = {}
    for tap in watching.passes[0].activations:
        if tap.kind in taps.RECTIFIERS and tap.units and not tap.is_output:
            somewhere, _ = reductions.activity(tap, 0.0)
            active[tap.name] = ops.sum(ops.cast(somewhere, "int32"), 0)
    return {"norms": watching.norms, "active": active}


def _moving_averages(net: Net) -> dict[str, keras.Variable]:
    """The variables of the moving averages that training updates."""
    norms = {id(call.layer): call for call in net.training_norms}.values()
    return {
        f"{call.path}:{attribute}": getattr(call.layer, attribute)
        for call in norms
        for attribute in ("moving_mean", "moving_variance")
    }


def _moving_values(net: Net, statistics: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The averages of the batches' statistics by the keys of `_moving_averages`, over all calls of a norm."""
    values = {}
    for key in _moving_averages(net):
        path, _, attribute = key.rpartition(":")
        moment = attribute.removeprefix("moving_")
        calls = [moments[moment] for name, moments in statistics.items() if name.partition("#")[0] == path]
        if calls:
            values[key] = np.mean(calls, axis=0).astype("float32")
    return values


def _batch_means(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Means over the batches of the moments at each norm, from the results of passes."""
    batches = [batch["norms"] for batch in results]

    def mean(name, moment):
        return np.mean([batch[name][moment] for batch in batches], axis=0)

    return {name: {moment: mean(name, moment) for moment in ("mean", "variance")} for name in batches[0]}


def _on_host(tensors: Any) -> Any:
    """The tensors as arrays, numbers as float64."""

    def array(x):
        x = np.asarray(ops.convert_to_numpy(x))
        return x.astype("float64") if x.dtype.kind == "f" else x

    return keras.tree.map_structure(array, tensors)


def _size(x: Any) -> int:
    return len(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))
