"""The run directory. Every file is written atomically: completely or not at all.

config.json       the settings, resolved
environment.json  versions, devices, times: may differ between two runs of one config
status.json       running, interrupted, failed, or the result's status and the SHA-256 of the other files
history.csv       a row per epoch
result.json       the outcome; equal for equal configs on one type of CPU
predictions.npz   outputs and silent share for each test image, see `runs.predictions`
model.keras       the trained model, plain Keras layers
best.keras        the model of the best epoch, if there is a validation split
head.keras        instead of model.keras, the head alone, from the features of a frozen backbone that many
                  runs of a study share; best_head.keras instead of best.keras
checkpoints/      the states from which an unfinished run resumes
train/            event files of the training; TensorBoard lists this folder and the next two as runs
test/             event files of the test split, with the figures of the units
units/            event files with the plots of the units
census/           the units of the trained model, counted by `bnhead inspect`
frozen/           the first stage of a run with `--unfreeze_at`, itself a run directory
lock              names the process that writes the directory; exists while one does
"""

import contextlib
import errno
import hashlib
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence

from bnhead import texts
from bnhead.errors import ResourcesError, RunDirectoryError
from bnhead.runs import atomic, history, lock, schema

NET_FILES = ("model.keras", "best.keras")
HEAD_FILES = ("head.keras", "best_head.keras")  # of runs that share a frozen backbone
MODELS = (*NET_FILES, *HEAD_FILES)
PREDICTIONS = "predictions.npz"  # here, so that listing runs need not wait for NumPy
_OPTIONAL = (PREDICTIONS, *MODELS)  # missing in some finished runs
_FILES = ("config.json", "environment.json", "status.json", history.NAME, "result.json", *_OPTIONAL)
_HASHED = ("config.json", "environment.json", history.NAME, "result.json")  # in every finished run
_STATUS = {"status", "sha256"}  # keys of a finished run's `status.json`
EVENTS = "events.out.tfevents.*"
EVENT_FOLDERS = ("train", "test", "units")  # TensorBoard lists each as a run, by its path
CENSUS = "census"
FROZEN = "frozen"
CENSUS_FILES = ("census.json", "census.csv", "index.html")
MECHANISMS = "mechanisms.json"  # beside them, if `inspect` has measured
_FOLDERS = {  # name -> the files that are written in it
    "checkpoints": ("step-*",),
    **dict.fromkeys(EVENT_FOLDERS, (EVENTS,)),
    CENSUS: (*CENSUS_FILES, MECHANISMS),
}
_ENTRIES = (*_FILES, *_FOLDERS)


