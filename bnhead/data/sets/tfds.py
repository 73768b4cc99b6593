"""TFDS' builders: opening a prepared set, and what it has to offer for a task."""

import contextlib
import io
import itertools
import pathlib
import time
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from bnhead.data import catalog
from bnhead.data.sets.digits import Digits, DigitsRotation
from bnhead.errors import DataError
from bnhead.runs import atomic
from bnhead.texts import first_line

Label = tfds.features.ClassLabel | tfds.features.Tensor

_TFDS = "tensorflow_datasets.core.features."
_NAMES = ("pythonClassName", "python_class_name", "type")  # under which a `features.json` names a class


def opened(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The builder of a set that is prepared; an embedded one is prepared here.

    Args:
        name: a TFDS name with or without config and version, or an embedded one's.
        data_dir: TFDS' directory; None for TFDS' default.

    Raises:
        DataError: it is not prepared, or what is there cannot be read or asks for code that is not TFDS' own.
    """
    embedded = name.split(":")[0]
    if embedded in catalog.EMBEDDED:
        builder = _prepared(Digits if embedded == "digits" else DigitsRotation, data_dir)
        if name not in (embedded, f"{embedded}:{builder.version}"):
            raise DataError(f"data set {name!r} cannot be opened: there is version {builder.version} alone")
        return builder
    check_feature_files(name, data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        is_prepared = builder.is_prepared()
    except MemoryError:
        raise
    except Exception as error:  # of whatever kind the files bring TFDS to
        raise DataError(f"data set {name!r} cannot be opened: {first_line(error)}") from error
    if not is_prepared:
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise DataError(
            f"data set {name!r} is not prepared in {builder.data_path}; "
            f"with a network, `tfds build {name}{where}` downloads and prepares it there"
        )
    return builder


def check_feature_files(name: str, data_dir: str | None) -> None:
    """Raises DataError where the files of a set name a class of features that is not TFDS' own.

    TFDS imports the module of any class that a `features.json` names, and a stranger's file could name any.
    """
    try:
        folder = tfds.core.naming.parse_builder_name_kwargs(name)[0].name
        for place in tfds.core.utils.file_utils.list_data_dirs(given_data_dir=data_dir):
            for path in _feature_files(catalog.expanded(str(place)) / folder):
                foreign = [found for found in _classes_in(path) if not found.startswith(_TFDS)]
                if foreign:
                    raise DataError(
                        f"data set {name!r}: {path} names {foreign[0]!r}, which is no feature of TFDS' own"
                    )
    except (OSError, ValueError) as error:
        raise DataError(f"data set {name!r} cannot be opened: {first_line(error)}") from error


def _feature_files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Those of a set's versions, with configs or without; links are followed, as TFDS does."""
    return itertools.chain(*(folder.glob(f"{depth}features.json") for depth in ("", "*/", "*/*/")))


def _classes_in(path: pathlib.Path) -> list[str]:
    """The names of classes in a `features.json`, of TFDS' present format or of its first."""
    found, left = [], [atomic.read_json(path)]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            found += [value[key] for key in _NAMES if isinstance(value.get(key), str)]
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
    return found


def _prepared(builder_type: type, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """An embedded set; of several processes that prepare it at once, one does and the others wait for it."""
    tfds.disable_progress_bar()
    for _ in range(60):
        builder = builder_type(data_dir=data_dir)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it speaks of a download; there is none
                builder.download_and_prepare()
        except FileExistsError:
            time.sleep(0.5)
            continue
        except OSError as error:
            raise DataError(f"{builder.name} cannot be prepared in {builder.data_path}: {error}") from error
        return builder
    raise DataError(
        f"{builder.name} is being prepared by another process in {builder.data_path} for over 30 s"
    )


def features(name: str, info: tfds.core.DatasetInfo, task: str) -> tuple[tfds.features.Image, Label]:
    """The features of a set's images and labels.

    Raises:
        DataError: there are none, or the labels are not what the task learns.
    """
    keys, there = info.supervised_keys or (), info.features
    known = isinstance(there, tfds.features.FeaturesDict)
    found = [there[key] for key in keys if known and isinstance(key, str) and key in there]
    if len(found) != 2 or not isinstance(found[0], tfds.features.Image):
        raise DataError(f"{name} has no images with labels: it is read as {keys or 'nothing'}")
    image, label = found
    check_task(name, label, task)
    if image.np_dtype != np.uint8:
        raise DataError(f"{name}: images must be of dtype uint8, got {np.dtype(image.np_dtype)}")
    return image, label


def check_task(name: str, label: tfds.features.FeatureConnector, task: str) -> None:
    """Raises DataError unless the labels are what the task learns."""
    has_classes = isinstance(label, tfds.features.ClassLabel)
    if task == "regression" and (has_classes or not _are_numbers(label)):
        raise DataError(f"{name} has {_kind(label)} as labels and no numbers (task regression)")
    if task == "multilabel" and not has_classes:
        raise DataError(
            f"{name} has {_kind(label)} as labels; task multilabel reads one class of each image, its one yes"
        )
    if task != "regression" and not has_classes:
        hint = "; numbers are for task regression (--task=regression)" if _are_numbers(label) else ""
        raise DataError(f"{name} is no classification set, its labels are {_kind(label)}{hint}")


def _are_numbers(label: tfds.features.FeatureConnector) -> bool:
    """Whether a feature is a scalar or a vector of numbers, of known length."""
    if isinstance(label, tfds.features.ClassLabel) or not isinstance(label, tfds.features.Tensor):
        return False
    return np.issubdtype(label.np_dtype, np.number) and len(label.shape) < 2 and None not in label.shape


def _kind(label: tfds.features.FeatureConnector) -> str:
    if isinstance(label, tfds.features.ClassLabel):
        return f"{label.num_classes} classes"
    return f"a {type(label).__name__} of shape {label.shape} and dtype {np.dtype(label.np_dtype)}"


def test_split(name: str, builder: tfds.core.DatasetBuilder) -> str:
    """`test`, or `validation` for the sets whose test labels were never published.

    Raises:
        DataError: there is no such split, or none to train on.
    """
    info = builder.info
    unlabelled = info.name == "imagenet2012"
    if "train" not in info.splits:
        raise DataError(f"{name} has no train split, only {', '.join(info.splits) or 'none at all'}")
    for split in ("test", "validation"):
        if split in info.splits and not (unlabelled and split == "test"):
            return split
    raise DataError(f"{name} has no test or validation split, only {', '.join(info.splits)}")
