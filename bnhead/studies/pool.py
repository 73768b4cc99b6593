"""The interface between a study and the pools that do its runs: jobs, events, and the order of jobs.

`run(jobs)` of a pool yields events until all jobs have ended. `pool_local.Pool` uses processes of this
machine and `pool_ray.Pool` a Ray cluster; both are context managers, and leaving the context stops the
workers. `pool_serial.Pool` uses the calling process.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnhead.training.config import TrainConfig

MAX_DEATHS = 3  # of workers on one job, before the job counts as failed


@dataclass(frozen=True)
class Job:
    """One task for a worker.

    Attributes:
        id: unique among the jobs of a call.
        group: jobs of one group prefer one worker: they differ only in the seed and share a traced graph.
        config: a run's settings.
        work: `(config, report) -> outcome`, a function of a module; `report` sends a dictionary at any time.
    """

    id: str
    group: str
    config: TrainConfig
    work: Callable[[TrainConfig, Callable[[dict], None]], dict]


@dataclass(frozen=True)
class Event:
    """A change in the state of a job.

    Attributes:
        job: the job.
        state: started, progress, done, failed, or died: its worker was killed and the job starts again.
        detail: for progress the report; for done the result of `work`; for failed `error`, `message` and
            `traceback`.
    """

    job: Job
    state: str
    detail: Mapping[str, Any]


def take(waiting: list[Job], last_group: str | None, busy_groups: Sequence[str]) -> Job:
    """Removes the next job for a worker from `waiting` and returns it.

    It comes from the worker's last group, or else from the group with the most jobs per worker.

    Args:
        waiting: the jobs, in their order; at least one.
        last_group: the group of the worker's last job.
        busy_groups: the groups of the jobs that the other workers are doing.
    """
    groups = [job.group for job in waiting]
    if last_group in groups:
        return waiting.pop(groups.index(last_group))
    busy = list(busy_groups)
    largest = max(dict.fromkeys(groups), key=lambda group: groups.count(group) / (1 + busy.count(group)))
    return waiting.pop(groups.index(largest))


def after_death(job: Job, deaths: dict[str, int], waiting: list[Job], message: str) -> Event:
    """Counts the death of a job's worker: puts the job first in `waiting`, or fails it at `MAX_DEATHS`."""
    deaths[job.id] = deaths.get(job.id, 0) + 1
    if deaths[job.id] < MAX_DEATHS:
        waiting.insert(0, job)
        return Event(job, "died", {"message": message})
    message = f"its worker died {MAX_DEATHS} times ({message})"
    return Event(job, "failed", {"error": "WorkerDied", "message": message, "traceback": ""})


def attempt(job: Job, report: Callable[[dict[str, Any]], None]) -> tuple[str, dict[str, Any]]:
    """Does a job: `("done", outcome)`, or `("failed", error)` after any exception."""
    try:
        return "done", job.work(job.config, report)
    except Exception as error:
        return "failed", failure(error)


def failure(error: Exception) -> dict[str, str]:
    """The detail of a failed job: type of the error, message on one line, traceback."""
    message = " ".join(str(error).split())
    lines = traceback.format_exception(error)
    return {"error": type(error).__name__, "message": message, "traceback": "".join(lines)}
