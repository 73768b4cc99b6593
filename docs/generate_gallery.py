"""The gallery: reports that the project's commands write from the result files in docs/answer/."""

import functools
import pathlib
import shutil
import tempfile
from typing import NamedTuple

import generate_answer

from bnhead import report
from bnhead.studies.commands import train_command


class Report(NamedTuple):
    """A report of the gallery.

    Attributes:
        title: heading of its card.
        about: what it shows, in a sentence or two.
        directory: of the study or run, under docs/answer/.
        command: the command that makes the runs.
    """

    title: str
    about: str
    directory: str
    command: str

    @property
    def page(self) -> str:
        """Path of the report in the site."""
        return f"gallery/{self.directory.replace('/', '-')}.html"


def reports() -> list[Report]:
    """The report of each study in docs/answer/, and the page of one run of the first page's answer."""
    found = []
    for name, study in generate_answer.studies().items():
        title = f"`{study.plan.study}` on {study.plan.settings['dataset']}"
        about = study.verdict["sentence"]
        found.append(Report(title, about, name, generate_answer.command(study)))
    name, study = next(iter(generate_answer.answers().items()))
    run = study.judged_runs[-1]
    about = f"One run of `{study.plan.study}`: `{run.cell}`, seed {run.seed}."
    command = train_command(study.plan.run_settings(run))
    return [*found, Report("A single run", about, f"{name}/runs/{run.id}", command)]


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
    """Path in the site -> the page that `bnhead report` writes."""
    pages = {}
    for one in reports():
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / one.directory.replace("/", "-")
            shutil.copytree(generate_answer.ANSWER / one.directory, copy)
            report.build(copy)
            pages[one.page] = (copy / "report.html").read_bytes()
    return pages
