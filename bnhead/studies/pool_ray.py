"""The same runs on a Ray cluster: `pip install "bnhead[ray]"`.

One actor for each worker, with one CPU, or a share where there are fewer, and an equal share of the GPUs, so
that several small runs use one GPU. The study's directory must be reachable from every machine under the same
path. Ray begins a killed actor anew; its run goes on where a checkpoint allows.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from bnhead.errors import UsageError
from bnhead.studies import pool_local, worker
from bnhead.studies.pool import MOST_DEATHS, Event, Job, take


def cores() -> int:
    """The number of CPUs of the cluster, if one is given, else of this machine."""
    if not os.environ.get("RAY_ADDRESS"):
        return pool_local.cores()
    with Pool(1) as pool:
        return pool.cpus()


def share(total: float, workers: int) -> float:
    """What each worker takes of a thing of which there are `total`: at most a whole one, and so much that all
    workers fit, none of them on two things at once.

    Ray counts in ten thousandths and rounds: six times its 1 / 6 are more than 1, and the sixth would wait.
    """
    return math.floor(10_000 / math.ceil(workers / total)) / 10_000 if total else 0.0


class Pool:
    """Actors of a Ray cluster, which is that of RAY_ADDRESS, or else started here.

    Args:
        workers: how many.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(self, workers: int):
        try:
            import ray
        except ImportError:
            raise UsageError(
                'engine ray needs Ray, which is not installed: pip install "bnhead[ray]"'
            ) from None
        self._ray, self._count, self._mine = ray, workers, False
        self._actors: list[Any] = []

    def __enter__(self) -> "Pool":
        if not self._ray.is_initialized():
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            self._mine = True
        there = self._ray.cluster_resources()
        options = {
            "num_cpus": share(there.get("CPU", 1), self._count),
            "num_gpus": share(there.get("GPU", 0), self._count),
            "runtime_env": {"env_vars": worker.ENVIRONMENT},
        }
        self._new = lambda: self._ray.remote(_Actor).options(**options).remote()
        return self

    def __exit__(self, *error) -> None:
        for actor in self._actors:
            with contextlib.suppress(Exception):  # it may be gone
                self._ray.kill(actor)
        self._actors.clear()
        if self._mine:
            self._ray.shutdown()

    def cpus(self) -> int:
        """The number of CPUs of the cluster."""
        return int(self._ray.cluster_resources().get("CPU", 1))

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Does the jobs, in about their order, and yields what happens; of epochs nothing is told."""
        waiting, deaths = list(jobs), dict.fromkeys((job.id for job in jobs), 0)
        self._actors += [self._new() for _ in range(self._count - len(self._actors))]
        idle, last, at_work = list(range(self._count)), {}, {}
        while waiting or at_work:
            while waiting and idle:
                index = idle.pop(0)
                job = take(waiting, last.get(index), [other.kind for _, other in at_work.values()])
                last[index] = job.kind
                at_work[self._actors[index].do.remote(job)] = index, job
                yield Event(job, "started", {})
            (ready,), _ = self._ray.wait(list(at_work), num_returns=1)
            index, job = at_work.pop(ready)
            idle.append(index)
            try:
                what, detail = self._ray.get(ready)
            except self._ray.exceptions.RayError as error:
                self._actors[index] = self._new()
                deaths[job.id] += 1
                message = " ".join(str(error).split())[:200]
                what, detail = "died", {"message": message}
                if deaths[job.id] < MOST_DEATHS:
                    waiting.insert(0, job)
                else:
                    message = f"its worker died {MOST_DEATHS} times ({message})"
                    what, detail = "failed", {"error": "WorkerDied", "message": message, "traceback": ""}
            yield Event(job, what, detail)


class _Actor:
    """A worker process of Ray's."""

    def do(self, job: Job) -> tuple[str, dict[str, Any]]:
        """Does a job and says how it ended."""
        return pool_local.attempt(job, lambda detail: None)
