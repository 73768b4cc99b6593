"""A census in words: the conclusion over all layers, and remarks on each layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnhead.census.census import Census
from bnhead.census.counts import Counts
from bnhead.census.figures import ABLATED, FIGURES, UNITS
from bnhead.texts import counted

_FEW = 0.05  # smaller shares of always-on and rarely active units are usual
_FAR = 0.25  # a class that silences so much more of a layer than the median class stands out
_STEP, _POINTS = 4, 3  # dead(n) in a line: for N, and for about N / 16 and N / 256 inputs
_WORTH = 1e-3  # a smaller change of the loss is no worth of the units set to 0
_ALPHA = 0.05  # error rate of the remarks on one test, over all layers
_BY_NAME = {figure.name: figure for figure in FIGURES}


@dataclass(frozen=True)
class _Remark:
    """A sentence about a layer.

    Attributes:
        figure: the figure that the layer must have.
        applies: `(counts, figures, layers)` -> whether to write it; `layers` is the number of layers.
        text: format of the sentence. Fields: the names of figures, as text, and those of `_numbers`.
    """

    figure: str
    applies: Callable[[Counts, Mapping[str, float], int], bool]
    text: str


_REMARKS = (
    _Remark(
        "runs_p",
        lambda c, f, n: f["runs_p"] < _ALPHA / n,
        "the dead units lie side by side: {run_count}, {runs_expected} expected by chance, p {runs_p}",
    ),
    _Remark(
        "blocks_p",
        lambda c, f, n: f["blocks_p"] < _ALPHA / n,
        "dead units are unequally spread over the concatenated groups: {groups}, p {blocks_p}",
    ),
    _Remark(
        "rarely_active",
        lambda c, f, n: f["rarely_active"] - f["dataset"] >= _FEW,
        "active on less than 1 % of the inputs, without being dead: {rare}",
    ),
    _Remark(
        "always_on",
        # an activation without zeros, such as GELU, is always on in every unit
        lambda c, f, n: _FEW <= f["always_on"] < 1,
        "always on, where a ReLU is linear: {always_on} of the units",
    ),
    _Remark(
        "constant",
        lambda c, f, n: f["constant"] > f["dataset"],
        "constant without being dead: {constant_only}",
    ),
    _Remark(
        "gradient_dead",
        lambda c, f, n: f["gradient_dead"] > f["dataset"],
        "without a gradient, without being dead: {gradient_only}",
    ),
    _Remark(
        "clones",
        lambda c, f, n: f["clones"] > 0,
        "outputs correlate by at least 0.99 with those of another unit: {clones_of}",
    ),
    _Remark(
        "ablated_dormant_loss",
        lambda c, f, n: abs(f["ablated_dormant_loss"]) >= _WORTH,
        "without the dormant units the loss changes by {ablated_dormant_loss}{dormant_metric}",
    ),
    _Remark(
        "ablated_rarely_active_loss",
        lambda c, f, n: abs(f["ablated_rarely_active_loss"]) >= _WORTH,
        "without the rarely active units the loss changes by {ablated_rarely_active_loss}"
        "{rarely_active_metric}",
    ),
    _Remark(
        "class_dead",
        lambda c, f, n: _largest_class(c)[1] - _largest_class(c)[2] >= _FAR,
        "silent on all of class {class_name}: {class_share} of the units; on the median class {class_median}",
    ),
)


def remarks(counts: Counts, layers: int, classes: Sequence[str] = ()) -> list[str]:
    """Remarks on one layer, other than its dead units, most important first; empty for an unknown layer.

    Args:
        counts: of the layer.
        layers: number of layers of the census; a p-value must be below 0.05 over this number.
        classes: names of the classes; empty numbers them.
    """
    if counts.unknown:
        return []
    figures = counts.figures()
    fields = {name: _BY_NAME[name].text(value) for name, value in figures.items()}
    fields |= _numbers(counts, classes)
    return [
        remark.text.format(**fields)
        for remark in _REMARKS
        if remark.figure in figures and remark.applies(counts, figures, layers)
    ]


def _numbers(counts: Counts, classes: Sequence[str]) -> dict[str, str]:
    """Further fields of the sentences."""
    dead = counts.dead
    numbers = {
        "rare": counted(int((counts.rarely_active & ~dead).sum()), "unit"),
        "run_count": counted(counts.dead_runs.runs, "run"),
    }
    if counts.blocks:
        pairs = zip(counts.blocks.dead, counts.blocks.sizes, strict=True)
        numbers["groups"] = ", ".join(f"{k} of {size}" for k, size in pairs)
    if counts.constant is not None:
        numbers["constant_only"] = counted(int((counts.constant & ~dead).sum()), "unit")
    if counts.gradient_dead is not None:
        numbers["gradient_only"] = counted(int((counts.gradient_dead & ~dead).sum()), "unit")
    if counts.cloned is not None:
        groups = counted(len(counts.clone_groups()), "group")
        numbers["clones_of"] = f"{counted(int(counts.cloned.sum()), 'unit')}, in {groups}"
    for number, group in enumerate(ABLATED):
        change = None if counts.ablated_metric is None else counts.ablated_metric[number]
        numbers[f"{group}_metric"] = "" if change is None else f", the metric by {change:{UNITS['change']}}"
    if counts.class_dead is not None:
        number, largest, median = _largest_class(counts)
        name = classes[number] if number < len(classes) else str(number)
        numbers |= {"class_name": name, "class_share": f"{largest:.1%}", "class_median": f"{median:.1%}"}
    return numbers


def _largest_class(counts: Counts) -> tuple[int, float, float]:
    """The class with the most class-dead units, their share, and the share of the median class."""
    shares = counts.class_dead.mean(1)
    present = counts.class_inputs > 0
    number = int(np.argmax(np.where(present, shares, -1)))
    return number, float(shares[number]), float(np.median(shares[present])) if present.any() else math.nan


def conclusion(census: Census) -> str:
    """The result in a sentence: "No dead units in 20 layers."."""
    countable = {name: counts for name, counts in census.layers.items() if not counts.unknown}
    dead = {name: int(counts.dead.sum()) for name, counts in countable.items() if counts.dead.any()}
    unknown = len(census.layers) - len(countable)
    ending = f" {counted(unknown, 'layer')} unknown." if unknown and countable else ""
    if not countable:
        return f"Unknown: no count of {counted(unknown, 'layer')} is valid."
    if not dead:
        return f"No dead units in {_layers(countable)}.{ending}"
    units = sum(counts.units for counts in countable.values())
    total = sum(dead.values())
    text = f"{total:,} of {units:,} units are dead ({total / units:.1%}), in "
    text += _layers(countable) if len(countable) == 1 else f"{len(dead)} of {_layers(countable)}"
    return f"{text}.{ending}"


def accumulated(census: Census) -> str:
    """How the number of dead units falls with the number of inputs, and Chao's bound, in a line.

    Empty if nothing is dead or the inputs have no order.

    If layers were counted on different numbers of inputs, only those on the fewest are in it, with a remark.
    """
    countable = [counts for counts in census.layers.values() if not counts.unknown and counts.accumulation]
    inputs = min((counts.inputs for counts in countable), default=0)
    countable = [counts for counts in countable if counts.inputs == inputs]
    curves = [counts.accumulation.curve for counts in countable]
    part = f" (in {len(curves)} of {len(census.layers)} layers)" if len(curves) < len(census.layers) else ""
    if not curves or not (dead := sum(numbers for _, numbers in curves))[-1]:
        return ""
    points = list(zip(curves[0][0], dead, strict=True))[::-_STEP][_POINTS - 1 :: -1]
    (inputs, number), *later = points
    text = f"{counted(int(number), 'unit')} silent on the first {counted(int(inputs), 'input')}"
    text += "".join(f", {number:,} on {inputs:,}" for inputs, number in later) + part
    unseen = sum(counts.unseen.units for counts in countable)
    return text + f"; at least {unseen:,.0f} of these would fire on more inputs (Chao2)" * (unseen >= 0.5)


def causes(census: Census) -> str:
    """How many of the dead units cannot fire on any input, in a line; empty if nothing is dead.

    Layers without a certificate, such as those of a subclassed model, are not in it.
    """
    countable = [c for c in census.layers.values() if not c.unknown and c.causes is not None and c.dead.any()]
    if not countable:
        return ""
    dead, weight_dead, bias_dead, unused = (
        sum(int(mask.sum()) for mask in masks)
        for masks in zip(*((c.dead, c.weight_dead, c.bias_dead, c.unused) for c in countable), strict=True)
    )
    if unused == dead:
        return f"none of the {dead:,} dead units is proved dead by its weights; further inputs may wake them"
    kinds = f"{weight_dead:,} weight-dead, {bias_dead:,} bias-dead"
    text = f"{weight_dead + bias_dead:,} of {counted(dead, 'dead unit')} cannot fire on any input ({kinds})"
    return text + f"; further inputs may wake the other {unused:,}" * (unused > 0)


def worst_layers(census: Census, most: int = 3) -> list[str]:
    """The layers with the largest shares of dead units, largest first; at most `most`, and none without."""
    shares = {name: counts.dead.mean() for name, counts in census.layers.items() if not counts.unknown}
    ranked = sorted((name for name, share in shares.items() if share > 0), key=lambda name: -shares[name])
    return ranked[:most]


def _layers(countable: Mapping[str, Counts]) -> str:
    return next(iter(countable)) if len(countable) == 1 else f"{len(countable)} layers"
