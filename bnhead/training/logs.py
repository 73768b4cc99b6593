"""What a run logs each epoch: three small callbacks, in the order in which they are listed.

Keras says `val_` for figures of the data that is evaluated each epoch. Here that is the test split, of which
no choice is made, and its figures are called `test_`.
"""

import time

import keras
import tensorflow as tf

from bnhead.training.records import RunDirectory


def _named(logs: dict) -> dict[str, float]:
    return {
        f"test_{k.removeprefix('val_')}" if k.startswith("val_") else k: float(v) for k, v in logs.items()
    }


class Pace(keras.callbacks.Callback):
    """Adds `learning_rate` (after the epoch) and `images_per_second` (of training alone) to the logs."""

    def __init__(self, images_per_epoch: int):
        super().__init__()
        self._images = images_per_epoch
        self._seconds = self._start = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._start, self._seconds = time.perf_counter(), 0.0

    def on_test_begin(self, logs=None):
        self._seconds = time.perf_counter() - self._start

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["images_per_second"] = self._images / self._seconds


class HistoryFile(keras.callbacks.Callback):
    """Keeps `history.csv` up to date: epoch (from 1), then every figure in the logs."""

    def __init__(self, directory: RunDirectory):
        super().__init__()
        self._directory = directory
        self._rows: list[dict] = []

    def on_epoch_end(self, epoch, logs=None):
        self._rows.append({"epoch": epoch + 1, **_named(logs)})
        self._directory.write_table("history.csv", self._rows)


class Scalars(keras.callbacks.Callback):
    """TensorBoard events, in the runs `train` and `test`, so that `loss` and `accuracy` share their charts.

    Args:
        directory: folder of the event files.
        description: Markdown shown under the Text tab.
        histograms: whether every weight's histogram is written each epoch.
    """

    def __init__(self, directory: str, description: str, *, histograms: bool = False):
        super().__init__()
        self._writers = {
            run: tf.summary.create_file_writer(f"{directory}/{run}") for run in ("train", "test")
        }
        self._description = description
        self._histograms = histograms

    def on_train_begin(self, logs=None):
        with self._writers["train"].as_default(step=0):
            tf.summary.text("run", self._description)

    def on_epoch_end(self, epoch, logs=None):
        for name, value in _named(logs).items():
            run = "test" if name.startswith("test_") else "train"
            with self._writers[run].as_default(step=epoch + 1):
                tf.summary.scalar(name.removeprefix("test_"), value)
        if self._histograms:
            with self._writers["train"].as_default(step=epoch + 1):
                for weight in self.model.weights:
                    tf.summary.histogram(weight.path, keras.ops.convert_to_numpy(weight))
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
