"""Checkpoints: the whole state of a run after a step, in files that show when they are damaged.

A file is a line with the format and the SHA-256 of the rest, followed by a NumPy archive: the arrays, and as
`state` the JSON of everything else. Files are written atomically; a run resumes from the newest sound one.
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
_FORMAT = b"bnhead checkpoint 3 "
_HEADER = len(_FORMAT) + 64 + 1


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after a step.

    Attributes:
        settings: the run's settings.
        step: optimizer steps since the beginning.
        arrays: every variable of the model, its optimizer and its metrics, by name.
        records: the state of each callback as plain data, by the name of its class.
    """

    settings: dict
    step: int
    arrays: dict[str, np.ndarray]
    records: dict


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file."""
    state = {"settings": checkpoint.settings, "step": checkpoint.step, "records": checkpoint.records}
    archive = io.BytesIO()
    np.savez(archive, state=np.frombuffer(json.dumps(state).encode(), np.uint8), **checkpoint.arrays)
    content = archive.getvalue()
    return _FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def decode_checkpoint(content: bytes) -> Checkpoint:
    """The checkpoint in a file's content.

    Raises:
        ValueError: the content is not a checkpoint, or is damaged.
    """
    if not content.startswith(_FORMAT) or len(content) < _HEADER:
        raise ValueError("it is not a checkpoint, or one of another version")
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


def save_checkpoint(directory: RunDirectory, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint and removes all except the newest `KEPT`.

    Raises:
        ResourcesError, RunDirectoryError: the file cannot be written; the older ones are kept.
    """
    name = f"{FOLDER}/step-{checkpoint.step:010}"
    directory.replace(name, lambda path: path.write_bytes(encode_checkpoint(checkpoint)))
    for path in _newest_first(directory)[KEPT:]:
        path.unlink(missing_ok=True)


def newest_checkpoint(directory: RunDirectory, settings: dict) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint of a run with these settings, if any.

    Returns:
        The checkpoint, and a line for each newer file that is damaged or of another run. Such a file is set
        aside: `.damaged` is added to its name.
    """
    complaints: list[str] = []

    def find_newest() -> bytes:
        for path in _newest_first(directory):
            try:
                content = read_content(path)
                if decode_checkpoint(content).settings != settings:
                    raise ValueError("it is of a run with other settings")
            except (OSError, ValueError) as error:
                complaints.append(f"checkpoint {path} is not used: {error}")
                _mark_damaged(path)
                continue
            return content
        return b""

    content = directory.agree_on_bytes(find_newest)
    return (decode_checkpoint(content) if content else None), complaints


def read_content(path: pathlib.Path) -> bytes:
    """The bytes of a checkpoint's file; of any other file only the first few.

    Raises:
        OSError: the file is not a regular one, or cannot be read.
    """
    atomic.check_regular(path)
    with open(path, "rb") as file:
        header = file.read(_HEADER)
        return header + (file.read() if header.startswith(_FORMAT) else b"")


def set_checkpoints_aside(directory: RunDirectory) -> None:
    """Sets all checkpoints aside, so that a run that starts again resumes from its own only."""
    for path in _newest_first(directory):
        _mark_damaged(path)


def _mark_damaged(path: pathlib.Path) -> None:
    try:
        path.replace(path.with_name(f"{path.name}.damaged"))
    except OSError as error:
        raise atomic.unwritable(error, f"checkpoint {path}") from error


def _newest_first(directory: RunDirectory) -> list[pathlib.Path]:
    """The files of a run's checkpoints that this process may change."""
    if not directory.writable:
        return []
    files = (directory.path / FOLDER).glob("step-*")
    return sorted((path for path in files if path.suffix != ".damaged"), reverse=True)
