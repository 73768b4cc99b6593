"""The lines of a run in the terminal while it trains."""

import os
import sys
import time
from collections.abc import Mapping

import keras
from rich.progress import BarColumn, Progress, TextColumn

from bnhead import texts
from bnhead.census import keys
from bnhead.runs import atomic
from bnhead.training.build import decisions, describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.tasks import TASKS

_REFRESH = 0.25  # seconds between two looks at the loss: each waits for the device
_PIPE = 124  # columns of an epoch's line where stdout is no terminal: room for every figure


class EpochLines(keras.callbacks.Callback):
    """Prints the head, the decisions on pixels and precision, and a line per epoch; in a terminal also a bar.

    A context manager: `with EpochLines(config) as lines: train(config, [lines])`.

    Args:
        config: the run's settings.
        bar: whether to draw the progress bar; None draws it if stdout is a terminal.
    """

    def __init__(self, config: TrainConfig, *, bar: bool | None = None):
        super().__init__()
        self._config = config
        self._epoch = self._step = 0
        self._epoch_start = self._shown_at = 0.0
        self._first: tuple[float, int] | None = None  # time and number of the session's first finished step
        columns = BarColumn(bar_width=16), TextColumn("{task.description}", markup=False)
        self._bar = Progress(
            *columns, transient=True, disable=not (sys.stdout.isatty() if bar is None else bar)
        )
        self._task = self._bar.add_task("", total=None)

    def on_train_begin(self, logs=None):
        self._print(f"{self._config.backbone}  {describe_head(self._config, self.model)}")
        for line in decisions(self._config, self.model):
            self._print(line)
        self._bar.update(self._task, total=self.params["epochs"] * self.params["steps"])
        self._bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._epoch_start = epoch, time.perf_counter()
        self._step = max(self._step, epoch * self.params["steps"])
        self._show("the first step is being compiled" if self._first is None else "")

    def on_train_batch_end(self, batch, logs=None):
        self._step = self._epoch * self.params["steps"] + batch + 1
        now = time.perf_counter()
        self._first = self._first or (now, self._step)
        if not self._bar.disable and now - self._shown_at >= _REFRESH:
            self._shown_at = now
            self._show(f"loss {float(logs['loss']):.3g}", self._time_left(now))

    def on_test_begin(self, logs=None):
        self._show("on the test images")

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._epoch_start
        primary = TASKS[self._config.task].primary
        self._print(format_epoch(epoch + 1, self.params["epochs"], logs, primary, seconds))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Removes the bar, also after an exception, of which Keras does not inform callbacks."""
        self._bar.stop()

    def _show(self, *parts: str) -> None:
        """Shows epoch, step and `parts` next to the bar of the whole run."""
        epochs, total = self.params["epochs"], self.params["epochs"] * self.params["steps"]
        places = f"epoch {self._epoch + 1}/{epochs}", f"step {self._step}/{total}"
        text = "  ".join(filter(None, (*places, *parts)))
        self._bar.update(self._task, completed=self._step, description=text)

    def _time_left(self, now: float) -> str:
        """The time of the remaining steps at the pace since the session's first; empty after that one."""
        start, first = self._first
        if self._step == first:
            return ""
        remaining = self.params["epochs"] * self.params["steps"] - self._step
        return f"{texts.duration((now - start) / (self._step - first) * remaining)} left"

    def _print(self, line: str) -> None:
        line = texts.wrapped(line, _PIPE, hanging=2) if sys.stdout.isatty() else line
        if not self._bar.disable:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
            return
        # stdout leads nowhere after a failure, because Python flushes its buffer once more at exit
        try:
            print(line, flush=True)
        except BrokenPipeError:  # `| head` has read enough, which does not end the training
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise atomic.unwritable(error, "stdout") from error


def format_epoch(epoch: int, epochs: int, logs: Mapping[str, float], primary: str, seconds: float) -> str:
    """The line of an epoch, in as many figures and as long names as the terminal has room for.

    Args:
        epoch: its number, from 1.
        epochs: how many there are.
        logs: the epoch's figures; those of the test split begin with `val_`.
        primary: name of the metric that is shown next to the loss: `accuracy` in percent, others as numbers.
        seconds: of the epoch.
    """
    form = "7.2%" if primary == "accuracy" else "7.4f"
    cells = [  # long name, short name, rank: the highest are left out first
        ("loss", "loss", 0, f"{logs['loss']:7.4f}"),
        (primary, primary[:3], 0, f"{logs[primary]:{form}}"),
        ("test loss", "test loss", 2, f"{logs['val_loss']:7.4f}"),
        (f"test {primary}", f"test {primary[:3]}", 0, f"{logs[f'val_{primary}']:{form}}"),
    ]
    for name, figure, rank in (("dead", "dataset", 0), ("silent", "per_input", 1)):
        shares = [logs[keys.key(layer, figure)] for layer in keys.layers_of(logs, figure)]
        cells += [(name, name, rank, f"{share:>6.1%}") for share in shares[:1]]
    start, end = f"epoch {epoch:>{len(str(epochs))}}/{epochs}", f"{seconds:>5.1f} s"
    lines = [
        "  ".join([start, *(f"{cell[name]} {cell[3]}" for cell in cells if cell[2] <= rank), end])
        for name, rank in ((0, 2), (1, 2), (1, 1), (1, 0))
    ]
    width = texts.columns(_PIPE)
    return next((line for line in lines if len(line) < width), lines[-1])
