"""What happens to units from one count to the next: birth, death, revival, persistence. NumPy only."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnhead.census.figures import OF_CHANGES
from bnhead.errors import UsageError


@dataclass(frozen=True, eq=False)
class Changes:
    """Which units of a layer changed between two counts.

    Attributes:
        born: `(units,)` bool: dead before and in all counts up to there, active now.
        died: `(units,)` bool: active before, dead now.
        revived: `(units,)` bool: dead before, active now, and active in some earlier count.
        persistence: |dead now and before| / |dead before|; NaN when none was dead before.
    """

    born: np.ndarray
    died: np.ndarray
    revived: np.ndarray
    persistence: float

    def figures(self) -> dict[str, float]:
        """The figures that compare two counts (`bnhead.census.figures`), by name."""
        return {row.name: float(row.formula(self)) for row in OF_CHANGES}


def changes(before: np.ndarray, now: np.ndarray, ever_active: np.ndarray | None = None) -> Changes:
    """Compares two masks of dead units.

    Args:
        before: `(units,)` bool, dead at the earlier count.
        now: `(units,)` bool, dead at the later one.
        ever_active: `(units,)` bool, units that were active in some count up to the earlier one; None when
            `before` is all there is, and whoever comes alive is born.

    Raises:
        UsageError: masks of unequal length.
    """
    before, now = np.asarray(before, bool), np.asarray(now, bool)
    ever = ~before if ever_active is None else np.asarray(ever_active, bool)
    if not before.shape == now.shape == ever.shape:
        raise UsageError(f"masks must have one length, got {before.shape}, {now.shape} and {ever.shape}")
    alive_again = before & ~now
    persistence = float((before & now).sum() / before.sum()) if before.any() else float("nan")
    return Changes(alive_again & ~ever, ~before & now, alive_again & ever, persistence)


@dataclass(eq=False)
class History:
    """The life of a layer's units over many counts: memory grows with the units and the counts.

    Attributes:
        epochs: at which epochs was counted.
        activity: one `(units,)` float32 for each count, the share of inputs on which the unit was active; NaN
            where the count was unknown.
    """

    epochs: list[int] = field(default_factory=list)
    activity: list[np.ndarray] = field(default_factory=list)
    _dead: np.ndarray | None = None
    _ever_active: np.ndarray | None = None

    def add(self, epoch: int, active: np.ndarray, inputs: int) -> Changes | None:
        """Adds a count; returns what changed since the last one, None for the first.

        Args:
            epoch: number of the epoch.
            active: `(units,)`, inputs on which each unit was active.
            inputs: number of inputs.
        """
        self.epochs.append(epoch)
        self.activity.append((np.asarray(active) / inputs).astype(np.float32))
        dead, before = np.asarray(active) == 0, self._dead
        result = None if before is None else changes(before, dead, self._ever_active)
        self._ever_active = ~dead if before is None else self._ever_active | ~dead
        self._dead = dead
        return result

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
        """What `to_dict` gave."""
        masks = [
            None if plain[name] is None else np.array(plain[name], bool) for name in ("dead", "ever_active")
        ]
        return cls(
            list(plain["epochs"]), [np.array(share, np.float32) for share in plain["activity"]], *masks
        )

    def skip(self, epoch: int, units: int) -> None:
        """Adds a count of which nothing is known; changes are told from the last that was."""
        self.epochs.append(epoch)
        self.activity.append(np.full(units, np.nan, np.float32))