class RunDirectory:
    """Reads and writes one run's files.

    Attributes:
        path: the directory.
        writable: False in the processes of a run that leave writing to the first one.
    """

    writable = True

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)

    @property
    def model_file(self) -> pathlib.Path:
        """The file of the trained net, or of the trained head of a backbone that runs share."""
        net, head = self.path / NET_FILES[0], self.path / HEAD_FILES[0]
        return head if head.is_file() and not net.is_file() else net

    def finished_result(self, settings: dict) -> dict | None:
        """The result of the run in this directory if it has these settings and is finished, else None.

        Raises:
            RunDirectoryError: the result was changed after the run.
        """
        if self.read("config.json") != settings or (result := self.read("result.json")) is None:
            return None
        if change := self.changes().get("result.json"):
            raise RunDirectoryError(
                f"{self.path / 'result.json'} {change}, so it is not the run's; --overwrite trains it again"
            )
        return {key: math.nan if value is None else value for key, value in result.items()}

    def trained_settings(self) -> dict:
        """The settings of the run that left its trained model here.

        Raises:
            RunDirectoryError: there is none.
        """
        settings = self.read("config.json")
        if settings is None or not self.model_file.is_file():
            raise RunDirectoryError(
                f"{self.path} holds no finished run; give a run directory or a .keras file"
            )
        return settings

    def check(self, settings: dict, *, overwrite: bool = False) -> None:
        """Checks that a run with these settings may use the directory. Writes nothing.

        Args:
            settings: the run's.
            overwrite: whether a run with other settings may be removed.

        Raises:
            RunDirectoryError: the directory holds a run with other settings, which the message lists with
                their keys, or something else.
        """
        existing = self.read("config.json")
        if self.path.is_symlink() and not self.path.exists():
            raise RunDirectoryError(
                f"workdir {self.path} is a link to {os.readlink(self.path)}, which does not exist"
            )
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"workdir {self.path} is a file")
        for name in _ENTRIES:
            path, is_folder = self.path / name, name in _FOLDERS
            if path.exists() and path.is_dir() != is_folder:
                found_type = "file" if is_folder else "folder"
                raise RunDirectoryError(f"workdir {self.path}: {name} is a {found_type}, which no run writes")
            if is_folder and path.is_symlink() and not path.exists():
                raise RunDirectoryError(
                    f"workdir {self.path}: {name} is a link to {os.readlink(path)}, which does not exist"
                )
        if existing is None and self._has_foreign_files():
            raise RunDirectoryError(f"workdir {self.path} is not empty and holds no run; choose another")
        if existing is not None and 2 * len(settings.keys() & existing.keys()) < len(settings):
            raise RunDirectoryError(
                f"workdir {self.path}: its config.json is not that of a run; choose another"
            )
        if existing is not None and existing != settings and not overwrite:
            raise RunDirectoryError(
                f"workdir {self.path} holds another run: {changed_settings(existing, settings)} "
                "(--overwrite removes it; another --workdir keeps both)"
            )

    def _has_foreign_files(self) -> bool:
        """Whether the directory holds something that a run does not write before its settings."""
        if not self.path.is_dir():
            return False
        try:
            names = {path.name for path in self.path.iterdir()}
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error
        # the first stage of a run is done before the run begins
        names -= {lock.NAME, FROZEN} if (self.path / FROZEN / "config.json").is_file() else {lock.NAME}
        return any(not name.startswith(atomic.WRITING) for name in names)

    def admit(self, settings: dict, *, overwrite: bool = False) -> dict | None:
        """The result of the run if it is finished and not to be overwritten; else checks the directory.

        Raises:
            RunDirectoryError: as `finished_result` and `check`.
        """
        result = None if overwrite else self.finished_result(settings)
        if result is None:
            self.check(settings, overwrite=overwrite)
        return result

    @contextlib.contextmanager
    def claimed(self, settings: dict, *, overwrite: bool = False) -> Iterator[dict | None]:
        """Makes, locks and checks the directory for a run, and with `overwrite` removes the run in it.

        Yields:
            The result, if another process has finished this run in the meantime; else None.

        Raises:
            RunDirectoryError: as `admit`, or another process holds the lock.
        """
        self.make()
        with lock.writer_lock(self.path) as dead_writer:
            self.tidy()
            if dead_writer:
                self.log(f"process {dead_writer['pid']} on {dead_writer['host']} left {self.path} unfinished")
            result = self.admit(settings, overwrite=overwrite)
            if overwrite and (removed := self.clear()):
                self.log(f"removed from {self.path}: {', '.join(removed)}")
            yield result

    def make(self) -> None:
        """Makes the directory if it does not exist.

        Raises:
            RunDirectoryError: it cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error

    def check_writable(self) -> None:
        """Checks that the directory can be made and written to. Leaves nothing.

        Raises:
            RunDirectoryError, ResourcesError: it cannot, or the disk is full.
        """
        try:
            parent = self.path.absolute()
            while not parent.exists():
                parent = parent.parent
            with tempfile.TemporaryDirectory(prefix=atomic.WRITING, dir=parent):
                pass
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error

    def begin(self, settings: dict) -> None:
        """Removes the files of an unfinished run and records the settings of the run that starts.

        `config.json` is replaced and never missing, so that at every instant the directory is a run's.
        """
        self.make()
        self.tidy()
        try:
            self._remove([name for name in _ENTRIES if name not in ("config.json", "checkpoints")])
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error
        self.write("config.json", settings)

    def tidy(self) -> None:
        """Removes the temporary files of killed processes."""
        try:
            for temporary in self.path.glob(f"{atomic.WRITING}*"):
                shutil.rmtree(temporary)
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error

    def clear(self) -> list[str]:
        """Removes the run and returns the names of the removed files. Files of other programs stay.

        `config.json` goes last, so that an interrupted removal leaves a directory that is still a run's.
        """
        names = [name for name in (*_ENTRIES[1:], _ENTRIES[0]) if (self.path / name).exists()]
        try:
            self._remove(names)
        except OSError as error:
            raise atomic.unwritable(error, f"workdir {self.path}") from error
        return names

    def _remove(self, names: Sequence[str]) -> None:
        """Removes files and links of a run, and from its folders the files that it wrote."""
        for name in names:
            path = self.path / name
            if path.is_symlink() or name in _FILES:
                path.unlink(missing_ok=True)
                continue
            for temporary in path.glob(f"{atomic.WRITING}*"):
                shutil.rmtree(temporary)
            for file in [file for pattern in _FOLDERS[name] for file in path.rglob(pattern)]:
                file.unlink()
            folders = [path, *(inner for inner in path.rglob("*") if inner.is_dir())]
            for folder in reversed(folders):  # folders with files of others stay
                if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                    folder.rmdir()

    def read(self, name: str) -> dict | None:
        """The JSON object in the file `name`, or None if the file does not exist.

        Raises:
            RunDirectoryError: the file cannot be read, or its content does not fit `runs.schema`.
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
        self.replace(name, lambda path: path.write_text(atomic.json_text(content), newline="\n"))

    def write_history(self, rows: Sequence[dict]) -> None:
        """Writes `history.csv`."""
        self.replace(history.NAME, lambda path: path.write_text(history.format_history(rows)))

    def replace(self, name: str, write: Callable[[pathlib.Path], object]) -> None:
        """Writes the file `name` with `write`, which is called with a temporary path.

        Raises:
            RunDirectoryError, ResourcesError: the file cannot be written, or the disk is full; its previous
                content is unchanged.
        """
        path = self.path / name
        try:
            path.parent.mkdir(exist_ok=True)
            atomic.replace(path, write)
        except OSError as error:
            raise atomic.unwritable(error, str(path)) from error

    @contextlib.contextmanager
    def failure_recorded(self) -> Iterator[None]:
        """Records in `status.json` that a run was interrupted or failed."""
        try:
            yield
        except BaseException as error:
            status = {"status": "interrupted"}
            if not isinstance(error, KeyboardInterrupt | GeneratorExit):
                status = {"status": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
            with contextlib.suppress(RunDirectoryError, ResourcesError):  # they would hide the first error
                self.write("status.json", status)
            raise

    def finish(self, result: dict) -> None:
        """Writes `status.json` with the SHA-256 of every other file, then `result.json`.

        With `result.json` the run is finished; none of its files is written again.
        """
        names = [name for name in (*_HASHED, *_OPTIONAL) if (self.path / name).is_file()]
        hashes = {name: atomic.sha256(self.path / name) for name in names}
        hashes["result.json"] = hashlib.sha256(atomic.json_text(result).encode()).hexdigest()
        self.write("status.json", {"status": result["status"], "sha256": hashes})
        self.write("result.json", result)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file at the end of the run, by name; empty for an unfinished or an old run."""
        return (self.read("status.json") or {}).get("sha256", {})

    def changes(self) -> dict[str, str]:
        """Files of a finished run that have changed since: name -> the change, such as "is missing".

        Without hashes, only a missing model is noticed.
        """
        try:
            status = self.read("status.json") or {}
        except RunDirectoryError as error:
            return {"status.json": str(error).removeprefix(f"{self.path / 'status.json'} ")}
        hashes, changes = status.get("sha256", {}), {}
        if not hashes and not self.model_file.is_file():
            changes[self.model_file.name] = "is missing"
        if (
            hashes and not set(_HASHED) <= hashes.keys() <= {*_HASHED, *_OPTIONAL}
        ) or status.keys() - _STATUS:
            changes["status.json"] = "is not as the run left it"
        for name in (name for name in (*_HASHED, *_OPTIONAL) if name in hashes):
            try:
                if atomic.sha256(self.path / name) != hashes[name]:
                    changes[name] = "has another SHA-256 than in status.json"
            except (FileNotFoundError, NotADirectoryError):
                changes[name] = "is missing"
            except OSError as error:
                changes[name] = f"cannot be read: {error.strerror or error}"
        return changes

    def log(self, line: str) -> None:
        """Prints a line about the run to stderr."""
        texts.notice(f"bnhead: {line}")

    def agree_on_bytes(self, read: Callable[[], bytes]) -> bytes:
        """`read()`, computed in the process that writes and sent to all processes of the run."""
        return read()


def changed_settings(existing: dict, settings: dict) -> str:
    """The keys whose values differ, with both values, in a line."""
    keys = [key for key in {**existing, **settings} if existing.get(key) != settings.get(key)]
    return ", ".join(f"{key} {existing.get(key)!r} there, {settings.get(key)!r} now" for key in keys)
