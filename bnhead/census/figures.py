"""The figures of dead units, one row each. Everything that displays or explains a figure reads its row.

A row has the figure's name, formula, input, unit, heading and meaning. Logs, `history.csv`, `result.json`,
TensorBoard and the files of a census contain every figure as `dead/<layer>/<name>` (`census.keys`); `display`
lists the further outputs. To add a figure, add a row; the site's table reads them too.

The formulas read attributes of `Counts` and `Changes` without importing them, so that reports start quickly.
"""

import math
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bnhead.census import keys
from bnhead.notebook import BLUE, RED, Bar

DISPLAYS = ("charts", "summaries", "tables", "files")  # a figure appears in its display and in all later ones
UNITS = {  # unit -> format
    "share": ".1%",
    "count": ".0f",
    "number": ".1f",
    "value": ".3g",
    "probability": ".2g",
    "change": "+.3g",
    "rate": ".2%",
}
CHANGES = "changes"
ABLATED = {  # the groups of units that ablation sets to 0, in the order of `Counts.ablation_groups`
    "dead": "dead",
    "dormant": "dormant (0.025)",
    "rarely_active": "rarely active",
}
NEEDS = {  # optional attribute of `Counts`, or `CHANGES` -> the argument or data that it needs
    "": "",
    "runs": "",
    "magnitude": "`data`",
    "moments": "`data`; a vector or a batch norm",
    "groups": "a concatenation",
    "class_active": "labels",
    "gradient": "`gradients=True`",
    "output_gradient": "`gradients=True`",
    "together": "`together=True`",
    "comoments": "`clones=True`",
    "ablated_loss": "`ablate`",
    "ablated_metric": "`ablate`; a compiled metric",
    "causes": "a functional model",
    CHANGES: "two counts",
}


@dataclass(frozen=True)
class Figure:
    """One figure of a layer.

    Attributes:
        name: last part of its key in logs and files.
        heading: a few words for a column or a line.
        meaning: one line, without a full stop.
        reading: how to read it, in whole sentences for somebody new to the figure; empty if `meaning` does.
        formula: computes the value from a layer's `Counts`, or from its `Changes` if `needs` is `CHANGES`.
        needs: a key of `NEEDS`; a layer without it lacks the figure. Empty if the figure needs nothing.
        unit: a key of `UNITS`; a share is a share of the units, a rate one of the inputs, both in [0, 1].
        display: a member of `DISPLAYS`. "charts": plotted by epoch and by width, and in the tables of a
            study; "summaries": in the summary of a run, on the terminal and on its page; "tables": in the
            tables of a census; "files": in files only.
        cell: format of the table cell, if it holds more than the value. Fields: the names of figures, and
            `count`, the number of units. A layer that lacks one of these figures shows the value alone.
        note: format of the note that follows the value in a summary. Fields: the names of figures, and
            `bound`.
    """

    name: str
    heading: str
    meaning: str
    formula: Callable[[Any], float]
    needs: str = ""
    unit: str = "share"
    display: str = "tables"
    cell: str = ""
    note: str = ""
    reading: str = ""

    def is_counted(self, counts: Any) -> bool:
        """Whether a layer's counts have the input of the formula."""
        needed = getattr(counts, self.needs, None) if self.needs else counts
        return needed is not None and not (isinstance(needed, tuple) and not needed)

    def text(self, value: float | None) -> str:
        """A value in the figure's unit: "51.5%"."""
        return _formatted(value, UNITS[self.unit])

    def table_cell(self, values: Mapping[str, float], units: int) -> str:
        """The text of the table cell.

        Args:
            values: the layer's figures by name.
            units: number of the layer's units.
        """
        count = (
            f"{values[self.name] * units:.0f}"  # NaN stays NaN: some figures are undefined for some layers
        )
        fields = {name for _, name, _, _ in string.Formatter().parse(self.cell) if name}
        if not fields or fields - {"count"} - values.keys():  # a model without a metric lacks the metric's
            return self.text(values[self.name])
        return self.cell.format(**_texts(values), count=count)

    def bar(self, value: float | None, text: str = "") -> Bar:
        """The value as a cell in a notebook; a share of units has a bar.

        Args:
            value: the figure's value.
            text: of the cell; empty for the value.
        """
        share = value if self.unit == "share" and value is not None else math.nan
        return Bar(text or self.text(value), share, RED if self is DEAD else BLUE)

    def summary(self, values: Mapping[str, float | None]) -> str:
        """The value and its note: "51.5% (46.5% to 56.2% for 90 % of the inputs)".

        Args:
            values: the layer's figures by name.
        """
        note = self.note.format(**_texts(values))
        return self.text(values.get(self.name)) + (f" ({note})" if note else "")


