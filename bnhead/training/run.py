"""One training run, from the config to the run directory."""

import contextlib
import functools
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from bnhead import files, keys
from bnhead.census import Census, DeadUnits, count
from bnhead.data import DataSet
from bnhead.data.checks import inspect
from bnhead.errors import CopyError, DataError, ResourcesError, RunDirectoryError, UsageError
from bnhead.graph import require_agreement
from bnhead.layers import plain, recompute_batch_stats
from bnhead.training import checkpoints, distribution, environment, feeding, lock
from bnhead.training.best import Best, best_state
from bnhead.training.building import build, describe_head
from bnhead.training.checkpoints import Checkpoint
from bnhead.training.config import TrainConfig
from bnhead.training.distribution import Replicas
from bnhead.training.failures import Finite, Learning, constant_loss, locate
from bnhead.training.interruption import deferred
from bnhead.training.logs import HistoryFile, Pace, Scalars, cut_events, event_sizes
from bnhead.training.records import RunDirectory
from bnhead.training.state import Saver, captured, fit, restore
from bnhead.training.tasks import TASKS
from bnhead.training.workshop import Workshop


def train(
    config: TrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workshop: Workshop | None = None,
) -> dict:
    """Trains one model and leaves a run directory.

    A run that is finished there is not done again. One that was stopped, in whatever way, goes on from its
    newest sound checkpoint, and on a CPU ends in the same bits as if it had never been stopped. SIGINT and
    SIGTERM end it after the step that is being done, with a checkpoint.

    Args:
        config: the run's settings.
        callbacks: Keras callbacks of the caller's own; they see all figures, those of dead units included,
            and of a run that goes on the rest alone.
        workshop: keeps what the next run with it can use: data, and on a CPU the traced graph.

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
    replicas = distribution.find(config)
    directory = replicas.directory(config.directory)
    with replicas.computing(), shortage_said(config), contextlib.ExitStack() as held:
        if (result := replicas.of_first(lambda: _checked(config, directory))) is not None:
            return result
        parts = assemble(config, replicas, workshop or Workshop())
        if (result := replicas.of_first(lambda: _taken(config, directory, held))) is not None:
            return result  # of another process, meanwhile
        with _status_kept(directory), feeding.pictures_named(parts.dataset):
            return _do(config, directory, parts, callbacks)


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
        _say(f"process {stale['pid']} on {stale['host']} left {directory.path} unfinished")
    if (result := _checked(config, directory)) is not None:
        return result
    if config.overwrite and (removed := directory.clear()):
        _say(f"removed from {directory.path}: {', '.join(removed)}")
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


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        dataset: the data set.
        checked: what its checks found (`data.checks.inspect`).
        model: the compiled model, with its initial weights.
        feed: its training batches.
        dead_units: the census of each epoch; its figures are among the others, in `Scalars`.
        replicas: the copies of the model, and which process this is.
    """

    dataset: DataSet
    checked: dict
    model: keras.Model
    feed: feeding.Feed
    dead_units: DeadUnits
    replicas: Replicas

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return self.checked["batches"]["steps"]

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split, by name."""
        data = self.dataset
        splits = {"train": data.train, "test": data.test, "validation": data.validation}
        return {name: split.fingerprint() for name, split in splits.items() if split is not None}


def assemble(config: TrainConfig, replicas: Replicas, workshop: Workshop) -> Parts:
    """Opens and checks the config's data, and builds its model for the replicas; nothing is written.

    Raises:
        UsageError, DataError: as `train` does.
    """
    environment.prepare(config.deterministic)
    dataset = workshop.data(config, feeding.open_data)
    checked = inspect(dataset, config.batch_size)
    with replicas.building(), feeding.pictures_named(dataset):
        model = workshop.model(config, dataset, build)
        replicas.synchronize(model)
        feeding.build_metrics(model, config, dataset)
    dead_units = DeadUnits(
        feeding.probe(config, dataset),
        counted_layers(config),
        log_dir=f"{config.directory}/tensorboard/units" if replicas.first else None,
        log_scalars=False,
    )
    dead_units.set_model(model)  # a layer that is not there is said before anything is written
    feed = feeding.training(config, dataset, replicas)
    return Parts(dataset, checked, model, feed, dead_units, replicas)


def _do(
    config: TrainConfig,
    directory: RunDirectory,
    parts: Parts,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict:
    """Does a run, or what is left of it, and returns its result."""
    dataset, model, dead_units, replicas = parts.dataset, parts.model, parts.dead_units, parts.replicas
    diagram = describe_head(config, model)
    saved = _begun(config, directory, parts)
    if saved is not None:
        dead_units.resume(saved.records["dead_units"])
    start = time.perf_counter() - (saved.records["seconds"] if saved else 0)
    history = HistoryFile(directory, saved.records["rows"] if saved else [])
    finite = Finite()
    learning = Learning(
        constant_loss(config.task, dataset, config.mixup), config.learn_within, history.losses
    )
    best = _best(config, directory, parts, saved)
    events = str(directory.path / "tensorboard")
    about = "" if saved else f"`{config.backbone}`, head `{config.head}`: {diagram}"
    scalars = [Scalars(events, about, histograms=config.weight_histograms)] if replicas.first else []

    def records() -> dict:
        return {
            "seconds": time.perf_counter() - start,
            "rows": history.rows,
            "dead_units": dead_units.state(),
            "events": event_sizes(directory.path / "tensorboard"),
            "best": best.record if best else {},
            "data": parts.checked,
            "fingerprints": parts.fingerprints,
        }

    with deferred() as pending:
        saver = Saver(
            directory if replicas.first else None,
            config.settings(),
            parts.steps,
            config.epochs,
            config.checkpoint_seconds,
            records,
            saved,
            pending,
        )
        pace = Pace(config.batch_size)
        watching = [finite, dead_units, pace, *([best] if best else []), history, learning, *scalars]
        fit(
            model,
            parts.feed,
            feeding.evaluation(config, dataset, dataset.test, replicas),
            [*watching, *callbacks, saver],
            step=saved.step if saved else 0,
            steps=parts.steps,
            epochs=config.epochs,
        )
    status = "diverged" if finite.broken else "failed_to_learn" if learning.failed else "finished"
    result = {"status": status, "epochs": len(history.rows)}
    result |= _outcome(config, parts, history.rows[-1], dead_units.census, status)
    result["head"] = diagram
    if finite.broken:
        result["failure"] = _located(config, parts, saver.latest)
    if best and best.record:
        result["best"] = _best_figures(best.record, history.rows)
    if not replicas.first:
        return result
    with replicas.alone():
        if best and best.record:
            _save_best(config, directory, parts)
        _save(config, directory, parts, "model.keras")
    done = {**directory.read("environment.json"), "seconds": round(time.perf_counter() - start, 2)}
    directory.write("environment.json", done)
    directory.finish(result)
    return result


def _located(config: TrainConfig, parts: Parts, latest: Checkpoint) -> dict:
    """Where a run broke, found again from its latest checkpoint; on one device also in which layer."""

    def examples(epoch: int, step: int) -> tf.data.Dataset:
        return feeding.examples(config, parts.dataset, epoch, step)

    return locate(
        parts.model,
        latest.arrays,
        parts.feed,
        examples if parts.replicas.number == 1 else None,
        step=latest.step,
        steps=parts.steps,
        epochs=config.epochs,
    )


def _begun(config: TrainConfig, directory: RunDirectory, parts: Parts) -> Checkpoint | None:
    """Readies directory and model; returns the checkpoint that the run goes on from, if there is one."""
    now, settings = {**environment.environment(), **parts.replicas.describe()}, config.settings()
    complaints: list[str] = []

    def newest() -> bytes:
        found, said = checkpoints.newest(directory, settings)
        complaints.extend(said)
        return checkpoints.encode(found) if found else b""

    content = parts.replicas.bytes_of_first(newest)
    saved = checkpoints.decode(content) if content else None
    if saved is not None:
        _check_same_data(saved, parts, directory)
        try:
            restore(parts.model, saved.arrays)
        except ValueError as error:
            complaints.append(f"the checkpoint at step {saved.step} is not used: {error}")
            saved = None
    before = directory.read("environment.json") if saved else None
    if saved is None:
        directory.begin(settings)
        recompute_batch_stats(parts.model, feeding.one_epoch(config, parts.dataset), "frozen")
    if not parts.replicas.first:
        return saved
    if saved is None:
        checkpoints.set_aside(directory)
        if complaints:
            complaints.append(f"{directory.path} starts again from the beginning")
    else:
        complaints += cut_events(directory.path / "tensorboard", saved.records["events"])
        if before and (other := environment.changed(before, now)):
            complaints.append(f"{directory.path} goes on, but not on what it began on: {other}")
        complaints.append(
            f"{directory.path} goes on after step {saved.step} of {config.epochs * parts.steps}"
        )
    for complaint in complaints:
        _say(complaint)
    sessions = [
        *(before or {}).get("sessions", []),
        {"started": now["started"], "step": saved.step if saved else 0},
    ]
    directory.write("environment.json", {**(before or now), "sessions": sessions})
    directory.write("status.json", {"status": "running"})
    return saved


def _check_same_data(saved: Checkpoint, parts: Parts, directory: RunDirectory) -> None:
    """Raises DataError where the data of a run that goes on are not those that it was begun on.

    The checks' summary says what differs; the fingerprints differ where no summary does, as when labels are
    swapped.
    """
    before, now = saved.records["data"], json.loads(json.dumps(parts.checked))
    known = saved.records.get("fingerprints", {})
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    keys += [
        f"what the {split} split holds" for split in known if known[split] != parts.fingerprints.get(split)
    ]
    if keys:
        raise DataError(
            f"workdir {directory.path} holds a run on other data, which differ in {', '.join(keys)}; it "
            "cannot go on with these (--overwrite removes it)"
        )


def counted_layers(config: TrainConfig) -> list[str] | None:
    """Names of the layers whose dead units are counted; None for the head's."""
    return config.dead_layers.split(",") if config.dead_layers else None


