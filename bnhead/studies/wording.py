"""Numbers in words: signs, digits and units of scores and differences. A missing number is a dash."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bnhead.census import keys
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


# ---- a verdict in words: `plan` is a `Plan`, `verdict` the content of `verdict.json` -----------


def dead_shares(verdict: Mapping[str, Any], comparison: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Mean share of dead units in control and treatment, of the first layer counted; None if unknown."""
    cells = {cell["name"]: cell["dead"] for cell in verdict["cells"]}
    shares = []
    for side in ("control", "treatment"):
        means = [
            figure["mean"]
            for name, figure in cells.get(comparison[side], {}).items()
            if keys.short_parts(name)[1] == "dataset"
        ]
        shares.append(means[0] if means else None)
    return tuple(shares)


def as_change(shares: Sequence[float | None]) -> str:
    """Control and treatment in ASCII: "9.0% -> 0.0%"; a dash if one is unknown."""
    return " -> ".join(f"{share:.1%}" for share in shares) if all(map(is_number, shares)) else "-"


def _range_in_ascii(bounds: Sequence[float | None] | None, primary: str) -> str:
    if not bounds or not all(map(is_number, bounds)):
        return "-"
    return " to ".join(ascii_difference(value, primary) for value in bounds)


def _word_and_seeds(comparison: Mapping[str, Any]) -> str:
    more = comparison["more_seeds"]
    return f"{comparison['word']}, {f'over {MANY_SEEDS}' if more > MANY_SEEDS else more} more" if more else (
        comparison["word"]
    )  # fmt: skip


MANY_SEEDS = 50  # beyond, the estimate of the seeds that would decide is noise
COLUMNS = {  # heading of the table of verdicts -> cell of (plan, verdict, comparison)
    "diff.": lambda plan, _, c: ascii_difference(c["mean"], plan.primary) if is_number(c["mean"]) else "-",
    "interval": lambda plan, _, c: _range_in_ascii(c["interval"], plan.primary),
    "dead units": lambda _, verdict, c: as_change(dead_shares(verdict, c)),
    "verdict, seeds to go": lambda _, __, c: _word_and_seeds(c),
}


def verdict_table(plan: Any, verdict: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """The comparisons as a table for the terminal, in ASCII.

    Returns:
        Its title, its headings, and a row of cells for each comparison. What all comparisons share, such as
        the control, stands in the title and not in the rows.
    """
    comparisons = verdict["comparisons"]
    controls, treatments = (
        [plan.cell(c[side]).head for c in comparisons] for side in ("control", "treatment")
    )
    # the first setting that tells the strata apart: batch_size, with which learning_rate changes
    strata = [c["stratum"] for c in comparisons]
    heading = next((key for key in strata[0] if len({s.get(key) for s in strata}) == len(strata)), "")
    if heading and len({*zip(controls, treatments, strict=True)}) == 1:
        subject = f" of {treatments[0]} against {controls[0]}"
        names = [f"{s[heading]:g}" if is_number(s[heading]) else str(s[heading]) for s in strata]
    elif len(set(controls)) == 1 and all(stratum == strata[0] for stratum in strata):
        subject, heading, names = f" against {controls[0]}", "head", treatments
    else:
        subject, heading, names = "", "comparison", [c["name"] for c in comparisons]
    points = " in points" if unit(plan.primary) else ""
    title = (
        f"{plan.primary.replace('_', ' ')}{subject}{points}, with {100 * (1 - plan.alpha):g} % intervals, "
        f"{len(plan.seeds)} seeds"
    )
    cells = [[cell(plan, verdict, c) for cell in COLUMNS.values()] for c in comparisons]
    rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
    return title, [heading, *COLUMNS], rows


def plain_verdict(plan: Any, verdict: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """One comparison in plain words, the verdict first, in ASCII.

    "UNDECIDED. bn_fc +3.70 points of test accuracy against fc, could be -5.41 to +12.81; 3 seeds are too few.
    Dead units 9.0% -> 0.0%."
    """
    word, mean, seeds = comparison["word"], comparison["mean"], f"{comparison['n']} seeds"
    finding, _, reason = comparison["sentence"].rpartition(f": {word}")
    if word in ("INVALID", "UNSTABLE") or not is_number(mean):
        sentences = [f"{word}{reason}", f"{finding}."]
    else:
        metric = plan.primary.replace("_", " ")
        subject = f"points of {metric}" if unit(plan.primary) else f"of {metric}"
        interval = _range_in_ascii(comparison["interval"], plan.primary)
        ending = {"UNDECIDED": f"{seeds} are too few"}.get(word, seeds)
        if word == "NO MATERIAL DIFFERENCE":
            ending = f"less than {as_margin(plan.delta, plan.primary)} either way, {seeds}"
        difference = ascii_difference(mean, plan.primary)
        sentences = [
            f"{word}.",
            f"{comparison['treatment']} {difference} {subject} against {comparison['control']}, "
            f"could be {interval}; {ending}.",
        ]
    shares = dead_shares(verdict, comparison)
    return " ".join([*sentences, *([f"Dead units {as_change(shares)}."] if None not in shares else [])])
