"""One training run, from the config to the run directory."""

import contextlib
import functools
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from bnhead.census import DeadUnits, count, keys
from bnhead.data import DataSet
from bnhead.data.checks import inspect
from bnhead.devices import environment
from bnhead.devices.replicas import Replicas, find
from bnhead.errors import CopyError, DataError, ResourcesError, RunDirectoryError, UsageError
from bnhead.graph import require_agreement
from bnhead.layers import plain, recompute_batch_stats
from bnhead.runs import atomic, checkpoints, lock
from bnhead.runs.checkpoints import Checkpoint
from bnhead.runs.directory import RunDirectory
from bnhead.training.best import Best, best_state
from bnhead.training.build import describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.failures import Finite, Learning, constant_loss, locate
from bnhead.training.feed import Feed
from bnhead.training.logs import Elapsed, HistoryFile, Pace, Scalars
from bnhead.training.reuse import Reuse
from bnhead.training.signals import deferred
from bnhead.training.state import Saver, captured, fit, restore
from bnhead.training.tasks import TASKS


def train(
    config: TrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reuse: Reuse | None = None,
) -> dict:
    """Trains one model and leaves a run directory.

    A run that is finished there is not done again. One that was stopped, in whatever way, goes on from its
    newest sound checkpoint, and on a CPU ends in the same bits as if it had never been stopped. SIGINT and
    SIGTERM end it after the step that is being done, with a checkpoint.

    Args:
        config: the run's settings.
        callbacks: Keras callbacks of the caller's own; they see all figures, those of dead units included,
            and of a run that goes on the rest alone. One that has `state() -> dict`, plain data for JSON, and
            `resume(dict)` goes on with the run (`state.Stateful`).
        reuse: keeps what the next run with it can use: the data and the traced graph.

    Returns:
        What `result.json` holds: `status` ("finished"; "diverged" when a loss or weight is not finite;
        "failed_to_learn" when the loss was never below the best constant answer's), `test_accuracy` (of a
        regression `test_r2` and `test_mae`) and `test_loss` after the last epoch, `dead/<layer>/...`
        (`Counts.figures`, with `inputs` and `bound`), the head's diagram, the number of parameters, the
        data's fingerprint; of a diverged run `failure` (`failures.locate`), with a validation split `best`.
        Figures that are not finite are NaN here and null in the file.

    Raises:
        UsageError: the config asks for a layer or a head that the net cannot have.
        DataError: the data set is not there, has fewer images than a batch, or is not the one that the run
            was begun on.
        RunDirectoryError: the directory holds another run or a result that was changed, is being written, or
            cannot be.
        ResourcesError: memory or disk is full; the run can go on.
        CopyError: the file of the trained model gives other outputs than the model; there is no result.
        Interrupted: by a signal; the run can go on.
    """
    if config.dry_run:
        raise UsageError("dry_run: train() does no dry run; rehearsal.rehearse(config) does")
    replicas = find(config)
    directory = replicas.directory(config.directory)
    with replicas.computing(), shortage_said(config), contextlib.ExitStack() as held:
        if (result := replicas.of_first(lambda: _checked(config, directory))) is not None:
            return result
        feed, data_used, model = prepared(config, replicas, reuse or Reuse())
        watchers = Watchers.of(config, directory, feed, model)
        if (result := replicas.of_first(lambda: _taken(config, directory, held))) is not None:
            return result  # of another process, meanwhile
        with _status_kept(directory), feed.data.naming_pictures():
            saved = _begin(config, directory, feed, model, data_used)
            stateful = [data_used, watchers.elapsed, *watchers.all(), *callbacks]
            with deferred() as pending:
                saver = Saver(directory, config, feed, stateful, saved, pending)
                step = saved.step if saved else 0
                fit(model, feed, [*watchers.all(), *callbacks, saver], step, feed.test())
            result = _result(config, feed, model, watchers, data_used, saver)
            if replicas.first:
                _keep(directory, feed, model, watchers, result)
            return result


def _checked(config: TrainConfig, directory: RunDirectory) -> dict | None:
    """The result of the run, if it is finished here; otherwise it is made sure that it may be here."""
    if not config.overwrite and (result := finished_result(config)) is not None:
        return result
    directory.check(config.settings(), overwrite=config.overwrite)
    return None


