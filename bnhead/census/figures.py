"""The figures of dead units: a row each, read by everything that names, shows or explains one.

A row has the figure's name, its formula, what the formula needs, its unit, a heading and its meaning. Logs,
`history.csv`, `result.json` and TensorBoard have every figure, as `dead/<layer>/<name>` (`census.keys`), and
so have the files of a census; `shown` says where else one is read. A new figure is a new row, and `python
docs/generate_figures.py` puts it into the README.

The formulas read attributes of `Counts` and `Changes` and import neither, so that a report comes at once.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bnhead.census import keys

PLACES = ("charts", "summaries", "tables", "files")  # a figure is shown at its own and at those behind it
UNITS = {"share": ".1%", "count": ".0f", "number": ".1f", "probability": ".2g"}  # unit -> how it is written
CHANGES = "changes"
NEEDS = {  # attribute of `Counts` that may be None, or `CHANGES` -> what somebody has to give for it
    "": "",
    "runs": "",
    "magnitude": "`data`",
    "moments": "`data`; a vector or a batch norm",
    "groups": "a concatenation",
    "class_active": "labels",
    "gradient": "`gradients=True`",
    "together": "`together=True`",
    CHANGES: "two counts",
}


@dataclass(frozen=True)
class Figure:
    """One figure of a layer.

    Attributes:
        name: last part of its key in logs and files.
        heading: a few words for a column or a line.
        meaning: one line, without a full stop.
        formula: the number, of a layer's `Counts`; of its `Changes` where `needs` is `CHANGES`.
        needs: a key of `NEEDS`, without which the layer has no such figure; empty for none.
        unit: a key of `UNITS`; a share is one of the units, in [0, 1].
        shown: a member of `PLACES`. "charts": by epoch, against the width and in the tables of a study;
            "summaries": where a run ends, on the terminal and on its page; "tables": in those of a census;
            "files": there alone.
        cell: its text in the table of a census, where that is more than the value: a format of the names of
            figures, and of `count`, the units that its share comes to.
        note: what a summary says behind the value: a format of the names of figures, and of `bound`.
    """

    name: str
    heading: str
    meaning: str
    formula: Callable[[Any], float]
    needs: str = ""
    unit: str = "share"
    shown: str = "tables"
    cell: str = ""
    note: str = ""

    def is_counted(self, counts: Any) -> bool:
        """Whether a layer's counts have what the formula needs."""
        needed = getattr(counts, self.needs, None) if self.needs else counts
        return needed is not None and not (isinstance(needed, tuple) and not needed)

    def text(self, value: float | None) -> str:
        """A value in the figure's unit: "51.5%"."""
        return format(value, UNITS[self.unit]) if _is_finite(value) else "not finite"

    def table_cell(self, values: Mapping[str, float], units: int) -> str:
        """The text in a table, of a layer's figures by name and its number of units."""
        count = f"{values[self.name] * units:.0f}"  # NaN stays NaN: some figures are not defined everywhere
        return self.cell.format(**_texts(values), count=count) or self.text(values[self.name])

    def summary(self, values: Mapping[str, float | None]) -> str:
        """The value and the note, of a layer's figures by name: "51.5% (46.5% to 56.2% for 90 % ...)"."""
        note = self.note.format(**_texts(values))
        return self.text(values.get(self.name)) + (f" ({note})" if note else "")


