"""Layers that Keras lacks, shared by the heads and the backbones."""

from bnhead.layers.folding import fold_batch_norm
from bnhead.layers.normalization import BatchNormalization, batch_norm, plain

__all__ = ["BatchNormalization", "batch_norm", "fold_batch_norm", "plain"]
