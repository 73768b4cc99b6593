"""The same runs on a Ray cluster: `pip install "bnhead[ray]"`.

One actor for each worker, with one CPU, or a share if there are fewer, and an equal share of the GPUs, so
that several small runs use one GPU. Every machine must reach the study's directory under the same path. A
killed actor is replaced and its run starts again from its newest checkpoint, if there is one.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from bnhead.errors import UsageError
from bnhead.studies import pool_local, worker
from bnhead.studies.pool import Event, Job, after_death, attempt, take


def cores() -> int:
    """The number of CPUs of the cluster at RAY_ADDRESS, or of this machine if it is not set."""
    if not os.environ.get("RAY_ADDRESS"):
        return pool_local.cores()
    with Pool(1) as pool:
        return pool.cpus()


def share_per_worker(total: float, workers: int) -> float:
    """The share of `total` CPUs or GPUs for each worker.

    At most 1, small enough that all workers fit, and no worker is split over two devices.

    Ray counts in ten thousandths and rounds: six times its 1 / 6 exceed 1, and the sixth worker would wait.
    """
    return math.floor(10_000 / math.ceil(workers / total)) / 10_000 if total else 0.0


class Pool:
    """Actors of the Ray cluster at RAY_ADDRESS, or of one started here.

    Args:
        workers: number of actors.

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
        self._ray, self._count, self._started_ray = ray, workers, False
        self._actors: list[Any] = []

    def __enter__(self) -> "Pool":
        if not self._ray.is_initialized():
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            self._started_ray = True
        resources = self._ray.cluster_resources()
        options = {
            "num_cpus": share_per_worker(resources.get("CPU", 1), self._count),
            "num_gpus": share_per_worker(resources.get("GPU", 0), self._count),
            "runtime_env": {"env_vars": worker.ENVIRONMENT},
        }
        self._new_actor = lambda: self._ray.remote(_Actor).options(**options).remote()
        return self

    def __exit__(self, *error) -> None:
        for actor in self._actors:
            with contextlib.suppress(Exception):  # it may be dead already
                self._ray.kill(actor)
        self._actors.clear()
        if self._started_ray:
            self._ray.shutdown()

    def cpus(self) -> int:
        """The number of CPUs of the cluster."""
        return int(self._ray.cluster_resources().get("CPU", 1))

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Does the jobs, roughly in their order, and yields events, without the progress within a run."""
        waiting, deaths = list(jobs), {}
        self._actors += [self._new_actor() for _ in range(self._count - len(self._actors))]
        idle, last_groups, working = list(range(self._count)), {}, {}
        while waiting or working:
            while waiting and idle:
                index = idle.pop(0)
                job = take(waiting, last_groups.get(index), [job.group for _, job in working.values()])
                last_groups[index] = job.group
                working[self._actors[index].do.remote(job)] = index, job
                yield Event(job, "started", {})
            (ready,), _ = self._ray.wait(list(working), num_returns=1)
            index, job = working.pop(ready)
            idle.append(index)
            try:
                state, detail = self._ray.get(ready)
                yield Event(job, state, detail)
            except self._ray.exceptions.RayError as error:
                self._actors[index] = self._new_actor()
                yield after_death(job, deaths, waiting, " ".join(str(error).split())[:200])


class _Actor:
    """A worker process of Ray's."""

    def do(self, job: Job) -> tuple[str, dict[str, Any]]:
        """Does a job; returns its last state and detail."""
        return attempt(job, lambda detail: None)