FIGURES = (
    Figure(
        "dataset",
        "dead",
        "share of units that are dead: silent on every input counted",
        lambda c: c.dead.mean(),
        display="charts",
        cell="{count} ({dataset})",
        note="each fires on less than {bound} of inputs, at 95 %",
        reading="A dead unit adds nothing to the output, and a dead ReLU gets no gradient that could revive "
        "it. The share falls as more inputs are counted: compare layers and models on equally many.",
    ),
    Figure(
        "joint_bound",
        "bound of all dead",
        "share of inputs that every dead unit fires on less than, all of them at once, at 95 %",
        lambda c: c.joint_bound,
        unit="rate",
        display="files",
    ),
    Figure(
        "unseen",
        "alive at least",
        "dead units that would fire on more inputs, at least (Chao2, 95 % interval)",
        lambda c: c.unseen.units,
        unit="count",
        cell="{unseen} ({unseen_low} to {unseen_high})",
        reading="It is estimated from the units that fired on exactly one and on exactly two inputs. It is a "
        "lower bound: more of the dead units may fire. Count more inputs where it is large.",
    ),
    Figure(
        "unseen_low",
        "alive at least, low",
        "lower end of the 95 % interval of the number of dead units that would fire on further inputs",
        lambda c: c.unseen.low,
        unit="count",
        display="files",
    ),
    Figure(
        "unseen_high",
        "alive at least, high",
        "upper end of the 95 % interval of the number of dead units that would fire on further inputs",
        lambda c: c.unseen.high,
        unit="count",
        display="files",
    ),
    Figure(
        "per_input",
        "silent per input",
        "share of units silent on an input, on average",
        lambda c: sum(k * n for k, n in enumerate(c.inputs_by_silent.tolist())) / (c.inputs * c.units),
        display="charts",
        note="{per_input_p05} to {per_input_p95} for 90 % of the inputs",
        reading="About half is usual for a ReLU in a fully connected layer. A unit of a feature map is "
        "silent only if it is so at every position, which is rarer.",
    ),
    Figure(
        "per_input_p05",
        "silent, 5 %",
        "5th percentile over the inputs of the share of silent units",
        lambda c: c.silent_share(5),
        display="files",
    ),
    Figure(
        "per_input_p50",
        "silent, median",
        "median over the inputs of the share of silent units",
        lambda c: c.silent_share(50),
        display="files",
    ),
    Figure(
        "per_input_p95",
        "5 % to 95 %",
        "95th percentile over the inputs of the share of silent units",
        lambda c: c.silent_share(95),
        cell="{per_input_p05} to {per_input_p95}",
    ),
    Figure(
        "rarely_active",
        "rarely active",
        "share of units active on less than 1 % of the inputs, dead ones included",
        lambda c: c.rarely_active.mean(),
        display="summaries",
        note="on less than 1 % of the inputs, dead ones included",
    ),
    Figure(
        "always_on",
        "always on",
        "share of units active everywhere on every input: there a ReLU is linear",
        lambda c: c.always_on.mean(),
        display="summaries",
        reading="An activation without zeros, such as GELU or sigmoid, is always on in every unit.",
    ),
    Figure(
        "certified",
        "certified",
        "share of units that cannot fire on any input, proved from their weights",
        lambda c: c.certified.mean(),
        needs="causes",
        cell="{count} ({certified})",
        reading="A certified unit is dead on any data, and bnhead.census.prune_dead removes it. Either its "
        "weights have vanished, or its bias is below all that they can add.",
    ),
    Figure(
        "weight_dead",
        "weight-dead",
        "share of units that are certified and have almost no incoming weights",
        lambda c: c.weight_dead.mean(),
        needs="causes",
    ),
    Figure(
        "bias_dead",
        "bias-dead",
        "share of units that are certified and have weights, which their bias outweighs",
        lambda c: c.bias_dead.mean(),
        needs="causes",
    ),
    Figure(
        "unused",
        "unused",
        "share of units that are dead on these inputs and not certified: others may wake them",
        lambda c: c.unused.mean(),
        needs="causes",
    ),
    Figure(
        "runs",
        "runs",
        "runs of dead units, in the order of the units",
        lambda c: c.dead_runs.runs,
        unit="count",
        display="files",
    ),
    Figure(
        "runs_expected",
        "runs expected",
        "runs of dead units by chance: k (D - k + 1) / D for k dead of D",
        lambda c: c.dead_runs.expected,
        unit="number",
        display="files",
    ),
    Figure(
        "runs_p",
        "runs (expected), p",
        "exact probability, by chance, of so few runs of dead units",
        lambda c: c.dead_runs.p,
        unit="probability",
        cell="{runs} ({runs_expected}), {runs_p}",
        reading="A run is a row of dead units without a living one between them. Fewer runs than expected "
        "mean that the dead units lie side by side, and p is the probability that chance alone "
        "gives so few. The order of units means something only where channels were concatenated; "
        "elsewhere a small p is chance.",
    ),
    Figure(
        "runs_z_per_input",
        "runs per input, z",
        "mean Wald-Wolfowitz z of the silent units of each input: negative where they lie side by side",
        lambda c: c.runs[1] / max(c.runs[0], 1),
        needs="runs",
        unit="number",
        display="files",
    ),
    Figure(
        "blocks_p",
        "groups, p",
        "probability, by chance, of so uneven a spread of the dead over the groups that were concatenated",
        lambda c: c.blocks.p,
        needs="groups",
        unit="probability",
        display="files",
    ),
    Figure(
        "dormant_0",
        "dormant 0",
        "share of units whose mean activation is 0 (ReDo)",
        lambda c: c.dormant(0).mean(),
        needs="magnitude",
        display="files",
    ),
    Figure(
        "dormant_0025",
        "dormant 0.025",
        "share of units whose mean activation is at most 0.025 of the layer's mean (ReDo)",
        lambda c: c.dormant(0.025).mean(),
        needs="magnitude",
        reading="A dormant unit is weak beside its layer, not dead; ReDo revives units below this threshold.",
    ),
    Figure(
        "dormant_01",
        "dormant 0.1",
        "share of units whose mean activation is at most 0.1 of the layer's mean (ReDo)",
        lambda c: c.dormant(0.1).mean(),
        needs="magnitude",
        display="files",
    ),
    Figure(
        "constant",
        "constant",
        "share of units of variance at most 1e-12, as a dead unit has after a batch norm",
        lambda c: c.constant.mean(),
        needs="moments",
    ),
    Figure(
        "class_dead",
        "class-dead",
        "share of units silent on all inputs of some class but not on all",
        lambda c: c.class_dead.any(0).mean(),
        needs="class_active",
        reading="A unit that tells classes apart is silent on some of them, so that in the last layer of a "
        "well-trained net most units are class-dead. It is no sign of damage: compare layers and classes.",
    ),
    Figure(
        "gradient_dead",
        "gradient-dead",
        "share of units whose pre-activation moves the loss on no input",
        lambda c: c.gradient_dead.mean(),
        needs="gradient",
    ),
    Figure(
        "gradient_dormant_0",
        "gradient-dormant 0",
        "share of units whose output moves the loss on no input (GraMa)",
        lambda c: c.gradient_dormant(0).mean(),
        needs="output_gradient",
        display="files",
    ),
    Figure(
        "gradient_dormant_0025",
        "gradient-dormant 0.025",
        "share of units whose output moves the loss at most 0.025 times as much as the layer's mean (GraMa)",
        lambda c: c.gradient_dormant(0.025).mean(),
        needs="output_gradient",
        reading="The loss hardly depends on the unit's output, of any activation, GELU and sigmoid too. "
        "A dead ReLU is not gradient-dormant if later layers would read it.",
    ),
    Figure(
        "gradient_dormant_01",
        "gradient-dormant 0.1",
        "share of units whose output moves the loss at most 0.1 times as much as the layer's mean (GraMa)",
        lambda c: c.gradient_dormant(0.1).mean(),
        needs="output_gradient",
        display="files",
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
        "clones",
        "clones",
        "share of units with a clone: another unit whose output correlates with theirs by at least 0.99",
        lambda c: c.cloned.mean(),
        needs="comoments",
        reading="Clones compute the same up to scale and offset, so that the layer has fewer different units "
        "than its width. Of a feature map, the correlation is over inputs and positions.",
    ),
    *(
        Figure(
            f"ablated_{group}_{measure}",
            f"{'metric ' * (measure == 'metric')}without {group.replace('_', ' ')}",
            f"change of the {measure} when the {words} units of the layer are set to 0",
            lambda c, measure=measure, number=number: getattr(c, f"ablated_{measure}")[number],
            needs=f"ablated_{measure}",
            unit="change",
            display="tables" if measure == "loss" else "files",
            cell=f"{{ablated_{group}_loss}}, {{ablated_{group}_metric}}" if measure == "loss" else "",
            reading="The second number is the change of the metric." if measure == "loss" else "",
        )
        for number, (group, words) in enumerate(ABLATED.items())
        for measure in ("loss", "metric")
    ),
    Figure(
        "births",
        "births",
        "share of units that came alive for the first time since the last count",
        lambda c: c.born.mean(),
        needs=CHANGES,
        display="files",
    ),
    Figure(
        "deaths",
        "deaths",
        "share of units that died since the last count",
        lambda c: c.died.mean(),
        needs=CHANGES,
        display="files",
    ),
    Figure(
        "revivals",
        "revivals",
        "share of units that came back since the last count, having been active before",
        lambda c: c.revived.mean(),
        needs=CHANGES,
        display="files",
    ),
    Figure(
        "persistence",
        "persistence",
        "share of the dead of the last count that still are",
        lambda c: c.persistence,
        needs=CHANGES,
        display="files",
    ),
)
DEAD, SILENT = (row for row in FIGURES if row.display == "charts")  # the two that say most
ALWAYS_ON = next(row for row in FIGURES if row.name == "always_on")
OF_COUNTS = tuple(row for row in FIGURES if row.needs != CHANGES)
OF_CHANGES = tuple(row for row in FIGURES if row.needs == CHANGES)


