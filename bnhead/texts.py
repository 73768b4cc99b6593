"""Text for people: made safe to show (names, values, error messages), and set into lines and units."""

import math
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable

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


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 unit", "1,024 units"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def counted_range(numbers: Collection[float], noun: str) -> str:
    """The numbers and their noun: "2,048 inputs", "128 to 256 inputs" if they differ, "0 inputs" of none."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low:,.0f} to {counted(int(high), noun)}" if low < high else counted(int(high), noun)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without TensorFlow's nodes; the type if the message is empty."""
    lines = _NODE.sub("", str(error)).strip().splitlines()
    return printable(lines[0].rstrip()) if lines else type(error).__name__


def cause(error: BaseException) -> str:
    """The line in which an error of a layer's call names its cause.

    Keras writes it in bold, between the layer's name and its arguments; AutoGraph puts a traceback before it.
    """
    text = str(error)
    if bold := re.search(r"\x1b\[1m(.*?)\x1b\[0m", text, re.DOTALL):
        text = bold[1]
    elif raised := re.findall(r"^\s+\w*Error: (.+)$", text, re.MULTILINE):
        text = raised[-1]
    return first_line(ValueError(re.sub(r" for '\{\{node [^']*'", "", text)))


def shown(value: object) -> object:
    """The value as a template writes it: text as `printable`; HTML is unchanged."""
    return value if hasattr(value, "__html__") else printable(str(value))


def command() -> str:
    """The package's command as it can be typed here; a bare checkout has no `bnhead` on the PATH."""
    return "bnhead" if shutil.which("bnhead") else "python -m bnhead"


def columns(default: int = 80) -> int:
    """Columns of the terminal, or of COLUMNS; `default` where stdout is a file or a pipe."""
    return shutil.get_terminal_size((default, 24)).columns


def wrapped(text: str, widest: int = 100, *, indent: int = 0, hanging: int | None = None) -> str:
    """The text in lines that fit the terminal. Words stay whole: a path or a URL can be copied.

    Args:
        text: without line breaks.
        widest: the most columns, also on a wider terminal.
        indent: spaces before the first line.
        hanging: spaces before the others; None for `indent`.
    """
    return textwrap.fill(
        text,
        max(20, min(widest, columns())),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent if hanging is None else hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )


def labelled(rows: Iterable[tuple[str, str]], width: int, *, whole: bool = False) -> str:
    """Rows of a label and a text, each text in lines to the right of its label.

    Args:
        rows: label and text.
        width: columns of the labels.
        whole: whether each text stays in one line: commands and paths are there to be copied.
    """
    lines = (f"{label:<{width - 1}} {text}".rstrip() for label, text in rows)
    return "\n".join(lines if whole else (wrapped(line, hanging=width) for line in lines))


def shortened(name: str, width: int) -> str:
    """The name in at most `width` characters: its middle is replaced by an ellipsis."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - end :]}"


def notice(line: str) -> None:
    """Prints a line about the work to stderr; on a terminal in lines that fit."""
    print(wrapped(line, hanging=2) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in a suitable unit: `"50 s"`, `"12 min"`, `"3.5 h"`; "unknown" for NaN."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
