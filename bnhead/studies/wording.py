"""Numbers in words: signs, digits and units of scores and differences. A missing number is a dash."""

import math
from collections.abc import Callable, Sequence

from bnhead.census.figures import Figure

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def is_number(value: float | None) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def metric_name(primary: str) -> str:
    """`test_accuracy` -> "test accuracy", `test_r2` -> "test R^2"."""
    return primary.replace("_r2", "_R\N{SUPERSCRIPT TWO}").replace("_", " ")


def is_share(primary: str) -> bool:
    """Whether the metric is a share: shown in percent, with differences in points."""
    return primary.endswith("accuracy")


def unit(primary: str) -> str:
    """Unit of a difference: "points" or ""."""
    return "points" if is_share(primary) else ""


def as_score(value: float | None, primary: str) -> str:
    """A value of the metric: "98.89%", "0.9712"."""
    return _or_dash(value, lambda v: f"{v:.2%}" if is_share(primary) else f"{v:.4f}")


def as_spread(value: float | None, primary: str) -> str:
    """A standard deviation, without sign or unit: "0.31" (points), "0.0123"."""
    return _or_dash(value, lambda v: f"{100 * v:.2f}" if is_share(primary) else f"{v:.4f}")


def ascii_difference(value: float, primary: str) -> str:
    """A difference with a sign, in ASCII as in `verdict.json`: "+0.31" (points), "+0.0123"."""
    return f"{100 * value:+.2f}" if is_share(primary) else f"{value:+.4f}"


def as_difference(value: float | None, primary: str) -> str:
    """A difference with a sign, except 0: "+0.31" (points), "+0.0123"."""
    return _or_dash(value, lambda v: _unsigned_zero(ascii_difference(v, primary)))


def as_interval(bounds: Sequence[float | None] | None, primary: str) -> str:
    """An interval of differences: "[+0.02, +0.64]"."""
    return f"[{', '.join(as_difference(value, primary) for value in bounds)}]" if bounds else NONE


def as_margin(value: float, primary: str) -> str:
    """A margin with its unit: "1 point", "0.5 points", "0.01"."""
    if not is_share(primary):
        return f"{value:g}"
    return f"{100 * value:g} point{'' if math.isclose(value, 0.01) else 's'}"


def as_figure(value: float | None, row: Figure) -> str:
    """A figure of dead units in its unit: "51.5%"."""
    return _or_dash(value, row.text)


def as_share(value: float | None) -> str:
    """A share of units: "51.5%"."""
    return _or_dash(value, lambda v: f"{v:.1%}")


def as_p_value(value: float | None) -> str:
    """A p-value: "0.034", "<0.001"."""
    return _or_dash(value, lambda v: "<0.001" if v < 0.001 else f"{v:.3f}")


def as_slope(value: float | None) -> str:
    """A slope with its sign: "+0.42"."""
    return _or_dash(value, lambda v: _unsigned_zero(f"{v:+.2f}"))


def as_list(items: Sequence[str]) -> str:
    """Items in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _unsigned_zero(text: str) -> str:
    return text if float(text) else text[1:]


def _or_dash(value: float | None, form: Callable[[float], str]) -> str:
    return form(value).replace("-", _MINUS) if is_number(value) else NONE
