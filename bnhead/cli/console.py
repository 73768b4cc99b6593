"""The lines of a run in the terminal while it trains."""

import os
import sys
import time

import keras
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bnhead.census import keys
from bnhead.runs import atomic
from bnhead.training.build import decisions, describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.tasks import TASKS


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
        self._start = 0.0
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(
            *columns, transient=True, disable=not (sys.stdout.isatty() if bar is None else bar)
        )
        self._task = self._bar.add_task("", total=None, epoch=1)

    def on_train_begin(self, logs=None):
        self._print(f"{self._config.backbone}  {describe_head(self._config, self.model)}")
        for line in decisions(self._config, self.model):
            self._print(line)
        self._bar.update(self._task, total=self.params["epochs"] * self.params["steps"])
        self._bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()
        self._bar.update(self._task, epoch=epoch + 1)

    def on_train_batch_end(self, batch, logs=None):
        epoch = self._bar.tasks[0].fields["epoch"] - 1
        self._bar.update(self._task, completed=epoch * self.params["steps"] + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        epochs, primary = self.params["epochs"], TASKS[self._config.task].primary
        silent = [logs[keys.key(layer, "per_input")] for layer in keys.layers_of(logs, "per_input")]
        dead = f"  silent {silent[0]:.1%}" if silent else ""
        self._print(
            f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"
            f"  loss {logs['loss']:.4f}  {primary} {logs[primary]:.4f}"
            f"  test loss {logs['val_loss']:.4f}  test {primary} {logs[f'val_{primary}']:.4f}"
            f"{dead}  {time.perf_counter() - self._start:.1f} s"
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Removes the bar, also after an exception, of which Keras does not inform callbacks."""
        self._bar.stop()

    def _print(self, line: str) -> None:
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
