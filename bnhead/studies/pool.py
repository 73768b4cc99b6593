"""What does the runs of a study: processes of this machine (`local`) or a Ray cluster (`ray`).

An engine is a context manager called `Pool`. `run(jobs)` yields events until all jobs have ended; closing it
stops the workers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnhead.training.config import TrainConfig

MOST_DEATHS = 3  # of workers by one job, until the job counts as failed


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Attributes:
        id: unique among the jobs of a call.
        kind: jobs of one kind go to one worker where that costs nothing: those that differ in the seed alone.
        config: a run's settings.
        work: `(config, tell) -> outcome`, a function of a module; `tell` takes a dictionary at any time.
    """

    id: str
    kind: str
    config: TrainConfig
    work: Callable[[TrainConfig, Callable[[dict], None]], dict]


@dataclass(frozen=True)
class Event:
    """What happened to a job.

    Attributes:
        job: the job.
        what: started, told, done, failed, or died: its worker was killed, and it is begun again.
        detail: what was told; of done, what the work returned; of failed, `error`, `message`, `traceback`.
    """

    job: Job
    what: str
    detail: Mapping[str, Any]


def take(waiting: list[Job], last: str | None, busy: Sequence[str]) -> Job:
    """Takes the next job for a worker out of those that wait.

    The kind it did last, else the kind with the most jobs waiting for each worker that is at it.

    Args:
        waiting: the jobs, in their order; at least one.
        last: the kind the worker did last.
        busy: the kinds that the other workers do now.
    """
    kinds = [job.kind for job in waiting]
    if last in kinds:
        kind = last
    else:
        kind = max(dict.fromkeys(kinds), key=lambda kind: kinds.count(kind) / (1 + list(busy).count(kind)))
    return waiting.pop(kinds.index(kind))
