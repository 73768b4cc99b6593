"""Counting dead units: `DeadUnits` while a model trains, `count` at any time.

figures      the table of figures: one row each, with formula, unit and meaning
keys         names of the figures in logs and files
counts       the counts of a layer: arrays in, numbers out
contiguity   whether dead units are adjacent
codeath      which units are silent together
changes      birth, death, revival and persistence from count to count
sites        which activations of a model to count
labels       how labels are read as classes
reductions   from activations to small arrays, inside the graph
gradients    derivatives with respect to the pre-activations
totals       sums over batches, on the device, and the counts they give
probe        the pass over a set of inputs
step         counting inside the training step
revival      reviving dormant units
plots        plots as PNG, and TensorBoard
callback     `DeadUnits`, for `model.fit`
"""

import importlib

_MODULES = {  # public name -> its module; imported on first use, since reports need `figures` without Keras
    "Census": "counts",
    "Counts": "counts",
    "DeadUnits": "callback",
    "Probe": "probe",
    "count": "probe",
}
__all__ = ["Census", "Counts", "DeadUnits", "Probe", "count"]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'bnhead.census' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bnhead.census.{_MODULES[name]}"), name)


def __dir__():
    return __all__
