"""Arrays on disk that take long to compute: written row by row, resumed after an interruption, verified.

An array is a folder `bnhead-<key>`: `features.npy`, and `meta.json` with the SHA-256 of its rows and the
facts that made the key. Until the last row is written there is `progress.json` in place of `meta.json`, with
the number of rows that are on the disk. The key is a hash of everything that the rows depend on, so another
content has another folder.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from bnhead.data.cache import cache_path
from bnhead.errors import RunDirectoryError
from bnhead.runs import atomic
from bnhead.runs.lock import is_held, writer_lock

ARRAY, META, PROGRESS = "features.npy", "meta.json", "progress.json"
_POLL = 1.0  # seconds between two looks at an array that another process writes
_SYNCED = 2.0  # seconds between two flushes to the disk: an interrupted extraction repeats so much at most


def load_or_compute(
    directory: pathlib.Path,
    facts: dict[str, Any],
    shape: Sequence[int],
    compute: Callable[[int], Iterable[np.ndarray]],
) -> np.ndarray:
    """Returns a float32 array from the store, computed and stored first if it is not there.

    Args:
        directory: of the store; made if it does not exist.
        facts: plain values that identify everything that the array depends on.
        shape: of the array, `(rows, ...)`.
        compute: first row -> the rows from there on, in blocks `(block rows, ...)`.

    Returns:
        A read-only memory map of the shape.

    Raises:
        ResourcesError: the disk is full; the rows that are written stay, and the same call goes on.
        RunDirectoryError: the directory cannot be written.
    """
    path = cache_path(directory, facts)
    if (array := _complete(path, shape)) is not None:
        return array
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if (array := _complete(path, shape)) is not None:  # another process has written it meanwhile
                return array
            (path / META).unlink(missing_ok=True)  # of a damaged array
            _write(path, shape, compute)
            digest = _sha256(np.load(path / ARRAY, mmap_mode="r"))
            _write_json(path / META, {"sha256": digest, "facts": facts})
            (path / PROGRESS).unlink(missing_ok=True)
    except OSError as error:
        raise atomic.unwritable(error, f"the feature store {path}") from error
    return np.load(path / ARRAY, mmap_mode="r")


def _complete(path: pathlib.Path, shape: Sequence[int]) -> np.ndarray | None:
    """The array if it is whole and its rows match their SHA-256, else None."""
    try:
        digest = atomic.read_json(path / META)["sha256"]
        array = np.load(path / ARRAY, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, KeyError):
        return None
    return array if array.shape == tuple(shape) and _sha256(array) == digest else None


def _write(path: pathlib.Path, shape: Sequence[int], compute: Callable[[int], Iterable[np.ndarray]]) -> None:
    """Writes the rows that are missing."""
    header = _header(shape)
    row_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64))
    row = _rows_written(path, shape, header)
    with open(path / ARRAY, "r+b" if row else "w+b") as file:
        if not row:
            file.write(header)
            _reserve(file, len(header) + row_bytes * shape[0])
        synced = time.monotonic()
        file.seek(len(header) + row_bytes * row)
        for block in compute(row) if row < shape[0] else ():
            if block.shape[1:] != tuple(shape[1:]):
                raise ValueError(f"rows must have the shape {tuple(shape[1:])}, got {block.shape[1:]}")
            file.write(np.ascontiguousarray(block, np.float32).data)
            row += len(block)
            if row == shape[0] or time.monotonic() - synced > _SYNCED:
                file.flush()
                os.fsync(file.fileno())
                _write_json(path / PROGRESS, {"rows": row})
                synced = time.monotonic()


def _header(shape: Sequence[int]) -> bytes:
    """The first bytes of an `.npy` file of float32."""
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        text, {"descr": "<f4", "fortran_order": False, "shape": tuple(map(int, shape))}
    )
    return text.getvalue()


def _rows_written(path: pathlib.Path, shape: Sequence[int], header: bytes) -> int:
    """The rows that an interrupted extraction has left; 0 if there is none, or one of another array."""
    try:
        rows = atomic.read_json(path / PROGRESS)["rows"]
        with open(path / ARRAY, "rb") as file:
            is_same = file.read(len(header)) == header
    except (OSError, ValueError, KeyError):
        return 0
    return rows if is_same and isinstance(rows, int) and 0 < rows <= shape[0] else 0


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserves the whole file's space, so that a full disk shows before the backbone runs for hours."""
    file.flush()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except AttributeError:  # not on this system: the disk may fill up later
        pass
    except OSError as error:
        if error.errno in atomic.FULL:
            file.truncate(0)
            raise
        # a file system without reservations


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    atomic.replace(path, lambda temporary: temporary.write_text(json.dumps(content)))


def _sha256(array: np.ndarray) -> str:
    """SHA-256 of the rows, read in parts: the array may be larger than the memory."""
    digest = hashlib.sha256()
    for first in range(0, len(array), 1024):
        digest.update(np.ascontiguousarray(array[first : first + 1024]).data.cast("B"))
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the folder's lock; waits for a process that writes the same array."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(writer_lock(path))
                break
            except RunDirectoryError:
                if not is_held(path):
                    raise
                time.sleep(_POLL)
        yield