def _taken(config: TrainConfig, directory: RunDirectory, held: contextlib.ExitStack) -> dict | None:
    """As `_checked`, with the directory locked for as long as `held` lasts, and free for the run."""
    directory.make()
    stale = held.enter_context(lock.held(directory.path))
    directory.tidy()
    if stale:
        directory.say(f"process {stale['pid']} on {stale['host']} left {directory.path} unfinished")
    if (result := _checked(config, directory)) is not None:
        return result
    if config.overwrite and (removed := directory.clear()):
        directory.say(f"removed from {directory.path}: {', '.join(removed)}")
    return None


def finished_result(config: TrainConfig) -> dict | None:
    """The result of a run of exactly these settings that is finished in the config's directory, else None."""
    directory = RunDirectory(config.directory)
    if directory.read("config.json") != config.settings():
        return None
    result = directory.read("result.json")
    if result is None:
        return None
    if wrong := directory.changes().get("result.json"):
        raise RunDirectoryError(
            f"{directory.path / 'result.json'} {wrong}, so it is not the run's; --overwrite trains it again"
        )
    return {key: math.nan if value is None else value for key, value in result.items()}


class DataUsed:
    """The data of a run, and what tells them from all others: a run does not go on with other data.

    Attributes:
        checks: what the checks saw (`data.checks.inspect`).
    """

    def __init__(self, data: DataSet, batch_size: int):
        self._data = data
        self.checks = inspect(data, batch_size)

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split, by name."""
        data = self._data
        splits = {"train": data.train, "test": data.test, "validation": data.validation}
        return {name: split.fingerprint() for name, split in splits.items() if split is not None}

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"checks": self.checks, "fingerprints": self.fingerprints}

    def resume(self, state: dict) -> None:
        """Makes sure that the data are the same.

        The checks' summary says what differs; the fingerprints differ where no summary does, as when labels
        are swapped.

        Raises:
            DataError: they are not.
        """
        before, now = state["checks"], json.loads(json.dumps(self.checks))
        differ = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        differ += [
            f"what the {split} split holds"
            for split, digest in state["fingerprints"].items()
            if digest != self.fingerprints.get(split)
        ]
        if differ:
            raise DataError(
                f"the run began on other data, which differ in {', '.join(differ)}; it cannot go on with "
                "these (--overwrite removes it)"
            )


def prepared(config: TrainConfig, replicas: Replicas, reuse: Reuse) -> tuple[Feed, DataUsed, keras.Model]:
    """Opens and checks the config's data, and builds its model for the replicas; nothing is written.

    Raises:
        UsageError, DataError: as `train` does.
    """
    environment.prepare(config.deterministic)
    data = reuse.data(config)
    data_used = DataUsed(data, config.batch_size)
    feed = Feed.of(config, data, replicas)
    with replicas.building(), feed.data.naming_pictures():
        model = reuse.model(config, data)
        replicas.synchronize(model)
        _build_metrics(model, feed)
    return feed, data_used, model


def _build_metrics(model: keras.Model, feed: Feed) -> None:
    """Makes the metrics' variables, which a checkpoint restores; Keras makes them at the first batch."""
    # JAX, which has no 64-bit numbers unless it is told to, warns where one is asked for
    batch = tf.nest.map_structure(
        lambda x: tf.cast(x, tf.int32) if x.dtype == tf.int64 else x, feed.sample(2)
    )
    model._symbolic_build(data_batch=batch)  # Keras' own way, under tf.distribute and on JAX


