"""A folder of pictures: PATH/train/<class>/*.jpg and PATH/test/<class>/*.png, or PATH/<class>/*.jpg alone.

With folders of splits, only these are read, and the folders in them are the classes. Without them the folders
in PATH are the classes, as for Keras' `image_dataset_from_directory`, and each class gives a fifth of its
pictures to the test split. The names of class and file alone decide which: neither the order of a listing nor
the place of the folder, the machine or the seed of a run.

Hidden files and folders and `__MACOSX` are ignored. Files that are not pictures are left out and counted.
"""

import functools
import os
import pathlib
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead import seeds
from bnhead.data import catalog, decoding
from bnhead.data.reading import OpenedSet, read_order
from bnhead.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
TEST_FOLDERS = ("test", "validation", "val")  # the first that exists is the test split
LARGEST = 2**28  # bytes of a picture
DEEPER, LOOSE = "in deeper folders", "beside the class folders"
MOST_TYPES = 5  # types of files in a message
MOST_NAMES = 5  # classes and folders in a message
TEST_SHARE = 0.2  # of each class, where the folder has no splits
SPLIT_RULE = "test has a fifth of each class by file name, whatever the seed"
_SYSTEM_FILES = ("__MACOSX", "Thumbs.db", "desktop.ini")  # operating systems leave these in every folder


