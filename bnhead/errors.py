"""Errors that a command reports in one line, each with the exit status it ends with."""

import difflib
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


class StudyError(RuntimeError):
    """The runs of a study fail, and not one by one."""

    exit_status = 7


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, in any case; empty if none is near.

    `cutoff`, in [0, 1], is how near: the least `difflib` ratio.
    """
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
