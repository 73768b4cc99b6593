"""The runs of a study on frozen backbones: those that share features train in one stack, in this process.

Plan, run directories, files and verdict are those of a study whose runs are done one by one; only the steps
are computed together (`bnhead.frozen.Stack`). A run joins the stack in the state of its newest checkpoint, so
a study that was stopped goes on. Whole nets, and heads that cannot be stacked, go to another pool.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bnhead import texts
from bnhead.studies import worker
from bnhead.studies.pool import Event, Job, attempt, failure
from bnhead.training.config import TrainConfig

MOST_RUNS = 128  # in a stack: each holds its event files open
MOST_WEIGHTS = 50_000_000  # of all heads of a stack: with gradients and momentum, 1 GB
_ALONE = {"alone": True}  # the result of a job that cannot join a stack where it stands


class Pool:
    """Trains runs on frozen backbones together, and gives the others to another pool.

    Args:
        others: does the other runs; a context manager.
    """

    def __init__(self, others: Any):
        self._others = others

    def __enter__(self) -> "Pool":
        self._others.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._others.__exit__(*error)

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Does the jobs and yields events."""
        if all(job.work is not worker.train_one for job in jobs):  # a look at the data, the pace of a run
            for job in jobs:
                yield Event(job, *attempt(job, lambda report: None))
            return
        alone = [job for job in jobs if not job.config.freeze_backbone]
        together: dict[str, list[Job]] = {}
        for job in jobs:
            if job.config.freeze_backbone:
                together.setdefault(_key(job.config), []).append(job)
        for runs in together.values():
            alone += yield from _Features(runs).run()
        if alone:
            yield from self._others.run(alone)


def open_pool(open_others: Callable[[int], Any], workers: int) -> Pool:
    """A pool for frozen backbones around one of so many workers."""
    return Pool(open_others(workers))


def _key(config: TrainConfig) -> str:
    """Equal for runs whose batches are rows of the same features."""

    steps = (config.epochs, config.batch_size, config.unfreeze_at)
    return repr((config.data_options(), config.feature_settings(), steps))