def _best(
    config: TrainConfig, directory: RunDirectory, parts: Parts, saved: Checkpoint | None
) -> Best | None:
    if parts.dataset.validation is None:
        return None
    held_out = feeding.evaluation(config, parts.dataset, parts.dataset.validation, parts.replicas)
    best = Best(held_out, TASKS[config.task].primary, directory, config.settings())
    best.record = dict(saved.records["best"]) if saved else {}
    return best


def _best_figures(record: dict, rows: list[dict]) -> dict:
    """The best epoch, and its figures of the splits that were evaluated."""
    row = rows[record["epoch"] - 1]
    return {"epoch": record["epoch"]} | {
        key: value for key, value in row.items() if key.startswith(("validation_", "test_"))
    }


def _save(config: TrainConfig, directory: RunDirectory, parts: Parts, name: str) -> None:
    """Writes the model in plain Keras layers, once the file has been loaded and gives the model's outputs.

    Raises:
        CopyError: the file cannot be loaded, or gives other outputs on the first test images. It is not kept;
            the checkpoints are.
    """
    images = parts.dataset.test.evaluation_batches(8, 8)
    inputs, _ = next(iter(feeding.as_targets(config, parts.dataset, images)))

    def write(path: pathlib.Path) -> None:
        plain(parts.model).save(path)
        try:
            saved = keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CopyError(f"{directory.path / name} cannot be loaded: {reason}") from error
        require_agreement(parts.model, saved, inputs, name=f"{directory.path / name}, the file")

    directory.replace(name, write)


