"""Changes of units from one count to the next: birth, death, revival, persistence. NumPy only."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnhead.census.figures import OF_CHANGES
from bnhead.errors import UsageError


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
    """Compares two masks of dead units.

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
    """The activity of a layer's units over many counts; memory grows with units and counts.

    Attributes:
        epochs: the epochs of the counts.
        activity: one `(units,)` float32 per count, the share of inputs on which the unit was active; NaN if
            the count was unknown.
    """

    epochs: list[int] = field(default_factory=list)
    activity: list[np.ndarray] = field(default_factory=list)
    _dead: np.ndarray | None = None
    _ever_active: np.ndarray | None = None

    def add(self, epoch: int, active: np.ndarray, inputs: int) -> Changes | None:
        """Adds a count; returns the changes since the last known count, None for the first.

        Args:
            epoch: number of the epoch.
            active: `(units,)`, inputs on which each unit was active.
            inputs: number of inputs.
        """
        self.epochs.append(epoch)
        self.activity.append((np.asarray(active) / inputs).astype(np.float32))
        earlier, self._dead = self._dead, np.asarray(active) == 0
        if earlier is None:
            self._ever_active = ~self._dead
            return None
        result = changes(earlier, self._dead, self._ever_active)
        self._ever_active = self._ever_active | ~self._dead
        return result

    def skip(self, epoch: int, units: int) -> None:
        """Adds an unknown count; the next changes are relative to the last known count."""
        self.epochs.append(epoch)
        self.activity.append(np.full(units, np.nan, np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        masks = {"dead": self._dead, "ever_active": self._ever_active}
        return {
            "epochs": list(self.epochs),
            "activity": [share.tolist() for share in self.activity],
            **{name: None if mask is None else mask.tolist() for name, mask in masks.items()},
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "History":
        """Inverse of `to_dict`."""
        masks = [
            None if plain[name] is None else np.array(plain[name], bool) for name in ("dead", "ever_active")
        ]
        return cls(
            list(plain["epochs"]), [np.array(share, np.float32) for share in plain["activity"]], *masks
        )
