"""Ablation: how the loss and a metric of a model change when a group of a layer's units is set to 0.

Ablation measures the worth of units, which counts of activity cannot: rarely active units may carry the rare
cases, and dormant units the small corrections.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src import backend

from bnhead.census import feed, totals
from bnhead.census.census import Census
from bnhead.census.sites import Site, inventory_of
from bnhead.errors import UsageError
from bnhead.graph import taps, trace
from bnhead.graph.inputs import batches, check_data

_NONE = ("", b"")  # the pass in which no unit is set to 0


def ablate(model: keras.Model, data: Any, census: Census, *, batch_size: int = 256) -> Census:
    """The census with the figures of ablation: the worth of dead, dormant and rarely active units.

    Sets the outputs of a layer's group to 0, one group of one layer at a time, and takes the difference to
    the whole model: of the compiled loss, as `evaluate` averages it over batches, without regularisation, and
    of the first compiled metric, if there is one. Of dead units both are exactly 0. `data` is read once, and
    each batch runs through the model once for each different group that is not empty, in evaluation mode.
    The model and the state of its metrics are not changed.

    Args:
        model: a compiled Keras model.
        data: `(x, y)` or batches of such tuples, as for `Probe.count`; usually those of the census.
        census: counts of the model's layers. Layers whose count is unknown are not ablated.
        batch_size: number of inputs per batch, if `data` is arrays.

    Returns:
        A copy of the census whose `Counts` have `ablated_loss` and, with a metric, `ablated_metric`. Its
        notes name the metric, with both values of the whole model. A layer whose output cannot be replaced
        has neither, and a note.

    Raises:
        UsageError: a model that is not compiled, data without labels or that does not fit the model, or a
            layer that the model does not have.
    """
    trace.require_built(model)
    if not getattr(model, "compiled", False):
        raise UsageError("ablation needs the loss of a compiled model")
    check_data(data, batch_size)
    masks = {name: counts.ablation_groups for name, counts in census.layers.items() if not counts.unknown}
    passes = {_NONE: np.zeros(0, bool)}
    passes |= {_mask_key(name, mask): mask for name, groups in masks.items() for mask in groups if mask.any()}
    sums = Sums(model, list(masks), passes)
    for x, y in batches(data, feed.batch_size_of(model, batch_size)):
        if y is None:
            raise UsageError("ablation needs labels: data must be (x, y)")
        x = feed.arranged(model, x)
        with feed.fitting(x):
            sums.add(x, y)
    return _with_changes(census, masks, *sums.read())


def _mask_key(layer: str, mask: np.ndarray) -> tuple[str, bytes]:
    """Identifies a pass: equal groups of a layer share one, and empty ones that of the whole model."""
    return (layer, mask.tobytes()) if mask.any() else _NONE


def _with_changes(census: Census, masks: Mapping[str, Any], values: Mapping[tuple, np.ndarray], metric: str,
                  missed: list[str]) -> Census:  # fmt: skip
    """The census with the differences to the pass of the whole model."""
    intact = values[_NONE]
    text = f"ablation: loss {intact[0]:.4g}" + (f", {metric} {intact[1]:.4g}" if metric else "")
    layers = dict(census.layers)
    for name in masks.keys() - set(missed):
        changes = np.array([values[_mask_key(name, mask)] - intact for mask in masks[name]])
        of_metric = {"ablated_metric": changes[:, 1]} if metric else {}
        layers[name] = replace(layers[name], ablated_loss=changes[:, 0], **of_metric)
    notes = [note for note in census.notes if not note.startswith("ablation: ")]
    notes.append(f"{text} with all units")
    notes += [f"ablation: {name} is not ablated, since its output cannot be replaced" for name in missed]
    return replace(census, layers=layers, notes=notes)


class Sums:
    """Loss and metric of several passes over the same batches, each with a group of units set to 0.

    Args:
        model: a compiled model.
        layers: names of the layers that have groups.
        passes: identifier of each pass, which begins with the layer -> `(units,)` bool, the units set to 0.
    """

    def __init__(self, model: keras.Model, layers: list[str], passes: Mapping[tuple, np.ndarray]):
        self._model, self._layers, self._passes = model, layers, passes
        self._run: Callable | None = None
        self._sites: list[Site] = []
        self._replaced: set[str] = set()  # names of the layers whose outputs the trace has replaced
        self._masks: dict[tuple, dict[str, Any]] = {}
        self._states: dict[tuple, list[Any]] = {}
        self._losses: dict[tuple, list[Any]] = {key: [] for key in passes}
        self._rows: list[int] = []

    def add(self, x: Any, y: Any) -> None:
        """Runs every pass on a batch. Nothing is copied to the host."""
        if self._run is None:
            self._prepare(x, y)
        for key, masks in self._masks.items():
            loss, self._states[key] = self._run(x, y, masks, self._states[key])
            self._losses[key].append(loss)
        self._rows.append(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None).shape[0])

    def read(self) -> tuple[dict[tuple, np.ndarray], str, list[str]]:
        """`(loss, metric)` of each pass, float64 `(2,)`; the metric's name; the layers without replacement.

        Raises:
            UsageError: no batch was added.
        """
        if not self._rows:
            raise UsageError("data must have at least one batch of inputs")
        losses, values, metric = totals.to_host(self._losses), {}, ""
        for key, of_batches in losses.items():
            result = np.nan
            if self._states[key]:
                with totals.no_gradients():
                    results = self._model._compile_metrics.stateless_result(self._states[key])
                metric = next(iter(results))
                result = float(totals.to_host({metric: results[metric]})[metric])
            values[key] = np.array([np.average(np.float64(of_batches), weights=self._rows), result])
        return values, metric, [name for name in self._layers if name not in self._replaced]

    def _prepare(self, x: Any, y: Any) -> None:
        """Finds the layers, builds the metrics and makes the compiled pass, for batches like this one."""
        self._sites = inventory_of(self._model, x).select(self._layers) if self._layers else []
        nothing = {site.name: np.zeros(site.units, bool) for site in self._sites}
        for key, mask in self._passes.items():
            masks = {**nothing, key[0]: mask} if key != _NONE else nothing
            self._masks[key] = {name: ops.convert_to_tensor(array) for name, array in masks.items()}
        state = self._empty_metrics(x, y)
        self._states = {key: state for key in self._passes}
        self._run = trace.compiled(self._pass, self._model)

    def _empty_metrics(self, x: Any, y: Any) -> list[Any]:
        """The state of the model's metrics before the first batch; [] without metrics."""
        metrics = self._model._compile_metrics
        if metrics is None:
            return []
        if not metrics.built:  # as Keras' trainer does: some metrics make their variables at the first update
            symbolic = keras.tree.map_structure(
                lambda leaf: keras.KerasTensor(leaf.shape, backend.standardize_dtype(leaf.dtype)), (x, y)
            )
            outputs = backend.compute_output_spec(self._model, symbolic[0], training=False)
            backend.compute_output_spec(metrics.update_state, symbolic[1], outputs)
        return [ops.convert_to_tensor(value) for value in metrics.stateless_reset_state()]

    def _pass(self, x: Any, y: Any, masks: dict[str, Any], state: list[Any]) -> tuple[Any, list[Any]]:
        """The loss of a batch and the metrics' state after it, with the masked units set to 0."""
        sites = {key: site for site in self._sites for key in site.steps or (site.key,)}

        def silenced(key, part, tensor):
            if part != "output" or key not in sites:
                return tensor
            site = sites[key]
            self._replaced.add(site.name)
            shape = [1] * len(tensor.shape)
            shape[-1 if site.axis is None else site.axis] = site.units
            return ops.where(ops.reshape(masks[site.name], shape), ops.cast(0, tensor.dtype), tensor)

        with taps.opened(self._model, evaluating=True, watch=silenced, paths=()):
            outputs = self._model(x, training=False)
        loss = self._model._compile_loss(y, outputs)
        return loss, self._model._compile_metrics.stateless_update_state(state, y, outputs) if state else []
