"""The start of a process with TensorFlow: streams that can be written to, and no native log lines."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from bnhead.errors import DataError, RunDirectoryError, UsageError
from bnhead.texts import notice


def streams() -> None:
    """Makes stdout and stderr accept every text.

    A process without them, such as a daemon, gets streams that discard their input. Characters that stdout
    cannot encode, such as those of a directory's name in another encoding, are escaped.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - it stays open
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if getattr(sys.stdout, "errors", "") == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def quiet(loading: str = "") -> Iterator[None]:
    """Discards native code's output to stderr while TensorFlow starts, unless that fails.

    TensorFlow 2.21 reports oneDNN and missing CUDA drivers at every TF_CPP_MIN_LOG_LEVEL.

    Args:
        loading: names for a line on a terminal, since importing TensorFlow takes seconds; "" for no line.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    streams()
    if loading and sys.stderr.isatty():
        notice(f"loading {loading} ...")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        try:
            yield
        except (UsageError, RunDirectoryError, DataError):  # their message suffices
            raise
        except BaseException:
            output.seek(0)
            os.write(stderr, output.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
