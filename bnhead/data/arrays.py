"""Arrays in an .npz file, as `numpy.savez` writes it: inputs of any kind for a model, and labels."""

import contextlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bnhead.errors import DataError, UsageError, nearest
from bnhead.texts import first_line

LABELS = "y"  # name of the array of labels
INPUT = "x"  # name of the array for a model of one input, whatever the model calls it


@dataclass(frozen=True)
class Arrays:
    """Inputs and labels of one length.

    Attributes:
        name: of the file.
        inputs: name -> `(examples, ...)`.
        labels: `(examples, ...)`; None without labels.
        classes: names of the classes; the file has none.
    """

    name: str
    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    classes: Sequence[str] = field(default=())

    @property
    def examples(self) -> int:
        """Number of examples."""
        return len(next(iter(self.inputs.values())))

    def read_by(self, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray | None]:
        """The arrays for a model's inputs.

        Args:
            names: of the inputs. A single input may be called `x` in the file.
            optional: the inputs that may be missing, and are then None.

        Raises:
            UsageError: an input without an array, with the nearest name.
        """
        read = {}
        for name in names:
            key = INPUT if len(names) == 1 and name not in self.inputs else name
            read[name] = self.inputs.get(key)
            if read[name] is None and name not in optional:
                also = f" nor {INPUT!r}" if len(names) == 1 and name != INPUT else ""
                raise UsageError(
                    f"data {self.name} has no array {name!r}{also}, an input of the model"
                    f"{nearest(name, self.inputs)} (it holds {', '.join(self.inputs)})"
                )
        return read

    def naming_pictures(self) -> contextlib.AbstractContextManager:
        """As of a `DataSet`; no picture is decoded here."""
        return contextlib.nullcontext()


def check_npz(path: str) -> None:
    """Checks the names in an .npz file without reading its arrays.

    Raises:
        DataError: a file that is not an .npz file, or that lacks an array of inputs.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile):
        raise DataError(f"data {path} must be an .npz file, as numpy.savez writes it") from None
    if not set(names) - {LABELS}:
        raise DataError(
            f"data {path} has no array of inputs: numpy.savez({os.path.basename(path)!r}, {INPUT}=...)"
        )


def load_npz(path: str) -> Arrays:
    """Reads an .npz file: `y` are the labels, all other arrays inputs.

    Raises:
        DataError: it cannot be read, or its arrays have several lengths.
    """
    check_npz(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"data {path} cannot be read: {first_line(error)}") from error
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        texts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise DataError(f"data {path} must hold arrays of one length of at least 1, got {texts}")
    labels = arrays.pop(LABELS, None)
    return Arrays(os.path.basename(path), arrays, labels)
