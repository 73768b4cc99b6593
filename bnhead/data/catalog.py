"""Names of data sets, checked without TensorFlow.

cifar10, cifar10:3.0.2, imagenette/160px-v2    a TFDS set, with its config and version where wanted
digits, digits_rotation                        the embedded ones
folder:PATH                                    pictures of one's own: PATH/train/<class>/*.jpg, PATH/test/...
domains:digits,mnist                           several sets of the same classes as one
"""

import os
import pathlib

from bnhead.errors import UsageError, nearest

EMBEDDED = ("digits", "digits_rotation")
_FOLDER, _DOMAINS = "folder:", "domains:"


def folder(name: str) -> pathlib.Path | None:
    """PATH of `folder:PATH`, with `~` resolved; None for every other name."""
    return expanded(name.removeprefix(_FOLDER)) if name.startswith(_FOLDER) else None


def expanded(path: str) -> pathlib.Path:
    """The path with `~` resolved, and as it is where there is nobody of that name."""
    return pathlib.Path(os.path.expanduser(path))


def domains(name: str) -> tuple[str, ...]:
    """The sets of `domains:A,B`, empty for every other name."""
    return tuple(name.removeprefix(_DOMAINS).split(",")) if name.startswith(_DOMAINS) else ()


def check_name(name: str, data_dir: str | None = None) -> None:
    """Raises UsageError unless `name` is embedded, known to TFDS, prepared in `data_dir`, or made of such.

    Args:
        name: as in the module's table.
        data_dir: TFDS' directory; None for TFDS' default.
    """
    if (path := folder(name)) is not None:
        return _check_folder(name, path)
    if name.startswith(_DOMAINS):
        return _check_domains(name, data_dir)
    bare = name.split(":")[0].split("/")[0]
    if bare in EMBEDDED or (data_dir and bare and _is_folder(expanded(data_dir) / bare)):
        return None
    import tensorflow_datasets as tfds  # half a second, spared to those who take the embedded set

    known = tfds.list_builders(with_community_datasets=False)
    if bare not in known:
        raise UsageError(
            f"data set {name!r} is not known{nearest(bare, [*EMBEDDED, *known])} "
            f"(there are the embedded {' and '.join(EMBEDDED)}, folder:PATH, domains:A,B, and TFDS' "
            f"{len(known)}, such as cifar10, cifar100, fashion_mnist, mnist, svhn_cropped)"
        )


def _check_folder(name: str, path: pathlib.Path) -> None:
    if name == _FOLDER or not _is_folder(path):
        raise UsageError(f"data set {name!r} needs a folder, as in folder:PATH, and {str(path)!r} is none")


def _is_folder(path: pathlib.Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long for a path, behind a closed folder, or with a null byte
        return False


def _check_domains(name: str, data_dir: str | None) -> None:
    parts = domains(name)
    if len(parts) < 2 or len(set(parts)) < len(parts) or any(part.startswith(_DOMAINS) for part in parts):
        raise UsageError(
            f"data set {name!r} needs at least two different sets joined by a comma, as in "
            "domains:digits,mnist"
        )
    for part in parts:
        check_name(part, data_dir)
