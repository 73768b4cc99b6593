"""Data sets of TFDS: opening a prepared set, and checking that its features suit a task."""

import contextlib
import io
import pathlib
import time

import numpy as np
import tensorflow_datasets as tfds

from bnhead.data import catalog
from bnhead.data.reading import OpenedSet
from bnhead.data.sets.digits import Digits, DigitsRotation
from bnhead.data.sets.records import reader_of
from bnhead.errors import DataError
from bnhead.runs import atomic
from bnhead.texts import first_line

_TFDS = "tensorflow_datasets.core.features."
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # under which a `features.json` names a class


def open_prepared(name: str, data_dir: str | None) -> OpenedSet:
    """Opens a prepared set; an embedded one is prepared first.

    Args:
        name: a TFDS name with or without config and version, or the name of an embedded set.
        data_dir: TFDS' directory; None for TFDS' default.

    Raises:
        DataError: the set is not prepared, cannot be read, names code that is not TFDS', has no images with
            labels, no test split, or images of another dtype than uint8.
    """
    builder = prepared_builder(name, data_dir)
    full_name = builder.info.full_name
    image, label = image_and_label(full_name, builder.info)
    train, test = (reader_of(builder, split) for split in ("train", labelled_test_split(full_name, builder)))
    return OpenedSet(full_name, (train, test), label, tuple(image.shape))


def prepared_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a prepared set; an embedded one is prepared first."""
    embedded = name.split(":")[0]
    if embedded in catalog.EMBEDDED:
        builder = _prepare_embedded(Digits if embedded == "digits" else DigitsRotation, data_dir)
        if name not in (embedded, f"{embedded}:{builder.version}"):
            raise DataError(f"data set {name!r} cannot be opened: the only version is {builder.version}")
        return builder
    check_feature_files(name, data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        is_prepared = builder.is_prepared()
    except MemoryError:
        raise
    except Exception as error:  # damaged files make TFDS raise errors of any type
        raise DataError(f"data set {name!r} cannot be opened: {first_line(error)}") from error
    if not is_prepared:
        flag = f" --data_dir={data_dir}" if data_dir else ""
        raise DataError(
            f"data set {name!r} is not prepared in {builder.data_path}; "
            f"with a network, `tfds build {name}{flag}` downloads and prepares it there"
        )
    return builder


def check_feature_files(name: str, data_dir: str | None) -> None:
    """Raises DataError if the files of a set name a feature class that is not TFDS'.

    TFDS imports the module of every class that a `features.json` names, so that a foreign file could run any
    module. Links are followed, as in TFDS.
    """
    try:
        directory = tfds.core.naming.parse_builder_name_kwargs(name)[0].name
        for data_path in tfds.core.utils.file_utils.list_data_dirs(given_data_dir=data_dir):
            versions = catalog.expand_user(str(data_path)) / directory
            for depth in ("", "*/", "*/*/"):  # versions with and without configs
                for path in versions.glob(f"{depth}features.json"):
                    foreign = [cls for cls in _feature_classes(path) if not cls.startswith(_TFDS)]
                    if foreign:
                        raise DataError(
                            f"data set {name!r}: {path} names {foreign[0]!r}, which is not a feature of TFDS"
                        )
    except (OSError, ValueError) as error:
        raise DataError(f"data set {name!r} cannot be opened: {first_line(error)}") from error


def _feature_classes(path: pathlib.Path) -> list[str]:
    """Returns the class names in a `features.json`, in TFDS' present format or its first."""
    classes, pending = [], [atomic.read_json(path)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            classes += [value[key] for key in _CLASS_KEYS if isinstance(value.get(key), str)]
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return classes


def _prepare_embedded(builder_type: type, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Prepares an embedded set; of several processes at once, one prepares it and the others wait."""
    tfds.disable_progress_bar()
    for _ in range(60):
        builder = builder_type(data_dir=data_dir)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download that does not happen
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


def image_and_label(
    name: str, info: tfds.core.DatasetInfo
) -> tuple[tfds.features.Image, tfds.features.FeatureConnector]:
    """Returns the features of the images and labels of a set.

    Raises:
        DataError: the set has no images with labels, or images of another dtype than uint8.
    """
    keys, features = info.supervised_keys or (), info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    pair = [features[key] for key in keys if is_dict and isinstance(key, str) and key in features]
    if len(pair) != 2 or not isinstance(pair[0], tfds.features.Image):
        raise DataError(f"{name} has no images with labels: it is read as {keys or 'nothing'}")
    image, label = pair
    if image.np_dtype != np.uint8:
        raise DataError(f"{name}: images must be of dtype uint8, got {np.dtype(image.np_dtype)}")
    return image, label


def check_task(name: str, label: tfds.features.FeatureConnector, task: str) -> None:
    """Raises DataError unless the labels suit the task: numbers for regression, otherwise classes."""
    has_classes = isinstance(label, tfds.features.ClassLabel)
    has_numbers = (  # a scalar or a vector of known length
        not has_classes
        and isinstance(label, tfds.features.Tensor)
        and np.issubdtype(label.np_dtype, np.number)
        and len(label.shape) < 2
        and None not in label.shape
    )
    if has_classes if task != "regression" else has_numbers:
        return
    if has_classes:
        labels = f"{label.num_classes} classes"
    else:
        labels = f"a {type(label).__name__} of shape {label.shape} and dtype {np.dtype(label.np_dtype)}"
    if task == "regression":
        raise DataError(f"{name} has {labels} as labels, but task regression needs numbers")
    if task == "multilabel":
        raise DataError(f"{name} has {labels} as labels, but task multilabel needs one class for each image")
    hint = "; numbers are for task regression (--task=regression)" if has_numbers else ""
    raise DataError(f"{name} is not a classification set, its labels are {labels}{hint}")


def labelled_test_split(name: str, builder: tfds.core.DatasetBuilder) -> str:
    """Returns `test`, or `validation` for sets without published test labels.

    Raises:
        DataError: no such split, or no training split.
    """
    info = builder.info
    if "train" not in info.splits:
        raise DataError(f"{name} has no train split, only {', '.join(info.splits) or 'none at all'}")
    for split in ("validation",) if info.name == "imagenet2012" else ("test", "validation"):
        if split in info.splits:
            return split
    raise DataError(f"{name} has no test or validation split, only {', '.join(info.splits)}")
