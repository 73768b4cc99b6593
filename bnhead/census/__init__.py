"""Counting dead units: `DeadUnits` while a model trains, `count` at any time.

figures      the figures: a row each, with formula, unit and meaning, for all that show them
counters     the counts of a layer: arrays in, numbers out
contiguity   do dead units lie side by side
codeath      which units are silent together
changes      birth, death, revival and persistence from count to count
find         what a model runs, and which of it to count
labels       how labels are read as classes
reductions   from activations to small arrays, inside the graph
gradients    derivatives by the pre-activations
totals       what is added up on the device, batch by batch, and the counts it gives
probe        the pass over a set of inputs
step         counting inside the training step
revival      reviving dormant units
pictures     rasters, histograms and maps as PNG; `board` puts them into TensorBoard
callback     `DeadUnits`, for `model.fit`
"""

import importlib

_HOME = {  # public name -> the module it lies in; reports read `figures`, which must not bring Keras
    "Census": "counts",
    "Counts": "counts",
    "DeadUnits": "callback",
    "Probe": "probe",
    "count": "probe",
}
__all__ = ["Census", "Counts", "DeadUnits", "Probe", "count"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'bnhead.census' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bnhead.census.{_HOME[name]}"), name)


def __dir__():
    return __all__
