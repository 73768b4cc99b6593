"""Counting on the training batches themselves, inside the compiled training step: no extra forward pass.

Taps are open while the step is traced (or run, where it is eager), and the totals stay on the device. They
are no part of the model: its weights, its random streams and what is saved stay as they are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bnhead.census import totals
from bnhead.census.counts import Census
from bnhead.census.labels import Labels
from bnhead.census.probe import input_names
from bnhead.census.sites import Inventory
from bnhead.errors import UsageError
from bnhead.graph import taps, trace


class StepCounter:
    """Counts units of the first inputs of every training batch, in training mode, as the weights change.

    What a dead unit of a training epoch is differs from one of a fixed probe set: it was silent on all of
    these inputs, each with the weights of its step, its augmentation, its dropout and its batch statistics.
    Silence, activity per unit, runs and finiteness are counted; figures that need labels, magnitudes or
    gradients are not. Every pass of a step counts, so a step that runs the model on two views counts both.
    Whatever the step does not run through the model, or a part of it, is not counted: "no inputs were
    counted".

    Args:
        model: a compiled model.
        layers: see `bnhead.census.sites`.
        eps: a unit is silent where its absolute output is at most this.
        inputs_per_step: how many inputs of each batch (on each replica) are counted; None for all. Batches
            are shuffled, so the first are as good as any.

    Raises:
        UsageError: numbers that make no sense; a layer that the model does not have, which for a subclassed
            model is known in the first step.
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
        self._model, self._layers = model, layers
        self._options = {"eps": eps, "limit": inputs_per_step, "details": False}
        self._plan: totals.Plan | None = None
        self._missed: dict[str, str] = {}
        self._layout = totals.Layout()
        if (inputs := trace.specs(model)) is not None:
            self._find([trace.forward(model, inputs)])
        self._totals: _Totals | None = None
        self._session: Any = None
        self._undo: list[Callable[[], None]] = []  # while attached

    def attach(self, session: Any = None) -> None:
        """Makes the model's training step count; call it before `fit` has made its function.

        Args:
            session: what all counters of one `fit` share. Those of another one, which an exception has left
                on the model, are taken away.
        """
        self.detach()
        self._session = session
        kind = {"tensorflow": _GraphTotals, "jax": _CarriedTotals}.get(keras.backend.backend(), _EagerTotals)
        self._totals = kind(self._model, self._plan)
        for name, method in kind.methods.items():
            self._wrap(name, getattr(self._totals, method), session)
        self._undo.append(self._totals.remove)
        self._model.train_function = None  # made again, with the counters in it

    def _wrap(self, name: str, run: Callable, session: Any) -> None:
        while (left := _counter_on(self._model, name)) and (session is None or left._session is not session):
            left.detach()
            _restore(self._model, name)
        step, before = getattr(self._model, name), vars(self._model).get(name)

        @functools.wraps(step)
        def counting(*arguments, **keywords):
            if self.is_attached:
                return run(self._counted, step, *arguments, **keywords)
            return step(*arguments, **keywords)  # detached while another one stood around it

        counting.counter, counting.before = self, before
        setattr(self._model, name, counting)
        self._undo.append(functools.partial(_restore, self._model, name))

    def detach(self) -> None:
        """Restores the model's training step; where that is wrapped by now, stops counting."""
        if self.is_attached:
            undo, self._undo = self._undo, []
            while undo:
                undo.pop()()
            self._model.train_function = None

    @property
    def is_attached(self) -> bool:
        """Whether the model's training step counts."""
        return bool(self._undo)

    def reset(self) -> None:
        """Forgets what was counted, at the beginning of an epoch."""
        if self._totals is not None:
            self._totals.reset()

    def census(self) -> Census:
        """The counts since the last `reset`.

        Raises:
            UsageError: no step has run any part of a model whose layers are known in the first step.
        """
        if self._plan is None:
            raise UsageError(f"model {self._model.name!r}: the training step runs no layer of it; give data")
        found = self._totals.read() if self._layout.parts else None
        if found is None:
            census = totals.nothing_counted(self._plan)
        else:
            census = totals.census_of(self._plan, Labels(), {"whole": self._layout.unpack(found)})
        census.not_looked_at = dict(self._missed)
        return census

    def _find(self, passes: Sequence[taps.Pass]) -> None:
        found = Inventory.of(self._model, *passes)
        self._missed = found.missed
        sites = found.select(self._layers)
        self._plan = totals.Plan.of(found, sites, input_names(self._model), **self._options)

    def _counted(self, passes: Sequence[taps.Pass]) -> tuple[list[Any], int]:
        """The whole numbers of each pass of a step, a vector each, and the number of places in them."""
        passes = [seen for seen in passes if seen.activations or seen.outputs]
        if self._plan is None and passes:
            self._find(passes)
        counted = [seen for seen in passes if self._plan.runs_in(seen)]
        vectors = [self._layout.pack(totals.whole_numbers(self._plan, seen), "int32") for seen in counted]
        return vectors, 0 if self._plan is None else len(self._plan.places)


def _counter_on(model: keras.Model, name: str) -> StepCounter | None:
    """The counter whose step a model has; None where it has another one."""
    return getattr(vars(model).get(name), "counter", None)


def _restore(model: keras.Model, name: str) -> None:
    """Puts back what a model had before its counters, as far as they are detached."""
    while (counter := _counter_on(model, name)) is not None and not counter.is_attached:
        before = vars(model)[name].before
        delattr(model, name)
        if before is not None:
            setattr(model, name, before)


