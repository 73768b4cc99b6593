"""The figures of a study as SVG files, for a paper: those of its page, each alone."""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bnhead.report import pages

FOLDER = "figures"
_MARK = b"<!-- bnhead report -->"  # in the first lines of each file


def figure_files(content: Mapping[str, Any]) -> dict[str, str]:
    """File name -> SVG: forests of the causes and of each outcome, the curves by epoch, the shares by width.

    Args:
        content: of `study_page.study_content`.
    """
    return {
        f"{name}.svg": pages.svg_figure(
            {"figure": figure, "kind": section, "title": title, "roles": content["roles"]}
        )
        for name, section, title, figure in _figures_of_charts(content)
    }


def is_ours(path: pathlib.Path) -> bool:
    """Whether a file in the folder is a figure that a report wrote."""
    if path.suffix != ".svg":
        return False
    with open(path, "rb") as file:
        return _MARK in file.read(400)


def _figures_of_charts(content: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Name, kind (a macro of the template), title and content of each figure."""
    causes = [forest for forest in content["causes"] if forest["rows"]]
    for forest in [*causes, *content["forests"]]:
        yield forest["file"], "forest", forest["title"], forest
    if content["curves"]:
        yield "curves", "epochs", content["metric"], content["curves"]
    for chart in content["dead"]:
        if chart["largest"]:
            yield _file("epochs", chart), "epochs", f"{chart['title']} ({chart['layer']})", chart
    for chart in content["width"]:
        yield _file("width", chart), "widths", f"{chart['title']} ({chart['layer']})", chart


def _file(section: str, chart: Mapping[str, Any]) -> str:
    """A file name of the layer's name, which may hold slashes."""
    return re.sub(r"[^\w.-]+", "_", f"{section}_{chart['layer']}_{chart['figure']}")
