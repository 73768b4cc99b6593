"""Layers shared by the heads and the backbones."""

from bnhead.layers.normalization import batch_norm

__all__ = ["batch_norm"]
