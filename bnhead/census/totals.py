"""Totals on the device: the small arrays of one batch, and their sums over all batches.

The integer counts of all layers form one vector, so that a batch is added in one operation, in a training
step too. Nothing is copied to the host before the end.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import reductions
from bnhead.census.accumulation import Accumulation
from bnhead.census.census import Census
from bnhead.census.counts import Counts, Moments, run_statistics
from bnhead.census.labels import Labels
from bnhead.census.sites import Inventory, Site
from bnhead.errors import UsageError
from bnhead.graph import taps
from bnhead.graph.trace import separate

# of size classes x units or units x units: added separately, since packing would copy them
MATRICES = ("class_active", "together")
MOMENTS = ("moments", "comoments")
Key = tuple[str, str]  # name of the layer ("" for all layers together), name of the array


def require_threshold(eps: float) -> None:
    """Raises UsageError unless `eps` is a threshold of silence."""
    if not eps >= 0:  # also for NaN
        raise UsageError(f"eps must be at least 0, got {eps}")


@dataclass
class Plan:
    """What to count in every batch.

    Attributes:
        sites: the counted sites.
        watched: the sites whose values must be finite, in the order of execution.
        inputs: names of the model's inputs, which must be finite too.
        eps: threshold of silence.
        by_slope: whether the slope is compared with it, not the output.
        checks_before: whether the pre-activations of smooth activations must be finite too.
        together: whether to count co-death.
        clones: whether to count the correlations of the units' outputs.
        ordered: whether the inputs have an order, so that the first input of each unit counts.
        limit: number of inputs of a batch to count; None for all.
        folded: name of a layer -> its number of rows per input, if that is not one. Filled while tracing.
    """

    sites: list[Site]
    watched: list[Site]
    inputs: list[str]
    eps: float = 0.0
    by_slope: bool = False
    checks_before: bool = True
    together: bool = False
    clones: bool = False
    ordered: bool = False
    limit: int | None = None
    folded: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, inventory: Inventory, sites: Sequence[Site], **options: Any) -> "Plan":
        return cls(list(sites), inventory.watched(sites), inventory.inputs, **options)

    @property
    def paths(self) -> set[str]:
        """The layer paths whose tensors are needed."""
        return {site.key[0] for site in (*self.sites, *self.watched)}

    @property
    def watchpoints(self) -> list[str]:
        """Names of the inputs and sites that must be finite, in order."""
        return [*self.inputs, *(site.name for site in self.watched)]

    @property
    def size(self) -> int:
        """Length of the vector of integer counts, without labels and co-death."""
        return 1 + sum(2 * (2 * site.units + 1) for site in self.sites) + 2 * len(self.watchpoints)

    def runs_in(self, model_pass: taps.Pass) -> bool:
        """Whether a pass runs at least one of the counted sites."""
        keys = taps_by_key(model_pass)
        return any(site.key in keys for site in self.sites)


class Layout:
    """Position and shape of each array in a packed vector."""

    def __init__(self):
        self.parts: dict[Key, tuple[int, tuple[int, ...]]] = {}
        self.size = 0

    def pack(self, arrays: dict[Key, Any], dtype: str) -> Any:
        """One vector of all arrays. The first call sets the layout."""
        if not self.parts:
            for key, array in arrays.items():
                shape = tuple(array.shape)
                self.parts[key] = self.size, shape
                self.size += int(np.prod(shape))
        flat = [ops.reshape(ops.cast(arrays[key], dtype), (-1,)) for key in self.parts]
        return ops.concatenate(flat) if flat else ops.zeros((0,), dtype)

    def unpack(self, vector: np.ndarray) -> dict[Key, np.ndarray]:
        """The arrays of a vector."""
        return {
            key: vector[start : start + int(np.prod(shape))].reshape(shape)
            for key, (start, shape) in self.parts.items()
        }


def integer_counts(
    plan: Plan, model_pass: taps.Pass, labels: tuple[Any, Any] | None = None
) -> dict[Key, Any]:
    """The integer counts of one pass.

    Args:
        plan: what to count.
        model_pass: the pass, which runs at least one of the sites.
        labels: `Labels.one_hot` of the batch; None counts nothing by class.

    Returns:
        int32 arrays. For each layer those of `reductions.silence`; those of `MATRICES` if they are counted;
        and, if the inputs are ordered, "first_active" and its number of "rows", both `(units,)`. For all
        layers together: "inputs"; "class_inputs" and "bad_labels" with labels; "bad", the number of inputs
        that are not finite at or before each watchpoint; and last "first", the first input that is not finite
        at each watchpoint, or -1.
    """
    by_key = taps_by_key(model_pass)
    example = next(x for x in model_pass.inputs if x is not None)[: plan.limit]
    inputs = ops.shape(example)[0]
    arrays: dict[Key, Any] = {("", "inputs"): ops.reshape(ops.cast(inputs, "int32"), (1,))}
    if labels is not None:
        arrays["", "class_inputs"] = ops.sum(labels[0], axis=0)
        arrays["", "bad_labels"] = ops.reshape(labels[1], (1,))
    for site in plan.sites:
        tap = by_key.get(site.key)
        if tap is None:  # this pass runs a part of the model, but every vector must have the same layout
            sizes = {"inputs_by_silent": site.units + 1, "runs": site.units + 1}
            sizes |= {"active": site.units, "active_everywhere": site.units}
            arrays |= {(site.name, name): ops.zeros((size,), "int32") for name, size in sizes.items()}
            continue
        somewhere, everywhere = reductions.activity(tap, plan.eps, plan.by_slope, plan.limit)
        _note_folded(plan, site, somewhere.shape[0], example.shape[0])
        counts = reductions.silence(somewhere, everywhere)
        if plan.together:
            counts["together"] = reductions.coactivity(somewhere)
        if plan.ordered:
            counts["first_active"] = reductions.first_active(somewhere)
            counts["rows"] = ops.zeros_like(counts["first_active"]) + ops.shape(somewhere)[0]
        if labels is not None and site.name not in plan.folded:
            counts["class_active"] = reductions.class_activity(somewhere, labels[0])
        arrays |= {(site.name, name): array for name, array in counts.items()}
    finite = [*_finite_inputs(plan, model_pass, example), *_finite_sites(plan, by_key, inputs)]
    bad = ops.cast(ops.logical_not(ops.stack(finite, axis=1)), "int32")
    # cumulative, since a value that is not finite voids all layers after it, even if they look finite
    arrays["", "bad"] = ops.sum(ops.cast(ops.cumsum(bad, axis=1) > 0, "int32"), axis=0)
    index = ops.arange(inputs, dtype="int32")[:, None]
    first = ops.min(ops.where(bad > 0, index, inputs), axis=0)  # PyTorch's argmax need not be the first
    arrays["", "first"] = ops.where(first < inputs, first, -1)
    return arrays


def taps_by_key(model_pass: taps.Pass) -> dict[tuple, taps.Tap]:
    return {tap.key: tap for tap in (*model_pass.activations, *model_pass.outputs)}


def _note_folded(plan: Plan, site: Site, rows: Any, inputs: Any) -> None:
    if isinstance(rows, int) and isinstance(inputs, int) and rows != inputs and plan.limit is None:
        each = f"{rows // inputs} rows" if rows % inputs == 0 else f"{rows} rows for {inputs} inputs, not one"
        plan.folded.setdefault(site.name, each)


def _finite_inputs(plan: Plan, model_pass: taps.Pass, example: Any) -> list[Any]:
    """`(inputs,)` bool per input of the model.

    If a step passes other tensors than the model declares, all inputs share their conjunction.
    """
    inputs, fine = ops.shape(example)[0], ops.ones(ops.shape(example)[:1], dtype="bool")
    columns = []
    for x in model_pass.inputs:
        floats = x is not None and len(x.shape) and keras.backend.is_float_dtype(x.dtype)
        column = reductions.finite_rows(x[: plan.limit]) if floats else fine
        columns.append(reductions.per_input(column, inputs))
    if len(columns) == len(plan.inputs):
        return columns
    for column in columns:
        fine = ops.logical_and(fine, column)
    return [fine] * len(plan.inputs)


def _finite_sites(plan: Plan, by_key: dict[tuple, taps.Tap], inputs: Any) -> list[Any]:
    """`(inputs,)` bool per watched site: whether its values are finite; True if the pass did not run it."""
    columns = []
    for site in plan.watched:
        tap = by_key.get(site.key)
        if tap is None:
            columns.append(ops.ones((inputs,), dtype="bool"))
            continue
        # A rectifier may turn NaN into 0, so its input is checked. A step must not read the input of a smooth
        # activation: TensorFlow fuses it with the product before it, would have to round differently, and
        # the weights would change.
        finite = reductions.finite_rows((tap.pre_activation if site.rectifies else tap.output)[: plan.limit])
        if plan.checks_before and not site.rectifies and tap.pre_activation is not None:
            finite = ops.logical_and(finite, reductions.finite_rows(tap.pre_activation[: plan.limit]))
        columns.append(reductions.per_input(finite, inputs))
    return columns


def real_sums(plan: Plan, model_pass: taps.Pass) -> tuple[dict[Key, Any], dict[str, dict[str, Any]]]:
    """Sums of magnitudes by key, and "moments" and "comoments" by layer.

    Moments are those of vectors and batch norms only; comoments are counted for `Plan.clones`.
    """
    by_key = taps_by_key(model_pass)
    sums, moments = {}, {name: {} for name in MOMENTS}
    for site in plan.sites:
        tap = by_key[site.key]
        outputs = reductions.units_last(tap.output, tap)
        sums[site.name, "magnitude"] = reductions.magnitude(outputs, tap.mask)
        if site.kind == taps.NORM or not site.positions:
            moments["moments"][site.name] = reductions.output_moments(outputs, tap.mask)
        if plan.clones:
            moments["comoments"][site.name] = reductions.output_comoments(outputs, tap.mask)
    return sums, moments


def add_counts(total: Any, batch: Any, watchpoints: int) -> Any:
    """The sum of two vectors of integer counts; the last entries are minima of indices instead.

    Args:
        total: `(size,)` integers; the first entry is the number of inputs, the last ones are the first input
            that is not finite at each watchpoint, in the full set.
        batch: `(size,)` integers of one batch; the last entries are indices in the batch, -1 for none.
        watchpoints: number of these last entries.
    """
    batch = ops.cast(batch, total.dtype)
    first = _earliest(total[-watchpoints:], batch[-watchpoints:], total[0])
    return ops.concatenate([total[:-watchpoints] + batch[:-watchpoints], first])


def _earliest(total: Any, batch: Any, earlier_inputs: Any) -> Any:
    """The smaller of two indices in the full set.

    Args:
        total: integers, indices of earlier batches in the full set, `_never` for none.
        batch: indices in the batch, of any integer dtype, -1 for none.
        earlier_inputs: number of inputs of the earlier batches.
    """
    never = ops.convert_to_tensor(_never(total.dtype), dtype=total.dtype)
    index = ops.cast(batch, total.dtype)
    index = ops.where(index >= 0, index + earlier_inputs, never)
    return ops.where(index < total, index, total)  # `ops.minimum` computes in 32 bits on PyTorch


def empty_counts(size: int, watchpoints: int, dtype: str) -> np.ndarray:
    """The vector of integer counts of zero batches."""
    first = np.full(watchpoints, _never(dtype), dtype)
    return np.concatenate([np.zeros(size - watchpoints, dtype), first])


def _never(dtype: Any) -> int:
    return np.iinfo(keras.backend.standardize_dtype(dtype)).max


class Totals:
    """Totals of the batches of a probe, on the device.

    Args:
        layouts: of the vectors "integers", "reals" and "first_active".
        add: as returned by `compiled_add`.
    """

    def __init__(self, layouts: Mapping[str, Layout], add: Callable):
        self._layouts, self._add = layouts, add
        self._state: Any = None

    def add(self, batch: dict[str, Any]) -> None:
        """Adds a batch: the vectors "integers", "reals", "first_active" and "rows", the last two of the same
        layout; and "matrices" and `MOMENTS` by layer."""
        self._state = self._add(self._state, batch)

    def read(self) -> dict[str, Any]:
        """The same on the host, the vectors as arrays by key. One transfer."""
        state = to_host(self._state)
        return state | {name: layout.unpack(state[name]) for name, layout in self._layouts.items()}


def compiled_add(watchpoints: int) -> Callable:
    """`(state or None, batch) -> state`, compiled if the backend compiles; sums are in 64 bits."""

    def add(state, batch):
        if state is None:
            zeros = empty_counts(batch["integers"].shape[0], watchpoints, "int64")
            state = {
                "integers": ops.convert_to_tensor(zeros),
                "matrices": keras.tree.map_structure(lambda x: ops.cast(x, "int32") * 0, batch["matrices"]),
                "reals": ops.cast(batch["reals"], "float64") * 0,
                "first_active": ops.cast(batch["first_active"], "int64") * 0 + _never("int64"),
                "rows": ops.cast(batch["rows"], "int64") * 0,
            }
            for moment in MOMENTS:
                state[moment] = keras.tree.map_structure(lambda x: ops.cast(x, "float64") * 0, batch[moment])
        moments: dict[str, dict[str, Any]] = {moment: {} for moment in MOMENTS}
        for moment, merged in moments.items():
            for layer, arrays in batch[moment].items():
                arrays = {name: ops.cast(array, "float64") for name, array in arrays.items()}
                earlier = Moments(**state[moment][layer])
                merged[layer] = vars(earlier.merge(Moments(**arrays), ops.maximum))
        return {
            "integers": add_counts(state["integers"], batch["integers"], watchpoints),
            "matrices": keras.tree.map_structure(
                lambda total, x: total + ops.cast(x, "int32"), state["matrices"], batch["matrices"]
            ),
            "reals": state["reals"] + ops.cast(batch["reals"], "float64"),
            **moments,
            "first_active": _earliest(state["first_active"], batch["first_active"], state["rows"]),
            "rows": state["rows"] + ops.cast(batch["rows"], "int64"),
        }

    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.function(separate(add), autograph=False)
    if name == "jax":
        import jax

        compiled = jax.jit(add)

        def in_64_bits(*arguments):
            with jax.enable_x64(True):  # for tracing and for calling: it is part of the cache's key
                return compiled(*arguments)

        return in_64_bits
    return add


def to_host(state: Any) -> Any:
    """All arrays of a structure as NumPy arrays, in one transfer if the backend has one."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        return jax.device_get(state)
    if name == "torch":
        return keras.tree.map_structure(lambda x: x.detach().cpu().numpy(), state)
    return keras.tree.map_structure(lambda x: x.numpy(), state)


