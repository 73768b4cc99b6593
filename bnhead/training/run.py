"""One training run, from the config to the run directory."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras

from bnhead.census import Probe
from bnhead.devices.environment import describe_environment, prepare_devices
from bnhead.devices.replicas import Replicas, open_replicas
from bnhead.errors import UsageError
from bnhead.heads import inference
from bnhead.layers import at_route, neutralise, recompute_batch_stats
from bnhead.layers.population import is_frozen
from bnhead.runs.checkpoints import Checkpoint, newest_checkpoint, set_checkpoints_aside
from bnhead.runs.directory import RunDirectory
from bnhead.runs.provenance import environment_changes
from bnhead.training import pace
from bnhead.training.build import Reuse
from bnhead.training.choices import Choices, choose, is_open
from bnhead.training.config import TrainConfig
from bnhead.training.failures import shortage_as_error
from bnhead.training.feed import DataUsed, Feed
from bnhead.training.model_file import ModelFile
from bnhead.training.result import measure_result, write_result
from bnhead.training.run_result import RunResult
from bnhead.training.signals import deferred
from bnhead.training.stages import first_head, frozen_stage, go_on
from bnhead.training.state import Saver, fit, restore
from bnhead.training.watchers import Watchers


def train(
    config: TrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    reuse: Reuse | None = None,
) -> RunResult:
    """Trains one model and leaves a run directory.

    A finished run is not repeated; its result is returned. An interrupted run resumes from its newest sound
    checkpoint and on a CPU ends in the same bits as an uninterrupted one. SIGINT and SIGTERM end a run after
    the current step, with a checkpoint.

    Args:
        config: the run's settings.
        callbacks: further Keras callbacks. They see all figures, including those of dead units, of a resumed
            run only the remaining steps, and both stages of a run with two. The state of one with `state() ->
            dict`, plain data for JSON, and `resume(dict)` is saved and restored (`state.Stateful`).
        reuse: keeps the data and the traced graph for the next run of a study.

    Returns:
        The content of `result.json`, which prints the terminal's summary and shows itself in a notebook:
        `status` ("finished"; "diverged" if a loss or weight is not finite;
        "failed_to_learn" if the loss was never below that of the best constant answer), `test_accuracy` (for
        regression `test_r2` and `test_mae`) and `test_loss` after the last epoch, `dead/<layer>/...`
        (`Counts.figures`, `inputs` and `bound`), the head's diagram, the number of parameters, the data's
        fingerprint; for a diverged run `failure` (`failures.locate`), with a validation split `best`.
        Figures that are not finite are NaN here and null in the file.

    Raises:
        UsageError: the config asks for a layer or a head that the net cannot have.
        DataError: the data set is missing, is smaller than a batch, or is not that of the run's first steps.
        RunDirectoryError: the directory holds another run or a changed result, is in use, or is not writable.
        ResourcesError: memory or disk is full; the run can be resumed.
        CopyError: the file of the trained model gives other outputs than the model; the run has no result.
        Interrupted: by a signal; the run can be resumed.
    """
    if config.dry_run:
        raise UsageError("dry_run: train() does no dry run; estimate.estimate(config) does")
    settings, overwrite = config.settings(), config.overwrite
    replicas = open_replicas(
        config.distribution, config.batch_size, sync_bn=config.sync_bn, ghost_sizes=config.ghost_sizes
    )
    directory = replicas.processes.directory(config.directory)
    with replicas.computing(), shortage_as_error(config.directory, config.batch_size):
        if (result := directory.admit(settings, overwrite=overwrite)) is not None:
            return RunResult(result, config)
        if config.unfreeze_at:
            train(frozen_stage(config), callbacks, reuse and reuse.stage())
        recorded = {} if overwrite else (directory.read("environment.json") or {}).get("choices", {})
        prepared = prepare_training(config, replicas, reuse or Reuse(), recorded)
        feed, model, probe, file, choices, make_head = prepared
        watchers = Watchers(config, directory, feed, model, probe, watched=reuse is None)
        with directory.claimed(settings, overwrite=overwrite) as result:
            if result is not None:  # another process has finished the run in the meantime
                return RunResult(result, config)
            with directory.failure_recorded(), feed.data.naming_pictures():
                data_used = DataUsed(feed)
                for line in choices.lines:
                    directory.log(line)
                checkpoint = restore_or_start(directory, settings, data_used, model, choices)
                if config.unfreeze_at and checkpoint is None:
                    go_on(directory, make_head(), feed, model, watchers)
                callbacks = [*watchers.callbacks(), *callbacks]
                stateful = [data_used, watchers.elapsed, *callbacks]
                seconds, check = config.checkpoint_seconds, watchers.finite.check
                with deferred(directory.log) as pending:
                    saver = Saver(directory, settings, feed, stateful, checkpoint, pending, seconds, check)
                    step = checkpoint.step if checkpoint else feed.first_step
                    fit(model, feed, [*callbacks, saver], step, watchers.evaluation.keras_batches())
                result = measure_result(config, feed, model, watchers, data_used, saver.latest)
                write_result(directory, feed, file, watchers, result)
                return RunResult(result, config)


class Prepared(NamedTuple):
    """The parts of a run's training.

    Attributes:
        feed: its batches.
        model: the compiled model, with its initial values.
        probe: counts the model's units.
        file: writes the model's file.
        choices: the settings that the config leaves to a measurement.
        make_head: makes the model of the frozen stage of a run with two.
    """

    feed: Feed
    model: keras.Model
    probe: Probe
    file: ModelFile
    choices: Choices
    make_head: Callable[[], keras.Model]


def prepare_training(
    config: TrainConfig, replicas: Replicas, reuse: Reuse, recorded: Mapping[str, Any] = MappingProxyType({})
) -> Prepared:
    """Opens and checks the data, chooses open settings, builds the model for the replicas. Writes nothing.

    Args:
        config: the run's settings.
        replicas: the devices.
        reuse: keeps the data, the choices, and the model with its compiled functions.
        recorded: the fields of the choices that the run has recorded, which are not made again.

    Raises:
        UsageError, DataError: as `train`.
    """
    prepare_devices(deterministic=config.deterministic)
    feed = Feed.of(config, reuse.data(config), replicas, reuse.checks(config))
    if config.adaptation not in ("none", "source"):
        feed.target_batches()  # raises if there are too few

    def build(settings: TrainConfig) -> keras.Model:
        with replicas.building():
            model = reuse.model(settings, feed.data)
            replicas.synchronize(model)
            feed.build_metrics(model)
        return model

    with feed.data.naming_pictures():
        choices = Choices(recorded)
        config = choices.of(config)
        if is_open(config):
            steps = feed.epochs * feed.steps
            choices = choose(config, steps, lambda c: pace.of_training(build(c), feed), reuse.chosen)
        model = build(choices.of(config))
    probe, file = reuse.keep(model, feed.data, config.dead_layers)
    return Prepared(feed, model, probe, file, choices, functools.partial(first_head, config, reuse.stage()))


def restore_or_start(
    directory: RunDirectory, settings: dict, data_used: DataUsed, model: keras.Model, choices: Choices
) -> Checkpoint | None:
    """Restores the newest sound checkpoint and returns it; without one, starts the run and returns None."""
    feed = data_used.feed
    current = {**describe_environment(), **feed.replicas.describe()}
    if choices.fields:
        current["choices"] = choices.fields
    checkpoint, messages = newest_checkpoint(directory, settings)
    if checkpoint is not None:
        data_used.resume(checkpoint.records["DataUsed"])
        try:
            restore(model, checkpoint.arrays)
        except ValueError as error:
            messages.append(f"the checkpoint at step {checkpoint.step} is not used: {error}")
            checkpoint = None
    recorded = directory.read("environment.json") if checkpoint else None
    if checkpoint is None:
        directory.begin(settings)
        if any(map(is_frozen, model._flatten_layers())):
            recompute_batch_stats(model, feed.raw_epoch(), "frozen")
        if settings["neutral_init"]:
            # with an adjusted loss the sum of logits and adjustment is to have the prior
            prior = feed.prior_logits() * (1 - settings["logit_adjustment"])
            # these batches are those of route 0, the clean images or the source
            neutralise(at_route(inference(model), 0), feed.raw_epoch(), prior)
        set_checkpoints_aside(directory)
        if messages:
            messages.append(f"{directory.path} starts again from the beginning")
    else:
        if recorded and (changes := environment_changes(recorded, current)):
            messages.append(f"{directory.path} goes on, but not on what it began on: {changes}")
        messages.append(
            f"{directory.path} goes on after step {checkpoint.step} of {feed.epochs * feed.steps}"
        )
    for message in messages:
        directory.log(message)
    step = checkpoint.step if checkpoint else 0
    sessions = [*(recorded or {}).get("sessions", []), {"started": current["started"], "step": step}]
    directory.write("environment.json", {**(recorded or current), "sessions": sessions})
    directory.write("status.json", {"status": "running"})
    return checkpoint
