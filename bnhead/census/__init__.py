"""Counting dead units: `DeadUnits` while a model trains, `count` at any time.

counters     the counts of a layer and the figures they give: arrays in, numbers out
contiguity   do dead units lie side by side
codeath      which units are silent together
changes      birth, death, revival and persistence from count to count
find         which layers of a model to count
reductions   from activations to small arrays, inside the graph
gradients    derivatives by the pre-activations
batches      reading the inputs
probe        the pass over a set of inputs
step         counting inside the training step
revival      reviving dormant units
pictures     rasters, histograms and maps as PNG; `board` puts them into TensorBoard
callback     `DeadUnits`, for `model.fit`
"""

from bnhead.census.callback import DeadUnits
from bnhead.census.counters import Census, Counts
from bnhead.census.probe import Probe, count

__all__ = ["Census", "Counts", "DeadUnits", "Probe", "count"]
