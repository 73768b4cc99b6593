"""One directory, one writer: a lock file that names the writer and is free again when the writer has died.

On one machine the kernel's file lock decides; it ends with the process that holds it, however that ends. On a
network disk, where kernels may not share locks, the file's time stamp decides: the holder renews it every few
seconds.
"""

import contextlib
import json
import os
import pathlib
import platform
import tempfile
import threading
import time
from collections.abc import Iterator

from bnhead.errors import RunDirectoryError

try:
    import fcntl
except ImportError:  # Windows: the pid and the time stamp decide
    fcntl = None

RENEWED, STALE = 10.0, 60.0  # seconds between two renewals; seconds without one until a lock is free
NAME = "lock"


@contextlib.contextmanager
def writer_lock(folder: pathlib.Path) -> Iterator[dict | None]:
    """Locks an existing folder for as long as the context lasts.

    Yields:
        `pid` and `host` of the dead process whose lock was taken over; None if the folder was free.

    Raises:
        RunDirectoryError: another process holds the lock, which the message names, or the lock cannot be
            written.
    """
    path = folder / NAME
    try:
        file, dead_owner = _acquire(path)
    except OSError as error:
        raise RunDirectoryError(f"directory {folder} cannot be written: {error.strerror}") from error
    released = threading.Event()

    def renew():
        while not released.wait(RENEWED):
            with contextlib.suppress(OSError):
                os.utime(file)

    threading.Thread(target=renew, daemon=True).start()
    try:
        yield dead_owner
    finally:
        released.set()
        with contextlib.suppress(OSError):  # such as a removed folder; closing ends the kernel's lock anyway
            path.unlink()
        os.close(file)


def is_held(folder: pathlib.Path) -> bool:
    """Whether a process that lives writes to a folder, by its lock file. Takes no lock.

    On another machine the file's age decides; clocks that differ by a minute deceive it.
    """
    try:
        file = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        owner, age = _owner(file), time.time() - os.fstat(file).st_mtime
    finally:
        os.close(file)
    if owner and owner["host"] == platform.node():
        return _exists(owner["pid"])
    return owner is not None and age < STALE


def _acquire(path: pathlib.Path) -> tuple[int, dict | None]:
    """Locks the file and writes this process into it. Returns its descriptor and the dead owner, if any."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            locked = _flock(file)
            owner = _owner(file)
            if locked is False or (owner and _is_alive(owner, path, file, locked)):
                writer = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
                raise RunDirectoryError(f"directory {path.parent} is being written by {writer}")
            try:
                current = os.path.samestat(os.stat(path), os.fstat(file))
            except FileNotFoundError:
                current = False
            if current:
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode(), 0)
                return file, owner
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise
        os.close(file)  # its holder removed it after we opened it and before we locked it: try again


def _flock(file: int) -> bool | None:
    """Whether the kernel locked the file for us; None if the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):  # AttributeError: there is no fcntl
        return None
    return True


def _owner(file: int) -> dict | None:
    """The process that a lock file names; None if the file is empty or damaged."""
    try:
        owner = json.loads(os.pread(file, 1000, 0))
    except ValueError:
        return None
    is_process = isinstance(owner, dict) and {"pid", "host"} <= set(owner)
    return owner if is_process and type(owner["pid"]) is int and 0 < owner["pid"] < 2**31 else None


def _is_alive(owner: dict, path: pathlib.Path, file: int, locked: bool | None) -> bool:
    """Whether the owner that a lock file names may still write."""
    if owner["host"] != platform.node():
        # The file server stamps both files, so clocks that differ between machines do not matter
        with tempfile.TemporaryFile(dir=path.parent) as fresh:
            return os.fstat(fresh.fileno()).st_mtime - os.fstat(file).st_mtime < STALE
    return not locked and owner["pid"] != os.getpid() and _exists(owner["pid"])


def _exists(pid: int) -> bool:
    """Whether a process of this number exists on this machine."""
    try:
        os.kill(pid, 0)  # signal 0 only checks that the process exists
    except OSError as error:  # PermissionError: it exists and belongs to another user
        return not isinstance(error, ProcessLookupError)
    return True