def _save_best(config: TrainConfig, directory: RunDirectory, parts: Parts) -> None:
    """Writes `best.keras`; the model is left as it was."""
    model, last = parts.model, captured(parts.model)
    try:
        restore(model, best_state(directory).arrays)
    except (OSError, ValueError) as error:
        _say(f"there is no best.keras in {directory.path}: {error}")
        return
    _save(config, directory, parts, "best.keras")
    restore(model, last)


def _outcome(config: TrainConfig, parts: Parts, row: dict, census: Census, status: str) -> dict:
    """The figures that a run ends with, `row` being those of its last epoch."""
    dataset, model = parts.dataset, parts.model
    tested = {key: value for key, value in row.items() if key.startswith("test_")}
    if config.recompute_batch_stats != "none" and status != "diverged":
        recompute_batch_stats(model, feeding.one_epoch(config, dataset), config.recompute_batch_stats)
        tested = _evaluated(config, parts, "test")
        census = count(model, feeding.probe(config, dataset), counted_layers(config))
    counted = {
        keys.key(name, figure): value
        for name, counts in census.layers.items()
        for figure, value in {**counts.figures(), "inputs": counts.inputs, "bound": counts.bound}.items()
    }
    first = f"test_{TASKS[config.task].primary}"
    return {
        first: tested.pop(first),
        **tested,
        **counted,
        "parameters": model.count_params(),
        "replicas": parts.replicas.number,
        "batch_norm_examples": parts.replicas.batch_norm_examples(config.batch_size),
        "data": {
            "name": dataset.name,
            "train": dataset.train.size,
            "test": dataset.test.size,
            "train_sha256": parts.fingerprints["train"],
            "test_sha256": parts.fingerprints["test"],
            "checks": parts.checked,
        },
        **(_evaluated(config, parts, "validation") if dataset.validation is not None else {}),
    }


def _evaluated(config: TrainConfig, parts: Parts, split: str) -> dict:
    data = feeding.evaluation(config, parts.dataset, getattr(parts.dataset, split), parts.replicas)
    figures = parts.model.evaluate(data, verbose=0, return_dict=True)
    return {f"{split}_{name}": value for name, value in figures.items()}


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
        if getattr(error, "errno", None) in files.FULL or "No space left" in str(error):
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


def _say(line: str) -> None:
    print(f"bnhead: {line}", file=sys.stderr, flush=True)
