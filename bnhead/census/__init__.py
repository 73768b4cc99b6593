"""Counting dead units: `DeadUnits` while a model trains, `count` at any time.

Modules:

    figures      the table of figures: one row each, with formula, unit and meaning
    keys         names of the figures in logs and files
    counts       the counts of a layer: arrays in, numbers out
    census       those of several layers: figures, rows, tables, plots
    contiguity   whether dead units are adjacent
    clones       which units compute the same
    codeath      which units are silent together
    changes      birth, death, revival and persistence from count to count
    sites        which activations of a model to count
    accumulation how dead units depend on the number of inputs
    units        the units one by one, as a file
    labels       how labels are read as classes
    reductions   from activations to small arrays, inside the graph
    boxes        interval arithmetic
    activations  bounds of activation functions
    layer_rules  bounds of a layer's output, from those of its inputs
    intervals    bounds of a model's tensors, from its weights
    certificates units that cannot fire, and why
    pruning      their removal from a copy of a model
    gradients    derivatives with respect to the pre-activations
    totals       sums over batches, on the device, and the counts they give
    probe        the pass over a set of inputs
    step         counting inside the training step
    ablation     what groups of units are worth
    feed         batches in the form that a model takes
    revival      reviving dormant units
    axes         plots on Matplotlib axes
    plots        plots as PNG, and TensorBoard
    callback     `DeadUnits`, for `model.fit`
"""

from typing import TYPE_CHECKING

from bnhead import public

if TYPE_CHECKING:
    from bnhead.census.ablation import ablate
    from bnhead.census.callback import DeadUnits
    from bnhead.census.census import Census
    from bnhead.census.certificates import Certificate, certify
    from bnhead.census.changes import History
    from bnhead.census.counts import Counts
    from bnhead.census.probe import Probe, count
    from bnhead.census.pruning import Pruned, prune_dead

__all__ = [
    "Census",
    "Certificate",
    "Counts",
    "DeadUnits",
    "History",
    "Probe",
    "Pruned",
    "ablate",
    "certify",
    "count",
    "prune_dead",
]
# loaded at first use, since reports need `figures` without Keras
__getattr__, __dir__ = public.names(
    __name__,
    {
        "Census": "bnhead.census.census",
        "Certificate": "bnhead.census.certificates",
        "certify": "bnhead.census.certificates",
        "Pruned": "bnhead.census.pruning",
        "prune_dead": "bnhead.census.pruning",
        "Counts": "bnhead.census.counts",
        "DeadUnits": "bnhead.census.callback",
        "History": "bnhead.census.changes",
        "Probe": "bnhead.census.probe",
        "ablate": "bnhead.census.ablation",
        "count": "bnhead.census.probe",
    },
)
