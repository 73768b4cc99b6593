"""Counting on the training batches themselves, inside the compiled training step: no extra forward pass.

The layers are tapped only while the step is traced (or run, where it is eager), and the counters are no part
of the model: its weights, its random streams and what is saved stay as they are.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.census import reductions
from bnhead.census.counters import Census, Counts
from bnhead.census.find import OTHER, RECTIFIER, Site, find, sites, watched, without_activation
from bnhead.errors import UsageError


class StepCounter:
    """Counts units of the first inputs of every training batch, in training mode, as the weights change.

    What a dead unit of a training epoch is differs from one of a fixed probe set: it was silent on all of
    these inputs, each with the weights of its step, its augmentation, its dropout and its batch statistics.
    Silence, activity per unit and finiteness are counted, with one reduction per activation for each; figures
    that need labels, magnitudes or gradients are not.

    Args:
        model: a compiled functional or Sequential model.
        layers: see `bnhead.census.find.find`.
        eps: a unit is silent where its absolute output is at most this.
        inputs_per_step: how many inputs of each batch (on each replica) are counted; None for all. Batches
            are shuffled, so the first are as good as any.

    Raises:
        UsageError: a layer that is called more than once in the model, whose calls cannot be told apart here.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[Any] | str | None = None,
        *,
        eps: float = 0.0,
        inputs_per_step: int | None = 16,
    ):
        if not eps >= 0:
            raise UsageError(f"eps must be at least 0, got {eps}")
        if inputs_per_step is not None and inputs_per_step < 1:
            raise UsageError(f"inputs_per_step must be at least 1 or None, got {inputs_per_step}")
        self.sites = find(model, layers)
        self._model, self._limit = model, inputs_per_step
        self._counted = {site.name for site in self.sites}
        operations = [site.operation for site in sites(model)]
        for site in self.sites:
            if sum(operation is site.operation for operation in operations) > 1:
                again = "is called more than once, which cannot be counted inside the step"
                raise UsageError(f"layers: {site.name!r} {again}; give data to count on")
        self._watched = watched(model, self.sites)
        self._taps = _Taps(self._watched, self._tap)
        sizes = [site.units for site in self.sites]
        kinds = {"tensorflow": _GraphTotals, "jax": _CallbackTotals}
        self._totals = kinds.get(keras.backend.backend(), _HostTotals)(sizes, eps, len(self._watched) + 1)
        self._step: Callable | None = None  # the counting step, while it is attached
        self._previous: Callable | None = None  # what the instance had in its place

    def attach(self) -> None:
        """Makes the model's training step count; call it before `fit` has made its function."""
        self._totals.make(self._model)
        step = self._model.train_step

        @functools.wraps(step)
        def counting(*arguments, **keywords):
            if self._step is not counting:  # detached while another one stood around it
                return step(*arguments, **keywords)
            with self._taps.open() as seen:
                result = step(*arguments, **keywords)
                inputs = keras.utils.unpack_x_y_sample_weight(arguments[-1])[0]
                sums = [self._sum_of_inputs(inputs), *(seen[site.name][-1] for site in self._watched)]
                self._totals.add([seen[site.name][:2] for site in self.sites], ops.stack(sums, axis=1))
            return result

        self._previous = vars(self._model).get("train_step")
        self._model.train_step = self._step = counting
        self._model.train_function = None  # made again, with the counters in it

    def detach(self) -> None:
        """Restores the model's training step; where that is wrapped by now, stops counting."""
        if self._step is None:
            return
        if vars(self._model).get("train_step") is self._step:
            del self._model.train_step
            if self._previous is not None:
                self._model.train_step = self._previous
        self._step = self._previous = None
        self._model.train_function = None

    def reset(self) -> None:
        """Forgets what was counted, at the beginning of an epoch."""
        self._totals.reset()

    def census(self) -> Census:
        """The counts since the last `reset`."""
        *sums, bad, first = self._totals.read()
        names = ["the inputs", *(site.name for site in self._watched)]
        census = Census()
        for site, (histogram, active, saturated) in zip(self.sites, zip(*sums, strict=True), strict=True):
            counts = Counts(histogram, active, saturated, groups=site.groups)
            upto = names.index(site.name) + 1
            if bad[upto - 1]:
                earliest = int(np.argmin(first[:upto]))
                counts.nonfinite, counts.first_nonfinite = int(bad[upto - 1]), int(first[earliest])
                counts.nonfinite_at = names[earliest]
            census.layers[site.name] = counts
        return census

    def _sum_of_inputs(self, inputs: Any) -> Any:
        """`(batch,)` float32, not finite where an input is not."""
        flat = [tensor[: self._limit] for tensor in keras.tree.flatten(inputs) if tensor is not None]
        sums = [_sum(tensor) for tensor in flat if keras.backend.is_float_dtype(tensor.dtype)]
        return sum(sums, ops.zeros(ops.shape(flat[0])[:1], "float32"))

    def _tap(self, site: Site, before: Any, after: Any) -> tuple[Any, ...]:
        """Largest and smallest over the positions, `(batch, units)`, and a sum `(batch,)` that shows NaN.

        Of a rectifier they are those of the pre-activation, of others those of |a|. Sites that are watched
        but not counted have the sum alone.
        """
        before = ops.stop_gradient(before)[: self._limit]  # JAX lets nothing else out of the derivative
        if site.name not in self._counted:
            return (_sum(before),)
        total, values = _sum(before), before
        if site.kind != RECTIFIER:
            after = ops.stop_gradient(after)[: self._limit]
            total, values = total + _sum(after), ops.abs(after)
        axes = reductions.positions(values)
        high, low = (ops.max(values, axes), ops.min(values, axes)) if axes else (values, values)
        return ops.cast(high, "float32"), ops.cast(low, "float32"), total


