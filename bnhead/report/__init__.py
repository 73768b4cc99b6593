"""Reports: from the files of a study or a run to pages for people, and to charts for TensorBoard.

They need no TensorFlow. `study` reads a study's directory, `single` a run's; `curves` and `charts` are
arithmetic; `figures`, `limits`, `provenance` and `content` say what there is to say; `pages` writes it as
HTML and Markdown, `tensorboard` as event files; `command` is `bnhead report`.

The same files give the same bytes: nothing of the clock or of the directory's name enters, and of the runs
nothing that differs when they are done again, such as the time they took.
"""

import pathlib
from typing import Any

from bnhead.report import pages, run_page, study, study_page, tensorboard
from bnhead.runs import atomic

__all__ = ["build"]


def build(directory: pathlib.Path) -> None:
    """Writes `report.md` and `report.html` into a study's or a run's directory, and a study's `tensorboard/`.

    Runs of a study that are missing or damaged are listed in the report.

    Raises:
        RunDirectoryError: there is neither, a study has no verdict yet, or a file cannot be written.
        ResourcesError: the disk is full. What was there before still is.
    """
    try:
        _build(directory)
    except OSError as error:
        raise atomic.unwritable(error, f"report in {directory}") from error


def _build(directory: pathlib.Path) -> None:
    if (directory / "config.json").is_file() and not (directory / "plan.json").exists():
        _write(directory, run_page.content(run_page.read(directory)), "run")
        return
    there = study.read(directory)
    _write(directory, study_page.content(there), "study")
    atomic.replace(directory / "tensorboard", lambda path: tensorboard.write(there, path))


def _write(directory: pathlib.Path, said: dict[str, Any], template: str) -> None:
    texts = {
        "report.md": pages.markdown(said, f"{template}.md"),
        "report.html": pages.html(said, f"{template}.html"),
    }
    for name, text in texts.items():
        atomic.replace(directory / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
