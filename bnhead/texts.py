"""Makes text from files, users and libraries safe to show: names, values and error messages."""

import re

_NODE = re.compile(r"\{\{\w+ [^}]*\}\}\s*|\s*\[Op:\w+\].*")  # nodes of TensorFlow's graph


def printable(text: str) -> str:
    """The text for a terminal: unprintable characters except new lines and tabs become escapes.

    An escape sequence in a name would otherwise reach the terminal, and bytes that are not UTF-8 would end
    the program.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """As `printable`, on one line."""
    return printable(" ".join(text.split()))


def plotted(text: str) -> str:
    """The text for Matplotlib, which would read text between two dollar signs as a formula."""
    return one_line(text).replace("$", r"\$")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without TensorFlow's nodes; the type if the message is empty."""
    lines = _NODE.sub("", str(error)).strip().splitlines()
    return printable(lines[0].rstrip()) if lines else type(error).__name__


def shown(value: object) -> object:
    """The value as a template writes it: text as `printable`; HTML is unchanged."""
    return value if hasattr(value, "__html__") else printable(str(value))
