"""Verdicts and numbers in words: sentences; signs, digits and units. A missing number is a dash.

A quantity is named by its measure ("accuracy") or by its key in the files of a run ("test_accuracy").
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import Figure
from bnhead.studies import claims
from bnhead.studies.measures import MEASURES

NONE = "\N{EN DASH}"
NOT_JUDGED = "NOT JUDGED"  # a difference of slopes that only shows which head had room to improve
MOST_NAMED = 7  # comparisons of one word that a headline names: all of the named studies
_MINUS = "\N{MINUS SIGN}"


def is_number(value: float | None) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def metric_name(primary: str) -> str:
    """`accuracy` and `test_accuracy` -> "test accuracy", `test_r2` -> "test R^2"."""
    if primary in MEASURES:
        return MEASURES[primary].title
    return primary.replace("_r2", "_R\N{SUPERSCRIPT TWO}").replace("_", " ")


def is_share(primary: str) -> bool:
    """Whether the metric is a share: shown in percent, with differences in points."""
    return MEASURES[primary].is_share if primary in MEASURES else primary.endswith("accuracy")


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
    """A difference with a sign, except 0, in ASCII as in `verdict.json`: "+0.31" (points), "+0.0123"."""
    text = f"{100 * value:+.2f}" if is_share(primary) else f"{value:+.4f}"
    return text if float(text) else text[1:]


def as_difference(value: float | None, primary: str) -> str:
    """A difference with a sign, except 0: "+0.31" (points), "+0.0123"."""
    return _or_dash(value, lambda v: ascii_difference(v, primary))


def as_interval(bounds: Sequence[float | None] | None, primary: str) -> str:
    """An interval of differences: "[+0.02, +0.64]"."""
    return f"[{', '.join(as_difference(value, primary) for value in bounds)}]" if bounds else NONE


def as_margin(value: float, primary: str) -> str:
    """A margin with its unit: "1 point", "0.5 points", "0.01"."""
    if not is_share(primary):
        return f"{value:.3g}"
    return f"{100 * value:.3g} point{'' if math.isclose(value, 0.01) else 's'}"


def as_figure(value: float | None, row: Figure) -> str:
    """A figure of dead units in its unit: "51.5%"."""
    return _or_dash(value, row.text)


def as_share(value: float | None) -> str:
    """A share of units: "51.5%"."""
    return _or_dash(value, lambda v: f"{v:.1%}")


def as_list(items: Sequence[str]) -> str:
    """Items in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def sentence(row: Mapping[str, Any], reason: str = "") -> str:
    """A judged row of a verdict in a sentence, its word first.

    Args:
        row: of `verdict.judge`, with its word.
        reason: why it is INVALID or UNSTABLE.
    """
    if not row["interval"]:
        return f"{row['word']}. {row['name']}: {reason or 'fewer than two pairs of runs'}."
    if reason:
        return f"{row['word']}. {row['name']}: {reason}."
    name, title = row["outcome"], metric_name(row["outcome"])
    verb = "were" if title.startswith(("dead units", "silent units")) else "was"
    levels = f"{ascii_score(row['control_mean'], name)} -> {ascii_score(row['treatment_mean'], name)}"
    text = (
        f"{row['word']} after {row['n']} seeds. With {row['treatment']}, {title} {verb} "
        f"{_higher(row['mean'], name)} on average than with {row['control']} ({levels})"
    )
    fits = f"{_range_in_words(row['interval'], name)} fits these runs"
    if row["word"] == "UNDECIDED":
        return f"{text}, but anything {fits}."
    if row["word"] == "NO MATERIAL DIFFERENCE":
        return f"{text}; {fits}, less than {as_margin(row['margin'], name)} either way."
    return f"{text}; {fits}."


def trend_sentence(row: Mapping[str, Any], slopes: Sequence[Mapping[str, Any]] = ()) -> str:
    """A slope in a sentence; for a difference of two slopes, word first, with both slopes and the difference.

    Args:
        row: of `width.trends`, with its word.
        slopes: the slopes of single heads.
    """
    name, title = row["outcome"], metric_name(row["outcome"])
    if not row["interval"]:
        return f"{row['word'] or 'INVALID'}. {row['name']}: fewer than two seeds with every {row['per']}."

    def change(slope: Mapping[str, Any]) -> str:
        low, high = (ascii_difference(bound, name) for bound in slope["interval"])
        size = " ".join(filter(None, (ascii_difference(slope["mean"], name), unit(name))))
        return f"{size} ({low} to {high})"

    if not row["control"]:
        return f"Per doubling of {row['per']}, {title} change by {change(row)} with {row['treatment']}."
    by_head = {slope["treatment"]: slope for slope in slopes}
    changes = " and by ".join(
        f"{change(by_head[head])} with {head}"
        for head in (row["treatment"], row["control"])
        if head in by_head
    )
    if row["word"] == NOT_JUDGED:
        return (
            f"Per doubling of {row['per']}, {title} change by {changes}: with {as_list(row['at_best'])} "
            "there is no room to improve, so these slopes are not judged."
        )
    return (
        f"{row['word']} after {row['n']} seeds. Per doubling of {row['per']}, {title} change by {changes}: "
        f"the difference is {change(row)}, and {as_margin(row['margin'], name)} would be material."
    )


