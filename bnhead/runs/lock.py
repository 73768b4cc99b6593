"""One directory, one writer: a lock file that says who writes, and that a dead writer leaves free.

On one machine the kernel's file lock decides, which ends with the process that holds it, however it ends.
Where other machines see the directory, and kernels do not tell each other, the file's time stamp does: its
holder renews it every few seconds.
"""

import contextlib
import json
import os
import pathlib
import platform
import tempfile
import threading
from collections.abc import Iterator

from bnhead.errors import RunDirectoryError

try:
    import fcntl
except ImportError:  # Windows: there the pid and the time stamp decide
    fcntl = None

RENEWED, STALE = 10.0, 60.0  # seconds: between two signs of life; without any, until a lock is nobody's
NAME = "lock"


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[dict | None]:
    """Holds the lock of a folder that exists, for as long as the context lasts.

    Yields:
        Whom a stale lock was taken over from, with `pid`, `host`; None where there was none.

    Raises:
        RunDirectoryError: another process holds it, which it names, or it cannot be written.
    """
    path = folder / NAME
    try:
        file, before = _taken(path)
    except OSError as error:
        raise RunDirectoryError(f"directory {folder} cannot be written: {error.strerror}") from error
    done = threading.Event()
    threading.Thread(target=_renew, args=(file, done), daemon=True).start()
    try:
        yield before
    finally:
        done.set()
        with contextlib.suppress(OSError):  # the folder is gone, say; the kernel's lock ends all the same
            path.unlink()
        os.close(file)


def _taken(path: pathlib.Path) -> tuple[int, dict | None]:
    """The locked file, with our name in it, and whose name was there."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            mine = _locked(file)
            owner = _owner(file)
            if mine is False or (owner and _lives(owner, path, file, mine)):
                raise RunDirectoryError(f"directory {path.parent} is being written by {_named(owner)}")
            if not _is_at(path, file):  # its holder removed it between our opening and our locking it
                os.close(file)
                continue
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode(), 0)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise
        return file, owner


def _locked(file: int) -> bool | None:
    """Whether the kernel gave us the lock; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _owner(file: int) -> dict | None:
    try:
        owner = json.loads(os.pread(file, 1000, 0))
    except ValueError:  # empty, or written by halves
        return None
    known = isinstance(owner, dict) and {"pid", "host"} <= set(owner)
    return owner if known and type(owner["pid"]) is int and 0 < owner["pid"] < 2**31 else None


def _lives(owner: dict, path: pathlib.Path, file: int, mine: bool | None) -> bool:
    """Whether the owner that a lock names may still write."""
    if owner["host"] != platform.node():
        with tempfile.TemporaryFile(dir=path.parent) as now:  # by the clock that stamps files there
            return os.fstat(now.fileno()).st_mtime - os.fstat(file).st_mtime < STALE
    return not mine and owner["pid"] != os.getpid() and _runs(owner["pid"])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _named(owner: dict | None) -> str:
    return f"process {owner['pid']} on {owner['host']}" if owner else "another process"


def _is_at(path: pathlib.Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _renew(file: int, done: threading.Event) -> None:
    while not done.wait(RENEWED):
        with contextlib.suppress(OSError):
            os.utime(file)
