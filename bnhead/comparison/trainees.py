"""Models of a comparison in training: one by one in `fit`, or stacked, together, on shared features."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from bnhead import texts
from bnhead.census import Probe
from bnhead.comparison.data import ComparedData
from bnhead.errors import UsageError
from bnhead.frozen.stacked import Stack, obstacle
from bnhead.studies.pool import Event, Job, failure

MOST_WEIGHTS = 50_000_000  # of all stacked heads together: with gradients and moments, 1 GB


class Alone:
    """A model that Keras' `fit` trains.

    Args:
        model: the model.
        data: its data.
        seed: of the order of the examples.
        batch_size: of a step.
        fit: further arguments of `fit`.

    Attributes:
        model: as given.
        probe: counts its units; None for a model without an activation.
    """

    def __init__(
        self, model: keras.Model, data: ComparedData, seed: int, batch_size: int, fit: Mapping[str, Any]
    ):
        self.model, self.probe = model, probe_of(model, data)
        self._data, self._seed, self._batch_size, self._fit = data, seed, batch_size, fit

    def train(self, epoch: int) -> dict[str, float]:
        """Trains for an epoch, numbered from 0, and returns its logs."""
        batches = self._data.epoch(self._seed, epoch, self._batch_size)
        history = self.model.fit(batches, epochs=1, verbose=0, shuffle=False, **self._fit).history
        return {name: float(values[-1]) for name, values in history.items()}


class Together:
    """Heads on the same features that train in one stack, all of them one epoch before any of them the next.

    The runs of a cell share one model object, which gets the values of a run when it is the run's turn, and
    so one compiled count of dead units.

    Args:
        data: arrays.
        batch_size: of a step.
        runs: number of runs that may join.
    """

    def __init__(self, data: ComparedData, batch_size: int, runs: int):
        self._data, self._batch_size, self._runs = data, batch_size, runs
        self._stack = Stack(*data.train)
        self._models: dict[str, tuple[keras.Model, Probe | None]] = {}
        self._refused: set[str] = set()
        self._seeds: set[int] = set()
        self._epoch, self._logs = -1, []

    def join(self, cell: str, model: keras.Model, seed: int) -> "Stacked | None":
        """The model in the stack; None, with a line on stderr for each cell, if it cannot be stacked."""
        reason = obstacle(model)
        if not reason and self._runs * model.count_params() > MOST_WEIGHTS:
            reason = f"{self._runs} runs of {model.count_params():,} weights do not fit beside each other"
        if reason:
            if cell not in self._refused:
                texts.notice(f"{cell} is trained alone: {reason}")
            self._refused.add(cell)
            return None
        number = self._stack.add(model, seed)
        self._seeds.add(seed)
        if cell not in self._models:
            self._models[cell] = model, probe_of(model, self._data)
        return Stacked(self, number, *self._models[cell])

    def train(self, number: int, model: keras.Model, epoch: int) -> dict[str, float]:
        """Trains all for an epoch, if it is not done, and gives the model the values of one."""
        if epoch > self._epoch:
            orders = {seed: self._data.order(seed, epoch) for seed in self._seeds}
            self._epoch, self._logs = epoch, self._stack.epoch(orders, self._batch_size)
        self._stack.assign(number, model)
        return self._logs[number]


class Stacked:
    """A model in a stack; attributes and `train` as of `Alone`."""

    def __init__(self, together: Together, number: int, model: keras.Model, probe: Probe | None):
        self.model, self.probe = model, probe
        self._together, self._number = together, number

    def train(self, epoch: int) -> dict[str, float]:
        """Trains for an epoch, numbered from 0, and returns its logs."""
        return self._together.train(self._number, self.model, epoch)


class Stacks:
    """Does the jobs of a study in this process, a part of each in turn; those of a look train in one stack.

    The work of a job is a generator that yields its progress and returns its result.

    Args:
        data, batch_size: as of `Together`.

    Attributes:
        together: the stack of the jobs that are being done.
    """

    together: Together

    def __init__(self, data: ComparedData, batch_size: int):
        self._data, self._batch_size = data, batch_size

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Does the jobs and yields events."""
        self.together = Together(self._data, self._batch_size, len(jobs))
        works: dict[str, tuple[Job, Iterator]] = {}
        for job in jobs:
            yield Event(job, "started", {})
            work = job.work(job.config, lambda report: None)
            event = _advanced(job, work)
            while event.state == "progress" and event.detail["share"]:  # it is alone, and goes on to its end
                yield event
                event = _advanced(job, work)
            if event.state == "progress":
                works[job.id] = job, work
            yield event
        while works:
            for key, (job, work) in list(works.items()):
                event = _advanced(job, work)
                if event.state != "progress":
                    del works[key]
                yield event


def _advanced(job: Job, work: Iterator) -> Event:
    """The outcome of the next part of a job's work."""
    try:
        return Event(job, "progress", next(work))
    except StopIteration as end:
        return Event(job, "done", end.value)
    except Exception as error:
        return Event(job, "failed", failure(error))


def can_stack(data: ComparedData, fit: Mapping[str, Any]) -> bool:
    """Whether the data are arrays of features, and `fit` has no arguments that change the training."""
    if callable(data.train) or fit or keras.backend.backend() not in ("tensorflow", "jax"):
        return False
    x, _ = data.train
    return isinstance(x, np.ndarray) and x.ndim == 2 and np.issubdtype(x.dtype, np.number)


def probe_of(model: keras.Model, data: ComparedData) -> Probe | None:
    """Counts the last activation before the output; None for a model without one."""
    try:
        probe = Probe(model)
        probe.prepare((data.tested(0, 2), data.y[:2]))
    except UsageError:
        return None
    return probe
