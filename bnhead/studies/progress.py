"""What a person sees of a study: a line for each run that ends, and how long the rest will take."""

import sys
import time
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bnhead.studies.plan import PlannedRun
from bnhead.studies.pool import Event


class StudyLines:
    """Prints a line for each run that ends; on a terminal a bar below them, in epochs. A context manager.

    Args:
        runs: the runs that are to be done now.
        done: how many are done already.
        epochs: of each run.
        bar: whether to draw the bar; None draws it where stdout is a terminal.
    """

    def __init__(self, runs: Sequence[PlannedRun], done: int, epochs: int, *, bar: bool | None = None):
        self._runs = {run.id: run for run in runs}
        self._planned, self._ended, self._epochs = len(runs) + done, done, epochs
        self._fractions = dict.fromkeys(self._runs, 0.0)
        self._start = time.monotonic()
        columns = (
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(
            *columns, transient=True, disable=not (sys.stdout.isatty() if bar is None else bar)
        )
        self._task = self._bar.add_task("", total=self._planned, completed=done, left="")

    def __enter__(self) -> "StudyLines":
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Shows what happened."""
        run = self._runs[event.job.id]
        name = f"{run.cell}, seed {run.seed}"
        if event.what == "told":
            self._fractions[run.id] = event.detail["epoch"] / event.detail["epochs"]
        elif event.what == "died":
            self._print(f"{name}: its worker died ({event.detail['message']}); begun again")
        elif event.what in ("done", "failed"):
            self._fractions[run.id] = 1.0
            self._ended += 1
            text = outcome(event)
            width = len(str(self._planned))
            left = f"  {self.left()}" if self._ended < self._planned else ""
            self._print(f"{self._ended:>{width}} of {self._planned}  {name}: {text}{left}")
        self._bar.update(self._task, completed=self._ended, left=self.left())

    def left(self) -> str:
        """How long the rest takes, at the pace so far; empty before there is any."""
        share = sum(self._fractions.values()) / max(1, len(self._fractions))
        if share in (0, 1):
            return ""
        return f"about {duration((time.monotonic() - self._start) * (1 - share) / share)} left"

    def _print(self, line: str) -> None:
        if self._bar.disable:
            print(line, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


def outcome(event: Event) -> str:
    """How a run ended, in words."""
    detail = event.detail
    if event.what == "failed":
        return f"failed: {detail['error']}: {detail['message']}"
    parts = [] if detail.get("status") == "finished" else [str(detail.get("status")).replace("_", " ")]
    if detail.get("test_accuracy") is not None:
        parts.append(f"test accuracy {detail['test_accuracy']:.2%}")
    if detail.get("test_r2") is not None:
        parts.append(f"test R^2 {detail['test_r2']:.4f}")
    if detail.get("seconds"):
        parts.append(f"{detail['seconds']:.1f} s")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `"50 s"`, `"12 min"`, `"3.5 h"`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
