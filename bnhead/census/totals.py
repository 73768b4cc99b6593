"""Adding up on the device: what is counted of a batch, as small arrays, and the totals of all batches.

Whole numbers of all layers lie in one vector, so that adding a batch is one operation in a training step too.
Nothing leaves the device before the end.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import reductions
from bnhead.census.counts import Census, Counts, Moments, run_statistics
from bnhead.census.labels import Labels
from bnhead.census.sites import Inventory, Site
from bnhead.graph import taps

LARGE = (
    "class_active",
    "together",
)  # up to classes or units times units: added each by itself, without copies
Key = tuple[str, str]  # a layer's name, "" for what all have in common, and the name of an array


@dataclass
class Plan:
    """What is counted of every batch.

    Attributes:
        sites: the counted ones.
        watched: those whose values must be finite, in the order in which they run.
        inputs: names of the model's inputs, for the same.
        eps: threshold of silence.
        by_slope: whether the slope is compared with it, and not the output.
        details: whether this is a probe, where more is read than in a step.
        together: whether co-death is.
        limit: how many inputs of a batch are counted; None for all.
        folded: name of a layer -> how many rows it has for each input, where that is not one.
    """

    sites: list[Site]
    watched: list[Site]
    inputs: list[str]
    eps: float = 0.0
    by_slope: bool = False
    details: bool = True
    together: bool = False
    limit: int | None = None
    folded: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Inventory, sites: Sequence[Site], inputs: Sequence[str], **options: Any) -> "Plan":
        return cls(list(sites), found.watched(sites), list(inputs), **options)

    @property
    def paths(self) -> set[str]:
        """The paths of which tensors are needed."""
        return {site.key[0] for site in (*self.sites, *self.watched)}

    @property
    def places(self) -> list[str]:
        """Names of what must be finite, in order."""
        return [*self.inputs, *(site.name for site in self.watched)]

    @property
    def size(self) -> int:
        """Length of the vector of whole numbers, without labels and co-death."""
        return 1 + sum(2 * (2 * site.units + 1) for site in self.sites) + 2 * len(self.places)

    def runs_in(self, seen: taps.Pass) -> bool:
        """Whether a pass has one of the counted sites."""
        keys = {tap.key for tap in (*seen.activations, *seen.outputs)}
        return any(site.key in keys for site in self.sites)


class Layout:
    """Where each array lies in a vector."""

    def __init__(self):
        self.parts: dict[Key, tuple[int, tuple[int, ...]]] = {}
        self.size = 0

    def pack(self, arrays: dict[Key, Any], dtype: str) -> Any:
        """One vector of all arrays; the layout is set by the first that are packed."""
        if not self.parts:
            for key, array in arrays.items():
                shape = tuple(array.shape)
                self.parts[key] = self.size, shape
                self.size += int(np.prod(shape))
        flat = [ops.reshape(ops.cast(arrays[key], dtype), (-1,)) for key in self.parts]
        return ops.concatenate(flat) if flat else ops.zeros((0,), dtype)

    def part(self, vector: Any, key: Key) -> Any:
        """One array, flat."""
        start, shape = self.parts[key]
        return vector[start : start + int(np.prod(shape))]

    def unpack(self, vector: np.ndarray) -> dict[Key, np.ndarray]:
        return {key: self.part(vector, key).reshape(shape) for key, (_, shape) in self.parts.items()}


def whole_numbers(plan: Plan, seen: taps.Pass, labels: tuple[Any, Any] | None = None) -> dict[Key, Any]:
    """The whole numbers of one pass.

    Args:
        plan: what is counted.
        seen: the pass, which has at least one of the sites.
        labels: `Labels.one_hot` of the batch; None counts nothing by class.

    Returns:
        int32 arrays. For each layer those of `reductions.silence`, and "together" and "class_active" where
        they are counted. For all layers "inputs", "class_inputs" and "bad_labels"; "bad", the number of
        inputs with something that is not finite up to each place; and last "first", the first such input at
        each place or -1.
    """
    every = {tap.key: tap for tap in (*seen.activations, *seen.outputs)}
    given = next(x for x in seen.inputs if x is not None)[: plan.limit]
    inputs = ops.shape(given)[0]
    arrays: dict[Key, Any] = {("", "inputs"): ops.reshape(ops.cast(inputs, "int32"), (1,))}
    if labels is not None:
        arrays["", "class_inputs"] = ops.sum(labels[0], axis=0)
        arrays["", "bad_labels"] = ops.reshape(labels[1], (1,))
    for site in plan.sites:
        tap = every.get(site.key)
        if tap is None:  # this pass runs a part of the model
            sizes = {"inputs_by_silent": site.units + 1, "runs": site.units + 1}
            sizes |= {"active": site.units, "saturated": site.units}
            arrays |= {(site.name, name): ops.zeros((size,), "int32") for name, size in sizes.items()}
            continue
        somewhere, everywhere = reductions.active(tap, plan.eps, plan.by_slope, plan.limit)
        _note_folded(plan, site, somewhere, given)
        counts = reductions.silence(somewhere, everywhere)
        if plan.together:
            counts["together"] = reductions.together(somewhere)
        if labels is not None and site.name not in plan.folded:
            counts["class_active"] = reductions.by_class(somewhere, labels[0])
        arrays |= {(site.name, name): array for name, array in counts.items()}
    finite = [*_finite_inputs(plan, seen, given), *(_finite_at(plan, s, every, inputs) for s in plan.watched)]
    bad = ops.cast(ops.logical_not(ops.stack(finite, axis=1)), "int32")
    arrays["", "bad"] = ops.sum(ops.cast(ops.cumsum(bad, axis=1) > 0, "int32"), axis=0)
    index = ops.arange(inputs, dtype="int32")[:, None]
    first = ops.min(ops.where(bad > 0, index, inputs), axis=0)  # PyTorch's argmax need not be the first
    arrays["", "first"] = ops.where(first < inputs, first, -1)
    return arrays


def _note_folded(plan: Plan, site: Site, somewhere: Any, given: Any) -> None:
    rows, inputs = somewhere.shape[0], given.shape[0]
    if isinstance(rows, int) and isinstance(inputs, int) and rows != inputs and plan.limit is None:
        each = f"{rows // inputs} rows" if rows % inputs == 0 else f"{rows} rows for {inputs} inputs, not one"
        plan.folded.setdefault(site.name, each)


def _finite_inputs(plan: Plan, seen: taps.Pass, given: Any) -> list[Any]:
    """A column for each of the plan's inputs; one for all of them together where these are others."""
    fine = ops.ones(ops.shape(given)[:1], dtype="bool")
    columns = [
        reductions.finite(x[: plan.limit])
        if x is not None and len(x.shape) and keras.backend.is_float_dtype(x.dtype)
        else fine
        for x in seen.inputs
    ]
    if len(columns) == len(plan.inputs):
        return [reductions.of_inputs(column, ops.shape(given)[0]) for column in columns]
    for column in columns:
        fine = ops.logical_and(fine, reductions.of_inputs(column, ops.shape(given)[0]))
    return [fine] * len(plan.inputs)


