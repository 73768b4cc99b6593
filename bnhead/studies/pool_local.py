"""Runs on this machine: one process for each core, each on one thread, started once and used for many runs.

Processes are spawned, since TensorFlow does not survive a fork. A worker that is killed is replaced and its
run begun again, which goes on where a checkpoint allows. Workers end when the study does, however it ends.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from bnhead.studies.pool import MOST_DEATHS, Event, Job, take


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Worker processes.

    Args:
        workers: how many; they start with the first job.
    """

    def __init__(self, workers: int):
        self._count = workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Does the jobs, in about their order, and yields what happens. All workers start at once."""
        waiting, deaths = list(jobs), dict.fromkeys((job.id for job in jobs), 0)
        self._workers += [_Worker() for _ in range(self._count - len(self._workers))]
        while waiting or any(worker.job for worker in self._workers):
            yield from self._hand_out(waiting)
            for worker in self._that_have_news():
                yield from self._news(worker, waiting, deaths)

    def _hand_out(self, waiting: list[Job]) -> Iterator[Event]:
        for worker in self._workers:
            if waiting and worker.job is None:
                busy = [other.job.kind for other in self._workers if other.job]
                job = take(waiting, worker.last, busy)
                worker.begin(job)
                yield Event(job, "started", {})

    def _that_have_news(self) -> list["_Worker"]:
        at_work = {worker.connection: worker for worker in self._workers if worker.job}
        return [at_work[connection] for connection in multiprocessing.connection.wait(list(at_work))]

    def _news(self, worker: "_Worker", waiting: list[Job], deaths: dict[str, int]) -> Iterator[Event]:
        job = worker.job
        try:
            what, detail = worker.connection.recv()
        except (EOFError, OSError):  # killed; also in the middle of a message
            self._workers[self._workers.index(worker)] = _Worker()
            how = worker.stop(patience=5.0)
            deaths[job.id] += 1
            if deaths[job.id] < MOST_DEATHS:
                waiting.insert(0, job)
                yield Event(job, "died", {"message": how})
            else:
                message = f"its worker died {MOST_DEATHS} times ({how})"
                yield Event(job, "failed", {"error": "WorkerDied", "message": message, "traceback": ""})
            return
        if what != "told":
            worker.job = None
        yield Event(job, what, detail)


class _Worker:
    """A process, the connection to it, and the job it does."""

    def __init__(self):
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.last: str | None = None

    def begin(self, job: Job) -> None:
        self.job, self.last = job, job.kind
        with contextlib.suppress(OSError):  # it is dead, which its connection tells next
            self.connection.send(job)

    def stop(self, patience: float = 0.0) -> str:
        """Kills the process, after `patience` seconds, and tells how it ended. Files are written whole or not
        at all, so nothing is torn.
        """
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.connection.close()
        code = self.process.exitcode
        return f"signal {-code}" if code and code < 0 else f"exit status {code}"


def _work(connection: Connection) -> None:
    """A worker process' whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study's process hears it and ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # the study is over, or this worker is
        while True:
            job: Job = connection.recv()
            connection.send(attempt(job, lambda detail: connection.send(("told", detail))))


def attempt(job: Job, tell: Any) -> tuple[str, dict[str, Any]]:
    """Does a job: `("done", outcome)`, or `("failed", error)` whatever the error."""
    try:
        return "done", job.work(job.config, tell)
    except Exception as error:
        message = " ".join(str(error).split())
        return "failed", {
            "error": type(error).__name__,
            "message": message,
            "traceback": traceback.format_exc(),
        }


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
