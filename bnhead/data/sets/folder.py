"""A folder of pictures: PATH/train/<class>/*.jpg and PATH/test/<class>/*.png.

Splits are the folders of that name alone, classes the folders in them. What is hidden, and `__MACOSX`, is no
class. Other files than pictures are left out and counted.
"""

import os
import pathlib
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bnhead.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
TEST_SPLITS = ("test", "validation", "val")  # the first that is there is the test split
LARGEST = 2**28  # bytes of a picture
DEEPER, BESIDE = "in deeper folders", "beside the class folders"
SHOWN = 5  # kinds of files in a message
_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what operating systems leave everywhere


@dataclass(frozen=True)
class Picture:
    """A file, and what tells that it has not changed: its size in bytes and the time of its last change."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Split:
    """A split's content.

    Attributes:
        pictures: the pictures of each class by name.
        left_out: how many other files there are, by their kind, in each class; `""` for those beside them.
    """

    pictures: dict[str, list[Picture]]
    left_out: dict[str, Counter]


def test_split(root: pathlib.Path) -> str | None:
    """Name of the folder that is the test split; None where there is none."""
    return next((name for name in TEST_SPLITS if (root / name).is_dir()), None)


def listed(root: pathlib.Path, split: str) -> Split:
    """What a split's folder holds.

    Raises:
        DataError: a folder or file cannot be read, a name that ends as a picture's is no file or too large
            for one, or a class's name is no UTF-8.
    """
    pictures, left_out = {}, {}
    for entry in _entries(root / split):
        if entry.is_dir():
            _check_text(root, entry.name)
            pictures[entry.name], left_out[entry.name] = _of_class(entry.path)
        else:
            _file(entry.path)  # a link that leads nowhere may have been meant for a class
            left_out.setdefault("", Counter())[BESIDE] += 1
    return Split(dict(sorted(pictures.items())), left_out)


def check_endings(split: Split, where: str) -> None:
    """Raises DataError where a class has files and none of them is a picture by its ending."""
    for name, found in split.pictures.items():
        if not found and split.left_out[name]:
            raise DataError(
                f"{where}: class {name!r} has no {', '.join(ENDINGS)}; {told([split.left_out[name]])}"
            )


def told(left_out: Iterable[Counter]) -> str:
    """What was left out, as in `3 files are left out: 2 .heic, 1 in deeper folders`; empty for nothing."""
    together = sum(left_out, Counter())
    count, shown = together.total(), together.most_common(SHOWN)
    if not count:
        return ""
    kinds = [f"{n} {kind}" for kind, n in shown]
    rest = count - sum(n for _, n in shown)
    kinds += [f"{rest} of other kinds"] if rest else []
    return f"{count} {'files are' if count > 1 else 'file is'} left out: {', '.join(kinds)}"


def _of_class(folder: str) -> tuple[list[Picture], Counter]:
    pictures, left_out = [], Counter()
    for entry in _entries(folder, hidden_files=True):
        ending = os.path.splitext(entry.name)[1].lower()
        if ending in ENDINGS:
            pictures.append(_picture(entry.path))
        elif entry.is_dir():
            left_out[DEEPER] += _files_below(entry.path)
        elif not _is_hidden(entry.name):
            left_out[ending or "without an ending"] += 1
    return pictures, +left_out


def _entries(folder: str | pathlib.Path, *, hidden_files: bool = False) -> list[os.DirEntry]:
    """What lies in a folder, by name, without what is hidden, or without hidden folders alone."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [e for e in entries if not _is_hidden(e.name) or (hidden_files and not e.is_dir())]


def _files_below(folder: str) -> int:
    count, left = 0, [folder]
    while left:
        for entry in _entries(left.pop()):
            if entry.is_dir(follow_symlinks=False):
                left.append(entry.path)
            else:
                count += 1
    return count


def _picture(path: str) -> Picture:
    found = _file(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no file"
        raise DataError(f"{path} is {kind}, and its name is a picture's")
    if found.st_size > LARGEST:
        raise DataError(
            f"{path} has {found.st_size / 2**20:,.0f} MiB; a picture may have {LARGEST / 2**20:.0f}"
        )
    return Picture(path, found.st_size, found.st_mtime_ns)


def _file(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        if os.path.islink(path):
            raise DataError(f"{path} is a link to {os.readlink(path)}, which is not there") from error
        raise _unreadable(path, error) from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEMS


def _check_text(root: pathlib.Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"folder:{root}: class {os.fsencode(name)} is not named in UTF-8; rename it"
        ) from error


def _unreadable(path: str | pathlib.Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}")
