"""The progress of a study on the terminal: a line for each run that ends, and the remaining time."""

import sys
import time
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bnhead.studies.plan import PlannedRun
from bnhead.studies.pool import Event
from bnhead.texts import duration


class StudyLines:
    """Prints a line for each run that ends; on a terminal also a bar, in epochs. A context manager.

    Args:
        runs: the runs to do.
        finished: the number of runs that have a result already.
        bar: whether to draw the bar; None draws it if stdout is a terminal.
    """

    def __init__(self, runs: Sequence[PlannedRun], finished: int, *, bar: bool | None = None):
        self._runs = {run.id: run for run in runs}
        self._planned, self._ended = len(runs) + finished, finished
        self._fractions = dict.fromkeys(self._runs, 0.0)
        self._start = time.monotonic()
        columns = (
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remaining]}"),
        )
        self._bar = Progress(
            *columns, transient=True, disable=not (sys.stdout.isatty() if bar is None else bar)
        )
        self._task = self._bar.add_task("", total=self._planned, completed=finished, remaining="")

    def __enter__(self) -> "StudyLines":
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Shows an event."""
        run = self._runs[event.job.id]
        name = f"{run.cell}, seed {run.seed}"
        if event.state == "progress":
            self._fractions[run.id] = event.detail["epoch"] / event.detail["epochs"]
        elif event.state == "died":
            self._print(f"{name}: its worker died ({event.detail['message']}); started again")
        elif event.state in ("done", "failed"):
            self._fractions[run.id] = 1.0
            self._ended += 1
            width = len(str(self._planned))
            remaining = f"  {self.remaining()}" if self._ended < self._planned else ""
            self._print(f"{self._ended:>{width}} of {self._planned}  {name}: {ending(event)}{remaining}")
        self._bar.update(self._task, completed=self._ended, remaining=self.remaining())

    def remaining(self) -> str:
        """The remaining time at the pace so far; empty before the first epoch has ended."""
        share = sum(self._fractions.values()) / max(1, len(self._fractions))
        if share in (0, 1):
            return ""
        return f"about {duration((time.monotonic() - self._start) * (1 - share) / share)} left"

    def _print(self, line: str) -> None:
        if self._bar.disable:
            print(line, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


def ending(event: Event) -> str:
    """The end of a run in words."""
    detail = event.detail
    if event.state == "failed":
        return f"failed: {detail['error']}: {detail['message']}"
    parts = [] if detail.get("status") == "finished" else [str(detail.get("status")).replace("_", " ")]
    if detail.get("test_accuracy") is not None:
        parts.append(f"test accuracy {detail['test_accuracy']:.2%}")
    if detail.get("test_r2") is not None:
        parts.append(f"test R^2 {detail['test_r2']:.4f}")
    if detail.get("seconds"):
        parts.append(f"{detail['seconds']:.1f} s")
    return ", ".join(parts)
