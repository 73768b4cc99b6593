"""The lines of a run in the terminal: each epoch, and the summary."""

import math
import os
import sys
import time

import keras
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.runs import atomic
from bnhead.training.build import decisions, describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.tasks import TASKS

_NOT_FINITE = "not finite"


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


def format_summary(config: TrainConfig, result: dict, seconds: float | None) -> str:
    """The table at the end of a run: the result, and the paths to look at.

    Args:
        config: the run's settings.
        result: the result of `train`, or the content of `result.json`.
        seconds: duration of the run; None leaves the row out.
    """
    rows = [("", "")]
    if result["status"] != "finished":
        rows.append(("status", f"{result['status']} in epoch {result['epochs']} of {config.epochs}"))
    if failure := result.get("failure"):
        layer = failure.get("layer")
        origins = {
            "input": "an input is not finite",
            "activation": f"the output of {layer} is not finite",
            "loss": "the loss is not finite, all activations are",
            "gradient": f"a gradient is not finite, first that of {layer}",
        }
        origin = origins.get(failure.get("where"), "a value is not finite")
        rows.append(("  first", f"step {failure['step']}: {origin}"))
    rows += [("head", result.get("head", "")), *_scores(result)]
    for layer in keys.layers_of(result):
        rows += _rows_of_units(layer, keys.figures(result, layer))
    if result.get("replicas", 1) > 1 and "batch_norm_examples" in result:
        examples = f"{result['batch_norm_examples']} of the {config.batch_size} images of a step"
        rows.append(("replicas", f"{result['replicas']}; batch norms normalise over {examples}"))
    if seconds is not None:
        rows.append(("time", f"{seconds:.1f} s"))
    rows += [("warning", text) for text in result["data"].get("checks", {}).get("warnings", [])]
    logs = os.path.join(config.workdir or "runs", "")
    rows += [("run", config.directory), ("look", f"tensorboard --logdir {logs}")]
    return "\n".join(f"{name:<19} {text}".rstrip() for name, text in rows)


def _scores(result: dict) -> list[tuple[str, str]]:
    """A row for the test split, and for the validation split if there is one."""
    sizes = {"test": result["data"]["test"]}
    splits = result["data"].get("checks", {}).get("splits", {})
    if "validation_loss" in result and "validation" in splits:
        sizes["validation"] = splits["validation"]
    rows = []
    for split, size in sizes.items():
        if f"{split}_accuracy" in result:
            accuracy = _number(result[f"{split}_accuracy"], ".2%")
            rows.append((f"{split} accuracy", f"{accuracy} of {size} images"))
        else:
            error = f"mean absolute error {_number(result.get(f'{split}_mae'), '.4g')}"
            r2 = _number(result.get(f"{split}_r2"), ".4f")
            rows.append((f"{split} R^2", f"{r2}, {error}, on {size} images"))
    return rows


def _rows_of_units(layer: str, figures: dict) -> list[tuple[str, str]]:
    if _number(figures.get("per_input"), "g") == _NOT_FINITE:
        return [("dead units", f"{layer}: unknown, since values in the net are not finite")]
    rows = [row for row in figures_at("summaries") if row.name in figures]
    return [
        (f"units of {layer}", f"on {_number(figures.get('inputs'), 'g')} test images"),
        *((f"  {row.heading}", row.summary(figures)) for row in rows),
    ]


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else _NOT_FINITE
