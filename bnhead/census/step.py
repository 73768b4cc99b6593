"""Counting on the training batches, inside the compiled training step: no extra forward pass.

Taps are open while the step is traced (or runs, if it is eager), and the totals stay on the device. The model
is not changed: neither its weights nor its random streams nor its file. TensorFlow's graph optimizer may
join fewer operations where values are read between them, which rounds differently: a transformer with gelu
was 6e-8 apart after two epochs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bnhead.census import totals
from bnhead.census.census import Census
from bnhead.census.labels import Labels
from bnhead.census.sites import Inventory
from bnhead.errors import UsageError
from bnhead.graph import taps, trace


class StepCounter:
    """Counts units on the first inputs of every training batch, in training mode, while the weights change.

    A dead unit of a training epoch differs from one of a fixed probe set: it was silent on all of these
    inputs, each with the weights, augmentation, dropout and batch statistics of its step. Silence, activity
    per unit, runs and finiteness are counted; figures that need labels, magnitudes or gradients are not.
    Every pass of a step counts, so a step that runs the model on two views counts both. A layer that the step
    does not run is reported as "no inputs were counted".

    Args:
        model: a compiled model.
        layers: see `bnhead.census.sites`.
        eps: a unit is silent if its absolute output is at most this.
        inputs_per_step: number of inputs of each batch (on each replica) to count; None for all. Batches are
            shuffled, so the first inputs are a random sample.

    Raises:
        UsageError: an argument out of range; a layer that the model does not have (for a subclassed model,
            raised in the first step).
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[Any] | str | None = None,
        *,
        eps: float = 0.0,
        inputs_per_step: int | None = 16,
    ):
        totals.require_threshold(eps)
        if inputs_per_step is not None and inputs_per_step < 1:
            raise UsageError(f"inputs_per_step must be at least 1 or None, got {inputs_per_step}")
        self._model, self._layers = model, layers
        self._options = {"eps": eps, "limit": inputs_per_step, "checks_before": False}
        self._plan: totals.Plan | None = None
        self._missed: dict[str, str] = {}
        self._layout = totals.Layout()
        if (inputs := trace.specs(model)) is not None:
            self._make_plan([trace.forward(model, inputs)])
        self._totals: _Totals | None = None
        self._session: Any = None
        self._undo: list[Callable[[], None]] = []  # empty unless attached

    def attach(self, session: Any = None) -> None:
        """Makes the model's training step count. Call it before `fit` builds its function.

        Args:
            session: an object that all counters of one `fit` share. Counters of another `fit`, which ended in
                an exception, are removed.
        """
        self.detach()
        self._session = session
        backend = keras.backend.backend()
        totals_class = {"tensorflow": _GraphTotals, "jax": _CarriedTotals}.get(backend, _EagerTotals)
        self._totals = totals_class(self._model, self._plan)
        for name, method in totals_class.methods.items():
            self._wrap(name, getattr(self._totals, method), session)
        self._undo.append(self._totals.remove)
        self._model.train_function = None  # Keras caches it; it is rebuilt with the counter

    def _wrap(self, name: str, run: Callable, session: Any) -> None:
        """Replaces a method of the model by one that counts.

        The replacement is an attribute of the instance: `previous` is the attribute it hides, None if the
        model had only its class's method. Several counters wrap each other.
        """
        # Keras does not call `on_train_end` after an exception, so a counter of an earlier `fit` may remain
        while (stale := _counter_on(self._model, name)) and (
            session is None or stale._session is not session
        ):
            stale.detach()
            _restore_method(self._model, name)
        step, previous = getattr(self._model, name), vars(self._model).get(name)

        @functools.wraps(step)
        def counting(*arguments, **keywords):
            if self.is_attached:
                return run(self._count_passes, step, *arguments, **keywords)
            return step(*arguments, **keywords)  # detached, but still wrapped by another counter

        counting.counter, counting.previous = self, previous
        setattr(self._model, name, counting)
        self._undo.append(functools.partial(_restore_method, self._model, name))

    def detach(self) -> None:
        """Restores the model's training step, or stops counting if another counter wraps it."""
        if self.is_attached:
            undo, self._undo = (
                self._undo,
                [],
            )  # emptied first: `_restore_method` removes detached counters only
            while undo:
                undo.pop()()
            self._model.train_function = None

    @property
    def is_attached(self) -> bool:
        """Whether the model's training step counts."""
        return bool(self._undo)

    def reset(self) -> None:
        """Sets the counts to zero, at the beginning of an epoch."""
        if self._totals is not None:
            self._totals.reset()

    def census(self) -> Census:
        """The counts since the last `reset`.

        Raises:
            UsageError: the inputs of the model are unknown and no step has run any part of it.
        """
        if self._plan is None:
            raise UsageError(f"model {self._model.name!r}: the training step runs no layer of it; pass data")
        vector = self._totals.read() if self._layout.parts else None
        if vector is None:
            census = totals.empty_census(self._plan)
        else:
            integers = self._layout.unpack(vector)
            census = totals.census_of(self._plan, Labels(), {"integers": integers})
        census.not_looked_at = dict(self._missed)
        return census

    def _make_plan(self, passes: Sequence[taps.Pass]) -> None:
        inventory = Inventory.of(self._model, *passes)
        self._missed = inventory.missed
        self._plan = totals.Plan.of(inventory, inventory.select(self._layers), **self._options)

    def _count_passes(self, passes: Sequence[taps.Pass]) -> tuple[list[Any], int]:
        """One vector of integer counts per pass of a step, and their number of watchpoints."""
        passes = [each for each in passes if each.activations or each.outputs]
        if self._plan is None and passes:  # a subclassed model: its layers are known in the first step
            self._make_plan(passes)
        passes = [each for each in passes if self._plan.runs_in(each)]
        vectors = [self._layout.pack(totals.integer_counts(self._plan, each), "int32") for each in passes]
        return vectors, 0 if self._plan is None else len(self._plan.watchpoints)


