"""The end of a run: its figures, and the files of its models."""

import pathlib

import keras
import tensorflow as tf

from bnhead.census import Probe, count
from bnhead.errors import CopyError
from bnhead.graph import require_agreement
from bnhead.layers import plain, recompute_batch_stats
from bnhead.runs.checkpoints import Checkpoint
from bnhead.runs.directory import RunDirectory
from bnhead.runs.predictions import NAME, Predictions, of_outputs, write_predictions
from bnhead.training.failures import locate
from bnhead.training.feed import DataUsed, Feed
from bnhead.training.state import best_state, captured, restore
from bnhead.training.tasks import TASKS
from bnhead.training.watchers import Watchers


def measure_result(
    feed: Feed,
    model: keras.Model,
    watchers: Watchers,
    data_used: DataUsed,
    checkpoint: Checkpoint,
    *,
    recompute: str,
) -> dict:
    """The figures of `result.json`.

    Args:
        feed: the run's batches.
        model: the trained model.
        watchers: the run's callbacks.
        data_used: the run's data.
        checkpoint: the newest sound state of the run, for locating a failure.
        recompute: batch norms whose statistics are recomputed: "none", "head" or "all".
    """
    rows, census = watchers.history.rows, watchers.dead_units.census
    status = "finished"
    if watchers.finite.broken or watchers.learning.failed:
        status = "diverged" if watchers.finite.broken else "failed_to_learn"
    tested = {key: value for key, value in rows[-1].items() if key.startswith("test_")}
    if recompute != "none" and status != "diverged":
        recompute_batch_stats(model, feed.raw_epoch(), recompute)
        tested = _evaluate(model, feed.test(), "test")
        census = count(model, feed.probe(), watchers.layers)
    validated = {}
    if feed.data.validation is not None:
        validated = _evaluate(model, feed.validation(), "validation")
    primary = f"test_{TASKS[feed.task].primary}"
    result = {
        "status": status,
        "epochs": len(rows),
        primary: tested.pop(primary),
        **tested,
        **census.figures(with_sample=True),
        "parameters": model.count_params(),
        "replicas": feed.replicas.number,
        "batch_norm_examples": feed.replicas.batch_norm_examples(feed.batch_size),
        "data": {
            "name": feed.data.name,
            "train": feed.data.train.size,
            "test": feed.data.test.size,
            "train_sha256": data_used.fingerprints["train"],
            "test_sha256": data_used.fingerprints["test"],
            "checks": feed.checks,
        },
        **validated,
        "head": watchers.diagram,
    }
    if watchers.finite.broken:
        result["failure"] = locate(model, checkpoint.arrays, feed, checkpoint.step)
    if watchers.best and watchers.best.record:
        epoch = watchers.best.record["epoch"]
        figures = {k: v for k, v in rows[epoch - 1].items() if k.startswith(("validation_", "test_"))}
        result["best"] = {"epoch": epoch} | figures
    return result


def _evaluate(model: keras.Model, data: tf.data.Dataset, split: str) -> dict:
    figures = model.evaluate(data, verbose=0, return_dict=True)
    return {f"{split}_{name}": value for name, value in figures.items()}


def predict_test_images(feed: Feed, model: keras.Model, watchers: Watchers) -> Predictions:
    """The model's output and the silent shares of the counted layers for every test image."""
    probe = Probe(model, watchers.layers)
    outputs, silent, labels = probe.per_input(feed.every_test_image())
    return of_outputs(outputs, labels, silent, tuple(site.name for site in probe.sites), feed.task)


def write_result(
    directory: RunDirectory, feed: Feed, model: keras.Model, watchers: Watchers, result: dict
) -> None:
    """Writes predictions, models and the result, with which the run is finished."""
    predictions = predict_test_images(feed, model, watchers)  # by all processes, which share the model
    if not directory.writable:
        return
    directory.replace(NAME, lambda path: write_predictions(path, predictions))
    with feed.replicas.alone():
        if watchers.best and watchers.best.record:
            last = captured(model)
            try:
                restore(model, best_state(directory).arrays)
            except (OSError, ValueError) as error:
                directory.log(f"there is no best.keras in {directory.path}: {error}")
            else:
                save_plain(directory, feed, model, "best.keras")
            restore(model, last)
        save_plain(directory, feed, model, "model.keras")
    recorded = directory.read("environment.json")
    directory.write("environment.json", {**recorded, "seconds": round(watchers.elapsed.seconds(), 2)})
    directory.finish(result)


def save_plain(directory: RunDirectory, feed: Feed, model: keras.Model, name: str) -> None:
    """Writes the model in plain Keras layers, and checks that the file gives the model's outputs.

    Raises:
        CopyError: the file cannot be loaded, or gives other outputs on the first test images. It is removed;
            the checkpoints stay.
    """

    def write(path: pathlib.Path) -> None:
        plain(model, compare=False).save(path)  # the file itself is compared
        try:
            saved = keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CopyError(f"{directory.path / name} cannot be loaded: {reason}") from error
        inputs, _ = feed.sample(8)
        require_agreement(model, saved, inputs, name=f"{directory.path / name}, the file")

    directory.replace(name, write)
