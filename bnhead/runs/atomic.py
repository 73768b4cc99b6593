"""Files: reading those that others may have damaged; writing such that one is there whole or not at all."""

import csv
import errno
import hashlib
import json
import math
import os
import pathlib
import stat
import tempfile
from collections.abc import Callable
from typing import Any

from bnhead.errors import ResourcesError, RunDirectoryError
from bnhead.runs import schema

WRITING = ".writing-"  # prefix of the folders in which temporary files are made
FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST = 2**28  # bytes: no text of a run or a study comes near
_LARGEST = 1e39  # what is larger, no float32 can be, and its square may be infinite


def check_regular(path: pathlib.Path) -> None:
    """Raises OSError for what is no plain file: a folder, a device, or a pipe, which would be waited for."""
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_text(path: pathlib.Path) -> str:
    """The text in a file.

    Raises:
        OSError: it is no plain file, or cannot be read.
        ValueError: it is no UTF-8, or longer than any text of ours.
    """
    check_regular(path)
    if (size := path.stat().st_size) > _MOST:
        raise ValueError(f"it has {size:,} bytes, more than any text of a run")
    return path.read_text(encoding="utf-8")


def read_json(path: pathlib.Path, shape: Any = dict) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file's.
        shape: what must be in it, as `shapes` tells.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON object, or one that is of another shape or nested too deep to read.
    """
    content = parse_json(read_text(path))
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    schema.check(content, shape)
    return content


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or nested too deep to read, or holds a number or a letter that is none.
    """
    try:
        content = json.loads(text, parse_float=_number, parse_int=_whole, parse_constant=_number)
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a letter, a lone surrogate") from None
    return content


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) < _LARGEST:  # NaN is not either
        raise ValueError(f"it holds the number {text:.20}, which no figure can be")
    return value


def _whole(text: str) -> int:
    _number(text)
    return int(text)


def read_table(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers, by the names in its first line; NaN where nothing is.

    Raises:
        OSError: it cannot be read.
        ValueError: a row is cut off, or holds what is no number.
    """
    try:
        lines = list(csv.reader(read_text(path).splitlines()))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if not lines:
        raise ValueError("it is empty")
    header, *rows = lines
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a row of it is cut off")
    return [dict(zip(header, map(_figure, row), strict=True)) for row in rows]


def _figure(text: str) -> float:
    value = float(text or "nan")
    return _number(text) if math.isfinite(value) else value


def sha256(path: pathlib.Path) -> str:
    """SHA-256 of what is in a file, in hexadecimal digits."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