@dataclass(frozen=True)
class Picture:
    """A file with its size in bytes and the time of its last change, which reveal a change of content."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Listing:
    """The files of a split.

    Attributes:
        pictures: pictures of each class by name.
        left_out: numbers of other files by type, in each class; `""` for files outside of classes.
    """

    pictures: dict[str, list[Picture]]
    left_out: dict[str, Counter]


@dataclass(frozen=True)
class Files:
    """Reader (`reading.Reader`) of a split of a folder, ordered by class and name.

    Attributes:
        root: PATH of `folder:PATH`.
        split: name of the split.
        classes: names of the classes.
        listing: files of the split.
        cache_dir: directory for decoded copies, outside of the folder.
    """

    root: pathlib.Path
    split: str
    classes: tuple[str, ...]
    listing: Listing
    cache_dir: pathlib.Path

    @property
    def name(self) -> str:
        return f"folder:{self.root}, {self.split}"

    @property
    def size(self) -> int:
        return len(self._pictures)

    @property
    def channels(self) -> int:
        return 3

    @property
    def label(self) -> tfds.features.ClassLabel:
        return tfds.features.ClassLabel(names=self.classes)

    @functools.cached_property
    def _pictures(self) -> list[Picture]:
        return [picture for name in self.classes for picture in self.listing.pictures.get(name, [])]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        counts = [len(self.listing.pictures.get(name, [])) for name in self.classes]
        return np.repeat(np.arange(len(self.classes)), counts)

    def content(self) -> list:
        return self.identity()

    def identity(self) -> list:
        files = [[os.path.relpath(p.path, self.root), p.size, p.changed] for p in self._pictures]
        return [str(self.root), self.split, files, self.labels.tolist()]

    def describe(self, index: int) -> str:
        return self._pictures[index].path

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        indices = tf.data.Dataset.from_tensor_slices(tf.cast(read_order(self.size, key), tf.int64))
        paths = tf.constant([os.fsencode(picture.path) for picture in self._pictures], tf.string)
        labels = tf.constant(self.labels)
        return indices.map(lambda i: (i, (paths[i], labels[i])))

    def parse(self, record: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(record[0]), record[1]

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        return decoding.decode_picture(encoded)

    def can_crop(self, encoded: tf.Tensor) -> tf.Tensor:
        return decoding.is_upright_jpeg(encoded)


def open_folder(name: str, data_dir: str | None) -> OpenedSet:
    """Opens a folder of pictures.

    Args:
        name: `folder:PATH`.
        data_dir: TFDS' directory, below which decoded copies are cached; None for TFDS' default.

    Raises:
        DataError: the folder has one split only, a split next to folders of classes, no pictures, a class
            without pictures, without splits a class of fewer than two, or a file that cannot be used (see
            `list_pictures`).
    """
    root = catalog.folder_path(name).resolve()
    flat = is_flat(root, name)
    train = list_pictures(root, "." if flat else "train")
    if not train.pictures:
        note = describe_left_out(train.left_out.values())
        raise _misses_pictures(root, name, f"there are none{note and f', {note}'}")
    if flat:
        check_endings(train, name)
        listings = divide(train, name)
    else:
        test_name = first_test_folder(root)
        if test_name is None:
            raise DataError(f"{name} has no test or validation split, only train")
        listings = {"train": train, test_name: list_pictures(root, test_name)}
        for split, listing in listings.items():
            check_endings(listing, f"{name}, {split}")
    classes = tuple(sorted({label for listing in listings.values() for label in listing.pictures}))
    cache_dir = catalog.expand_user(data_dir or str(tfds.core.constants.DATA_DIR)) / "bnhead-folders"
    readers = tuple(Files(root, split, classes, listing, cache_dir) for split, listing in listings.items())
    note = describe_left_out(types for listing in listings.values() for types in listing.left_out.values())
    notes = (note,) if note else ()
    return OpenedSet(name, readers, readers[0].label, (None, None, 3), notes, SPLIT_RULE if flat else "")


def is_flat(root: pathlib.Path, name: str) -> bool:
    """Whether the folders in `root` are classes instead of splits.

    Raises:
        DataError: the training split is missing, or one split is next to folders that could be classes.
    """
    splits = [split for split in ("train", *TEST_FOLDERS) if (root / split).is_dir()]
    if not splits or ("train" in splits and len(splits) > 1):
        return not splits
    not_splits = [entry.name for entry in _entries(root) if entry.is_dir() and entry.name not in splits]
    if not_splits:
        raise DataError(
            f"{name} has the folder {splits[0]!r}, the name of a split, beside "
            f"{_first_names(map(repr, not_splits))}; "
            "use PATH/train/<class> and PATH/test/<class>, or PATH/<class> alone"
        )
    if splits != ["train"]:
        raise _misses_pictures(root, name, "there is no folder train")
    return False


def divide(listing: Listing, subject: str) -> dict[str, Listing]:
    """Divides the pictures of each class into `train` and `test`.

    A picture's place in its class is a hash of the two names, in the Unicode form NFC, since macOS spells `é`
    in another way than Linux. A picture that is added later moves at most one other to the other split.

    Args:
        listing: all pictures.
        subject: name of the set for the message.

    Raises:
        DataError: a class has fewer than two pictures.
    """
    few = [f"{name!r} ({len(pictures)})" for name, pictures in listing.pictures.items() if len(pictures) < 2]
    if few:
        raise DataError(
            f"{subject}: each class needs at least 2 pictures, one to train on and one to test on; "
            f"too few in {_first_names(few)}"
        )
    train, test = {}, {}
    for name, pictures in listing.pictures.items():
        ranked = sorted(pictures, key=lambda picture: _rank(picture.path))
        tested = set(ranked[: max(1, round(TEST_SHARE * len(ranked)))])
        test[name] = [picture for picture in pictures if picture in tested]
        train[name] = [picture for picture in pictures if picture not in tested]
    return {"train": Listing(train, listing.left_out), "test": Listing(test, {})}


def _rank(path: str) -> tuple[int, str]:
    """A number drawn for the names of class and file; the path settles a tie."""
    names = (unicodedata.normalize("NFC", part) for part in pathlib.PurePath(path).parts[-2:])
    return seeds.stream(0, "folder_split", *(os.fsencode(part).hex() for part in names)), path


def _misses_pictures(root: pathlib.Path, name: str, reason: str) -> DataError:
    layout = (
        f"{root}/train/<class>/*{' '.join(ENDINGS)} and {root}/test/<class>/..., or in {root}/<class>/..."
    )
    return DataError(f"data set {name!r} needs pictures in {layout}; {reason}")


def _first_names(names: Iterable[str]) -> str:
    """Returns such as `'a', 'b' and 3 more`."""
    names = list(names)
    unnamed = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {unnamed} more" if unnamed > 0 else "")


def first_test_folder(root: pathlib.Path) -> str | None:
    """Returns the name of the folder that is the test split; None if none exists."""
    return next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)


def list_pictures(root: pathlib.Path, split: str) -> Listing:
    """Lists the folder of a split.

    Raises:
        DataError: a folder or file cannot be read, a name with a picture's ending is not a file or is too
            large, or the name of a class is not UTF-8.
    """
    pictures, left_out = {}, {}
    for entry in _entries(root / split):
        if entry.is_dir():
            try:
                entry.name.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"folder:{root}: class {os.fsencode(entry.name)} is not named in UTF-8; rename it"
                ) from error
            pictures[entry.name], left_out[entry.name] = _class_files(entry.path)
        else:
            _file_status(entry.path)  # a broken link may have been meant for a class
            left_out.setdefault("", Counter())[LOOSE] += 1
    return Listing(dict(sorted(pictures.items())), left_out)


def check_endings(listing: Listing, subject: str) -> None:
    """Raises DataError for a class with files of which none has a picture's ending."""
    for name, pictures in listing.pictures.items():
        if not pictures and listing.left_out[name]:
            raise DataError(
                f"{subject}: class {name!r} has no {', '.join(ENDINGS)}; "
                f"{describe_left_out([listing.left_out[name]])}"
            )