def _finite_at(plan: Plan, site: Site, every: dict, inputs: Any) -> Any:
    """Whether the values at a site are finite, for each input.

    A rectifier may make 0 of NaN, so what goes into it is looked at. In a step that alone is read: TensorFlow
    fuses a smooth activation with the product before it, rounds otherwise where it cannot, and would train
    other weights.
    """
    tap = every.get(site.key)
    if tap is None:
        return ops.ones((inputs,), dtype="bool")
    read = [tap.before] if site.rectifies else [tap.after]
    if plan.details and not site.rectifies and tap.before is not None:
        read.append(tap.before)
    finite = reductions.finite(read[0][: plan.limit])
    for other in read[1:]:
        finite = ops.logical_and(finite, reductions.finite(other[: plan.limit]))
    return reductions.of_inputs(finite, inputs)


def real_numbers(plan: Plan, seen: taps.Pass) -> tuple[dict[Key, Any], dict[str, dict[str, Any]]]:
    """Sums of magnitudes of each layer, and moments of vectors and norms."""
    every = {tap.key: tap for tap in (*seen.activations, *seen.outputs)}
    sums, moments = {}, {}
    for site in plan.sites:
        tap = every[site.key]
        after = reductions.units_last(tap.after, tap)
        sums[site.name, "magnitude"] = reductions.magnitude(after, tap.mask)
        if site.kind == taps.NORM or not site.positions:
            moments[site.name] = reductions.moments(after, tap.mask)
    return sums, moments


def added(total: Any, batch: Any, places: int) -> Any:
    """Whole numbers of both: sums, and at the end, for each place, the first input that is not finite there.

    Args:
        total: `(size,)` whole numbers; its first entry is the number of inputs so far.
        batch: `(size,)` of one batch; indices in the batch at the end, -1 for none.
        places: number of such indices.
    """
    batch = ops.cast(batch, total.dtype)
    index = batch[-places:]
    never = ops.convert_to_tensor(_never(total.dtype), dtype=total.dtype)
    first = ops.where(index >= 0, index + total[0], never)
    earlier = total[-places:]
    first = ops.where(first < earlier, first, earlier)  # `ops.minimum` is in 32 bits on PyTorch
    return ops.concatenate([total[:-places] + batch[:-places], first])


def nothing(size: int, places: int, dtype: str) -> np.ndarray:
    """Totals of no batches."""
    return np.concatenate([np.zeros(size - places, dtype), np.full(places, _never(dtype), dtype)])


def _never(dtype: Any) -> int:
    return np.iinfo(keras.backend.standardize_dtype(dtype)).max