def _sum(tensor: Any) -> Any:
    return ops.sum(ops.cast(tensor, "float32"), axis=tuple(range(1, len(tensor.shape))))


class _Taps:
    """Reads pre-activations and outputs of sites while their layers are called."""

    def __init__(self, sites: Sequence[Site], read: Callable):
        self._sites, self._read = sites, read
        self._lock, self._depth = threading.RLock(), 0
        self._undo: list[Callable[[], None]] = []
        self._seen = threading.local()  # replicas of one step are traced in threads of their own

    @contextlib.contextmanager
    def open(self) -> Iterator[dict[str, Any]]:
        self._seen.values = {}
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                for site in self._sites:
                    self._put(site)
        try:
            yield self._seen.values
        finally:
            with self._lock:
                self._depth -= 1
                while self._depth == 0 and self._undo:
                    self._undo.pop()()

    def _put(self, site: Site) -> None:
        """Taps a layer's `call`; undoing puts back what was there, which may be another counter's tap."""
        instance = vars(site.operation)
        if "call" in instance:
            self._undo.append(functools.partial(instance.__setitem__, "call", instance["call"]))
        else:
            self._undo.append(functools.partial(delattr, site.operation, "call"))
        site.operation.call = self._tapped(site, site.operation.call)

    def _tapped(self, site: Site, call: Callable) -> Callable:
        @functools.wraps(call)
        def tapped(*arguments, **keywords):
            if not site.fused:
                after = call(*arguments, **keywords)
                alone = arguments and ops.is_tensor(arguments[0]) and site.kind != OTHER
                before = arguments[0] if alone else after
            else:
                with without_activation(site.operation) as activation:
                    before = call(*arguments, **keywords)
                after = activation(before)
            self._seen.values[site.name] = self._read(site, before, after)
            return after

        return tapped


def _batch_totals(sizes: Sequence[int], eps: float, seen: Sequence[tuple], sums: Any) -> tuple[Any, ...]:
    """All layers' counts on one batch, side by side so that there are few operations.

    Args:
        sizes: units of each layer.
        eps: threshold of silence.
        seen: per layer largest and smallest values, `(batch, units)`.
        sums: `(batch, watched)`.

    Returns:
        int32 or bool: histograms of silent units `(sum(sizes) + layers,)`, active and saturated
        `(sum(sizes),)`, inputs with something not finite up to each watched place `(watched,)`, and whether
        each place is finite `(batch, watched)`.
    """
    high, low = (ops.concatenate(values, axis=1) > eps for values in zip(*seen, strict=True))
    layer_of_unit = np.repeat(np.eye(len(sizes), dtype="float32"), sizes, axis=0)
    silent = ops.matmul(ops.cast(ops.logical_not(high), "float32"), layer_of_unit)
    starts = np.cumsum([0, *(size + 1 for size in sizes)])
    first = ops.convert_to_tensor(starts[:-1].astype("int32"))  # NumPy and a tensor on a GPU do not add up
    places = ops.reshape(ops.cast(silent, "int32") + first, (-1,))
    histogram = ops.segment_sum(ops.ones_like(places), places, num_segments=int(starts[-1]))
    count = [ops.sum(ops.cast(where, "int32"), axis=0) for where in (high, low)]
    finite = ops.isfinite(sums)
    upto = ops.cumsum(ops.cast(ops.logical_not(finite), "int32"), axis=1) > 0
    return histogram, *count, ops.sum(ops.cast(upto, "int32"), axis=0), finite


