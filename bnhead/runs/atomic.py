"""Reads files that may be damaged, and writes files atomically: completely or not at all."""

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

WRITING = ".writing-"  # prefix of the folders of temporary files
FULL = (errno.ENOSPC, errno.EDQUOT)
_MAX_BYTES = 2**28  # far more than any text of a run or a study
_MAX_HASHED_BYTES = 2**36  # far more than any model; hashing it takes about a minute
_MAX_NUMBER = 1e39  # above every float32; the square of a larger one may be infinite


def check_regular(path: pathlib.Path) -> None:
    """Raises OSError unless the path is a regular file. (Opening a pipe would block.)"""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_text(path: pathlib.Path) -> str:
    """Returns the text in a file.

    Raises:
        OSError: the file is not a regular one, or cannot be read.
        ValueError: the content is not UTF-8, or is too long.
    """
    check_regular(path)
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes, more than any text of a run")
    return path.read_text(encoding="utf-8")


def read_json(path: pathlib.Path, shape: Any = dict) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Args:
        path: the file.
        shape: the expected content, see `runs.schema`.

    Raises:
        OSError: the file cannot be read.
        ValueError: the content is not a JSON object, has another shape or is nested too deep.
    """
    content = parse_json(read_text(path))
    if not isinstance(content, dict):
        raise ValueError("it does not hold a JSON object")
    schema.check_shape(content, shape)
    return content


def parse_json(text: str | bytes) -> Any:
    """Parses a JSON text.

    Raises:
        ValueError: the text is not JSON, is nested too deep, or holds an invalid number or character.
    """

    def parse_whole(digits: str) -> int:
        parse_number(digits)
        return int(digits)

    try:
        content = json.loads(
            text, parse_float=parse_number, parse_int=parse_whole, parse_constant=parse_number
        )
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character, a lone surrogate") from None
    return content


def parse_number(text: str) -> float:
    """Parses a finite number; raises ValueError if it is too large for a figure, infinite or NaN."""
    value = float(text)
    if not abs(value) < _MAX_NUMBER:  # false for NaN too
        raise ValueError(f"it holds the number {text:.20}, which is not a valid figure")
    return value


def sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read, or is larger than 64 GiB, which no file of a run is.
    """
    check_regular(path)
    if (size := path.stat().st_size) > _MAX_HASHED_BYTES:
        raise OSError(errno.EFBIG, f"it has {size / 2**30:,.0f} GiB, more than any file of a run", str(path))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace(path: pathlib.Path, write: Callable[[pathlib.Path], object], *, prefix: str = WRITING) -> None:
    """Writes a file or a folder to a temporary path, flushes it to disk and renames it to `path`.

    Args:
        path: the file or folder; its parent must exist.
        write: called with the temporary path.
        prefix: of the temporary folder, which lies in the same folder as `path`.

    Raises:
        OSError: writing failed; the previous content of `path` is unchanged.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
        temporary = pathlib.Path(folder) / path.name
        write(temporary)
        if path.is_dir() and not temporary.is_dir():  # never replace a folder and its content by a file
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for file in [temporary] if temporary.is_file() else [*temporary.rglob("*"), temporary]:
            _flush(file)
        if path.is_dir() and not path.is_symlink():  # os.replace refuses to overwrite a folder with content
            os.replace(path, pathlib.Path(folder) / "previous")
        if path.is_symlink() and temporary.is_dir():  # a folder replaces no link either
            path.unlink()
        os.replace(temporary, path)
        _flush(path.parent)


def replace_files(
    folder: pathlib.Path,
    write: Callable[[pathlib.Path], object],
    is_ours: Callable[[pathlib.Path], bool],
) -> None:
    """Writes the files of a folder, each atomically; other people's files in the folder stay.

    Args:
        folder: its parent must exist. A link in its place is replaced; its target stays.
        write: called with the path of a temporary folder, which it makes and fills.
        is_ours: whether a file in the folder is one that an earlier call wrote; it is removed if this call
            does not write it.

    Raises:
        OSError: writing failed; if `write` failed, the files in the folder are unchanged.
    """
    if folder.is_symlink() or not folder.is_dir():
        replace(folder, write)
        return
    with tempfile.TemporaryDirectory(prefix=WRITING, dir=folder.parent) as temporary:
        new = pathlib.Path(temporary) / folder.name
        write(new)
        written = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
        for name in written:
            _flush(new / name)
            place = folder
            for part in name.parent.parts:
                place /= part
                if place.is_symlink():
                    place.unlink()
                place.mkdir(exist_ok=True)
            os.replace(new / name, folder / name)
    old = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in old:
        if path.relative_to(folder) not in written and is_ours(path):
            path.unlink()
            while (path := path.parent) != folder and not any(path.iterdir()):
                path.rmdir()
    _flush(folder)


def unwritable(error: OSError, subject: str) -> ResourcesError | RunDirectoryError:
    """Converts an error of the file system to bnhead's error for it; `subject` names the file."""
    if error.errno in FULL:
        return ResourcesError(f"{subject} cannot be written: the disk is full")
    return RunDirectoryError(f"{subject} cannot be written: {error.strerror or error}")


def _flush(path: pathlib.Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_text(content: dict) -> str:
    """The content of a JSON file; numbers that are not finite are null."""
    return json.dumps(finite_or_none(content), indent=2, allow_nan=False) + "\n"


def finite_or_none(value: Any) -> Any:
    """Plain data with None for the numbers that JSON does not have: NaN and the infinities."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
