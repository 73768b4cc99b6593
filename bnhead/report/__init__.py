"""Reports: from the files of a study to pages for people and charts for TensorBoard, without TensorFlow.

`study` reads a directory, `curves` and `charts` are arithmetic, `figures` and `content` say what there is to
say, `pages` writes it as HTML and Markdown, `tensorboard` as event files, `command` is `bnhead report`.

The same files give the same bytes: nothing of the clock or of the directory's name enters, and of the runs
nothing that differs when they are done again, such as the time they took.
"""

import pathlib

from bnhead.report import content, files, pages, study, tensorboard

__all__ = ["build"]


def build(directory: pathlib.Path) -> None:
    """Writes `report.md`, `report.html` and `tensorboard/` into a study's directory.

    Runs that are missing or damaged are listed in the report.

    Raises:
        RunDirectoryError: there is no study, it has no verdict yet, or a file cannot be written.
    """
    there = study.read(directory)
    said = content.content(there)
    texts = {"report.md": pages.markdown(said), "report.html": pages.html(said)}
    for name, text in texts.items():
        files.replace(directory / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    files.replace(directory / "tensorboard", lambda path: tensorboard.write(there, path))
