"""The run directory: files that are there whole or not at all.

config.json       the settings, resolved
environment.json  versions, devices, times: what may differ between two runs of one config
status.json       running, interrupted, failed, or the result's status and the SHA-256 of the other files
history.csv       a row per epoch
result.json       the outcome; equal for equal configs on one kind of CPU
model.keras       the trained model, plain Keras layers
best.keras        that of the best epoch, where there is a validation split
checkpoints/      the states that an unfinished run goes on from
tensorboard/      event files
lock              who writes, while somebody does
"""

import csv
import errno
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence

from bnhead.errors import RunDirectoryError
from bnhead.runs import atomic, schema

MODELS = ("model.keras", "best.keras")
_FILES = ("config.json", "environment.json", "status.json", "history.csv", "result.json", *MODELS)
_HASHED = ("config.json", "environment.json", "history.csv", "result.json")  # of every run that has a result
_STATUS = {"status", "sha256"}  # what `status.json` has in the end
EVENTS = "events.out.tfevents.*"
_FOLDERS = {"checkpoints": "step-*", "tensorboard": EVENTS}  # name -> the files that a run makes in it
_OURS = (*_FILES, *_FOLDERS)


class RunDirectory:
    """Reads and writes one run's files. Every write is a temporary file, fsync and rename."""

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)

    def check(self, settings: dict, *, overwrite: bool = False) -> None:
        """Makes sure that a run of these settings may be here; nothing is written.

        Args:
            settings: the run's.
            overwrite: whether a run of other settings may be removed.

        Raises:
            RunDirectoryError: the place holds a run of other settings, which it lists with their keys, or
                something that is no run.
        """
        before = self.read("config.json")
        if self.path.is_symlink() and not self.path.exists():
            raise RunDirectoryError(
                f"workdir {self.path} is a link to {os.readlink(self.path)}, which is not there"
            )
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"workdir {self.path} is a file")
        self._check_kinds()
        if before is None and self._strangers():
            raise RunDirectoryError(f"workdir {self.path} is not empty and holds no run; choose another")
        if before is not None and 2 * len(settings.keys() & before.keys()) < len(settings):
            raise RunDirectoryError(
                f"workdir {self.path}: its config.json is not that of a run; choose another"
            )
        if before is not None and before != settings and not overwrite:
            there = differences(before, settings)
            raise RunDirectoryError(
                f"workdir {self.path} holds another run: {there} (--overwrite removes it)"
            )

    def _check_kinds(self) -> None:
        """Refuses a folder in the place of a file, and a file, or a link to nothing, in that of a folder."""
        for name in _OURS:
            path, is_ours = self.path / name, name in _FOLDERS
            if path.exists() and path.is_dir() != is_ours:
                kind = "file" if is_ours else "folder"
                raise RunDirectoryError(f"workdir {self.path}: {name} is a {kind}, which no run makes")
            if is_ours and path.is_symlink() and not path.exists():
                raise RunDirectoryError(
                    f"workdir {self.path}: {name} is a link to {os.readlink(path)}, which is not there"
                )

    def make(self) -> None:
        """Makes the directory, where it is not there.

        Raises:
            RunDirectoryError: it cannot be made, or not be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error

    def begin(self, settings: dict) -> None:
        """Records the settings of a run that starts here; what an unfinished one left is removed first.

        `config.json` is replaced and never missing, so that the place is a run's at every instant.
        """
        self.make()
        self.tidy()
        try:
            self._remove([name for name in _OURS if name not in ("config.json", "checkpoints")])
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error
        self.write("config.json", settings)

    def tidy(self) -> None:
        """Removes what processes that were killed had begun to write."""
        try:
            for left in self.path.glob(f"{atomic.WRITING}*"):
                shutil.rmtree(left)
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error

    def clear(self) -> list[str]:
        """Removes the run that is here and returns the names of what was; other files stay.

        `config.json` goes last, so that a removal that is cut short leaves what is still a run.
        """
        there = [name for name in (*_OURS[1:], _OURS[0]) if (self.path / name).exists()]
        try:
            self._remove(there)
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error
        return there

    def _remove(self, names: Sequence[str]) -> None:
        """Removes files and links of a run, and from its folders what it made in them."""
        for name in names:
            path = self.path / name
            if path.is_symlink() or name in _FILES:
                path.unlink(missing_ok=True)
                continue
            for left in path.glob(f"{atomic.WRITING}*"):
                shutil.rmtree(left)
            for made in path.rglob(_FOLDERS[name]):
                made.unlink()
            folders = [path, *(inside for inside in path.rglob("*") if inside.is_dir())]
            for folder in reversed(folders):  # those that hold somebody else's files stay
                if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                    folder.rmdir()

    def _strangers(self) -> bool:
        """Whether anything lies here that a run has not left before it had its settings."""
        if not self.path.is_dir():
            return False
        try:
            names = {path.name for path in self.path.iterdir()}
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error
        return any(name != "lock" and not name.startswith(atomic.WRITING) for name in names)

    def read(self, name: str) -> dict | None:
        """The JSON object in the file called `name`, or None where there is none.

        Raises:
            RunDirectoryError: it cannot be read, or holds what is not of its shape in `shapes`.
        """
        try:
            return atomic.read_json(self.path / name, schema.OF.get(name, dict))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.ENAMETOOLONG:
                raise RunDirectoryError(
                    f"workdir {self.path} has a longer name than disks take; give it another (--workdir)"
                ) from error
            raise RunDirectoryError(
                f"{self.path / name} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error

    def write(self, name: str, content: dict) -> None:
        """Writes `content` as JSON; numbers that are not finite become null."""
        self.replace(name, lambda path: path.write_text(_json(content), newline="\n"))

    def finish(self, result: dict) -> None:
        """Writes `result.json`, with which a run is finished, and before it `status.json`.

        That holds the SHA-256 of every other file of the run, none of which is written again.
        """
        there = [name for name in (*_HASHED, *MODELS) if (self.path / name).is_file()]
        hashes = {name: atomic.sha256(self.path / name) for name in there}
        hashes["result.json"] = hashlib.sha256(_json(result).encode()).hexdigest()
        self.write("status.json", {"status": result["status"], "sha256": hashes})
        self.write("result.json", result)

    def hashes(self) -> dict[str, str]:
        """Name of a file -> its SHA-256 at the end of the run; empty before, or of an old run."""
        return (self.read("status.json") or {}).get("sha256", {})

    def changes(self) -> dict[str, str]:
        """The files of a finished run that are not as it left them: name -> what is wrong, "is missing".

        Without hashes, only a missing model is seen.
        """
        try:
            status = self.read("status.json") or {}
        except RunDirectoryError as error:
            return {"status.json": str(error).removeprefix(f"{self.path / 'status.json'} ")}
        hashes, told = status.get("sha256", {}), {}
        if not hashes and not (self.path / "model.keras").is_file():
            told["model.keras"] = "is missing"
        if (hashes and not set(_HASHED) <= hashes.keys() <= {*_HASHED, *MODELS}) or status.keys() - _STATUS:
            told["status.json"] = "is not as the run left it"
        told |= {name: self._change(name, hashes[name]) for name in (*_HASHED, *MODELS) if name in hashes}
        return {name: text for name, text in told.items() if text}

    def _change(self, name: str, digest: str) -> str:
        """What is wrong with a file that had this digest; empty where nothing is."""
        try:
            found = atomic.sha256(self.path / name)
        except (FileNotFoundError, NotADirectoryError):
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return "" if found == digest else "has another SHA-256 than in status.json"

    def say(self, line: str) -> None:
        """Tells a person something about the run, on stderr."""
        print(f"bnhead: {line}", file=sys.stderr, flush=True)

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
            RunDirectoryError, ResourcesError: it cannot be written, or the disk is full; what was there
                before still is.
        """
        path = self.path / name
        try:
            path.parent.mkdir(exist_ok=True)
            atomic.replace(path, write)
        except OSError as error:
            raise atomic.unwritable(error, str(path)) from error


def differences(before: dict, now: dict) -> str:
    """The keys whose values differ, with both, in a line."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {before.get(key)!r} there, {now.get(key)!r} now" for key in keys)


def _json(content: dict) -> str:
    return json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
