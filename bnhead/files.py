"""Files and folders that are there whole or not at all: a temporary one, fsync, rename."""

import errno
import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from bnhead.errors import ResourcesError, RunDirectoryError


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON object, or one that is nested too deep to read.
    """
    content = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says; a ValueError where it is none, or nested too deep to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


WRITING = ".writing-"  # prefix of the folders in which temporary files are made
FULL = (errno.ENOSPC, errno.EDQUOT)


def replace(path: pathlib.Path, write: Callable[[pathlib.Path], object], *, prefix: str = WRITING) -> None:
    """Lets `write` make a temporary file or folder, which then takes the place of `path`.

    Args:
        path: a file's or a folder's; its parent must be there.
        write: is given the temporary path.
        prefix: of the folder, beside `path`, in which that lies.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as place:
        made = pathlib.Path(place) / path.name
        write(made)
        if (
            path.is_dir() and not made.is_dir()
        ):  # a file does not take the place of a folder and what is in it
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for file in [made] if made.is_file() else [*made.rglob("*"), made]:
            _to_disk(file)
        if path.is_dir() and not path.is_symlink():  # a folder is not renamed onto one that is not empty
            os.replace(path, pathlib.Path(place) / "before")
        os.replace(made, path)
        _to_disk(path.parent)


def unwritable(error: OSError, what: str) -> ResourcesError | RunDirectoryError:
    """Our error for one of the file system's, about `what`."""
    if error.errno in FULL:
        return ResourcesError(f"{what} cannot be written: the disk is full")
    return RunDirectoryError(f"{what} cannot be written: {error.strerror or error}")


def _to_disk(path: pathlib.Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
