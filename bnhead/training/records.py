"""The run directory: files that are there whole or not at all.

config.json       the settings, resolved
environment.json  versions, device, times: what may differ between two runs of one config
history.csv       a row per epoch
result.json       the outcome; equal for equal configs on one kind of CPU
model.keras       the trained model, plain Keras layers
tensorboard/      event files
"""

import csv
import io
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

from bnhead.errors import RunDirectoryError

_WRITING = ".writing-"  # prefix of the folders of temporary files


class RunDirectory:
    """Reads and writes one run's files. Every write is a temporary file, fsync and rename."""

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)

    def begin(self, settings: dict) -> None:
        """Makes the directory and records the settings.

        What an unfinished run of the same settings left here is removed first.

        Raises:
            RunDirectoryError: the place holds a run of other settings, or something that is no run.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise RunDirectoryError(f"workdir {self.path} is a file")
            before = self.read("config.json")
            if before is not None and before != settings:
                differences = _differences(before, settings)
                raise RunDirectoryError(f"workdir {self.path} holds another run: {differences}")
            for left in self.path.glob(f"{_WRITING}*"):  # by a process that was killed
                shutil.rmtree(left)
            if before is None and self.path.exists() and any(self.path.iterdir()):
                raise RunDirectoryError(f"workdir {self.path} is not empty and holds no run; choose another")
            for name in ("environment.json", "history.csv", "result.json", "model.keras"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            self.path.mkdir(parents=True, exist_ok=True)
            self.write("config.json", settings)
        except OSError as error:
            raise RunDirectoryError(f"workdir {self.path} cannot be written: {error.strerror}") from error

    def read(self, name: str) -> dict | None:
        """The JSON file called `name`, or None where there is none."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunDirectoryError(f"{self.path / name} cannot be read: {error}") from error

    def write(self, name: str, content: dict) -> None:
        """Writes `content` as JSON; numbers that are not finite become null."""
        text = json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"
        self.replace(name, lambda path: path.write_text(text))

    def write_table(self, name: str, rows: Sequence[dict]) -> None:
        """Writes rows with equal keys as CSV."""
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        self.replace(name, lambda path: path.write_text(text.getvalue()))

    def replace(self, name: str, write: Callable[[pathlib.Path], object]) -> None:
        """Lets `write` fill a temporary file, which then takes the place of `name`.

        Raises:
            RunDirectoryError: it cannot be written (a full disk, say); what was there before still is.
        """
        try:
            with tempfile.TemporaryDirectory(prefix=_WRITING, dir=self.path) as folder:
                temporary = pathlib.Path(folder) / name
                write(temporary)
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, self.path / name)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path / name} cannot be written: {error.strerror or error}"
            ) from error


def _differences(before: dict, now: dict) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {before.get(key)!r} there, {now.get(key)!r} now" for key in keys)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