class Totals:
    """Totals of the batches that a probe runs, on the device.

    Args:
        plan: what is counted.
        layouts: the layouts of the vectors of whole and real numbers.
    """

    def __init__(self, plan: Plan, whole: Layout, real: Layout, add: Callable):
        self._plan, self._whole, self._real, self._add = plan, whole, real, add
        self._state: Any = None

    def add(self, batch: dict[str, Any]) -> None:
        """Adds what a batch gave: "whole" and "real" vectors, "large" arrays and "moments" by layer."""
        self._state = self._add(self._state, batch)

    def read(self) -> dict[str, Any]:
        """Arrays by key in "whole" and "real", "large" and "moments" by layer: one transfer to the host."""
        state = to_host(self._state)
        return {
            "whole": self._whole.unpack(state["whole"]),
            "real": self._real.unpack(state["real"]),
            "large": state["large"],
            "moments": state["moments"],
        }


def adding(places: int) -> Callable:
    """`(state or None, batch) -> state`, compiled where the backend does that; in 64 bits."""

    def merge(state, batch):
        if state is None:
            zero = ops.convert_to_tensor(nothing(batch["whole"].shape[0], places, "int64"))
            state = {
                "whole": zero,
                "large": keras.tree.map_structure(lambda x: ops.cast(x, "int32") * 0, batch["large"]),
                "real": ops.cast(batch["real"], "float64") * 0,
                "moments": keras.tree.map_structure(lambda x: ops.cast(x, "float64") * 0, batch["moments"]),
            }
        moments = {name: _merged(state["moments"][name], m) for name, m in batch["moments"].items()}
        return {
            "whole": added(state["whole"], batch["whole"], places),
            "large": keras.tree.map_structure(
                lambda total, x: total + ops.cast(x, "int32"), state["large"], batch["large"]
            ),
            "real": state["real"] + ops.cast(batch["real"], "float64"),
            "moments": moments,
        }

    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.function(merge)
    if name == "jax":
        import jax

        compiled = jax.jit(merge)

        def in_64_bits(*arguments):
            with jax.enable_x64(True):
                return compiled(*arguments)

        return in_64_bits
    return merge


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Chan's formula, as `counters.Moments.merge`, on the device."""
    other = {name: ops.cast(value, "float64") for name, value in other.items()}
    values = one["values"] + other["values"]
    share = other["values"] / ops.maximum(values, 1)
    step = other["mean"] - one["mean"]
    between = step * step * one["values"] * share
    return {
        "values": values,
        "mean": one["mean"] + step * share,
        "deviation": one["deviation"] + other["deviation"] + between,
    }


def to_host(state: Any) -> Any:
    """All arrays of a structure, in one transfer where the backend has such a thing."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        return jax.device_get(state)
    if name == "torch":
        return keras.tree.map_structure(lambda x: x.detach().cpu().numpy(), state)
    return keras.tree.map_structure(lambda x: x.numpy(), state)


@contextlib.contextmanager
def no_gradients():
    """torch: without a graph for derivatives."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.no_grad():
        yield


def census_of(plan: Plan, labels: Labels, found: dict[str, Any]) -> Census:
    """The counts that totals give.

    Args:
        plan: what was counted.
        labels: how the labels were read.
        found: as `Totals.read` gives it; only "whole" must be there.
    """
    whole, real, large = found["whole"], found.get("real", {}), found.get("large", {})
    census = Census()
    by_class = labels.form and not whole["", "bad_labels"][0]
    if labels.form and not by_class:
        number, last = int(whole["", "bad_labels"][0]), labels.classes - 1
        census.notes.append(f"labels: not counted by class, since {number} are not 0 to {last}")
    for site in plan.sites:
        arrays = {name: array for (layer, name), array in whole.items() if layer == site.name}
        arrays |= {name: array.astype(np.int64) for name, array in large.get(site.name, {}).items()}
        counts = Counts(arrays["inputs_by_silent"], arrays["active"], arrays["saturated"], groups=site.groups)
        counts.runs = run_statistics(arrays["runs"], counts.inputs_by_silent)
        counts.together = arrays.get("together")
        if by_class and "class_active" in arrays:
            counts.class_active, counts.class_inputs = arrays["class_active"], whole["", "class_inputs"]
        counts.magnitude, counts.gradient = (
            None if (array := real.get((site.name, name))) is None else array.astype(np.float64)
            for name in ("magnitude", "gradient")
        )
        if (moments := found.get("moments", {}).get(site.name)) is not None:
            counts.moments = Moments(int(moments["values"]), moments["mean"], moments["deviation"])
        _void(plan, counts, site, whole["", "bad"], whole["", "first"])
        census.layers[site.name] = counts
    for name, rows in plan.folded.items():
        census.notes.append(f"{name}: counted by row, since it has {rows} for each input; not by class")
    return census


def _void(plan: Plan, counts: Counts, site: Site, bad: np.ndarray, first: np.ndarray) -> None:
    """Notes on which inputs a value up to the site was not finite, and where."""
    upto = len(plan.inputs) + [other.key for other in plan.watched].index(site.key) + 1
    if bad[upto - 1]:
        earliest = int(np.argmin(first[:upto]))
        counts.nonfinite, counts.first_nonfinite = int(bad[upto - 1]), int(first[earliest])
        counts.nonfinite_at = plan.places[earliest]


def nothing_counted(plan: Plan) -> Census:
    """The census of a plan that no batch ran."""
    return Census({site.name: Counts.empty(site.units) for site in plan.sites})
