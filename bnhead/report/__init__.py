"""Reports: from the files of a study or a run to pages for people and charts for TensorBoard.

`study_page` and `run_page` collect the content of a page, with `study_figures` and `dead_units` (captions
and texts), `provisional` (a study without a verdict), `event_pictures` (pictures of a run), `limits`, and
`charts` and `curves` (coordinates). `pages` writes it as HTML and Markdown, `figure_files` its figures as
SVG, `run_rows` the runs as CSV, `tensorboard` event files. `census_page`, `census_tables` and `census_files`
do the same for a census (`inspected`: its subject, `census_remarks`: its peculiarities), and `verify`
recomputes a study. Reports of studies and runs need no TensorFlow.

The same files and the same name of the directory give the same bytes: a page contains no fact that differs
when a run is repeated, such as its duration, except the day on which the runs began.
"""

import pathlib
from collections.abc import Mapping

from bnhead import public
from bnhead.report import figure_files, pages, provisional, run_page, run_rows, study_page, tensorboard
from bnhead.runs import atomic
from bnhead.runs.run_files import RunFiles
from bnhead.studies.directory import read_study

__all__ = ["build"]
__getattr__, __dir__ = public.names(__name__, {})


def build(
    directory: pathlib.Path, runs: Mapping[str, RunFiles] | None = None, *, name: str | None = None
) -> str:
    """Writes `report.md` and `report.html` into a study's or a run's directory.

    A study also gets `runs.csv` (a row per run), `figures/` (SVG) and `tensorboard/`. Those of an earlier
    report are replaced; other files in these folders stay.

    Missing and damaged runs of a study are listed in the report. The page of a study without a verdict shows
    the runs so far and is marked INCOMPLETE.

    Args:
        directory: the study's or the run's directory.
        runs: for a study, run id -> its files, if they have been read already.
        name: the directory as the commands of the page name it; None for `directory` itself.

    Returns:
        The first sentence of the page.

    Raises:
        RunDirectoryError: the directory holds neither, or a file cannot be written.
        ResourcesError: the disk is full. Existing files are unchanged.
    """
    name = str(directory) if name is None else name
    try:
        if (directory / "config.json").is_file() and not (directory / "plan.json").exists():
            study, template = None, "run"
            content = run_page.run_content(run_page.read_single_run(directory), name)
        else:
            study, template = read_study(directory, runs), "study"
            if not study.verdict:
                study = provisional.without_verdict(study, directory)
            content = study_page.study_content(study, name)
        texts = {
            "report.md": pages.markdown_page(content, f"{template}.md"),
            "report.html": pages.html_page(content, f"{template}.html"),
        }
        if study is not None:
            texts[run_rows.NAME] = run_rows.runs_csv(study)
            figures = figure_files.figure_files(content)
        for file, text in texts.items():
            atomic.replace(directory / file, lambda path, text=text: path.write_text(text, encoding="utf-8"))
        if study is not None:
            atomic.replace_files(
                directory / figure_files.FOLDER, lambda path: _write_all(path, figures), figure_files.is_ours
            )
            atomic.replace_files(
                directory / "tensorboard",
                lambda path: tensorboard.write_event_files(study, path),
                tensorboard.is_ours,
            )
    except OSError as error:
        raise atomic.unwritable(error, f"report in {directory}") from error
    return content["sentence"]


def _write_all(folder: pathlib.Path, files: Mapping[str, str]) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
