"""Two stages of a training: the head on a frozen backbone, then the whole net from the head's weights.

With `--unfreeze_at=5` the first five epochs are a separate run, with `--freeze_backbone`, in the folder
`frozen` of the run's directory. Then the whole net trains, with its own warm-up and cosine, and its backbone
at `backbone_rate` times the learning rate. Epochs count on: history and best epoch are of both stages, and
the order of an epoch is that of a run in one stage. The first stage is finished before the second begins,
so a run resumes in either as any run does.

Reference: Howard & Gugger 2020, arXiv 2002.04688, section 3.2: fastai's `fine_tune` has these stages.
"""

import dataclasses
import pathlib
import shutil

import keras

from bnhead.heads import parse
from bnhead.layers import recompute_batch_stats
from bnhead.mechanisms.figures import check_groups
from bnhead.runs.checkpoints import newest_checkpoint
from bnhead.runs.directory import FROZEN, RunDirectory
from bnhead.runs.history import read_history
from bnhead.training.build import Reuse, build_model
from bnhead.training.config import TrainConfig
from bnhead.training.feed import Feed
from bnhead.training.state import restore, variables
from bnhead.training.watchers import Watchers


def frozen_stage(config: TrainConfig) -> TrainConfig:
    """The config of the first stage of a run: the head on the features of the frozen backbone."""
    augmented = config.feature_passes > 1
    head = config.head
    if config.insert_bn:
        words = [word for word in config.parsed_head.words if word != "bn"]
        head = parse("_".join(words) or "out").text
    counted = [name for name in config.dead_layers.split(",") if name.startswith("head_")]
    return dataclasses.replace(
        config,
        head=head,
        workdir=str(pathlib.Path(config.directory) / FROZEN),
        epochs=config.unfreeze_at,
        freeze_backbone=True,
        augment=config.augment if augmented else "none",
        cutout=config.cutout if augmented else 0,
        dead_layers=",".join(counted),
        mixup=0.0,
        measure="initial" if {"initial", "guess"} & {*check_groups(config.measure)} else "",
        robustness=False,
        learn_within=0,  # the second stage is judged
        recompute_batch_stats="none",
        **{name: getattr(TrainConfig, name) for name in ("unfreeze_at", "backbone_rate", "backbone_bn")},
        **{name: False for name in ("insert_bn", "population_stats", "without_norms")},
    )


def first_head(config: TrainConfig, reuse: Reuse) -> keras.Model:
    """The model that the first stage of a run trains, with its initial values.

    Args:
        config: of the run.
        reuse: keeps the features of the first stage.
    """
    stage = frozen_stage(config)
    return build_model(stage, reuse.data(stage))


def go_on(
    directory: RunDirectory, head: keras.Model, feed: Feed, model: keras.Model, watchers: Watchers
) -> None:
    """Begins the second stage: the head's values, the history and the best epoch are those of the first.

    Batch norms that the first stage did not have change no output in evaluation yet (`heads.insert_bn`).

    Args:
        directory: of a run whose first stage is finished.
        head: the model of the first stage, with any values.
        feed: the run's batches, of images.
        model: the whole net.
        watchers: the run's callbacks.
    """
    stage = RunDirectory(directory.path / FROZEN)
    checkpoint, _ = newest_checkpoint(stage, stage.read("config.json"))
    if checkpoint is not None:  # else the first stage diverged at once
        restore(head, {name: checkpoint.arrays[name] for name in variables(head)})  # metrics follow them
    for layer in (layer for layer in head.layers if layer.variables):
        for variable, value in zip(model.get_layer(layer.name).variables, layer.variables, strict=True):
            variable.assign(value)
    trained = {layer.name for layer in head.layers}
    new = [layer for layer in model.layers if layer.name.startswith("head_bn") and layer.name not in trained]
    for norm in new:  # one after the other: those before are the identity already
        recompute_batch_stats(model, feed.raw_epoch(), [norm.name])
        norm.gamma.assign(keras.ops.sqrt(norm.moving_variance + norm.epsilon))
        norm.beta.assign(keras.ops.copy(norm.moving_mean))  # JAX donates both to the step
    watchers.history.rows = read_history(stage.path)
    if checkpoint is not None and (guess := checkpoint.records.get("Measure")):
        watchers.measure.set_model(model)
        watchers.measure.resume(guess)
    best = (stage.read("result.json") or {}).get("best")
    if watchers.best and best:
        value = best[f"validation_{watchers.best.primary}"]
        watchers.best.record = {"epoch": best["epoch"], "value": value}


def copy_best(directory: RunDirectory) -> None:
    """Writes the model of the first stage's best epoch, a whole net, as the run's."""
    source = directory.path / FROZEN / "best.keras"
    directory.replace("best.keras", lambda path: shutil.copyfile(source, path))