NEVER = np.iinfo(np.int64).max


class _HostTotals:
    """Adds up on the host, batch by batch: for backends whose step is eager."""

    def __init__(self, sizes: Sequence[int], eps: float, watched: int):
        self._sizes, self._eps, self._watched = sizes, eps, watched
        self.reset()

    def make(self, model: keras.Model) -> None:
        """Nothing has to be made."""

    def reset(self) -> None:
        units = sum(self._sizes)
        self._sums = [np.zeros(n, np.int64) for n in (units + len(self._sizes), units, units, self._watched)]
        self._first, self._inputs = np.full(self._watched, NEVER), 0

    def add(self, seen: Sequence[tuple], sums: Any) -> None:
        self._take(*_batch_totals(self._sizes, self._eps, seen, sums))

    def _take(self, *arrays: Any) -> None:
        *sums, finite = (np.asarray(ops.convert_to_numpy(array)) for array in arrays)
        for total, batch in zip(self._sums, sums, strict=True):
            total += batch
        here = np.where(finite.all(0), NEVER, self._inputs + finite.argmin(0))
        self._first = np.minimum(self._first, here)
        self._inputs += len(finite)

    def read(self) -> tuple:
        """Per layer histogram, active and saturated; bad inputs up to each watched place, and its first."""
        return *_split(self._sizes, *self._sums[:3]), self._sums[3].copy(), self._first


class _CallbackTotals(_HostTotals):
    """JAX: the compiled step hands its small arrays to the host."""

    def add(self, seen: Sequence[tuple], sums: Any) -> None:
        import jax

        jax.debug.callback(self._take, *_batch_totals(self._sizes, self._eps, seen, sums), ordered=False)

    def reset(self) -> None:
        self._wait()
        super().reset()

    def read(self) -> tuple:
        self._wait()
        return super().read()

    def _wait(self) -> None:
        import jax

        jax.effects_barrier()


class _GraphTotals:
    """TensorFlow: variables of the replicas, added up when they are read."""

    def __init__(self, sizes: Sequence[int], eps: float, watched: int):
        self._sizes, self._eps, self._watched = sizes, eps, watched

    def make(self, model: keras.Model) -> None:
        import tensorflow as tf

        units, layers = sum(self._sizes), len(self._sizes)
        options = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.SUM,
        }
        self._strategy = model.distribute_strategy
        with self._strategy.scope():
            shapes = (units + layers,), (units,), (units,), (self._watched,)
            self._sums = [tf.Variable(tf.zeros(shape, tf.int64), **options) for shape in shapes]
            # the first bad input's number plus one, 0 without one
            self._first = tf.Variable(tf.zeros(self._watched, tf.int64), **options)
            self._inputs = tf.Variable(tf.zeros((), tf.int64), **options)

    def reset(self) -> None:
        import tensorflow as tf

        for variable in (*self._sums, self._first, self._inputs):
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def add(self, seen: Sequence[tuple], sums: Any) -> None:
        import tensorflow as tf

        *counts, finite = _batch_totals(self._sizes, self._eps, seen, sums)
        for variable, batch in zip(self._sums, counts, strict=True):
            variable.assign_add(tf.cast(batch, tf.int64))
        bad = tf.cast(tf.logical_not(finite), tf.int64)
        fresh = tf.logical_and(tf.reduce_any(bad > 0, 0), self._first.value() == 0)
        self._first.assign_add(tf.where(fresh, self._inputs.value() + tf.argmax(bad, 0) + 1, 0))
        self._inputs.assign_add(tf.shape(finite, tf.int64)[0])

    def read(self) -> tuple:
        """As `_HostTotals.read`; with several replicas the first of each replica's own inputs."""
        *sums, bad = (variable.numpy() for variable in self._sums)
        replicas = np.array([r.numpy() for r in self._strategy.experimental_local_results(self._first)])
        return *_split(self._sizes, *sums), bad, np.where(replicas > 0, replicas - 1, NEVER).min(0)


def _split(sizes: Sequence[int], histogram: np.ndarray, *units: np.ndarray) -> tuple[list[np.ndarray], ...]:
    """Cuts what stands side by side; copies, so that what was read stays."""
    edges = np.cumsum([size + 1 for size in sizes])[:-1]
    parts = [np.split(array, np.cumsum(sizes)[:-1]) for array in units]
    return tuple([part.copy() for part in cut] for cut in (np.split(histogram, edges), *parts))
