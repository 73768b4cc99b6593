"""The file of a trained model, in plain Keras layers."""

import pathlib
import zipfile
from typing import Any

import keras

from bnhead.errors import CopyError
from bnhead.graph import require_agreement
from bnhead.layers import plain
from bnhead.layers.plain import update_plain
from bnhead.runs.directory import NET_FILES, RunDirectory


class ModelFile:
    """Writes a net in plain Keras layers, and checks that each file gives the net's outputs.

    The first file is loaded and compared with the model. The layers do not change from one file to the next,
    nor from one run to the next in a study, so further files are values in the same layers: the copy that was
    saved is compared with the net, and the file read.

    Args:
        model: the trained model.
        whole: the net that is written: the model, or the model after a frozen backbone; None is the model.
        names: of the files of the trained model and of that of the best epoch.

    Attributes:
        model, names: as given.
    """

    def __init__(
        self, model: keras.Model, whole: keras.Model | None = None, names: tuple[str, str] = NET_FILES
    ):
        self.model, self._whole, self.names = model, model if whole is None else whole, names
        self._copied: keras.Model | None = None
        self._layers = b""  # the config in the file that was loaded

    def write(self, directory: RunDirectory, name: str, inputs: Any) -> None:
        """Writes the file `name` of a run.

        Args:
            directory: the run's directory.
            name: of the file, `*.keras`.
            inputs: a few inputs of the net, on which the outputs are compared.

        Raises:
            CopyError: the file cannot be loaded, or gives other outputs. It is removed; the checkpoints stay.
        """
        directory.replace(name, lambda path: self._write(path, inputs, f"{directory.path / name}"))

    def _write(self, path: pathlib.Path, inputs: Any, name: str) -> None:
        if self._copied is None:
            self._copied = plain(self._whole, compare=False)  # the file itself is compared
        else:
            update_plain(self._copied, self._whole)
        self._copied.save(path)
        try:
            with zipfile.ZipFile(path) as file:
                config, damaged = file.read("config.json"), file.testzip()
            saved = self._copied
            if config != self._layers or damaged:
                saved = keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError, zipfile.BadZipFile) as error:
            reason = str(error).strip().splitlines()[0]
            raise CopyError(f"{name} cannot be loaded: {reason}") from error
        require_agreement(self._whole, saved, inputs, name=f"{name}, the file")
        self._layers = config
