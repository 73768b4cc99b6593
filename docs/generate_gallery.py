"""The gallery: pages that the project's commands write, from the files in docs/answer/ and docs/nets/."""

import csv
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import generate_answer
import generate_findings
import generate_nets
import generate_summaries

from bnhead import report
from bnhead.report.census_files import page_of
from bnhead.runs.run_files import RunFiles
from bnhead.studies.commands import train_command
from bnhead.studies.directory import StudyFiles
from bnhead.studies.study import STUDIES


class Report(NamedTuple):
    """A page of the gallery.

    Attributes:
        title: heading of its card.
        about: its subject, in a sentence or two.
        page: path of the page in the site.
        command: the command that makes its result files.
        make: returns the page.
    """

    title: str
    about: str
    page: str
    command: str
    make: Callable[[], bytes]


def reports() -> list[Report]:
    """Pages of all studies in docs/answer/, of one run of the first page's answer, and of a census."""
    found = [_of_study(name, study) for name, study in generate_answer.studies().items()]
    found += [_of_study(f"summaries/{name}", study) for name, study in generate_summaries.studies().items()]
    name, study = next(iter(generate_answer.answers().items()))
    run = study.judged_runs[-1]
    about = f"One run of `{study.plan.study}`: `{run.cell}`, seed {run.seed}."
    command = train_command(study.plan.run_settings(run))
    found.append(_of_directory("A single run", about, f"{name}/runs/{run.id}", command))
    net = generate_nets.nets()[generate_nets.SHOWN]
    about = "The census of a pre-trained net: both ends of every layer, the net with its units, every layer."
    page = f"gallery/{generate_nets.SHOWN}.html"
    make = functools.partial(_census_page, net.content)
    return [*found, Report("The units of a pre-trained net", about, page, net.command, make)]


def _of_study(name: str, study: StudyFiles) -> Report:
    named = study.plan.study in STUDIES
    heads = [study.plan.study] if named else dict.fromkeys(cell.head for cell in study.plan.cells)
    title = f"{', '.join(f'`{head}`' for head in heads)}: {generate_findings.setting(study.plan)}"
    return _of_directory(title, study.verdict["sentence"], name, generate_answer.command(study.plan))


def _of_directory(title: str, about: str, directory: str, command: str) -> Report:
    """The report of a study or run under docs/answer/."""
    page = f"gallery/{directory.replace('/', '-')}.html"
    return Report(title, about, page, command, functools.partial(_built, directory))


def _built(directory: str) -> bytes:
    """The page that `bnhead report` writes."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / directory.replace("/", "-")
        shutil.copytree(generate_answer.ANSWER / directory, copy)
        report.build(copy, _runs_of_table(copy), name=f"studies/{pathlib.Path(directory).name}")
        return (copy / "report.html").read_bytes()


def _runs_of_table(study: pathlib.Path) -> dict[str, RunFiles] | None:
    """Run id -> the numbers after its last epoch, if a study's runs are kept as a table alone; else None."""
    table = study / "runs.csv"
    if not table.is_file():
        return None
    runs = {}
    for row in csv.DictReader(table.read_text().splitlines()):
        figures = {key: float(row[key]) for key in row if key.startswith(("test_", "dead/")) and row[key]}
        runs[row["run"]] = RunFiles(study / "runs" / row["run"], result={"status": row["status"], **figures})
    return runs


def _census_page(content: Mapping[str, Any]) -> bytes:
    """The page that `bnhead inspect` writes."""
    return page_of(content).encode()


def cards() -> str:
    """A card for each report: what it shows, its command, a link and the page itself."""
    texts = []
    for one in reports():
        title = one.title.replace("`", "")
        # the address in a tag is not rewritten, and gallery.md becomes gallery/index.html
        frame = f'<iframe class="report" loading="lazy" title="{title}" src="../{one.page}"></iframe>'
        link = f"[Open the page]({one.page})"
        texts += [f"## {one.title}", f"{one.about} {link}", f"```sh\n{one.command}\n```", frame]
    return "\n\n".join(texts)


@functools.cache
def files() -> dict[str, bytes]:
    """Path in the site -> page."""
    return {one.page: one.make() for one in reports()}
