"""What a run logs each epoch: three small callbacks, in the order in which they are listed.

Event files only grow, so a run that goes on cuts them back to what they were at its checkpoint.

Keras says `val_` for figures of the data that is evaluated each epoch. Here that is the test split, of which
no choice is made, and its figures are called `test_`.
"""

import os
import pathlib
import time
from collections.abc import Mapping

import keras
import tensorflow as tf

from bnhead.census.figures import meaning_of
from bnhead.runs.directory import EVENTS, RunDirectory


def _named(logs: dict) -> dict[str, float]:
    return {
        f"test_{k.removeprefix('val_')}" if k.startswith("val_") else k: float(v) for k, v in logs.items()
    }


class Pace(keras.callbacks.Callback):
    """Adds `learning_rate` (after the epoch) and `images_per_second` (of training alone) to the logs."""

    def __init__(self, batch_size: int):
        super().__init__()
        self._batch_size, self._first, self._steps = batch_size, None, 0
        self._seconds = self._start = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._start, self._seconds, self._first = time.perf_counter(), 0.0, None

    def on_train_batch_begin(self, batch, logs=None):
        if self._first is None:  # of an epoch that goes on it is not 0
            self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        self._steps = batch + 1 - self._first

    def on_test_begin(self, logs=None):
        self._seconds = time.perf_counter() - self._start

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["images_per_second"] = self._steps * self._batch_size / self._seconds


class Elapsed:
    """Seconds since the run began, without the time in which it was stopped."""

    def __init__(self):
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._start

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"seconds": self.seconds()}

    def resume(self, state: dict) -> None:
        """Goes on from what `state` gave."""
        self._start = time.perf_counter() - state["seconds"]


class HistoryFile(keras.callbacks.Callback):
    """Keeps `history.csv` up to date: epoch (from 1), then every figure in the logs.

    Args:
        directory: the run's directory.

    Attributes:
        rows: a dict per epoch.
    """

    def __init__(self, directory: RunDirectory):
        super().__init__()
        self._directory = directory
        self.rows: list[dict] = []

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"rows": self.rows}

    def resume(self, state: dict) -> None:
        """Goes on from what `state` gave."""
        self.rows = list(state["rows"])

    def losses(self) -> list[float]:
        """The training loss of each epoch."""
        return [row["loss"] for row in self.rows]

    def on_train_begin(self, logs=None):
        if self.rows:
            self._directory.write_table("history.csv", self.rows)

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **_named(logs)})
        self._directory.write_table("history.csv", self.rows)


class Scalars(keras.callbacks.Callback):
    """TensorBoard events, in the runs `train` and `test`, so that `loss` and `accuracy` share their charts.

    Its state is the sizes of all event files of the run, the dead units' among them.

    Args:
        directory: the run's directory; the events are in its folder `tensorboard`.
        description: Markdown shown under the Text tab.
        histograms: whether every weight's histogram is written each epoch.
    """

    def __init__(self, directory: RunDirectory, description: str, *, histograms: bool = False):
        super().__init__()
        self._directory, self._folder = directory, directory.path / "tensorboard"
        self._description, self._histograms = description, histograms
        self._writers: dict = {}

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        return event_sizes(self._folder)

    def resume(self, state: dict) -> None:
        """Cuts the event files to where they were, so that no step is in them twice."""
        self._description = ""  # it is in them
        for line in cut_events(self._folder, state):
            self._directory.say(line)

    def on_train_begin(self, logs=None):
        self._writers = {
            run: tf.summary.create_file_writer(f"{self._folder}/{run}") for run in ("train", "test")
        }
        if self._description:
            with self._writers["train"].as_default(step=0):
                tf.summary.text("run", self._description)
            self._writers["train"].flush()

    def on_epoch_end(self, epoch, logs=None):
        for name, value in _named(logs).items():
            run = "test" if name.startswith("test_") else "train"
            with self._writers[run].as_default(step=epoch + 1):
                tf.summary.scalar(name.removeprefix("test_"), value, description=meaning_of(name))
        if self._histograms:
            with self._writers["train"].as_default(step=epoch + 1):
                for weight in self.model.weights:
                    tf.summary.histogram(weight.path, keras.ops.convert_to_numpy(weight))
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()


def event_sizes(folder: pathlib.Path) -> dict[str, int]:
    """Bytes of each event file in a folder and its folders, by path."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(_files(folder))}


def cut_events(folder: pathlib.Path, sizes: Mapping[str, int]) -> list[str]:
    """Brings a folder's event files back to the sizes they had, and removes those that were not there.

    Other files stay. Where the folder is a link, it may be shared with other runs, and nothing is removed.

    Returns:
        A line for each file that is gone or shorter than it was.
    """
    for path in list(_files(folder)):
        size = sizes.get(str(path.relative_to(folder)))
        if size is None and not folder.is_symlink():
            path.unlink()
        elif size is not None and path.stat().st_size > size:
            os.truncate(path, size)
    there = event_sizes(folder)
    lost = [name for name, size in sizes.items() if there.get(name, -1) < size]
    return [f"event file {folder / name} is damaged: TensorBoard will lack its end" for name in lost]


def _files(folder: pathlib.Path):
    return (path for path in folder.rglob(EVENTS) if path.is_file() and not path.is_symlink())