def figures_at(display: str) -> tuple[Figure, ...]:
    """The figures that appear in one of `DISPLAYS`, in order."""
    return tuple(row for row in FIGURES if DISPLAYS.index(row.display) <= DISPLAYS.index(display))


def meaning_of(key: str) -> str:
    """The meaning of a key's figure, of one layer or of all; empty for other names, such as `loss`."""
    name = keys.short_parts(key)[1] if key.startswith(keys.overall("")) else ""
    return next((row.meaning for row in FIGURES if row.name == name), "")


def tensorboard_tag(key: str) -> str:
    """The tag of a figure in TensorBoard, which sorts tags and shows few at a time.

    The figures that are plotted keep their key and are alone in the group `dead`; the others are in the
    next group, `details`. Other names, such as `loss`, are their own tags.
    """
    if not keys.is_key(key) or keys.parts(key)[1] in {row.name for row in figures_at("charts")}:
        return key
    return f"details/{keys.short(key)}"


def rule_of_three(inputs: float, units: int = 1) -> float:
    """Upper bound of a dead unit's activity, at 95 % confidence: 3/N for a unit that is dead on N inputs.

    For k dead units at once it is -ln(0.05 / k) / N, from (1 - p)^N <= exp(-N p) = 0.05 / k for each unit.

    Args:
        inputs: N.
        units: k; up to 1 for the bound of one unit.

    Reference: Hanley & Lippman-Hand 1983, "If nothing goes wrong, is everything all right?".
    """
    if not inputs:
        return 1.0
    return min(1.0, (3 if units <= 1 else -math.log(0.05 / units)) / inputs)


def _texts(values: Mapping[str, float | None]) -> dict[str, str]:
    """Every figure and the bound as text."""
    texts = {row.name: row.text(values.get(row.name)) for row in FIGURES}
    return {**texts, "bound": _formatted(values.get("bound"), ".2%")}


def _formatted(value: float | None, spec: str) -> str:
    return "not finite" if value is None or not math.isfinite(value) else format(value, spec)
