"""Names of data sets, checked without TensorFlow.

cifar10, cifar10:3.0.2, imagenette/160px-v2    a TFDS set, optionally with config and version
digits, digits_rotation                        the embedded sets
folder:PATH                                    your pictures: PATH/train/<class>/*.jpg, PATH/test/<class>/...,
                                               or PATH/<class>/*.jpg
domains:digits,mnist                           several sets of the same classes joined into one
domains:mnist,mnist+cifar10                    a part drawn on patches of the pictures of another set
domains:cifar10,cifar10+blur:3                 a part with a corruption (`corruptions`)
"""

import os
import pathlib
from dataclasses import dataclass

from bnhead.errors import DataError, UsageError, nearest


@dataclass(frozen=True)
class Embedded:
    """Facts about an embedded set, known before it is opened.

    Attributes:
        classes: number of classes; 0 for numbers as labels.
        train: number of training images.
        test: number of test images.
    """

    classes: int
    train: int
    test: int


EMBEDDED = {"digits": Embedded(10, 1437, 360), "digits_rotation": Embedded(0, 1437, 360)}
_FOLDER, _DOMAINS = "folder:", "domains:"
CORRUPTION_NAMES = ("gaussian_noise", "blur", "contrast", "brightness", "pixelate")


def folder_path(name: str) -> pathlib.Path | None:
    """Returns PATH of `folder:PATH` with `~` expanded; None for every other name."""
    return expand_user(name.removeprefix(_FOLDER)) if name.startswith(_FOLDER) else None


def expand_user(path: str) -> pathlib.Path:
    """Returns the path with `~` expanded, unchanged for an unknown user (`Path.expanduser` would raise)."""
    return pathlib.Path(os.path.expanduser(path))


def domain_names(name: str) -> tuple[str, ...]:
    """Returns the sets of `domains:A,B`; empty for every other name."""
    return tuple(name.removeprefix(_DOMAINS).split(",")) if name.startswith(_DOMAINS) else ()


def split_change(part: str) -> tuple[str, str]:
    """Returns the set and the change of a part of `domains:`; `("mnist", "cifar10")` for `mnist+cifar10`."""
    name, _, change = (part, "", "") if part.startswith(_FOLDER) else part.partition("+")
    return name, change


def check_name(name: str, data_dir: str | None = None, task: str = "classification") -> None:
    """Raises UsageError unless `name` is embedded, known to TFDS, prepared in `data_dir` or joins such sets.

    Args:
        name: as in the module's table.
        data_dir: TFDS' directory; None for TFDS' default.
        task: regression cannot join sets.
    """
    if (path := folder_path(name)) is not None:
        if name == _FOLDER or not _is_folder(path):
            raise UsageError(
                f"data set {name!r} needs a folder, as in folder:PATH, and {str(path)!r} is not one"
            )
        return
    if name.startswith(_DOMAINS):
        parts = domain_names(name)
        if len(parts) < 2 or len(set(parts)) < len(parts) or any(p.startswith(_DOMAINS) for p in parts):
            raise UsageError(
                f"data set {name!r} needs at least two different sets joined by a comma, as in "
                "domains:digits,mnist"
            )
        if task == "regression":
            raise UsageError("domains are of the same classes, and task regression has numbers")
        for part in parts:
            part_name, change = split_change(part)
            check_name(part_name, data_dir)
            if change.partition(":")[0] in CORRUPTION_NAMES:
                from bnhead.data.corruptions import parse_corruption  # imports NumPy

                parse_corruption(change)
            elif change:
                check_name(change, data_dir)
        return
    set_name = name.split(":")[0].split("/")[0]
    if set_name in EMBEDDED or (data_dir and set_name and _is_folder(expand_user(data_dir) / set_name)):
        return
    import tensorflow_datasets as tfds  # takes half a second, which embedded sets need not wait for

    tfds_names = tfds.list_builders(with_community_datasets=False)
    if set_name not in tfds_names:
        raise UsageError(
            f"data set {name!r} is not known{nearest(set_name, [*EMBEDDED, *tfds_names])} "
            f"(there are the embedded {' and '.join(EMBEDDED)}, folder:PATH, domains:A,B, and TFDS' "
            f"{len(tfds_names)}, such as cifar10, cifar100, fashion_mnist, mnist, svhn_cropped)"
        )


def check_embedded(name: str, task: str, batch_size: int) -> None:
    """Raises DataError if an embedded set suits neither the task nor the batch. Other names pass.

    Args:
        name: as in the module's table.
        task: classification, multilabel or regression.
        batch_size: training images of a step.
    """
    if (facts := EMBEDDED.get(name.split(":")[0])) is None:
        return
    if facts.classes and task == "regression":
        raise DataError(f"{name} has {facts.classes} classes as labels, but task regression needs numbers")
    if not facts.classes and task != "regression":
        numbers = "its labels are numbers, which are for task regression (--task=regression)"
        raise DataError(f"{name} is not a classification set: {numbers}")
    if batch_size > facts.train:
        raise DataError(f"batch_size must be at most the {facts.train} training images, got {batch_size}")


def _is_folder(path: pathlib.Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long for a path, in a closed folder, or with a null byte
        return False
