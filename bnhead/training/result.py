"""The end of a run: its figures, and the files of its models."""

from typing import Any

import keras
import numpy as np

from bnhead.heads.surgery import is_of_a_head
from bnhead.layers import population_statistics, recompute_batch_stats
from bnhead.layers.plain import vanishes
from bnhead.layers.population import is_frozen
from bnhead.layers.removal import norms_removed
from bnhead.runs.checkpoints import Checkpoint
from bnhead.runs.directory import HEAD_FILES, RunDirectory
from bnhead.runs.predictions import NAME, write_predictions
from bnhead.training.backbone import parameters
from bnhead.training.config import TrainConfig
from bnhead.training.failures import locate
from bnhead.training.feed import DataUsed, Feed
from bnhead.training.imbalance import trained_prior
from bnhead.training.model_file import ModelFile
from bnhead.training.robustness import robust_figures
from bnhead.training.stages import copy_best
from bnhead.training.state import best_state, captured, restore
from bnhead.training.tasks import TASKS
from bnhead.training.watchers import Watchers


def measure_result(
    config: TrainConfig,
    feed: Feed,
    model: keras.Model,
    watchers: Watchers,
    data_used: DataUsed,
    checkpoint: Checkpoint,
) -> dict:
    """The figures of `result.json`.

    Args:
        config: the run's settings.
        feed: the run's batches.
        model: the trained model.
        watchers: the run's callbacks.
        data_used: the run's data.
        checkpoint: the newest sound state of the run, for locating a failure.
    """
    rows, evaluation = watchers.history.rows, watchers.evaluation
    status = "finished"
    if watchers.finite.broken or watchers.learning.failed:
        status = "diverged" if watchers.finite.broken else "failed_to_learn"
    tested = {key: value for key, value in rows[-1].items() if key.startswith("test_")}
    if config.recompute_batch_stats != "none" and status != "diverged":
        recompute_batch_stats(model, feed.raw_epoch(), config.recompute_batch_stats)
        tested = evaluation.repeat()
        if watchers.measure is not None:
            watchers.measure.repeat()
    if config.adaptation == "adabn" and status != "diverged":
        recompute_batch_stats(model, feed.target_batches())
        tested = evaluation.repeat()
        if watchers.measure is not None:
            watchers.measure.repeat()
    variants = {}
    if status != "diverged" and (norms := _averaging_norms(model)):
        if config.population_stats:
            with population_statistics(model, feed.raw_epoch(), norms):
                variants["population"] = evaluation.of_variant("population")
        if config.without_norms:
            with norms_removed(model, norms):
                variants["without_norms"] = evaluation.of_variant("without_norms")
    if config.robustness and status != "diverged":
        tested |= robust_figures(model, feed.data.test, config.adversarial_epsilon)
    validated = {}
    if feed.data.validation is not None:
        figures = model.evaluate(feed.validation(), verbose=0, return_dict=True)
        validated = {f"validation_{name}": value for name, value in figures.items()}
    primary = f"test_{TASKS[feed.task].primary}"
    result = {
        "status": status,
        "epochs": len(rows),
        primary: tested.pop(primary),
        **tested,
        **evaluation.census.figures(with_sample=True),
        **({} if watchers.measure is None else watchers.measure.latest),
        "parameters": parameters(model, feed.data),
        "replicas": feed.replicas.number,
        "batch_norm_examples": feed.replicas.batch_norm_examples(feed.batch_size),
        "data": _data_record(feed, data_used),
        **validated,
        **variants,
        **({"backbone": backbone} if (backbone := config.describe_backbone()) else {}),
        "head": watchers.diagram,
    }
    if watchers.finite.broken:
        result["failure"] = locate(model, checkpoint.arrays, feed, checkpoint.step)
        evaluation.forget()
    if watchers.best and watchers.best.record:
        epoch = watchers.best.record["epoch"]
        figures = {k: v for k, v in rows[epoch - 1].items() if k.startswith(("validation_", "test_"))}
        result["best"] = {"epoch": epoch} | figures
    return result


def _data_record(feed: Feed, data_used: DataUsed) -> dict[str, Any]:
    """The part of `result.json` about the data.

    `prior` has the shares of the classes that trained logits contain: those of the training examples, without
    the part that an adjusted loss left out.
    """
    record = {
        "name": feed.data.name,
        "train": feed.data.train.size,
        "test": feed.data.test.size,
        "train_sha256": data_used.fingerprints["train"],
        "test_sha256": data_used.fingerprints["test"],
        "checks": feed.checks,
    }
    counts = [] if feed.task == "regression" else feed.data.class_counts()
    if not all(counts) or not len(counts):
        return record
    shares = trained_prior(feed.class_weights, counts)
    shares = shares / (np.asarray(counts) / sum(counts)) ** feed.logit_adjustment
    return {**record, "prior": (shares / shares.sum()).tolist()}


def _averaging_norms(model: keras.Model) -> list[str]:
    """Names of the head's norms that inference computes with moving averages."""
    norms = [
        layer for layer in model.layers if hasattr(layer, "moving_variance") and is_of_a_head(layer.name)
    ]
    return [norm.name for norm in norms if not (is_frozen(norm) or vanishes(norm))]


def write_result(
    directory: RunDirectory, feed: Feed, file: ModelFile, watchers: Watchers, result: dict
) -> None:
    """Writes predictions, models and the result, with which the run is finished."""
    model = file.model
    predictions = watchers.evaluation.predictions()  # by all processes, which share the model
    if not directory.writable:
        return
    directory.replace(NAME, lambda path: write_predictions(path, predictions))
    name, best = file.names
    inputs = feed.sample(8)[0] if file.names == HEAD_FILES else feed.sample_images(8)
    with feed.replicas.alone():
        if watchers.best and 0 < watchers.best.record.get("epoch", 0) <= feed.first_epoch:
            copy_best(directory)
        elif watchers.best and watchers.best.record:
            last = captured(model)
            try:
                restore(model, best_state(directory).arrays)
            except (OSError, ValueError) as error:
                directory.log(f"there is no {best} in {directory.path}: {error}")
            else:
                file.write(directory, best, inputs)
            restore(model, last)
        file.write(directory, name, inputs)
    recorded = directory.read("environment.json")
    directory.write("environment.json", {**recorded, "seconds": round(watchers.elapsed.seconds(), 2)})
    directory.finish(result)
