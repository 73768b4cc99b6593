"""Foreign text made safe to show: names of files, classes and layers, values and errors of strangers."""

import re

_NODE = re.compile(r"\{\{\w+ [^}]*\}\}\s*|\s*\[Op:\w+\].*")  # where in its graph TensorFlow was


def printable(text: str) -> str:
    """The text for a terminal: what cannot be printed is written as an escape, but for new lines and tabs.

    An escape sequence in a name would otherwise reach the terminal, and bytes that are no UTF-8 would end the
    program.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """The same on one line."""
    return printable(" ".join(text.split()))


def plotted(text: str) -> str:
    """The text for Matplotlib, which reads a formula between two dollar signs."""
    return one_line(text).replace("$", r"\$")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without TensorFlow's nodes; its type where there is none."""
    lines = _NODE.sub("", str(error)).strip().splitlines()
    return printable(lines[0].rstrip()) if lines else type(error).__name__


def shown(value: object) -> object:
    """What a template puts into a page: as `printable`; what is HTML already, and text in it, stays."""
    return value if hasattr(value, "__html__") else printable(str(value))
