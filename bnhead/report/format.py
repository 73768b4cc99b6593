"""Numbers as a reader wants them: signs, digits, units. A number that is not there is a dash."""

import math
from collections.abc import Sequence
from typing import Any

from bnhead.census.figures import Figure

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def known(value: float | None) -> bool:
    """Whether there is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def metric(primary: str) -> str:
    """`test_accuracy` -> "test accuracy", `test_r2` -> "test R^2"."""
    return primary.replace("_r2", "_R\N{SUPERSCRIPT TWO}").replace("_", " ")


def is_share(primary: str) -> bool:
    """Whether the metric is a share, shown in percent and its differences in points."""
    return primary.endswith("accuracy")


def score(value: float | None, primary: str) -> str:
    """A value of the metric: "98.89%", "0.9712"."""
    return _or_dash(value, lambda v: f"{v:.2%}" if is_share(primary) else f"{v:.4f}")


def spread(value: float | None, primary: str) -> str:
    """A standard deviation, without sign or unit: "0.31" points, "0.0123"."""
    return _or_dash(value, lambda v: f"{100 * v:.2f}" if is_share(primary) else f"{v:.4f}")


def difference(value: float | None, primary: str) -> str:
    """A difference with its sign: "+0.31" points, "+0.0123"."""
    return _or_dash(value, lambda v: _of_zero(f"{100 * v:+.2f}" if is_share(primary) else f"{v:+.4f}"))


def interval(bounds: Sequence[float | None] | None, primary: str) -> str:
    """ "[+0.02, +0.64]"."""
    return f"[{', '.join(difference(value, primary) for value in bounds)}]" if bounds else NONE


def points(value: float, primary: str) -> str:
    """A margin with its unit: "1 point", "0.5 points", "0.01"."""
    if not is_share(primary):
        return f"{value:g}"
    return f"{100 * value:.4g} point{'' if math.isclose(value, 0.01) else 's'}"


def unit(primary: str) -> str:
    """Unit of a difference: "points", or nothing."""
    return "points" if is_share(primary) else ""


def figure(value: float | None, row: Figure) -> str:
    """A figure of dead units in its unit: "51.5%"."""
    return _or_dash(value, row.text)


def share(value: float | None) -> str:
    """A share of units: "51.5%"."""
    return _or_dash(value, lambda v: f"{v:.1%}")


def probability(value: float | None) -> str:
    """A p-value: "0.034", "<0.001"."""
    return _or_dash(value, lambda v: "<0.001" if v < 0.001 else f"{v:.3f}")


def signed(value: float | None) -> str:
    """A plain number with its sign: "+0.42"."""
    return _or_dash(value, lambda v: _of_zero(f"{v:+.2f}"))


def listed(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _of_zero(text: str) -> str:
    """Zero has no sign, whatever it was rounded from."""
    return text if float(text) else text[1:]


def _or_dash(value: float | None, form: Any) -> str:
    return form(value).replace("-", _MINUS) if known(value) else NONE
