"""How a command ends: errors of bnhead become one line on stderr and their exit status."""

import os
import sys
from collections.abc import Callable

from bnhead.devices.startup import streams
from bnhead.errors import REPORTED, Interrupted, ResourcesError
from bnhead.runs import atomic
from bnhead.texts import notice, one_line


def run(program: str, work: Callable[[], int]) -> int:
    """The exit status of `work()`, or of the error that ended it.

    Args:
        program: the name that messages begin with.
        work: the command. Errors that are not bnhead's propagate.
    """
    streams()
    try:
        status = work()
        sys.stdout.flush()
        return status
    except REPORTED as error:
        return _complain(program, one_line(str(error)), error.exit_status)  # paths can hold anything
    except BrokenPipeError:  # `| head` has read enough
        _discard_stdout()
        return 0
    except OSError as error:
        if error.errno not in atomic.FULL:
            raise
        _discard_stdout()
        return _complain(program, "stdout cannot be written: the disk is full", ResourcesError.exit_status)
    except Interrupted as error:
        return _complain(program, str(error), error.exit_status)
    except KeyboardInterrupt:
        return _complain(program, "interrupted", 130)


def _complain(program: str, line: str, status: int) -> int:
    notice(f"{program}: {line}")
    return status


def _discard_stdout() -> None:
    # Python flushes stdout once more at exit, which would fail again on the buffer that could not be written
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
