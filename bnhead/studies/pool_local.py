"""Runs on this machine: one process for each core, each on one thread, started once and used for many runs.

On a GPU several processes gain where runs are so short that starting dominates them, and nothing where the
steps do: 8 runs of 15 epochs on digits took 175 s on an H200 in one process, 77 in four and 69 in eight,
while long runs of ResNet-20 took equally long in all. There a study begins with one process, and the pace of
its first run decides (`at_once`).

Processes are spawned, because TensorFlow does not survive a fork. A killed worker is replaced and its run
starts again from its newest checkpoint, if there is one. Workers end with the study, however it ends.
"""

import contextlib
import glob
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from bnhead.studies.pool import Event, Job, after_death, attempt, take


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sees_gpu() -> bool:
    """Whether this machine has a GPU that processes may use, without loading a library that would take it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and bool(glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/dev/kfd"))


def at_once(start: float, steps: float, most: int) -> int:
    """Number of runs at a time on one GPU: while one is computing, the others start.

    Args:
        start: seconds of a run until its first step is done: building, tracing, compiling, on a core.
        steps: seconds of its steps, on the GPU, which they share.
        most: number of processes at most.
    """
    return max(1, min(most, int((start + steps) / steps)))


class Pool:
    """Worker processes.

    Args:
        workers: number of processes; they start with the first job.
        paced: whether on a GPU their number is chosen by the pace of the first run, up to `workers`.
    """

    def __init__(self, workers: int, *, paced: bool = False):
        self._most = workers
        self._count = 1 if paced and sees_gpu() else workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Does the jobs, roughly in their order, and yields events. All workers start at once."""
        waiting, deaths = list(jobs), {}
        while waiting or any(worker.job for worker in self._workers):
            self._workers += [_Worker() for _ in range(self._count - len(self._workers))]
            for worker in self._workers:
                if waiting and worker.job is None:
                    busy = [busy_worker.job.group for busy_worker in self._workers if busy_worker.job]
                    worker.begin(take(waiting, worker.last_group, busy))
                    yield Event(worker.job, "started", {})
            working = {worker.connection: worker for worker in self._workers if worker.job}
            for connection in multiprocessing.connection.wait(list(working)):
                yield self._next_event(working[connection], waiting, deaths)

    def _next_event(self, worker: "_Worker", waiting: list[Job], deaths: dict[str, int]) -> Event:
        job = worker.job
        try:
            state, detail = worker.connection.recv()
        except (EOFError, OSError):  # killed, perhaps in the middle of a message
            self._workers[self._workers.index(worker)] = _Worker()
            return after_death(job, deaths, waiting, worker.stop(patience=5.0))
        if state != "progress":
            worker.job = None
        elif self._count < self._most and "steps" in detail:
            self._count = at_once(detail["start"], detail["steps"], self._most)
            self._most = self._count  # it is decided
        return Event(job, state, detail)


class _Worker:
    """A process, the connection to it, and its current job."""

    def __init__(self):
        spawn = multiprocessing.get_context("spawn")
        self.connection, worker_end = spawn.Pipe()
        self.process = spawn.Process(target=_work, args=(worker_end,), daemon=True)
        self.process.start()
        worker_end.close()
        self.job: Job | None = None
        self.last_group: str | None = None

    def begin(self, job: Job) -> None:
        self.job, self.last_group = job, job.group
        with contextlib.suppress(OSError):  # a dead worker is noticed at the next read
            self.connection.send(job)

    def stop(self, patience: float = 0.0) -> str:
        """Kills the process after `patience` seconds and returns how it ended.

        Files are written atomically, so that a kill leaves none half-written.
        """
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.connection.close()
        code = self.process.exitcode
        return f"signal {-code}" if code and code < 0 else f"exit status {code}"


def _work(connection: Connection) -> None:
    """The main function of a worker process."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study's process handles it and stops the workers
    threading.Thread(target=end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # the study or this worker is stopped
        while True:
            job: Job = connection.recv()
            connection.send(attempt(job, lambda detail: connection.send(("progress", detail))))
