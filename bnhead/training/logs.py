"""Callbacks that log a run: pace, time, `history.csv` and TensorBoard.

Event files only grow, so a resumed run cuts them back to their sizes at its checkpoint.

Keras prefixes figures of the data that is evaluated each epoch with `val_`. Here that is the test split, by
which nothing is chosen, and the prefix is `test_`.
"""

import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import summary_v2

from bnhead.census import DeadUnits, keys
from bnhead.census.figures import DEAD, SILENT, meaning_of, tensorboard_tag
from bnhead.runs.directory import EVENTS, RunDirectory


def _with_test_prefix(logs: dict) -> dict[str, float]:
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
        if self._first is None:  # in a resumed epoch it is not 0
            self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        self._steps = batch + 1 - self._first

    def on_test_begin(self, logs=None):
        self._seconds = time.perf_counter() - self._start

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["images_per_second"] = self._steps * self._batch_size / self._seconds


class Share(keras.callbacks.Callback):
    """Reports the share of the training's steps that are done: after the first step, then every second.

    Args:
        report: called with the share, in (0, 1].
    """

    def __init__(self, report: Callable[[float], object]):
        super().__init__()
        self._report, self._epoch, self._reported_at = report, 0, -math.inf

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        now = time.monotonic()
        if now - self._reported_at >= 1:
            self._reported_at = now
            steps = self.params["steps"]
            self._report((self._epoch * steps + batch + 1) / (self.params["epochs"] * steps))


class Elapsed:
    """Seconds since the run began, without the time between its sessions."""

    def __init__(self):
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._start

    def state(self) -> dict:
        """The state for a checkpoint."""
        return {"seconds": self.seconds()}

    def resume(self, state: dict) -> None:
        """Restores what `state` returned."""
        self._start = time.perf_counter() - state["seconds"]


class HistoryFile(keras.callbacks.Callback):
    """Writes `history.csv` each epoch: epoch (from 1), the logs, and every figure of the dead units.

    The figures come from the callback that counts, since logs lack those that are NaN.

    Args:
        directory: the run's directory.
        dead_units: counts before this callback runs.

    Attributes:
        rows: a dict per epoch.
    """

    def __init__(self, directory: RunDirectory, dead_units: DeadUnits):
        super().__init__()
        self._directory, self._dead_units = directory, dead_units
        self.rows: list[dict] = []

    def state(self) -> dict:
        """The state for a checkpoint."""
        return {"rows": self.rows}

    def resume(self, state: dict) -> None:
        """Restores what `state` returned."""
        self.rows = list(state["rows"])

    def losses(self) -> list[float]:
        """The training loss of each epoch."""
        return [row["loss"] for row in self.rows]

    def on_train_begin(self, logs=None):
        if self.rows:
            self._directory.write_history(self.rows)

    def on_epoch_end(self, epoch, logs=None):
        others = {name: value for name, value in logs.items() if not keys.is_key(name)}
        row = {"epoch": epoch + 1, **_with_test_prefix(others), **self._dead_units.latest}
        self.rows.append(row)
        self._directory.write_history(self.rows)


class Scalars(keras.callbacks.Callback):
    """TensorBoard events, in the runs `train` and `test`, so that `loss` and `accuracy` share their charts.

    Its state is the sizes of all event files of the run, including those of the dead units.

    Args:
        directory: the run's directory; the events are in its folder `tensorboard`.
        description: Markdown shown under the Text tab.
        settings: the run's settings, a row of the HParams tab.
        primary: the metric that scores a run, `accuracy` or `r2`.
        histograms: whether every weight's histogram is written each epoch.
    """

    def __init__(
        self,
        directory: RunDirectory,
        description: str,
        settings: Mapping[str, Any],
        primary: str,
        *,
        histograms: bool = False,
    ):
        super().__init__()
        self._directory, self._folder = directory, directory.path / "tensorboard"
        self._description, self._histograms = description, histograms
        self._settings, self._primary, self._has_session = settings, primary, False
        self._writers: dict = {}

    def state(self) -> dict:
        """The state for a checkpoint."""
        return event_sizes(self._folder)

    def resume(self, state: dict) -> None:
        """Cuts the event files to their sizes in `state`, so that they hold no step twice."""
        self._description = ""  # the event files have it
        self._has_session = any("/" not in name for name in state)  # it is written after the first epoch
        for line in cut_events(self._folder, state):
            self._directory.log(line)

    def on_train_begin(self, logs=None):
        self._writers = {
            run: tf.summary.create_file_writer(f"{self._folder}/{run}") for run in ("train", "test")
        }
        if self._description:
            with self._writers["train"].as_default(step=0):
                tf.summary.text("run", self._description)
            self._writers["train"].flush()

    def _write_session(self, layers: Iterable[str]) -> None:
        """Makes the run a row of the HParams tab: its settings, and the last values of some scalars.

        The row is the folder above the runs `train` and `test`, which are its groups of metrics.
        """
        values = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in self._settings.items()
        }
        metrics = [
            summary_v2.Metric(tag, group="test", display_name=f"test {tag}")
            for tag in (self._primary, "loss")
        ]
        metrics += [
            summary_v2.Metric(
                keys.key(layer, row.name), group="train", display_name=f"{row.heading}, {layer}"
            )
            for layer in layers
            for row in (DEAD, SILENT)
        ]
        experiment = summary_v2.hparams_config_pb([summary_v2.HParam(key) for key in values], metrics)
        session = summary_v2.hparams_pb(values, trial_id=str(self._directory.path))
        writer = tf.summary.create_file_writer(str(self._folder))
        with writer.as_default(step=0):
            for summary in (experiment, session):
                tf.summary.experimental.write_raw_pb(summary.SerializeToString())
        writer.close()
        self._has_session = True

    def on_epoch_end(self, epoch, logs=None):
        if not self._has_session:
            self._write_session(keys.layers_of(logs))
        for name, value in _with_test_prefix(logs).items():
            run = "test" if name.startswith("test_") else "train"
            with self._writers[run].as_default(step=epoch + 1):
                tag = tensorboard_tag(name.removeprefix("test_"))
                tf.summary.scalar(tag, value, description=meaning_of(name))
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
    """Bytes of each event file in a folder and its subfolders, by relative path."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(_event_files(folder))}


def cut_events(folder: pathlib.Path, sizes: Mapping[str, int]) -> list[str]:
    """Cuts a folder's event files to the given sizes, and removes those without a size.

    Other files stay. A folder that is a link may be shared with other runs, so nothing in it is removed.

    Returns:
        A line for each file that is missing or shorter than its size.
    """
    for path in list(_event_files(folder)):
        size = sizes.get(str(path.relative_to(folder)))
        if size is None and not folder.is_symlink():
            path.unlink()
        elif size is not None and path.stat().st_size > size:
            os.truncate(path, size)
    current = event_sizes(folder)
    lost = [name for name, size in sizes.items() if current.get(name, -1) < size]
    return [f"event file {folder / name} is damaged: TensorBoard will lack its end" for name in lost]


def _event_files(folder: pathlib.Path):
    return (path for path in folder.rglob(EVENTS) if path.is_file() and not path.is_symlink())
