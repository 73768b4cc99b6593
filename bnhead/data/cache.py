"""Decoded arrays on disk, so that pictures are decoded once: written whole or not at all, checked.

A cache is a folder `bnhead-<key>` with an `.npy` file for each array and `meta.json` with their SHA-256.
It is made under another name, synced and renamed. What is damaged, half-written or of another key is as
good as not there, and a place that cannot be written is no error: the arrays are decoded again next time.
"""

import hashlib
import json
import pathlib
import shutil
import time

import numpy as np

from bnhead.runs import atomic

_VERSION = 2  # of the files' layout and of how pictures become arrays
_WRITING = "bnhead-writing-"
_STALE = 3600.0  # seconds after which what was left half-written is removed


def folder(place: pathlib.Path, identity: object) -> pathlib.Path:
    """The cache's folder in `place` for what `identity`, made of plain values, describes."""
    text = json.dumps([_VERSION, identity], sort_keys=True)
    return place / f"bnhead-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays in a cache's folder; None unless all are there and are what was written."""
    try:
        meta = atomic.read_json(path / "meta.json")
        arrays = {name: np.load(path / f"{name}.npy", allow_pickle=False) for name in meta}
        return arrays if {name: digest(array) for name, array in arrays.items()} == meta else None
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return None


def write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> str:
    """Puts arrays in a cache's folder, in the place of what is there.

    Returns:
        Empty, or why it could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent)
        atomic.replace(path, lambda folder: _fill(folder, arrays), prefix=_WRITING)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and content."""
    hashed = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    hashed.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return hashed.hexdigest()


def _fill(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / "meta.json").write_text(json.dumps({name: digest(array) for name, array in arrays.items()}))


def _clear(place: pathlib.Path) -> None:
    """Removes what processes that were killed left behind."""
    for left in place.glob(f"{_WRITING}*"):
        if time.time() - left.stat().st_mtime > _STALE:
            shutil.rmtree(left, ignore_errors=True)
