"""Layers that Keras lacks, shared by the heads and the backbones, and operations on batch norms.

Modules:

    moments         the arithmetic of norms
    normalization   the batch norm on TensorFlow's fused kernel, and its constants
    variants        ghost batch norm, batch renorm, frozen batch norm
    routed          batch norm with a set of statistics for each domain, or kind of input
    controls        layers that apply a single effect of a batch norm
    l2, pooling, dropout   one layer each
    folding         merging batch norms into adjacent linear layers
    population      moving averages recomputed on data
    removal         batch norms taken out for a while
    neutral         an output bias that prefers no class
    plain           a copy of a model in plain Keras layers
"""

from bnhead import public
from bnhead.layers.controls import (
    BatchCentering,
    BatchNoise,
    BatchScaling,
    FrozenCentering,
    FrozenScaling,
)
from bnhead.layers.dropout import ClassConditionalDropout
from bnhead.layers.folding import fold_batch_norm
from bnhead.layers.l2 import L2Normalization
from bnhead.layers.neutral import neutralise
from bnhead.layers.normalization import BatchNormalization, batch_norm
from bnhead.layers.plain import needs_bnhead, plain
from bnhead.layers.pooling import GeMPooling2D
from bnhead.layers.population import population_statistics, recompute_batch_stats
from bnhead.layers.routed import (
    RoutedBatchNormalization,
    RoutedNorm,
    at_route,
    on_route,
    route_input,
    with_routes,
)
from bnhead.layers.variants import (
    BatchRenormalization,
    FrozenBatchNormalization,
    GhostBatchNormalization,
)

__all__ = [
    "BatchCentering",
    "BatchNoise",
    "BatchNormalization",
    "BatchRenormalization",
    "BatchScaling",
    "ClassConditionalDropout",
    "FrozenBatchNormalization",
    "FrozenCentering",
    "FrozenScaling",
    "GeMPooling2D",
    "GhostBatchNormalization",
    "L2Normalization",
    "RoutedBatchNormalization",
    "RoutedNorm",
    "at_route",
    "batch_norm",
    "fold_batch_norm",
    "needs_bnhead",
    "neutralise",
    "on_route",
    "plain",
    "population_statistics",
    "recompute_batch_stats",
    "route_input",
    "with_routes",
]
__getattr__, __dir__ = public.names(__name__, {})