FIGURES = (
    Figure(
        "per_input",
        "silent per input",
        "share of units silent on an input, on average",
        lambda c: sum(k * n for k, n in enumerate(c.inputs_by_silent.tolist())) / (c.inputs * c.units),
        shown="charts",
        note="{per_input_p05} to {per_input_p95} for 90 % of the inputs",
    ),
    Figure(
        "per_input_p05",
        "silent, 5 %",
        "5th percentile over the inputs of the share of silent units",
        lambda c: c.silent_share(5),
        shown="files",
    ),
    Figure(
        "per_input_p50",
        "silent, median",
        "median over the inputs of the share of silent units",
        lambda c: c.silent_share(50),
        shown="files",
    ),
    Figure(
        "per_input_p95",
        "5 % to 95 %",
        "95th percentile over the inputs of the share of silent units",
        lambda c: c.silent_share(95),
        cell="{per_input_p05} to {per_input_p95}",
    ),
    Figure(
        "dataset",
        "dead on all",
        "share of units that are dead: silent on every input counted",
        lambda c: c.dead.mean(),
        shown="charts",
        cell="{count} ({dataset})",
        note="each fires on less than {bound} of inputs, at 95 %",
    ),
    Figure(
        "rarely_active",
        "rarely active",
        "share of units active on less than 1 % of the inputs, dead ones included",
        lambda c: c.rarely_active.mean(),
        shown="summaries",
        note="on less than 1 % of the inputs, dead ones included",
    ),
    Figure(
        "always_on",
        "always on",
        "share of units active everywhere on every input: there a ReLU is linear",
        lambda c: c.always_on.mean(),
        shown="summaries",
    ),
    Figure(
        "runs",
        "runs",
        "runs of dead units, in the order of the units",
        lambda c: c.dead_runs.runs,
        unit="count",
        shown="files",
    ),
    Figure(
        "runs_expected",
        "runs expected",
        "runs of dead units by chance: k (D - k + 1) / D for k dead of D",
        lambda c: c.dead_runs.expected,
        unit="number",
        shown="files",
    ),
    Figure(
        "runs_p",
        "runs (expected), p",
        "exact probability, by chance, of so few runs of dead units",
        lambda c: c.dead_runs.p,
        unit="probability",
        cell="{runs} ({runs_expected}), {runs_p}",
    ),
    Figure(
        "runs_z_per_input",
        "runs per input, z",
        "mean Wald-Wolfowitz z of the silent units of each input: negative where they lie side by side",
        lambda c: c.runs[1] / max(c.runs[0], 1),
        needs="runs",
        unit="number",
        shown="files",
    ),
    Figure(
        "blocks_p",
        "groups, p",
        "probability, by chance, of so uneven a spread of the dead over the groups that were concatenated",
        lambda c: c.blocks.p,
        needs="groups",
        unit="probability",
        shown="files",
    ),
    Figure(
        "dormant_0",
        "dormant 0",
        "share of units whose mean activation is 0 (ReDo)",
        lambda c: c.dormant(0).mean(),
        needs="magnitude",
        shown="files",
    ),
    Figure(
        "dormant_0025",
        "dormant 0.025",
        "share of units whose mean activation is at most 0.025 of the layer's mean (ReDo)",
        lambda c: c.dormant(0.025).mean(),
        needs="magnitude",
    ),
    Figure(
        "dormant_01",
        "dormant 0.1",
        "share of units whose mean activation is at most 0.1 of the layer's mean (ReDo)",
        lambda c: c.dormant(0.1).mean(),
        needs="magnitude",
        shown="files",
    ),
    Figure(
        "constant",
        "constant",
        "share of units of variance at most 1e-12, which a dead one has behind a batch norm",
        lambda c: c.constant.mean(),
        needs="moments",
    ),
    Figure(
        "class_dead",
        "class-dead",
        "share of units silent on all inputs of some class but not on all",
        lambda c: c.class_dead.any(0).mean(),
        needs="class_active",
    ),
    Figure(
        "gradient_dead",
        "gradient-dead",
        "share of units whose pre-activation moves the loss on no input",
        lambda c: c.gradient_dead.mean(),
        needs="gradient",
    ),
    Figure(
        "patterns",
        "patterns",
        "effective number of independent patterns of silence",
        lambda c: c.patterns,
        needs="together",
        unit="number",
    ),
    Figure(
        "births",
        "births",
        "share of units that came alive for the first time since the last count",
        lambda c: c.born.mean(),
        needs=CHANGES,
        shown="files",
    ),
    Figure(
        "deaths",
        "deaths",
        "share of units that died since the last count",
        lambda c: c.died.mean(),
        needs=CHANGES,
        shown="files",
    ),
    Figure(
        "revivals",
        "revivals",
        "share of units that came back since the last count, having been active before",
        lambda c: c.revived.mean(),
        needs=CHANGES,
        shown="files",
    ),
    Figure(
        "persistence",
        "persistence",
        "share of the dead of the last count that still are",
        lambda c: c.persistence,
        needs=CHANGES,
        shown="files",
    ),
)
OF_COUNTS = tuple(row for row in FIGURES if row.needs != CHANGES)
OF_CHANGES = tuple(row for row in FIGURES if row.needs == CHANGES)


def shown(place: str) -> tuple[Figure, ...]:
    """The figures that are shown at one of `PLACES`, in order."""
    return tuple(row for row in FIGURES if PLACES.index(row.shown) <= PLACES.index(place))


def meaning_of(key: str) -> str:
    """The meaning of a key's figure; empty for a name that is no key, such as `loss`."""
    name = keys.parts(key)[1] if keys.is_key(key) else ""
    return next((row.meaning for row in FIGURES if row.name == name), "")


def rule_of_three(inputs: float) -> float:
    """A unit that is dead on so many inputs fires on less than this share of all, at 95 % confidence: 3/N.

    Reference: Hanley & Lippman-Hand 1983, "If nothing goes wrong, is everything all right?".
    """
    return min(1.0, 3 / inputs) if inputs else 1.0


def _texts(values: Mapping[str, float | None]) -> dict[str, str]:
    """Every figure, and the bound, as it is written."""
    bound = values.get("bound")
    texts = {row.name: row.text(values.get(row.name)) for row in FIGURES}
    return {**texts, "bound": f"{bound:.2%}" if _is_finite(bound) else "not finite"}


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
