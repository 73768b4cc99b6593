"""Decoded arrays on disk, so that pictures are decoded once: written completely or not at all, and verified.

A cache is a directory `bnhead-<key>` with an `.npy` file for each array and `meta.json` with their SHA-256.
It is written under another name, synced and renamed. A damaged, incomplete or foreign cache counts as
missing, and a directory that cannot be written is not an error: the arrays are decoded again next time.
"""

import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable

import numpy as np

from bnhead.runs import atomic

_VERSION = 2  # of the layout of the files and of the decoding
_WRITING = "bnhead-writing-"
_STALE = 3600.0  # seconds after which an unfinished cache is removed


def load_or_make(
    directory: pathlib.Path | None, key: object, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns arrays from their cache in `directory`, or makes and caches them; None makes them uncached.

    `key`, of plain values, must identify everything that the arrays depend on.
    """
    if directory is None:
        return make()
    path = cache_path(directory, key)
    arrays = read_arrays(path)
    if not arrays:
        arrays = make()
        write_arrays(path, arrays)
    return arrays


def cache_path(directory: pathlib.Path, key: object) -> pathlib.Path:
    """Returns the directory of the cache with a key, made of plain values."""
    text = json.dumps([_VERSION, key], sort_keys=True)
    return directory / f"bnhead-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a cache; None unless all of them exist and match their SHA-256."""
    try:
        meta = atomic.read_json(path / "meta.json")
        arrays = {name: np.load(path / f"{name}.npy", allow_pickle=False) for name in meta}
        return arrays if {name: _array_hash(array) for name, array in arrays.items()} == meta else None
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return None


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> str:
    """Writes a cache, replacing an existing one, and removes unfinished caches of killed processes.

    Returns:
        The reason why it could not be written; empty if it was.
    """

    def fill(directory):
        directory.mkdir()
        for name, array in arrays.items():
            np.save(directory / f"{name}.npy", array, allow_pickle=False)
        meta = {name: _array_hash(array) for name, array in arrays.items()}
        (directory / "meta.json").write_text(json.dumps(meta))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for unfinished in path.parent.glob(f"{_WRITING}*"):
            if time.time() - unfinished.stat().st_mtime > _STALE:
                shutil.rmtree(unfinished, ignore_errors=True)
        atomic.replace(path, fill, prefix=_WRITING)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _array_hash(array: np.ndarray) -> str:
    """SHA-256 of the dtype, shape and content of an array."""
    hashed = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    hashed.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return hashed.hexdigest()
