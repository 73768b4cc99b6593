"""The progress of a study on the terminal: a line for each run that ends, and the remaining time."""

import statistics
import sys
import time
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.text import Text

from bnhead.studies.plan import PlannedRun
from bnhead.studies.pool import Event
from bnhead.texts import duration, wrapped


class StudyLines:
    """Prints a line for each run that ends; on a terminal also a bar with the remaining time.

    A context manager.

    Args:
        runs: the runs to do.
        seconds: durations of the runs that have a result already.
        bar: whether to draw the bar; None draws it if stdout is a terminal.

    Attributes:
        ended: number of runs that have ended, those before this session included.
        kept: number of them with a result.
        planned: number of all runs.
    """

    def __init__(self, runs: Sequence[PlannedRun], seconds: Sequence[float], *, bar: bool | None = None):
        self._runs = {run.id: run for run in runs}
        self.planned, self.ended, self.kept = len(runs) + len(seconds), len(seconds), len(seconds)
        self._seconds = [value for value in seconds if value > 0]
        self._shares = dict.fromkeys(self._runs, 0.0)  # of each run's steps that are done
        self._first: dict[str, tuple[float, float]] = {}  # time and share of a run's first report
        self._workers = 1
        self._end = self._expected_end()
        columns = BarColumn(bar_width=16), MofNCompleteColumn(), _Remaining(self)
        self._bar = Progress(
            *columns, transient=True, disable=not (sys.stdout.isatty() if bar is None else bar)
        )
        self._task = self._bar.add_task("", total=self.planned, completed=self.ended)

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
            share = self._shares[run.id] = event.detail["share"]
            self._first.setdefault(run.id, (time.monotonic(), share))
            self._workers = max(self._workers, sum(0 < share < 1 for share in self._shares.values()))
        elif event.state == "died":
            self._first.pop(run.id, None)
            self._shares[run.id] = 0.0
            self._print(f"{name}: its worker died ({event.detail['message']}); started again")
        elif event.state in ("done", "failed"):
            self._shares[run.id] = 1.0
            self._first.pop(run.id, None)
            if seconds := event.detail.get("seconds"):
                self._seconds.append(seconds)
            self.ended += 1
            self.kept += event.state == "done"
            self._print(f"{self.ended:>{len(str(self.planned))}} of {self.planned}  {name}: {ending(event)}")
        completed = self.ended + sum(share for share in self._shares.values() if share < 1)
        self._end = self._expected_end()
        self._bar.update(self._task, completed=int(completed))

    def remaining(self) -> str:
        """The remaining time as estimated at the last report, minus the time since; empty if unknown."""
        return "" if self._end is None else f"about {duration(max(0, self._end - time.monotonic()))} left"

    def _expected_end(self) -> float | None:
        """The time at the end, going by the runs that have ended, or by the steps of those under way.

        None before a run has done steps.
        """
        now = time.monotonic()
        paces = [
            (now - start) / (self._shares[run] - share)
            for run, (start, share) in self._first.items()
            if self._shares[run] > share
        ]
        each = self._seconds or paces
        remaining = sum(1 - share for share in self._shares.values())
        if not each or not remaining:
            return None
        return now + statistics.median(each) * remaining / min(self._workers, len(self._shares))

    def _print(self, line: str) -> None:
        if self._bar.disable:
            print(line, flush=True)
        else:
            line = wrapped(line, hanging=4)
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Remaining(ProgressColumn):
    """The remaining time next to the bar, made again at each refresh, so that it counts down."""

    def __init__(self, lines: StudyLines):
        super().__init__()
        self._lines = lines

    def render(self, task: Task) -> Text:
        return Text(f"runs  {self._lines.remaining() or 'workers start' * (not task.completed)}".rstrip())


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
    if detail.get("dead") is not None:
        parts.append(f"dead {detail['dead']:.1%}")
    if detail.get("seconds"):
        parts.append(f"{detail['seconds']:.1f} s")
    return ", ".join(parts)
