"""Counting dead units: `DeadUnits` while a model trains, `count` at any time.

counters     the counts of a layer and the figures they give: arrays in, numbers out
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

from bnhead.census.callback import DeadUnits
from bnhead.census.counters import Census, Counts
from bnhead.census.probe import Probe, count

__all__ = ["Census", "Counts", "DeadUnits", "Probe", "count"]
