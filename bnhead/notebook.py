"""How results show themselves in a notebook: data frames, HTML tables with bars, Matplotlib axes."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bnhead.errors import UsageError
from bnhead.texts import printable

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

RED, BLUE, GREY, GREEN = "#e4572e", "#3b75af", "#8a8f98", "#2e9e6b"  # red: dead units
# One hue at a low opacity is readable on white and on black paper, with the notebook's own ink.
_BAR = "background:linear-gradient(to right,{color}66 {percent:.1f}%,transparent {percent:.1f}%)"
_CELL = "text-align:{align};padding:.25em .7em;white-space:nowrap"


class Bar(NamedTuple):
    """A cell with a bar across its background.

    Attributes:
        text: of the cell.
        share: length of the bar, 0 to 1; a share that is not finite has none.
        color: `#rrggbb`.
    """

    text: str
    share: float
    color: str = BLUE


def frame(rows: Sequence[Mapping[str, Any]], index: str | Sequence[str]) -> "pandas.DataFrame":
    """A data frame of rows.

    Args:
        rows: column -> value; a row may lack columns.
        index: the column or columns of the index.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise UsageError("to_frame needs pandas, which is not installed: pip install pandas") from None
    return pandas.DataFrame.from_records(rows).set_index(index if isinstance(index, str) else list(index))


def table(
    title: str,
    headings: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str | Bar]],
    notes: Iterable[str] = (),
) -> str:
    """An HTML table that needs no style sheet and suits light and dark pages. All texts are escaped.

    Args:
        title: the line above.
        headings: text and meaning of each column; the meaning is the tool tip.
        rows: the cells; a row that is shorter than the headings ends in a wide cell.
        notes: the lines below.
    """

    def cell(content: str | Bar, number: int, width: int) -> str:
        style = _CELL.format(align="right" if number and width == 1 else "left")
        if isinstance(content, Bar):
            # NaN is not between 0 and 1
            if 0 <= content.share <= 1:
                style += ";min-width:6em;" + _BAR.format(color=content.color, percent=100 * content.share)
            content = content.text
        span = f' colspan="{width}"' if width > 1 else ""
        return f'<td{span} style="{style}">{_as_html(content)}</td>'

    head = "".join(
        f'<th title="{_as_html(meaning)}" style="text-align:{"right" if i else "left"};padding:.25em .7em">'
        f"{_as_html(text)}</th>"
        for i, (text, meaning) in enumerate(headings)
    )
    body = "".join(
        "<tr>"
        + "".join(
            cell(content, i, len(headings) - i if i == len(row) - 1 else 1) for i, content in enumerate(row)
        )
        + "</tr>"
        for row in map(list, rows)
    )
    small = "".join(f'<div style="font-size:.85em;opacity:.75">{_as_html(note)}</div>' for note in notes)
    return (
        f'<div><div style="margin:.3em 0">{_as_html(title)}</div>'
        f'<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{small}</div>"
    )


def axes(ax: "matplotlib.axes.Axes | None", width: float, height: float) -> "matplotlib.axes.Axes":
    """The axes to draw on: `ax`, or those of a new figure, which a notebook shows.

    Args:
        ax: the caller's axes, or None.
        width, height: size of a new figure in inches.
    """
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def _as_html(text: str) -> str:
    return html.escape(printable(text))