def _counter_on(model: keras.Model, name: str) -> StepCounter | None:
    """The outermost counter on a method of the model; None if a counter is not outermost."""
    return getattr(vars(model).get(name), "counter", None)


def _restore_method(model: keras.Model, name: str) -> None:
    """Unwraps a method of the model as long as its outermost counter is detached."""
    while (counter := _counter_on(model, name)) is not None and not counter.is_attached:
        previous = vars(model)[name].previous
        delattr(model, name)
        if previous is not None:
            setattr(model, name, previous)


class _Totals:
    """A vector of integer counts to which a training step adds.

    Attributes:
        methods: name of a method of the model -> name of the method of this class that replaces it.
    """

    methods: ClassVar = {"train_step": "run"}

    def __init__(self, model: keras.Model, plan: totals.Plan | None):
        self._model, self._watchpoints = model, 0 if plan is None else len(plan.watchpoints)

    def run(self, count: Callable, step: Callable, *arguments: Any, **keywords: Any) -> Any:
        """Runs a step, then counts its passes with `count`.

        Counting comes last, so that the step itself is traced as without a counter.
        """
        with taps.opened(self._model) as opened:
            result = step(*arguments, **keywords)
        vectors, self._watchpoints = count(opened.passes)
        for vector in vectors:
            self.add(vector)
        return result

    def remove(self) -> None:
        """Removes the additions to the model."""


class _EagerTotals(_Totals):
    """PyTorch: one tensor; the step runs eagerly."""

    _total: Any = None

    def add(self, vector: Any) -> None:
        with totals.no_gradients():
            vector = vector.detach()
            if self._total is None:
                zeros = totals.empty_counts(vector.shape[0], self._watchpoints, "int64")
                self._total = ops.convert_to_tensor(zeros)
            self._total = totals.add_counts(self._total, vector, self._watchpoints)

    def reset(self) -> None:
        self._total = None

    def read(self) -> np.ndarray | None:
        return None if self._total is None else totals.to_host(self._total)


