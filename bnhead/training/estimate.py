"""`--dry_run`: settings, size and estimated time of a run, from a few steps. Writes nothing."""

import dataclasses
import math

import keras

from bnhead import graph
from bnhead.devices.replicas import open_replicas
from bnhead.errors import RunDirectoryError
from bnhead.runs.directory import RunDirectory
from bnhead.texts import duration, labelled
from bnhead.training import pace
from bnhead.training.backbone import parameters
from bnhead.training.build import Reuse, decisions, describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.failures import shortage_as_error
from bnhead.training.run import prepare_training


def estimate(config: TrainConfig) -> dict:
    """Estimates the size and the time of `train(config)`.

    Returns:
        `settings`; `head`, its diagram; `parameters` and of them `trainable`; `steps_per_epoch` and `steps`;
        `bytes`, estimated (`training_bytes`); `seconds_per_step` and `seconds_per_evaluation`, measured;
        `seconds_compiling`, for tracing and compiling both; `seconds_extracting`, for the features of a
        frozen backbone, if none are kept; `seconds`, estimated from these for all epochs; `pretraining`, a
        clause about a first training, whose time is not in them;
        `obstacle`, why `train` would refuse the run directory, empty if it would not.

    Raises:
        UsageError, DataError, ResourcesError: as `train`.
    """
    obstacle, pretraining = "", ""
    if config.pretrain_on:  # a dry run trains nothing; the steps of other weights take the same time
        pretraining = f"not counting the training on {config.pretrain_on}, if it is not kept"
    given, config = config, dataclasses.replace(config, pretrain_on="", weights_control="none")
    try:
        RunDirectory(config.directory).check(given.settings(), overwrite=config.overwrite)
    except RunDirectoryError as error:
        obstacle = str(error)
    replicas = open_replicas(
        config.distribution, config.batch_size, sync_bn=config.sync_bn, ghost_sizes=config.ghost_sizes
    )
    with replicas.computing(), shortage_as_error(config.directory, config.batch_size):
        reuse = Reuse(extracts=False)
        feed, model, _, _, choices, _ = prepare_training(config, replicas, reuse)
        size = training_bytes(model, config.batch_size)
        with feed.data.naming_pictures():
            step, evaluation = pace.of_training(model, feed), pace.of_evaluation(model, feed)
    extraction = pace.of_extraction(feed.data).each if config.freeze_backbone else 0.0
    start = step.first + evaluation.first
    return {
        "settings": given.settings(),
        "head": describe_head(config, model),
        "decisions": [*choices.lines, *decisions(choices.of(config), model)],
        "pretraining": pretraining,
        "parameters": parameters(model, feed.data),
        "trainable": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "steps_per_epoch": feed.steps,
        "steps": feed.steps * feed.epochs,
        "bytes": size,
        "seconds_per_step": step.each,
        "seconds_per_evaluation": evaluation.each,
        "seconds_compiling": start,
        "seconds_extracting": extraction,
        "seconds": start
        + extraction
        + (feed.epochs - feed.first_epoch) * (feed.steps * step.each + evaluation.each),
        "obstacle": obstacle,
    }


def training_bytes(model: keras.Model, batch_size: int) -> int:
    """Estimated memory of training: weights, gradients, momentum, and the outputs of all layers.

    Kernels need work space in addition, and compilers keep fewer outputs.
    """
    trainable = sum(math.prod(v.shape) * _width(v.dtype) for v in model.trainable_weights)
    frozen = sum(math.prod(v.shape) * _width(v.dtype) for v in model.non_trainable_weights)
    outputs = sum(
        math.prod(size or batch_size for size in tensor.shape) * _width(tensor.dtype)
        for call in graph.model_calls(graph.inlined(model))
        for tensor in call.outputs
    )
    return 3 * trainable + frozen + outputs


def _width(dtype: str) -> int:
    return {"bfloat16": 2, "float16": 2, "uint8": 1, "bool": 1, "float64": 8, "int64": 8}.get(dtype, 4)


def format_estimate(estimated: dict, config: TrainConfig) -> str:
    """The text for a terminal."""
    step, start = estimated["seconds_per_step"], estimated["seconds_compiling"]
    step_text = (
        f"{step * 1000:,.1f} ms here, now"
        if math.isfinite(step)
        else "unknown: the whole run is one execution"
    )
    parts = [f"{duration(start)} for tracing and compiling"]
    if estimated["seconds_extracting"]:
        parts.append(f"{duration(estimated['seconds_extracting'])} for the features, if none are kept")
    if estimated["pretraining"]:
        parts.append(estimated["pretraining"])
    listed = estimated["settings"] if config.verbose else config.changed()
    settings = [f"  {name:<22}{value}" for name, value in estimated["settings"].items() if name in listed]
    if unlisted := len(estimated["settings"]) - len(settings):
        settings.append(f"  {unlisted} at their defaults; --verbose lists them")
    rows = [
        ("head", estimated["head"]),
        *(("", line) for line in estimated["decisions"]),
        ("parameters", f"{estimated['parameters']:,}, of them {estimated['trainable']:,} are trained"),
        ("memory", f"about {estimated['bytes'] / 2**20:,.0f} MiB, and the kernels' work space"),
        ("steps", f"{estimated['steps']:,}: {config.epochs} epochs of {estimated['steps_per_epoch']:,}"),
        ("a step", step_text),
        ("time", f"about {duration(estimated['seconds'])}, of it {', '.join(parts)}"),
        ("run", f"{config.directory} (a dry run: nothing was written there)"),
    ]
    rows += [("", estimated["obstacle"])] if estimated["obstacle"] else []
    return "\n".join(["settings", *settings, "", labelled(rows, 12)])