@contextlib.contextmanager
def no_gradients():
    """On PyTorch, disables automatic differentiation."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.no_grad():
        yield


def census_of(plan: Plan, labels: Labels, totals: dict[str, Any], first: int = 0) -> Census:
    """The counts of every layer.

    Args:
        plan: of the counted sites.
        labels: how the labels were read.
        totals: as returned by `Totals.read`; only "integers" is required.
        first: index of the first of the inputs in the full set.
    """
    integers, reals, matrices = totals["integers"], totals.get("reals", {}), totals.get("matrices", {})
    census = Census()
    by_class = labels.form and not integers["", "bad_labels"][0]
    if labels.form and not by_class:
        number, last = int(integers["", "bad_labels"][0]), labels.classes - 1
        census.notes.append(f"labels: not counted by class, since {number} are not 0 to {last}")
    watched = [site.key for site in plan.watched]
    for site in plan.sites:
        arrays = {name: array for (layer, name), array in integers.items() if layer == site.name}
        arrays |= {name: array.astype(np.int64) for name, array in matrices.get(site.name, {}).items()}
        counts = Counts(
            arrays["inputs_by_silent"],
            arrays["active"],
            arrays["active_everywhere"],
            groups=site.groups,
            runs=run_statistics(arrays["runs"], arrays["inputs_by_silent"]),
            together=arrays.get("together"),
        )
        if by_class and "class_active" in arrays:
            counts.class_active, counts.class_inputs = arrays["class_active"], integers["", "class_inputs"]
        for name in ("magnitude", "gradient", "output_gradient"):
            if (array := reals.get((site.name, name))) is not None:
                setattr(counts, name, array.astype(np.float64))
        for moment in MOMENTS:
            if (moments := totals.get(moment, {}).get(site.name)) is not None:
                setattr(counts, moment, Moments(**{**moments, "values": int(moments["values"])}))
        until = len(plan.inputs) + watched.index(site.key) + 1
        if bad := int(integers["", "bad"][until - 1]):
            indices = integers["", "first"][:until]
            counts.nonfinite, counts.first_nonfinite = bad, first + int(indices.min())
            counts.nonfinite_at = plan.watchpoints[int(indices.argmin())]
        counts.first = first
        if plan.ordered:
            index = totals["first_active"][site.name, "first_active"]
            counts.accumulation = _accumulation(index, counts.inputs, int(integers["", "inputs"][0]), first)
        census.layers[site.name] = counts
    for name, rows in plan.folded.items():
        census.notes.append(f"{name}: counted by row, since it has {rows} for each input; not by class")
    return census


def _accumulation(index: np.ndarray, rows: int, inputs: int, first: int) -> Accumulation | None:
    """The accumulation of a layer with several rows per input is by row, if each input has equally many."""
    start, remainder = divmod(first * rows, inputs)
    if remainder:
        return None
    return Accumulation(np.where(index == _never("int64"), -1, start + index), ((start, start + rows),))


def empty_census(plan: Plan) -> Census:
    """The census of a plan that counted zero batches."""
    return Census({site.name: Counts.empty(site.units) for site in plan.sites})