class _Features:
    """The runs on the same features, a stack of them at a time.

    The runs of a cell share one model, which gets the values of a run when it is the run's turn, and so one
    compiled evaluation.

    Args:
        jobs: the runs.
    """

    def __init__(self, jobs: Sequence[Job]):
        from bnhead.training.build import Reuse

        worker.start_keras()
        self._jobs, self._first = jobs, Reuse(shares_backbone=True)
        self._of_cell: dict[str, Reuse] = {}
        self._weights: dict[str, int] = {}  # of a head of each cell; 0 if it cannot be stacked

    def run(self) -> Iterator[Event]:
        """Does the jobs and yields events; returns those that cannot be stacked."""
        alone: list[Job] = []
        chunk: list[Job] = []
        for job in self._jobs:
            try:
                weights = self._weights_of(job)
            except Exception as error:
                yield from (Event(job, "started", {}), Event(job, "failed", failure(error)))
                continue
            if not weights:
                alone.append(job)
                continue
            total = sum(map(self._weights_of, chunk)) + weights
            if chunk and (len(chunk) == MOST_RUNS or total > MOST_WEIGHTS):
                alone += yield from self._run_stack(chunk)
                chunk = []
            chunk.append(job)
        if chunk:
            alone += yield from self._run_stack(chunk)
        return alone

    def _weights_of(self, job: Job) -> int:
        """The number of weights of a run's head; 0, with a line on stderr, if it cannot be stacked."""
        if job.group not in self._weights:
            from bnhead.devices.replicas import Replicas
            from bnhead.frozen.stacked import obstacle
            from bnhead.training.run import prepare_training

            data = self._first.data(job.config)
            reuse = self._of_cell[job.group] = self._first.sibling()
            model = prepare_training(job.config, Replicas(), reuse).model
            reason = (
                "its loss is adjusted to the classes" if "compute_loss" in vars(model) else obstacle(model)
            )
            if not reason and not data.train.in_memory:
                reason = "its features are not in memory"
            if reason:
                texts.notice(f"{job.group} is trained alone: {reason}")
            self._weights[job.group] = 0 if reason else model.count_params()
        return self._weights[job.group]

    def _run_stack(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Trains the jobs together, and yields events; returns those that cannot join."""
        stacks = Stacks(self._first.data(jobs[0].config), jobs[0].config.batch_size)
        works = {}
        for job in jobs:
            yield Event(job, "started", {})
            works[job.id] = job, train_stacked(job.config, stacks, self._of_cell[job.group])
        alone = []
        with contextlib.ExitStack() as closing:
            for _, work in works.values():
                closing.callback(work.close)  # a study that is interrupted leaves no run locked
            while works:
                for key, (job, work) in list(works.items()):
                    try:
                        yield Event(job, "progress", next(work))
                        continue
                    except StopIteration as end:
                        if end.value is _ALONE:
                            alone.append(job)
                        else:
                            yield Event(job, "done", end.value)
                    except Exception as error:
                        yield Event(job, "failed", failure(error))
                    del works[key]
        return alone


class Stacks:
    """The heads that train together on the same features, all of them one epoch before any of them the next.

    Runs that were resumed may begin with different epochs; those of an epoch have a stack.

    Args:
        data: the features.
        batch_size: of a step.
    """

    def __init__(self, data: Any, batch_size: int):
        import numpy as np

        self._split, self._batch_size = data.train, batch_size
        self._passes = len(data.train.images) // data.train.size
        self._y = np.concatenate([data.train.labels] * self._passes)
        self._stacks: dict[int, Any] = {}  # first epoch -> stack
        self._seeds: dict[int, set[int]] = {}
        self._done: dict[
            int, tuple[int, list, float]
        ] = {}  # first epoch -> last epoch, its logs, seconds a head

    def join(self, model: Any, seed: int, epoch: int) -> int:
        """Adds a head that has done so many epochs, with the model's values; returns its number."""
        from bnhead.frozen.stacked import Stack

        if epoch not in self._stacks:
            self._stacks[epoch], self._seeds[epoch] = Stack(self._split.images, self._y), set()
        self._seeds[epoch].add(seed)
        return self._stacks[epoch].add(model, seed)

    def train(self, first: int, number: int, model: Any, epoch: int) -> tuple[dict[str, float], float]:
        """Trains the heads that began with epoch `first` for an epoch, if it is not done.

        Returns:
            The head's logs, and its share of the seconds. The model has the head's values.
        """
        if self._done.get(first, (-1,))[0] < epoch:
            steps = self._split.size // self._batch_size
            offset = epoch % self._passes * self._split.size
            orders = {
                seed: self._split.order(seed, epoch)[: steps * self._batch_size] + offset
                for seed in self._seeds[first]
            }
            begun = time.perf_counter()
            logs = self._stacks[first].epoch(orders, self._batch_size)
            self._done[first] = epoch, logs, (time.perf_counter() - begun) / len(logs)
        self._stacks[first].assign(number, model)
        _, logs, seconds = self._done[first]
        return logs[number], seconds


def train_stacked(config: TrainConfig, stacks: Stacks, reuse: Any) -> Iterator[dict[str, Any]]:
    """Does one run as `bnhead.training.train`, except the steps, which a stack computes.

    Args:
        config: the run's settings.
        stacks: of runs on the same features.
        reuse: of the run's cell.

    Yields:
        `share`, of the epochs that are done: after joining the stack, and after each epoch but the last.

    Returns:
        As `worker.train_one`; `_ALONE` for a run that was stopped within an epoch.
    """
    from bnhead.devices.replicas import Replicas
    from bnhead.runs.directory import RunDirectory
    from bnhead.training.choices import Choices
    from bnhead.training.feed import DataUsed
    from bnhead.training.result import measure_result, write_result
    from bnhead.training.run import prepare_training, restore_or_start
    from bnhead.training.signals import Pending
    from bnhead.training.state import Saver, watching
    from bnhead.training.watchers import Watchers

    settings, directory = config.settings(), RunDirectory(config.directory)
    begun = time.perf_counter()
    feed, model, probe, file, *_ = prepare_training(config, Replicas(), reuse)
    watchers = Watchers(config, directory, feed, model, probe, watched=False)
    with directory.claimed(settings) as result:
        if result is not None:
            return worker.outcome_of(result, directory)
        with directory.failure_recorded():
            data_used = DataUsed(feed)
            checkpoint = restore_or_start(directory, settings, data_used, model, Choices({}))
            first, within = divmod(checkpoint.step if checkpoint else 0, feed.steps)
            if within:
                return _ALONE
            callbacks = watchers.callbacks()
            stateful = [data_used, watchers.elapsed, *callbacks]
            saver = Saver(
                directory, settings, feed, stateful, checkpoint, Pending(),
                config.checkpoint_seconds, watchers.finite.check,
            )  # fmt: skip
            number = stacks.join(model, config.seed, first)
            relay = watching([*callbacks, saver], model, feed)
            relay.begin()
            spent = watchers.elapsed.seconds() if checkpoint else time.perf_counter() - begun
            tested = watchers.evaluation.keras_batches()
            for epoch in range(first, config.epochs):
                yield {"share": epoch / config.epochs}  # all join before the first trains
                model.stop_training = False  # the runs of a cell share it
                logs, seconds = stacks.train(first, number, model, epoch)
                spent, begun = spent + seconds, time.perf_counter()
                watchers.elapsed.resume({"seconds": spent})
                relay.on_epoch_begin(epoch)
                relay.on_train_batch_end(feed.steps - 1, logs)
                watchers.pace.spent(feed.steps, seconds)
                if tested is not None:
                    figures = model.evaluate(tested, verbose=0, return_dict=True)
                    logs |= {f"val_{name}": value for name, value in figures.items()}
                relay.on_epoch_end(epoch, logs)
                spent += time.perf_counter() - begun
                if model.stop_training:
                    break
            relay.end()
            result = measure_result(config, feed, model, watchers, data_used, saver.latest)
            write_result(directory, feed, file, watchers, result)
    return worker.outcome_of(result, directory)
