"""Changes of units from one count to the next: birth, death, revival, persistence. NumPy only."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bnhead import notebook
from bnhead.census.counts import Counts
from bnhead.census.figures import OF_CHANGES
from bnhead.errors import UsageError
from bnhead.texts import counted

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Changes:
    """Which units of a layer changed between two counts.

    Attributes:
        born: `(units,)` bool: dead at the earlier and all preceding counts, active at the later one.
        died: `(units,)` bool: active at the earlier count, dead at the later one.
        revived: `(units,)` bool: dead at the earlier count, active at the later and at a preceding one.
        persistence: |dead at both| / |dead at the earlier count|; NaN if none was dead.
    """

    born: np.ndarray
    died: np.ndarray
    revived: np.ndarray
    persistence: float

    def figures(self) -> dict[str, float]:
        """The figures that compare two counts (`bnhead.census.figures`), by name."""
        return {row.name: float(row.formula(self)) for row in OF_CHANGES}


def changes(earlier: np.ndarray, later: np.ndarray, ever_active: np.ndarray | None = None) -> Changes:
    """Compares two masks of dead units, of counts on equally many inputs.

    Args:
        earlier: `(units,)` bool, dead at the earlier count.
        later: `(units,)` bool, dead at the later count.
        ever_active: `(units,)` bool, active at the earlier or a preceding count. None if there is no
            preceding count: a unit that comes alive is then born.

    Raises:
        UsageError: masks of unequal length.
    """
    earlier, later = np.asarray(earlier, bool), np.asarray(later, bool)
    ever = ~earlier if ever_active is None else np.asarray(ever_active, bool)
    if not earlier.shape == later.shape == ever.shape:
        raise UsageError(f"masks must have one length, got {earlier.shape}, {later.shape} and {ever.shape}")
    alive_again = earlier & ~later
    persistence = float((earlier & later).sum() / earlier.sum()) if earlier.any() else float("nan")
    return Changes(alive_again & ~ever, ~earlier & later, alive_again & ever, persistence)


@dataclass(eq=False)
class History:
    """A layer over many counts; memory grows with units and counts.

    Attributes:
        epochs: the epochs of the counts.
        inputs: N of each count.
        activity: one `(units,)` float32 per count, the share of inputs on which the unit was active; NaN if
            the count was unknown.
        figures: name of the figure -> one value per count, with those that compare it with the last known
            count; NaN if the count, or the figure, is unknown. Counts of different N have no births, deaths,
            revivals and persistence: fewer inputs alone make more units dead.
    """

    epochs: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    activity: list[np.ndarray] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    _dead: np.ndarray | None = None
    _ever_active: np.ndarray | None = None
    _last_inputs: int = 0  # N of the last known count

    def add(self, epoch: int, counts: Counts) -> None:
        """Adds a count.

        Args:
            epoch: number of the epoch.
            counts: of the layer. If they are unknown, the next changes are relative to the last known count.
        """
        self.epochs.append(epoch)
        self.inputs.append(counts.inputs)
        change_figures = dict.fromkeys((row.name for row in OF_CHANGES), float("nan"))
        if counts.unknown:
            self.activity.append(np.full(counts.units, np.nan, np.float32))
        else:
            self.activity.append((counts.active / counts.inputs).astype(np.float32))
            if self._dead is None:
                self._ever_active = ~counts.dead
            else:
                if counts.inputs == self._last_inputs:
                    change_figures = changes(self._dead, counts.dead, self._ever_active).figures()
                self._ever_active = self._ever_active | ~counts.dead
            self._dead, self._last_inputs = counts.dead, counts.inputs
        values = counts.figures() | change_figures
        for name in dict.fromkeys((*self.figures, *values)):  # an unknown count may lack some
            earlier = self.figures.setdefault(name, [float("nan")] * (len(self.epochs) - 1))
            earlier.append(values.get(name, float("nan")))

    @property
    def latest(self) -> dict[str, float]:
        """The figures of the latest count by name; empty before the first."""
        return {name: values[-1] for name, values in self.figures.items()}

    def to_frame(self) -> "pandas.DataFrame":
        """The figures as a pandas data frame: a row for each count, indexed by `epoch`.

        Raises:
            UsageError: pandas is not installed.
        """
        return notebook.frame(self.rows(), "epoch")

    def rows(self) -> list[dict[str, float]]:
        """A row for each count: `epoch`, `inputs`, then its figures."""
        columns = {"epoch": self.epochs, "inputs": self.inputs, **self.figures}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def plot_raster(self, ax: "Axes | None" = None, *, title: str = "") -> "Axes":
        """Draws when each unit died and came back: a row per unit, a column per count.

        Args:
            ax: Matplotlib axes to draw on; None makes a new figure. They are returned.
            title: the title.

        Raises:
            UsageError: nothing was counted.
        """
        from bnhead.census import axes

        if not self.epochs:
            raise UsageError("plot_raster needs at least one count")
        return axes.plot_raster(self.activity, self.epochs, ax, title=title)

    def __repr__(self) -> str:
        units = len(self.activity[0]) if self.activity else 0
        return f"<History: {counted(units, 'unit')}, {counted(len(self.epochs), 'count')}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        masks = {"dead": self._dead, "ever_active": self._ever_active}
        return {
            "epochs": list(self.epochs),
            "inputs": list(self.inputs),
            "activity": [share.tolist() for share in self.activity],
            "figures": {name: list(values) for name, values in self.figures.items()},
            **{name: None if mask is None else mask.tolist() for name, mask in masks.items()},
            "last_inputs": self._last_inputs,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "History":
        """Inverse of `to_dict`."""
        masks = [
            None if plain[name] is None else np.array(plain[name], bool) for name in ("dead", "ever_active")
        ]
        activity = [np.array(share, np.float32) for share in plain["activity"]]
        figures = {name: list(values) for name, values in plain["figures"].items()}
        epochs, inputs = list(plain["epochs"]), list(plain["inputs"])
        return cls(epochs, inputs, activity, figures, *masks, plain["last_inputs"])
