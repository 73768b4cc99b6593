"""Errors that a command reports in one line, each with its exit status."""

import difflib
import signal
from collections.abc import Iterable


class UsageError(ValueError):
    """An invalid flag, argument or name."""

    exit_status = 2


class ForeignCode(UsageError):
    """A `.keras` file needs code that is not Keras'.

    Attributes:
        name: of the class or function; "" for the code of a Lambda layer, which safe mode refuses.
    """

    def __init__(self, message: str, name: str = ""):
        super().__init__(message)
        self.name = name


class RunDirectoryError(RuntimeError):
    """The run directory holds another run or cannot be written."""

    exit_status = 3


class DataError(RuntimeError):
    """The data set is missing or unfit for training."""

    exit_status = 4


class ResourcesError(RuntimeError):
    """Memory or disk is full."""

    exit_status = 6


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; completed work is kept.

    Args:
        number: the signal's number.
        kept: a clause for the message: the completed work that is kept, and how to resume.
    """

    def __init__(self, number: int, kept: str = ""):
        super().__init__("; ".join(filter(None, [f"interrupted by {signal.Signals(number).name}", kept])))
        self.exit_status = 128 + number  # the convention of shells


class StudyError(RuntimeError):
    """Several runs of a study failed in the same way."""

    exit_status = 7


class CopyError(RuntimeError):
    """A copy or a saved file of a model gives other outputs than the model."""

    exit_status = 8


# Errors that a command reports in one line.
REPORTED = (UsageError, RunDirectoryError, DataError, ResourcesError, StudyError, CopyError)


def nearest(word: str, words: Iterable[str], *, cutoff: float = 0.5) -> str:
    """`"; did you mean 'x'?"` with the valid word nearest to `word`, ignoring case; empty if none is near.

    Args:
        word: the invalid word.
        words: the valid ones.
        cutoff: the least similarity (`difflib` ratio), in [0, 1].
    """
    by_lower = {name.lower(): name for name in words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
