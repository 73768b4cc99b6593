"""The counts of several layers, as figures, rows, tables, plots and text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bnhead import notebook
from bnhead.census import keys
from bnhead.census.counts import Counts
from bnhead.census.figures import DEAD, SILENT, Figure, figures_at, rule_of_three
from bnhead.errors import UsageError, nearest
from bnhead.texts import columns, counted, counted_range, wrapped

if TYPE_CHECKING:
    import pathlib

    import pandas
    from matplotlib.axes import Axes


@dataclass
class Census:
    """The counts of several layers on the same inputs.

    Attributes:
        layers: name of the layer -> its counts.
        not_looked_at: path of a layer -> why an activation in it could not be counted.
        notes: decisions made while counting, one line each: labels, rows, weights.
    """

    layers: dict[str, Counts] = field(default_factory=dict)
    not_looked_at: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def figures(self, names: Sequence[str] | None = None, *, with_sample: bool = False) -> dict[str, float]:
        """Every layer's figures under `dead/<layer>/<figure>`, the names in `logs` and in TensorBoard.

        Args:
            names: the figures to return; None for all.
            with_sample: also `inputs`, the number of inputs, and `bound`, the rule of three for them.
        """
        values = {}
        for layer, counts in self.layers.items():
            figures = {name: x for name, x in counts.figures().items() if names is None or name in names}
            sample = {"inputs": counts.inputs, "bound": counts.bound} if with_sample else {}
            values |= {keys.key(layer, name): x for name, x in {**figures, **sample}.items()}
        return values

    def by_layer(self) -> dict[str, dict[str, float]]:
        """Name of each layer -> its figures by name; of an unknown layer none."""
        return {name: {} if counts.unknown else counts.figures() for name, counts in self.layers.items()}

    def overall(self) -> dict[str, float]:
        """The shares of dead and of silent units among the units of all layers: `dead/dataset`,
        `dead/per_input`. NaN if a layer is unknown."""
        sizes = [counts.units for counts in self.layers.values()]
        values = [counts.figures() for counts in self.layers.values()]
        return {
            keys.overall(row.name): float(np.average([layer[row.name] for layer in values], weights=sizes))
            for row in (DEAD, SILENT)
        }

    def merge(self, census: "Census") -> "Census":
        """The census of the inputs of both; a layer may be in one of them only."""
        layers = {**self.layers, **census.layers}
        for name in self.layers.keys() & census.layers.keys():
            layers[name] = self.layers[name].merge(census.layers[name])
        notes = list(dict.fromkeys([*self.notes, *census.notes]))
        return Census(layers, {**self.not_looked_at, **census.not_looked_at}, notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        layers = {name: counts.to_dict() for name, counts in self.layers.items()}
        return {"layers": layers, "not_looked_at": dict(self.not_looked_at), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Census":
        """Inverse of `to_dict`."""
        layers = {name: Counts.from_dict(counts) for name, counts in plain["layers"].items()}
        return cls(layers, dict(plain["not_looked_at"]), list(plain["notes"]))

    def rows(self) -> list[dict[str, Any]]:
        """A row for each layer: `layer`, `units`, `inputs`, `bound`, its figures, and `unknown`.

        `unknown` is why the layer's count is void, or ""; a void count has no figures.
        """
        rows = []
        for name, figures in self.by_layer().items():
            counts = self.layers[name]
            sample = {"layer": name, "units": counts.units, "inputs": counts.inputs, "bound": counts.bound}
            rows.append({**sample, **figures, "unknown": counts.unknown})
        return rows

    def bounds_in_words(self) -> list[str]:
        """How rarely the dead units fire: a sentence for each number of inputs of the layers."""
        dead: dict[int, int] = {}
        for counts in self.layers.values():
            if not counts.unknown:
                dead[counts.inputs] = dead.get(counts.inputs, 0) + int(counts.dead.sum())
        several = len(dead) > 1
        return [f"{f'{n:,} inputs: ' * several}{bounds_in_words(n, dead[n])}" for n in sorted(dead)]

    def table_figures(self) -> list[Figure]:
        """The figures that tables show and that at least one layer has."""
        names = {name for counts in self.layers.values() for name in counts.figures()}
        return [figure for figure in figures_at("tables") if figure.name in names]

    def to_frame(self) -> "pandas.DataFrame":
        """`rows` as a pandas data frame, indexed by `layer`.

        Raises:
            UsageError: pandas is not installed.
        """
        return notebook.frame(self.rows(), "layer")

    def plot_ends(self, ax: "Axes | None" = None) -> "Axes":
        """Draws both ends of every layer by depth: the dead units and those that are always on.

        Args:
            ax: Matplotlib axes to draw on; None makes a new figure. They are returned.
        """
        from bnhead.census import axes

        return axes.plot_ends(self.by_layer(), ax)

    def more_dead_than(self, share: float) -> dict[str, float]:
        """The layers of which more than this share of the units is dead: name -> share of dead units.

        A layer whose count is void is none of them.
        """
        dead = {name: counts.dead.mean() for name, counts in self.layers.items() if not counts.unknown}
        return {name: float(value) for name, value in dead.items() if value > share}

    def save_units(self, path: "str | pathlib.Path") -> None:
        """Writes the masks of every layer to a file: which units are dead, rarely active, always on, ...

        The ending of `path` chooses the format. `.npz`: arrays `<layer>/<mask>`, `(units,)` bool, with
        `<layer>/active`, the inputs on which each unit was active, and `<layer>/inputs`, their number N.
        `.csv`: a row per unit with the same, and `first_active`, the index of the first such input, -1 for a
        dead unit. `.json`: the indices of the units of each mask. A layer whose count is void has no units.

        Raises:
            UsageError: another ending.
        """
        from bnhead.census import units

        units.save(self, path)

    def plot_activity(self, layer: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws the number of units by the share of inputs on which they are active.

        Args:
            layer: name of the layer; None for the last one counted.
            ax: Matplotlib axes to draw on; None makes a new figure. They are returned.

        Raises:
            UsageError: the layer was not counted, or its count is void.
        """
        from bnhead.census import axes

        name, counts = self._known(layer)
        return axes.plot_activity(counts.active / counts.inputs, ax, title=name)

    def plot_accumulation(self, layer: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws the number of units that are silent on each of the first n inputs, by n.

        Args:
            layer, ax: as for `plot_activity`.

        Raises:
            UsageError: as for `plot_activity`; or the inputs have no order.
        """
        from bnhead.census import axes

        name, counts = self._known(layer)
        if counts.accumulation is None:
            raise UsageError("plot_accumulation needs the order of the inputs: count with data")
        return axes.plot_accumulation(counts.accumulation, counts.unseen, ax, title=name)

    def plot_classes(
        self, layer: str | None = None, ax: "Axes | None" = None, *, names: Sequence[str] = ()
    ) -> "Axes":
        """Draws the activity of the units by class.

        Args:
            layer, ax: as for `plot_activity`.
            names: the classes' names; empty numbers them.

        Raises:
            UsageError: as for `plot_activity`; or the data had no labels.
        """
        from bnhead.census import axes

        name, counts = self._known(layer)
        if counts.class_activity is None:
            raise UsageError("plot_classes needs labels: count on data (x, y)")
        return axes.plot_classes(counts.class_activity, names, ax, title=name)

    def plot_codeath(self, layer: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws which units are silent together.

        Args:
            layer, ax: as for `plot_activity`.

        Raises:
            UsageError: as for `plot_activity`; or co-death was not counted.
        """
        from bnhead.census import axes

        name, counts = self._known(layer)
        if counts.phi is None:
            raise UsageError("plot_codeath needs the co-death: count with together=True")
        return axes.plot_codeath(counts.phi, ax, title=name)

    def _known(self, layer: str | None) -> tuple[str, Counts]:
        """Name and counts of a layer.

        Raises:
            UsageError: the layer was not counted, or its count is void.
        """
        if not self.layers:
            raise UsageError("the census has no layers")
        name = list(self.layers)[-1] if layer is None else layer
        if name not in self.layers:
            raise UsageError(f"layer {name!r} was not counted{nearest(name, self.layers)}")
        if self.layers[name].unknown:
            raise UsageError(f"layer {name!r} is unknown: {self.layers[name].unknown}")
        return name, self.layers[name]

    def __repr__(self) -> str:
        countable = [counts for counts in self.layers.values() if not counts.unknown]
        units = sum(counts.units for counts in self.layers.values())
        layers = next(iter(self.layers)) if len(self.layers) == 1 else counted(len(self.layers), "layer")
        inputs = counted_range([counts.inputs for counts in self.layers.values() if counts.inputs], "input")
        text = f"<Census: {layers}, {counted(units, 'unit')} on {inputs}"
        if countable:
            dead = int(sum(counts.dead.sum() for counts in countable))
            text += f", {dead:,} dead ({dead / sum(counts.units for counts in countable):.1%})"
        if missing := len(self.layers) - len(countable):
            text += f", {counted(missing, 'layer')} unknown"
        return text + ">"

    def _repr_html_(self) -> str:
        figures = [row for row in figures_at("summaries") if row in self.table_figures()]
        headings = [("layer", ""), ("units", ""), *((figure.heading, figure.meaning) for figure in figures)]
        rows = []
        for row in self.rows():
            cells = [f"unknown: {row['unknown']}"]
            if not row["unknown"]:
                cells = [f.bar(row[f.name], f.table_cell(row, row["units"])) for f in figures]
            rows.append([row["layer"], f"{row['units']:,}", *cells])
        notes = [figure.meaning for figure in figures if figure.display == "charts"]
        notes += [*self.bounds_in_words(), *self._remarks()]
        return notebook.table(repr(self)[1:-1], headings, rows, notes)

    def __str__(self) -> str:
        def fit(line: str, hanging: int) -> str:  # a notebook or a file has no width to fit
            return wrapped(line, hanging=hanging) if columns(0) else line

        lines = []
        for name, counts in self.layers.items():
            if counts.unknown:
                lines.append(f"{name}: unknown, {counts.unknown}")
                continue
            sample = f"{counted(counts.units, 'unit')}, {counted(counts.inputs, 'input')}"
            dead = int(counts.dead.sum())
            lines.append(fit(f"{name}: {sample}; {bounds_in_words(counts.inputs, dead)}", 2))
            values = counts.figures()
            for row in figures_at("tables"):
                if row.name in values:
                    cell = row.table_cell(values, counts.units)
                    lines.append(fit(f"  {row.heading:<19} {cell:<15}  {row.meaning}", 39))
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        missed = [f"not looked at: {path or 'the model'}, {why}" for path, why in self.not_looked_at.items()]
        return [*missed, *self.notes]


def bounds_in_words(inputs: int, dead: int) -> str:
    """How rarely dead units fire, for one of them and for all at once (`rule_of_three`).

    Args:
        inputs: N.
        dead: number of dead units.
    """
    one = f"a dead unit fires on less than {rule_of_three(inputs):.2%} of inputs, at 95 %"
    return one + f" (all {dead:,} at once: {rule_of_three(inputs, dead):.2%})" * (dead > 1)
