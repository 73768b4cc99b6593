"""Errors that a command reports in one line, each with the exit status it ends with."""

import difflib
import signal
from collections.abc import Iterable


class UsageError(ValueError):
    """A flag, an argument or a name that cannot be meant."""

    exit_status = 2


class RunDirectoryError(RuntimeError):
    """The run directory holds something else, or cannot be written."""

    exit_status = 3


class DataError(RuntimeError):
    """The data set is not there, or is not what training needs."""

    exit_status = 4


class ResourcesError(RuntimeError):
    """Memory, or the disk, is full."""

    exit_status = 6


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; what was done is kept.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int):
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_status = 128 + number  # as a shell has it


class StudyError(RuntimeError):
    """The runs of a study fail, and not one by one."""

    exit_status = 7


class CopyError(RuntimeError):
    """A copy of a model, or its file, computes something else than the model."""

    exit_status = 8


# What a command reports in one line.
REPORTED = (UsageError, RunDirectoryError, DataError, ResourcesError, StudyError, CopyError)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, in any case; empty if none is near.

    `cutoff`, in [0, 1], is how near: the least `difflib` ratio.
    """
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