class _GraphTotals(_Totals):
    """TensorFlow: a variable per replica, created while the step is traced, when its size is known."""

    _variable: Any = None

    def add(self, vector: Any) -> None:
        import tensorflow as tf

        def create(*_):
            if self._variable is None:
                # lifted out of the step that is being traced, which may not create variables
                with tf.init_scope(), self._model.distribute_strategy.scope():
                    self._variable = tf.Variable(
                        totals.empty_counts(vector.shape[0], self._watchpoints, "int64"),
                        trainable=False,
                        synchronization=tf.VariableSynchronization.ON_READ,
                        aggregation=tf.VariableAggregation.SUM,
                    )

        replica = tf.distribute.get_replica_context()
        if self._variable is None and tf.distribute.has_strategy() and replica is not None:
            replica.merge_call(create)  # a mirrored variable is created for all replicas at once
        else:
            create()
        total = self._variable.read_value()
        self._variable.assign(totals.add_counts(total, vector, self._watchpoints))

    def reset(self) -> None:
        if self._variable is not None:
            size = self._variable.shape[0]
            for replica in self._replicas():
                replica.assign(totals.empty_counts(size, self._watchpoints, "int64"))

    def read(self) -> np.ndarray | None:
        """Sums over the replicas. Indices of inputs count within a replica; their minimum is returned."""
        if self._variable is None:
            return None
        vectors = np.stack([replica.numpy() for replica in self._replicas()])
        sums, first = vectors[:, : -self._watchpoints].sum(0), vectors[:, -self._watchpoints :].min(0)
        return np.concatenate([sums, first])

    def _replicas(self) -> Sequence[Any]:
        return self._model.distribute_strategy.experimental_local_results(self._variable)


class _CarriedTotals(_Totals):
    """JAX: the trainer carries the totals through the compiled step, as the state of a seed generator.

    Such a state is among the model's non-trainable variables, but not among its weights, and is not saved.
    """

    methods: ClassVar = {"train_step": "within", "stateless_call": "run"}

    def __init__(self, model: keras.Model, plan: totals.Plan | None):
        super().__init__(model, plan)
        self._trains = False
        zeros = self._zeros(0 if plan is None else plan.size)
        self.state = keras.Variable(zeros, trainable=False, dtype="int32", name="bnhead_totals")
        model._seed_generators.append(self)

    def _zeros(self, size: int) -> np.ndarray:
        return totals.empty_counts(size, self._watchpoints, "int32") if size else np.zeros(0, "int32")

    def run(self, count: Callable, step: Callable, *arguments: Any, **keywords: Any) -> Any:
        """Runs `stateless_call`, which returns the model's outputs and new non-trainable variables."""
        if not self._trains:
            return step(*arguments, **keywords)
        # the arguments begin with the trainable and the non-trainable variables
        with taps.opened(self._model) as opened, opened.calling(arguments[2:] or keywords):
            outputs, variables, *extra = step(*arguments, **keywords)
        vectors, self._watchpoints = count(opened.passes)
        variables = list(variables)
        index = next(i for i, v in enumerate(self._model.non_trainable_variables) if v is self.state)
        for vector in vectors:
            total, size = variables[index], vector.shape[0]
            if not total.shape[0]:
                # The first step of a subclassed model: its size was unknown. From the second step on the
                # state has this size, so JAX traces the step twice.
                total, self.state._shape = ops.convert_to_tensor(self._zeros(size)), (size,)
            # `stateless_call` runs inside the differentiated function; integers need no gradient
            variables[index] = totals.add_counts(total, ops.stop_gradient(vector), self._watchpoints)
        return outputs, variables, *extra

    def within(self, count: Callable, step: Callable, *arguments: Any, **keywords: Any) -> Any:
        """Runs a training step, in which calls of the model count, unlike those of `evaluate`."""
        self._trains = True
        try:
            return step(*arguments, **keywords)
        finally:
            self._trains = False

    def remove(self) -> None:
        self._model._seed_generators = [g for g in self._model._seed_generators if g is not self]

    def reset(self) -> None:
        trace.synchronize_variables(self._model)
        self.state.assign(self._zeros(int(self.state.value.shape[0])))

    def read(self) -> np.ndarray | None:
        trace.synchronize_variables(self._model)
        state = totals.to_host(self.state.value)
        return state if len(state) else None
