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
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import plugin_data_pb2, summary_v2
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from bnhead.census import DeadUnits, keys
from bnhead.census.figures import DEAD, SILENT, meaning_of, tensorboard_tag
from bnhead.mechanisms import figures as mechanisms
from bnhead.mechanisms.callback import Measure
from bnhead.mechanisms.figures import PREFIX
from bnhead.runs.directory import EVENT_FOLDERS, EVENTS, RunDirectory

_SHOWN = ("backbone", "dataset", "epochs", "head", "seed")  # the columns that HParams shows at first: five


def _with_test_prefix(logs: dict) -> dict[str, float]:
    return {
        f"test_{k.removeprefix('val_')}" if k.startswith("val_") else k: float(v) for k, v in logs.items()
    }


def _is_counted(name: str) -> bool:
    """Whether a figure is of dead units or of the mechanisms, which are measured on test images."""
    return keys.is_key(name) or name.startswith(PREFIX)


class Pace(keras.callbacks.Callback):
    """Adds `learning_rate` (after the epoch) and `images_per_second` (of training alone) to the logs."""

    def __init__(self, batch_size: int):
        super().__init__()
        self._batch_size, self._first, self._steps = batch_size, None, 0
        self._seconds, self._start = 0.0, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._start, self._first = time.perf_counter(), None

    def on_train_batch_begin(self, batch, logs=None):
        if self._first is None:  # in a resumed epoch it is not 0
            self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        self._steps, self._seconds = batch + 1 - (self._first or 0), time.perf_counter() - self._start

    def spent(self, steps: int, seconds: float) -> None:
        """Sets what the training of an epoch took, where it is not the time between its steps."""
        self._steps, self._seconds = steps, seconds

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
        measure: measures before this callback runs; None if nothing is measured.

    Attributes:
        rows: a dict per epoch.
    """

    def __init__(self, directory: RunDirectory, dead_units: DeadUnits, measure: Measure | None = None):
        super().__init__()
        self._directory, self._dead_units, self._measure = directory, dead_units, measure
        self.rows: list[dict] = []

    def state(self) -> dict:
        """The state for a checkpoint."""
        return {"rows": self.rows}

    def resume(self, state: dict) -> None:
        """Restores what `state` returned."""
        self.rows = list(state["rows"])

    def on_train_begin(self, logs=None):
        if self.rows:
            self._directory.write_history(self.rows)

    def on_epoch_end(self, epoch, logs=None):
        others = {name: value for name, value in logs.items() if not _is_counted(name)}
        measured = {} if self._measure is None else self._measure.latest
        row = {"epoch": epoch + 1, **_with_test_prefix(others), **self._dead_units.latest, **measured}
        self.rows.append(row)
        self._directory.write_history(self.rows)


class Scalars(keras.callbacks.Callback):
    """TensorBoard events, in the runs `train` and `test`, so that `loss` and `accuracy` share their charts.

    Units are counted on test images, so their figures are in `test`.

    Its state is the sizes of all event files of the run, including those of the dead units.

    Args:
        directory: the run's directory; the events are in its folders `train` and `test`.
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
        self._directory, self._description, self._histograms = directory, description, histograms
        self._settings, self._primary = settings, primary
        self._writers: dict = {}

    def state(self) -> dict:
        """The state for a checkpoint."""
        return event_sizes(self._directory.path)

    def resume(self, state: dict) -> None:
        """Cuts the event files to their sizes in `state`, so that they hold no step twice."""
        self._description = ""  # the event files have it
        for line in cut_events(self._directory.path, state):
            self._directory.log(line)

    def on_train_begin(self, logs=None):
        self._writers = {
            run: tf.summary.create_file_writer(str(self._directory.path / run)) for run in ("train", "test")
        }
        if self._description:
            with self._writers["train"].as_default(step=0):
                tf.summary.text("run", self._description)
            self._writers["train"].flush()

    def _write_session(self, layers: Iterable[str]) -> None:
        """Makes `test` a row of the HParams tab: the run's settings, and the last values of some scalars."""
        values = {
            # numbers are shown with five digits: a seed of 3 as 3.0000
            key: str(value) if key == "seed" or not isinstance(value, bool | int | float | str) else value
            for key, value in self._settings.items()
        }
        metrics = [summary_v2.Metric(tag, display_name=f"test {tag}") for tag in (self._primary, "loss")]
        metrics += [
            summary_v2.Metric(keys.key(layer, row.name), display_name=f"{row.heading}, {layer}")
            for layer in layers
            for row in (DEAD, SILENT)
        ]
        experiment = summary_v2.hparams_config_pb([summary_v2.HParam(key) for key in values], metrics)
        plugin = experiment.value[0].metadata.plugin_data
        data = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
        for info in data.experiment.hparam_infos:
            info.differs = info.name in _SHOWN  # these are sorted first
        plugin.content = data.SerializeToString()
        session = summary_v2.hparams_pb(values, trial_id=str(self._directory.path))
        with self._writers["test"].as_default(step=0):
            for summary in (experiment, session):
                tf.summary.experimental.write_raw_pb(summary.SerializeToString())

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self._write_session(keys.layers_of(logs))
        events = {run: summary_pb2.Summary() for run in self._writers}
        for name, value in _with_test_prefix(logs).items():
            run = "test" if name.startswith("test_") or _is_counted(name) else "train"
            tag = tensorboard_tag(name.removeprefix("test_"))
            meaning = meaning_of(name) or mechanisms.meaning_of(name)
            events[run].MergeFrom(scalar_pb(tag, value, description=meaning))
        for run, event in events.items():  # one write for all scalars: each costs a few operations
            with self._writers[run].as_default(step=epoch + 1):
                tf.summary.experimental.write_raw_pb(event.SerializeToString())
        if self._histograms:
            with self._writers["train"].as_default(step=epoch + 1):
                for weight in self.model.weights:
                    tf.summary.histogram(weight.path, keras.ops.convert_to_numpy(weight))
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()


def event_sizes(directory: pathlib.Path) -> dict[str, int]:
    """Bytes of each event file of a run, by its path in the run's directory."""
    return {str(path.relative_to(directory)): path.stat().st_size for path in sorted(_event_files(directory))}


def cut_events(directory: pathlib.Path, sizes: Mapping[str, int]) -> list[str]:
    """Cuts a run's event files to the given sizes, and removes those without a size.

    Other files stay. A folder that is a link may be shared with other runs, so nothing in it is removed.

    Args:
        directory: the run's.
        sizes: as returned by `event_sizes`.

    Returns:
        A line for each file that is missing or shorter than its size.
    """
    for path in list(_event_files(directory)):
        size = sizes.get(str(path.relative_to(directory)))
        if size is None and not path.parent.is_symlink():
            path.unlink()
        elif size is not None and path.stat().st_size > size:
            os.truncate(path, size)
    current = event_sizes(directory)
    lost = [name for name, size in sizes.items() if current.get(name, -1) < size]
    return [f"event file {directory / name} is damaged: TensorBoard will lack its end" for name in lost]


def _event_files(directory: pathlib.Path):
    paths = (path for folder in EVENT_FOLDERS for path in (directory / folder).glob(EVENTS))
    return (path for path in paths if path.is_file() and not path.is_symlink())