@dataclass(frozen=True)
class Watchers:
    """The callbacks of every run.

    Attributes:
        elapsed: the run's time.
        finite: ends a run that diverges.
        dead_units: the census of each epoch; its figures are among the others, in `scalars`.
        pace: learning rate and images per second.
        best: keeps the best epoch; None without a validation split.
        history: `history.csv`.
        learning: ends a run that does not learn.
        scalars: TensorBoard's; None in all processes but the first.
        diagram: the head's.
    """

    elapsed: Elapsed
    finite: Finite
    dead_units: DeadUnits
    pace: Pace
    best: Best | None
    history: HistoryFile
    learning: Learning
    scalars: Scalars | None
    diagram: str

    @classmethod
    def of(cls, config: TrainConfig, directory: RunDirectory, feed: Feed, model: keras.Model) -> "Watchers":
        """Those of a config's run.

        Raises:
            UsageError: the net has no layer that is to be counted.
        """
        writes = feed.replicas.first
        units = f"{config.directory}/tensorboard/units" if writes else None
        dead_units = DeadUnits(feed.probe(), counted_layers(config), log_dir=units, log_scalars=False)
        dead_units.set_model(model)  # a layer that is not there is said before anything is written
        best = None
        if feed.data.validation is not None:
            best = Best(feed.validation(), TASKS[config.task].primary, directory, config.settings())
        history = HistoryFile(directory)
        constant = constant_loss(config.task, feed.data, config.mixup)
        diagram = describe_head(config, model)
        about = f"`{config.backbone}`, head `{config.head}`: {diagram}"
        return cls(
            Elapsed(),
            Finite(),
            dead_units,
            Pace(config.batch_size),
            best,
            history,
            Learning(constant, config.learn_within, history.losses),
            Scalars(directory, about, histograms=config.weight_histograms) if writes else None,
            diagram,
        )

    def all(self) -> list[keras.callbacks.Callback]:
        """In the order in which they see an epoch: figures first, then what writes or judges them."""
        several = [
            self.finite,
            self.dead_units,
            self.pace,
            self.best,
            self.history,
            self.learning,
            self.scalars,
        ]
        return [one for one in several if one is not None]


def counted_layers(config: TrainConfig) -> list[str] | None:
    """Names of the layers whose dead units are counted; None for the head's."""
    return config.dead_layers.split(",") if config.dead_layers else None


def _begin(
    config: TrainConfig,
    directory: RunDirectory,
    feed: Feed,
    model: keras.Model,
    data_used: DataUsed,
) -> Checkpoint | None:
    """Readies directory and model; returns the checkpoint that the run goes on from, if there is one."""
    now, replicas = {**environment.environment(), **feed.replicas.describe()}, feed.replicas
    saved, complaints = _newest(directory, config.settings(), replicas)
    if saved is not None:
        data_used.resume(saved.records["DataUsed"])
        try:
            restore(model, saved.arrays)
        except ValueError as error:
            complaints.append(f"the checkpoint at step {saved.step} is not used: {error}")
            saved = None
    before = directory.read("environment.json") if saved else None
    if saved is None:
        directory.begin(config.settings())
        recompute_batch_stats(model, feed.raw_epoch(), "frozen")
        if replicas.first:
            checkpoints.set_aside(directory)
        if complaints:
            complaints.append(f"{directory.path} starts again from the beginning")
    else:
        if before and (other := environment.changed(before, now)):
            complaints.append(f"{directory.path} goes on, but not on what it began on: {other}")
        complaints.append(f"{directory.path} goes on after step {saved.step} of {feed.epochs * feed.steps}")
    for complaint in complaints:
        directory.say(complaint)
    step = saved.step if saved else 0
    sessions = [*(before or {}).get("sessions", []), {"started": now["started"], "step": step}]
    directory.write("environment.json", {**(before or now), "sessions": sessions})
    directory.write("status.json", {"status": "running"})
    return saved


