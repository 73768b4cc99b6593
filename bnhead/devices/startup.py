"""What happens while a process starts TensorFlow: streams that can be written to, and no native chatter."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from bnhead.errors import DataError, RunDirectoryError, UsageError


def streams() -> None:
    """Sees to it that every text can be printed.

    A process without stdout or stderr, as a daemon, gets streams that lead nowhere. What stdout has no bytes
    for, such as a directory's name that is no UTF-8, is written as an escape.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - it stays open
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if getattr(sys.stdout, "errors", "") == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back what native code writes to stderr while TensorFlow starts, unless that fails.

    TensorFlow 2.21 reports oneDNN and missing CUDA drivers there whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    streams()
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except (UsageError, RunDirectoryError, DataError):  # what to do is in their one line
            raise
        except BaseException:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
