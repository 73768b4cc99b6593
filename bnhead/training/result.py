"""The end of a run: its figures, and the files of its models."""

import keras

from bnhead.layers import recompute_batch_stats
from bnhead.runs.checkpoints import Checkpoint
from bnhead.runs.directory import RunDirectory
from bnhead.runs.predictions import NAME, write_predictions
from bnhead.training.failures import locate
from bnhead.training.feed import DataUsed, Feed
from bnhead.training.model_file import ModelFile
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
    rows, evaluation = watchers.history.rows, watchers.evaluation
    status = "finished"
    if watchers.finite.broken or watchers.learning.failed:
        status = "diverged" if watchers.finite.broken else "failed_to_learn"
    tested = {key: value for key, value in rows[-1].items() if key.startswith("test_")}
    if recompute != "none" and status != "diverged":
        recompute_batch_stats(model, feed.raw_epoch(), recompute)
        tested = evaluation.repeat()
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
        evaluation.forget()
    if watchers.best and watchers.best.record:
        epoch = watchers.best.record["epoch"]
        figures = {k: v for k, v in rows[epoch - 1].items() if k.startswith(("validation_", "test_"))}
        result["best"] = {"epoch": epoch} | figures
    return result


def write_result(
    directory: RunDirectory, feed: Feed, file: ModelFile, watchers: Watchers, result: dict
) -> None:
    """Writes predictions, models and the result, with which the run is finished."""
    model = file.model
    predictions = watchers.evaluation.predictions()  # by all processes, which share the model
    if not directory.writable:
        return
    directory.replace(NAME, lambda path: write_predictions(path, predictions))
    inputs, _ = feed.sample(8)
    with feed.replicas.alone():
        if watchers.best and watchers.best.record:
            last = captured(model)
            try:
                restore(model, best_state(directory).arrays)
            except (OSError, ValueError) as error:
                directory.log(f"there is no best.keras in {directory.path}: {error}")
            else:
                file.write(directory, "best.keras", inputs)
            restore(model, last)
        file.write(directory, "model.keras", inputs)
    recorded = directory.read("environment.json")
    directory.write("environment.json", {**recorded, "seconds": round(watchers.elapsed.seconds(), 2)})
    directory.finish(result)
