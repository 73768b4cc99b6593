"""The two pages of a report, HTML and Markdown, from one content."""

import re
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from bnhead import texts

_POINT = re.compile(r"(-?[\d.]+(?:e-?\d+)?) (-?[\d.]+(?:e-?\d+)?)")


def html_page(content: Mapping[str, Any], template: str) -> str:
    """One page that contains everything and loads nothing, light or dark as the reader's system is set."""
    return _environment(autoescape=True).get_template(template).render(content)


def markdown_page(content: Mapping[str, Any], template: str) -> str:
    """The same as Markdown: tables and sentences."""
    text = _environment(autoescape=False).get_template(template).render(content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def svg_figure(content: Mapping[str, Any]) -> str:
    """A figure as a separate file."""
    text = _environment(autoescape=True).get_template("figure.svg").render(content)
    return re.sub(r"\n{2,}", "\n", text).strip() + "\n"


def placed(path: str, left: float, top: float, width: float, height: float) -> str:
    """An SVG path in percent of a plot as one in the plot's place in a figure."""
    return _POINT.sub(
        lambda point: (
            f"{left + width * float(point[1]) / 100:.2f} {top + height * float(point[2]) / 100:.2f}"
        ),
        path,
    )


def escaped(text: object) -> str:
    """Text for Markdown on one line, with marks and tags escaped."""
    return re.sub(r"([\\`*<>|\[\]&])", r"\\\1", " ".join(str(text).split()))


def as_code(text: object) -> str:
    """Text as code in Markdown, within a table too."""
    joined = " ".join(str(text).split()).replace("`", "'")
    return f"`{joined}`" if "|" not in joined else escaped(joined)


def breakable(text: object) -> markupsafe.Markup:
    """Escaped text in which a path or a name may break after its slashes, and not within `bn_fc`."""
    return markupsafe.Markup(
        re.sub(r"(?<=[/:])(?=\w)", "<wbr>", str(markupsafe.escape(texts.printable(str(text)))))
    )


def _environment(*, autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bnhead.report", "templates"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=texts.shown,
    )
    environment.filters |= {"plain": escaped, "code": as_code, "breakable": breakable, "placed": placed}
    return environment