def leading_rows(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows whose sentences sum up a study: slopes and comparisons.

    A single comparison that could be judged is followed by its first secondary row, usually the dead units.
    """
    rows = [*verdict["trends"], *verdict["comparisons"]]
    if len(rows) == 1 and rows[0]["word"] not in ("INVALID", "UNSTABLE"):
        rows += rows[0]["secondary"][:1]
    return rows


def headline(plan: Any, verdict: Mapping[str, Any]) -> str:
    """The finding of a study, in one to five sentences: of several comparisons counts and the clearest."""
    return " ".join(headline_lines(plan, verdict))


def headline_lines(plan: Any, verdict: Mapping[str, Any]) -> list[str]:
    """The headline, a line for each thing that it states."""
    comparisons, trends = verdict["comparisons"], verdict["trends"]
    names = [str(plan.settings[key]) for key in ("dataset", "backbone") if key in plan.settings]
    # a net is named by its file; the page's commands have the whole path
    setting = " with ".join(os.path.basename(name) if name.endswith(".keras") else name for name in names)
    subject = f"On {setting}: " if setting else ""
    stops = ("INVALID", "UNSTABLE") if trends else ("INVALID",)
    for first in (row for word in stops for row in comparisons if row["word"] == word):
        return [subject + first["sentence"]]
    if not trends and len(comparisons) == 1:
        first, *further = (row["sentence"] for row in leading_rows(verdict))
        return [subject + first, *further]
    compared, heading, names = labels(plan, comparisons)
    if trends:  # a slope alone hides a head that is better at every value
        differences = [row for row in trends if row["control"]]
        lines = [row["sentence"] for row in differences]
        at = 0 if all(row["word"] == NOT_JUDGED for row in differences) else len(lines)
        lines.insert(at, _counts(comparisons, names, f" by {heading}"))
        return [subject + lines[0], *lines[1:]]
    number = len(comparisons)
    head, _, key = heading.partition(", ")
    if key:
        heads = len({name.partition(", ")[0] for name in names})
        compared, heading = f"{heads} {head}s{compared}", key
        number //= heads
    scope = {
        "head": f"{number} heads{compared}",
        "step": f"{number} steps{compared}",
        "comparison": f"{number} comparisons",
    }.get(heading, f"{compared.removeprefix(' of ')} at {number} values of {heading}")
    rows = [comparisons, *_by_outcome(comparisons)]
    lines = [f"{subject}{scope}.", *(_counts(outcome, names) for outcome in rows[:2])]
    return [*lines, *claims.headline(verdict.get("claims", {}).get("rows", ()))]


def _by_outcome(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The secondary rows of all comparisons, by outcome."""
    names = dict.fromkeys(row["outcome"] for comparison in comparisons for row in comparison["secondary"])
    for name in names:
        yield [row for comparison in comparisons for row in comparison["secondary"] if row["outcome"] == name]


def _counts(rows: Sequence[Mapping[str, Any]], names: Sequence[str], scope: str = "") -> str:
    """`"Test accuracy: 2 HELPS (bn_fc +1.20, ln_fc +1.10), 1 UNDECIDED (noise_fc)."`, the clearest first."""
    name = rows[0]["outcome"]
    named = list(zip(names, rows, strict=True))
    parts = []
    for word in ("HELPS", "HURTS", "NO MATERIAL DIFFERENCE", "UNSTABLE", "UNDECIDED"):
        group = [(label, row) for label, row in named if row["word"] == word]
        labels_of_group = [label for label, _ in group]
        if word in ("HELPS", "HURTS"):
            group.sort(key=lambda pair: -abs(pair[1]["mean"]))
            labels_of_group = [f"{label} {ascii_difference(row['mean'], name)}" for label, row in group]
        if word not in ("HELPS", "HURTS") and len(group) == len(rows):
            parts.append(f"all {len(group)} {word}")
        elif group:
            dots = " ..." if len(group) > MOST_NAMED else ""
            parts.append(f"{len(group)} {word} ({', '.join(labels_of_group[:MOST_NAMED])}{dots})")
    title = metric_name(name)
    return f"{title[0].upper()}{title[1:]}{scope}: {', '.join(parts)}."


def ascii_score(value: float, primary: str) -> str:
    """A value in ASCII: "98.9%", "0.9712"."""
    return f"{value:.1%}" if is_share(primary) else f"{value:.4f}"


def _higher(difference: float, name: str) -> str:
    """`"3.70 points higher"`."""
    if difference == 0:
        return "neither higher nor lower"
    size = ascii_difference(abs(difference), name).lstrip("+")
    return " ".join(filter(None, (size, unit(name), "higher" if difference > 0 else "lower")))


def _range_in_words(bounds: Sequence[float], name: str) -> str:
    """`"from 5.41 points lower to 12.81 points higher"`."""
    low, high = bounds
    if low == high == 0:
        return "no difference"
    if low < 0 < high:
        return f"from {_higher(low, name)} to {_higher(high, name)}"
    near, far = sorted(bounds, key=abs)
    size = ascii_difference(abs(near), name).lstrip("+")
    return f"from {size} to {_higher(far, name)}"


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


def range_in_ascii(bounds: Sequence[float | None] | None, name: str) -> str:
    """An interval in ASCII: "-0.20 to +1.31"; a dash without one."""
    if not bounds or not all(map(is_number, bounds)):
        return "-"
    return " to ".join(ascii_difference(value, name) for value in bounds)


def _dead_units(verdict: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """The change of the dead share and its verdict: "9.0% -> 0.0% fewer"."""
    words = {"HELPS": " fewer", "HURTS": " more", "NO MATERIAL DIFFERENCE": " same", "UNDECIDED": " open"}
    rows = [comparison, *comparison["secondary"]]
    word = next((row["word"] for row in rows if row["outcome"] == "dead_share"), "")
    return as_change(dead_shares(verdict, comparison)) + words.get(word, "")


# a table has no room for the longest word
_IN_TABLE = {"NO MATERIAL DIFFERENCE": "NOT MATERIAL"}
COLUMNS = {  # heading of the table of verdicts -> cell of (verdict, comparison)
    "diff.": lambda _, c: ascii_difference(c["mean"], c["outcome"]) if is_number(c["mean"]) else "-",
    "interval": lambda _, c: range_in_ascii(c["interval"], c["outcome"]),
    "verdict": lambda _, c: _IN_TABLE.get(c["word"], c["word"]),
    "dead units": _dead_units,
}


def _line(cell: Any, stratum: Mapping[str, Any]) -> str:
    """`cell.line`, or the settings that the cell has in addition to the stratum's: "pgd", "fc_units 64"."""
    settings = [
        f"{key} {value:g}" if is_number(value) else f"{value}"
        for key, value in cell.stratum.items()
        if key not in stratum
    ]
    return ", ".join(settings) or cell.line


def labels(plan: Any, comparisons: Sequence[Mapping[str, Any]]) -> tuple[str, str, list[str]]:
    """What comparisons share (`" against fc"`), what tells them apart ("head"), and its value for each."""
    controls, treatments = (
        [_line(plan.cell(c[side]), c["stratum"]) for c in comparisons] for side in ("control", "treatment")
    )
    # the first setting that tells the strata apart: batch_size, with which learning_rate changes
    strata = [c["stratum"] for c in comparisons]
    heading = next((key for key in strata[0] if len({s.get(key) for s in strata}) == len(strata)), "")
    if heading and len({*zip(controls, treatments, strict=True)}) == 1:
        names = [f"{s[heading]:g}" if is_number(s[heading]) else str(s[heading]) for s in strata]
        return f" of {treatments[0]} against {controls[0]}", heading, names
    if all(stratum == strata[0] for stratum in strata):
        if len(set(controls)) == 1:
            return f" against {controls[0]}", "head", treatments
        if controls[1:] == treatments[:-1]:
            return ", each against the one before", "step", treatments
    values = {tuple(stratum.items()) for stratum in strata}
    if len(set(controls)) == 1 and len(comparisons) == len(values) * len(
        set(treatments)
    ):  # all at each value
        key = next(iter(strata[0]))
        names = [f"{line}, {c['stratum'][key]:g}" for line, c in zip(treatments, comparisons, strict=True)]
        return f" against {controls[0]}", f"head, {key}", names
    return "", "comparison", [c["name"] for c in comparisons]


def verdict_table(plan: Any, verdict: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """The comparisons as a table for the terminal, in ASCII.

    Returns:
        Its title, its headings, and a row of cells for each comparison. What all comparisons share, such as
        the control, stands in the title and not in the rows.
    """
    comparisons = verdict["comparisons"]
    subject, heading, names = labels(plan, comparisons)
    outcome = comparisons[0]["outcome"]
    points = " in points" if unit(outcome) else ""
    title = (
        f"{metric_name(outcome)}{subject}{points}; all intervals hold together with "
        f"{100 * (1 - plan.alpha):g} %; {verdict['look']['seeds']} seeds"
    )
    cells = [[cell(verdict, c) for cell in COLUMNS.values()] for c in comparisons]
    rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
    return title, [heading, *COLUMNS], rows