class _Totals:
    """Totals of whole numbers that one training step adds to.

    Attributes:
        methods: name of a method of the model -> that of ours which is called in its place.
    """

    methods: ClassVar = {"train_step": "run"}

    def __init__(self, model: keras.Model, plan: totals.Plan | None):
        self._model, self._places = model, 0 if plan is None else len(plan.places)

    def run(self, count: Callable, step: Callable, *arguments: Any, **keywords: Any) -> Any:
        """Runs a step, and adds what `count` makes of its passes, after everything the step does itself."""
        with taps.opened(self._model) as seen:
            result = step(*arguments, **keywords)
        vectors, self._places = count(seen.passes)
        for vector in vectors:
            self.add(vector)
        return result

    def remove(self) -> None:
        """Takes away what was put into the model."""


class _EagerTotals(_Totals):
    """PyTorch: one tensor, added to while the step runs."""

    _total: Any = None

    def add(self, vector: Any) -> None:
        with totals.no_gradients():
            vector = vector.detach()
            if self._total is None:
                zeros = totals.nothing(vector.shape[0], self._places, "int64")
                self._total = ops.convert_to_tensor(zeros)
            self._total = totals.added(self._total, vector, self._places)

    def reset(self) -> None:
        self._total = None

    def read(self) -> np.ndarray | None:
        return None if self._total is None else totals.to_host(self._total)


class _GraphTotals(_Totals):
    """TensorFlow: a variable of each replica, made when the step is traced, since its size is known then."""

    _variable: Any = None

    def add(self, vector: Any) -> None:
        if self._variable is None:
            self._make(vector.shape[0])
        total = self._variable.read_value()
        self._variable.assign(totals.added(total, vector, self._places))

    def _make(self, size: int) -> None:
        import tensorflow as tf

        def make(*_):
            if self._variable is None:
                with tf.init_scope(), self._model.distribute_strategy.scope():
                    self._variable = tf.Variable(
                        totals.nothing(size, self._places, "int64"),
                        trainable=False,
                        synchronization=tf.VariableSynchronization.ON_READ,
                        aggregation=tf.VariableAggregation.SUM,
                    )

        replica = tf.distribute.get_replica_context()
        if tf.distribute.has_strategy() and replica is not None:
            replica.merge_call(make)
        else:
            make()

    def reset(self) -> None:
        if self._variable is not None:
            size = self._variable.shape[0]
            for replica in self._replicas():
                replica.assign(totals.nothing(size, self._places, "int64"))

    def read(self) -> np.ndarray | None:
        """With several replicas, the first of each replica's own inputs that is not finite."""
        if self._variable is None:
            return None
        each = np.stack([replica.numpy() for replica in self._replicas()])
        return np.concatenate([each[:, : -self._places].sum(0), each[:, -self._places :].min(0)])

    def _replicas(self) -> Sequence[Any]:
        return self._model.distribute_strategy.experimental_local_results(self._variable)


class _CarriedTotals(_Totals):
    """JAX: the trainer carries the totals through the compiled step, as the state of a seed generator.

    Such a state is among the model's non-trainable variables, and in neither its weights nor a saved file.
    """

    methods: ClassVar = {"train_step": "within", "stateless_call": "run"}

    def __init__(self, model: keras.Model, plan: totals.Plan | None):
        super().__init__(model, plan)
        self._trains = False
        zeros = self._zeros(0 if plan is None else plan.size)
        self.state = keras.Variable(zeros, trainable=False, dtype="int32", name="bnhead_totals")
        model._seed_generators.append(self)

    def _zeros(self, size: int) -> np.ndarray:
        return totals.nothing(size, self._places, "int32") if size else np.zeros(0, "int32")

    def run(self, count: Callable, step: Callable, *arguments: Any, **keywords: Any) -> Any:
        if not self._trains:
            return step(*arguments, **keywords)
        with taps.opened(self._model) as seen, seen.calling(arguments[2:] or keywords):
            outputs, variables, *others = step(*arguments, **keywords)
        vectors, self._places = count(seen.passes)
        variables = list(variables)
        place = next(i for i, v in enumerate(self._model.non_trainable_variables) if v is self.state)
        for vector in vectors:
            total, size = variables[place], vector.shape[0]
            if not total.shape[0]:  # known now; the second step is traced once more, with totals of this size
                total, self.state._shape = ops.convert_to_tensor(self._zeros(size)), (size,)
            variables[place] = totals.added(total, ops.stop_gradient(vector), self._places)
        return outputs, variables, *others

    def within(self, count: Callable, step: Callable, *arguments: Any, **keywords: Any) -> Any:
        """Runs a training step, so that the calls of the model in it count; those of `evaluate` do not."""
        self._trains = True
        try:
            return step(*arguments, **keywords)
        finally:
            self._trains = False

    def remove(self) -> None:
        self._model._seed_generators = [g for g in self._model._seed_generators if g is not self]

    def reset(self) -> None:
        self._sync()
        self.state.assign(self._zeros(int(self.state.value.shape[0])))

    def read(self) -> np.ndarray | None:
        self._sync()
        state = totals.to_host(self.state.value)
        return state if len(state) else None

    def _sync(self) -> None:
        if hasattr(self._model, "jax_state_sync") and getattr(self._model, "_jax_state", None):
            self._model.jax_state_sync()
