"""The two pages, HTML and Markdown, from one content."""

import re
from typing import Any

import jinja2

from bnhead import texts


def html(content: dict[str, Any], template: str) -> str:
    """One page that shows everything and loads nothing, light or dark as the reader's system is."""
    return _environment(autoescape=True).get_template(template).render(content)


def markdown(content: dict[str, Any], template: str) -> str:
    """The same as Markdown: tables and sentences."""
    text = _environment(autoescape=False).get_template(template).render(content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain(text: object) -> str:
    """Text that means in Markdown what it says: marks and tags are escaped, lines joined."""
    return re.sub(r"([\\`*<>|\[\]&])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Text as code in Markdown, within a table too."""
    joined = " ".join(str(text).split()).replace("`", "'")
    return f"`{joined}`" if "|" not in joined else plain(joined)


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
    environment.filters |= {"plain": plain, "code": code}
    return environment
