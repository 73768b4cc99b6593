"""Files and folders that are there whole or not at all."""

import os
import pathlib
import tempfile
from collections.abc import Callable

from bnhead.errors import RunDirectoryError

_WRITING = ".writing-"  # prefix of the folders of temporary files


def replace(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Lets `write` make a temporary file or folder, which then takes the place of `path`.

    Raises:
        RunDirectoryError: it cannot be written (a full disk, say); what was there before still is.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=_WRITING, dir=path.parent) as place:
            made = pathlib.Path(place) / path.name
            write(made)
            for file in [made] if made.is_file() else sorted(made.rglob("*")):
                if file.is_file():
                    _to_disk(file)
            if path.is_dir():  # a folder cannot be renamed onto one that is not empty
                path.rename(pathlib.Path(place) / "before")
            os.replace(made, path)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror or error}") from error


def _to_disk(path: pathlib.Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