def _newest(
    directory: RunDirectory, settings: dict, replicas: Replicas
) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint that the first process sees, and what is to be said of others."""
    complaints: list[str] = []

    def content() -> bytes:
        checkpoint, said = checkpoints.newest(directory, settings)
        complaints.extend(said)
        return checkpoints.encode(checkpoint) if checkpoint else b""

    encoded = replicas.bytes_of_first(content)
    return (checkpoints.decode(encoded) if encoded else None), complaints


def _result(
    config: TrainConfig, feed: Feed, model: keras.Model, watchers: Watchers, data_used: DataUsed, saver: Saver
) -> dict:
    """The figures that a run ends with."""
    rows, census = watchers.history.rows, watchers.dead_units.census
    status = "finished"
    if watchers.finite.broken or watchers.learning.failed:
        status = "diverged" if watchers.finite.broken else "failed_to_learn"
    tested = {key: value for key, value in rows[-1].items() if key.startswith("test_")}
    if config.recompute_batch_stats != "none" and status != "diverged":
        recompute_batch_stats(model, feed.raw_epoch(), config.recompute_batch_stats)
        tested = _evaluated(model, feed.test(), "test")
        census = count(model, feed.probe(), counted_layers(config))
    validated = {}
    if feed.data.validation is not None:
        validated = _evaluated(model, feed.validation(), "validation")
    primary = f"test_{TASKS[config.task].primary}"
    result = {
        "status": status,
        "epochs": len(rows),
        primary: tested.pop(primary),
        **tested,
        **{
            keys.key(name, figure): value
            for name, counts in census.layers.items()
            for figure, value in {
                **counts.figures(),
                "inputs": counts.inputs,
                "bound": counts.bound,
            }.items()
        },
        "parameters": model.count_params(),
        "replicas": feed.replicas.number,
        "batch_norm_examples": feed.replicas.batch_norm_examples(config.batch_size),
        "data": {
            "name": feed.data.name,
            "train": feed.data.train.size,
            "test": feed.data.test.size,
            "train_sha256": data_used.fingerprints["train"],
            "test_sha256": data_used.fingerprints["test"],
            "checks": data_used.checks,
        },
        **validated,
        "head": watchers.diagram,
    }
    if watchers.finite.broken:
        result["failure"] = locate(model, saver.latest.arrays, feed, saver.latest.step)
    if watchers.best and watchers.best.record:
        epoch = watchers.best.record["epoch"]
        figures = {k: v for k, v in rows[epoch - 1].items() if k.startswith(("validation_", "test_"))}
        result["best"] = {"epoch": epoch} | figures
    return result


def _evaluated(model: keras.Model, data: tf.data.Dataset, split: str) -> dict:
    figures = model.evaluate(data, verbose=0, return_dict=True)
    return {f"{split}_{name}": value for name, value in figures.items()}


def _keep(directory: RunDirectory, feed: Feed, model: keras.Model, watchers: Watchers, result: dict) -> None:
    """Writes the models and the result, with which the run is finished."""
    with feed.replicas.alone():
        if watchers.best and watchers.best.record:
            last = captured(model)
            try:
                restore(model, best_state(directory).arrays)
            except (OSError, ValueError) as error:
                directory.say(f"there is no best.keras in {directory.path}: {error}")
            else:
                _save(directory, feed, model, "best.keras")
            restore(model, last)
        _save(directory, feed, model, "model.keras")
    recorded = directory.read("environment.json")
    directory.write("environment.json", {**recorded, "seconds": round(watchers.elapsed.seconds(), 2)})
    directory.finish(result)


def _save(directory: RunDirectory, feed: Feed, model: keras.Model, name: str) -> None:
    """Writes the model in plain Keras layers, once the file has been loaded and gives the model's outputs.

    Raises:
        CopyError: the file cannot be loaded, or gives other outputs on the first test images. It is not kept;
            the checkpoints are.
    """

    def write(path: pathlib.Path) -> None:
        plain(model, compare=False).save(path)  # what is compared is what is in the file
        try:
            saved = keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CopyError(f"{directory.path / name} cannot be loaded: {reason}") from error
        inputs, _ = feed.sample(8)
        require_agreement(model, saved, inputs, name=f"{directory.path / name}, the file")

    directory.replace(name, write)


@contextlib.contextmanager
def _status_kept(directory: RunDirectory) -> Iterator[None]:
    """Leaves in `status.json` how a run ended that did not end in a result."""
    ended: dict = {}
    try:
        yield
    except KeyboardInterrupt:
        ended = {"status": "interrupted"}
        raise
    except BaseException as error:
        ended = {"status": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        raise
    finally:
        if ended:
            with contextlib.suppress(RunDirectoryError, ResourcesError):  # it must not hide what happened
                directory.write("status.json", ended)


@contextlib.contextmanager
def shortage_said(config: TrainConfig) -> Iterator[None]:
    """Turns the many ways in which memory and disks say that they are full into one error."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError, OSError, RuntimeError) as error:
        if isinstance(error, ResourcesError):
            raise
        if getattr(error, "errno", None) in atomic.FULL or "No space left" in str(error):
            raise ResourcesError(
                f"workdir {config.directory}: the disk is full; the run can go on"
            ) from error
        if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)) or "RESOURCE_EXHAUSTED" in str(
            error
        ):
            raise ResourcesError(
                f"out of memory with batch_size {config.batch_size}; a smaller --batch_size needs less, and "
                "so does --mixed_precision"
            ) from error
        raise
