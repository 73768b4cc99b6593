"""Counting dead units: `DeadUnits` while a model trains, `count` at any time.

`counters` is arithmetic on arrays, `probe` puts it behind a Keras model's layers, `callback` into `fit`.
"""

from bnhead.census.callback import DeadUnits
from bnhead.census.counters import Census, Counts
from bnhead.census.probe import Probe, count

__all__ = ["Census", "Counts", "DeadUnits", "Probe", "count"]
