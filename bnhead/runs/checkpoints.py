"""Checkpoints: the whole state of a run at one step, in files that tell when they are damaged.

A file is a line with the format and the SHA-256 of what follows, and then a NumPy archive: the arrays, and
as `state` the JSON of everything else. It is there whole or not at all, and the newest that is sound counts.
"""

import hashlib
import io
import json
import pathlib
import zipfile
from dataclasses import dataclass

import numpy as np

from bnhead.runs import atomic
from bnhead.runs.directory import RunDirectory

FOLDER = "checkpoints"
KEPT = 3
_FORMAT = b"bnhead checkpoint 2 "
_HEADER = len(_FORMAT) + 64 + 1


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after a step.

    Attributes:
        settings: the run's settings; a checkpoint of other ones is none of this run's.
        step: optimizer steps done since the beginning.
        arrays: every variable of the model, its optimizer and its metrics, by name.
        records: class of a callback -> its state, as plain data.
    """

    settings: dict
    step: int
    arrays: dict[str, np.ndarray]
    records: dict


def encode(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file."""
    state = {"settings": checkpoint.settings, "step": checkpoint.step, "records": checkpoint.records}
    archive = io.BytesIO()
    np.savez(archive, state=np.frombuffer(json.dumps(state).encode(), np.uint8), **checkpoint.arrays)
    content = archive.getvalue()
    return _FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def decode(content: bytes) -> Checkpoint:
    """The checkpoint in a file's content.

    Raises:
        ValueError: it is no checkpoint, or damaged; the message says which.
    """
    if not content.startswith(_FORMAT) or len(content) < _HEADER:
        raise ValueError("it is no checkpoint, or one of another version")
    archive = content[_HEADER:]
    if hashlib.sha256(archive).hexdigest().encode() != content[len(_FORMAT) : _HEADER - 1]:
        raise ValueError("its bytes are not those that were written")
    try:
        with np.load(io.BytesIO(archive), allow_pickle=False) as loaded:
            arrays = dict(loaded)
        state = json.loads(arrays.pop("state").tobytes())
        return Checkpoint(state["settings"], state["step"], arrays, state["records"])
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def save(directory: RunDirectory, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint and removes all but the newest few.

    Raises:
        ResourcesError, RunDirectoryError: it cannot be written; those that are there stay.
    """
    folder = directory.path / FOLDER
    directory.replace(
        f"{FOLDER}/step-{checkpoint.step:010}", lambda path: path.write_bytes(encode(checkpoint))
    )
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def newest(directory: RunDirectory, settings: dict) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint of a run, if there is one.

    Returns:
        It, and a line for each newer one that is not sound. Those are set aside: they keep their name, with
        `.damaged` behind it.
    """
    complaints = []
    for path in _files(directory.path / FOLDER):
        try:
            checkpoint = read(path)
            if checkpoint.settings != settings:
                raise ValueError("it is of a run with other settings")
        except (OSError, ValueError) as error:
            complaints.append(f"checkpoint {path} is not used: {error}")
            _set_aside(path)
            continue
        return checkpoint, complaints
    return None, complaints


def read(path: pathlib.Path) -> Checkpoint:
    """The checkpoint in a file; of one that is none, the first bytes alone are read.

    Raises:
        OSError: it is no plain file, or cannot be read.
        ValueError: as `decode`.
    """
    atomic.check_regular(path)
    with open(path, "rb") as file:
        header = file.read(_HEADER)
        return decode(header + (file.read() if header.startswith(_FORMAT) else b""))


def set_aside(directory: RunDirectory) -> None:
    """Sets all checkpoints aside, as `newest` does with one: those of a new run would not outlive them."""
    for path in _files(directory.path / FOLDER):
        _set_aside(path)


def _set_aside(path: pathlib.Path) -> None:
    try:
        path.replace(path.with_name(f"{path.name}.damaged"))
    except OSError as error:
        raise atomic.unwritable(error, f"checkpoint {path}") from error


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """A folder's checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.suffix != ".damaged"), reverse=True)
