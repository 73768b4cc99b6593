"""Runs in the calling process, one after the other."""

from collections.abc import Iterator, Sequence

from bnhead.studies.pool import Event, Job, failure


class Pool:
    """Does jobs in this process.

    The work of a job returns its result, or is a generator that yields its progress and returns its result.
    """

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Does the jobs in their order and yields events."""
        for job in jobs:
            yield Event(job, "started", {})
            reports: list[dict] = []
            try:
                result = job.work(job.config, reports.append)
                yield from (Event(job, "progress", report) for report in reports)
                while isinstance(work := result, Iterator):
                    try:
                        yield Event(job, "progress", next(work))
                    except StopIteration as end:
                        result = end.value
            except Exception as error:
                yield Event(job, "failed", failure(error))
            else:
                yield Event(job, "done", result)