def describe_left_out(left_out: Iterable[Counter]) -> str:
    """Returns such as `3 files are left out: 2 .heic, 1 in deeper folders`; empty for no files."""
    counts = sum(left_out, Counter())
    total, common = counts.total(), counts.most_common(MOST_TYPES)
    if not total:
        return ""
    types = [f"{n} {type_name}" for type_name, n in common]
    remaining = total - sum(n for _, n in common)
    types += [f"{remaining} of other kinds"] if remaining else []
    return f"{total} {'files are' if total > 1 else 'file is'} left out: {', '.join(types)}"


def _class_files(folder: str) -> tuple[list[Picture], Counter]:
    """Returns the pictures in the folder of a class, by name, and the numbers of other files by type."""
    pictures, left_out = [], Counter()
    for entry in _entries(folder, hidden_files=True):
        ending = os.path.splitext(entry.name)[1].lower()
        if ending in ENDINGS:
            status = _file_status(entry.path)
            if not stat.S_ISREG(status.st_mode):
                file_type = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
                raise DataError(f"{entry.path} has a picture's ending but is {file_type}")
            if status.st_size > LARGEST:
                raise DataError(
                    f"{entry.path} has {status.st_size / 2**20:,.0f} MiB; "
                    f"a picture may have {LARGEST / 2**20:.0f}"
                )
            pictures.append(Picture(entry.path, status.st_size, status.st_mtime_ns))
        elif entry.is_dir():
            folders = [entry.path]
            while folders:
                for deeper in _entries(folders.pop()):
                    if deeper.is_dir(follow_symlinks=False):  # links could lead in circles
                        folders.append(deeper.path)
                    else:
                        left_out[DEEPER] += 1
        elif not _is_hidden(entry.name):
            left_out[ending or "without an ending"] += 1
    return pictures, left_out


def _entries(folder: str | pathlib.Path, *, hidden_files: bool = False) -> list[os.DirEntry]:
    """Returns the entries of a folder by name, without hidden folders and, unless asked for, hidden files."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error
    return [e for e in entries if not _is_hidden(e.name) or (hidden_files and not e.is_dir())]


def _file_status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        if os.path.islink(path):
            raise DataError(f"{path} is a link to {os.readlink(path)}, which does not exist") from error
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FILES
