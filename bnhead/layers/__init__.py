"""Layers that Keras lacks, shared by the heads and the backbones, and what is done to batch norms.

`normalization` is the batch norm on TensorFlow's fused kernel; `variants` the ghost, renorm and frozen ones;
`controls` the layers that do one thing a batch norm does; `scaled_l2`, `pooling` and `dropout` one layer
each. `folding` merges norms into their neighbours, `population` measures their statistics anew, `plain`
copies a model into Keras' own layers.
"""

from bnhead.layers.controls import BatchCentering, BatchNoise, BatchScaling
from bnhead.layers.dropout import ClassConditionalDropout
from bnhead.layers.folding import fold_batch_norm
from bnhead.layers.l2 import L2Normalization
from bnhead.layers.normalization import BatchNormalization, batch_norm
from bnhead.layers.plain import needs_bnhead, plain
from bnhead.layers.pooling import GeMPooling2D
from bnhead.layers.population import recompute_batch_stats
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
    "GeMPooling2D",
    "GhostBatchNormalization",
    "L2Normalization",
    "batch_norm",
    "fold_batch_norm",
    "needs_bnhead",
    "plain",
    "recompute_batch_stats",
]
