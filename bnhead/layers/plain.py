"""A model's copy in Keras' own layers, which loads where bnhead is not installed."""

import keras

from bnhead import graph


def plain(model: keras.Model, *, compare: bool = True) -> keras.Model:
    """A copy of a functional `model` for inference in Keras' own layers: same outputs, own weights.

    Layers of nested functional models become the copy's own.

    Our batch norms, also ghost, renorm and frozen ones, become Keras' batch norm; what is the identity in
    inference (batch noise, class-conditional dropout, which takes the model's label input with it) goes.
    Centring and scaling become frozen batch norms. `L2Normalization` and `GeMPooling2D` have no
    counterpart in Keras and stay: the copy then needs bnhead, see `needs_bnhead`.

    Args:
        model: the model; it is left as it is.
        compare: whether the copy's outputs are compared with the model's before it is returned.

    Raises:
        CopyError: the copy's outputs are not the model's.
    """

    def remake(layer):
        return layer.to_plain() if hasattr(layer, "to_plain") else graph.same(layer)

    copied = graph.copy(graph.inlined(model), remake)
    if compare:
        graph.require_agreement(model, copied)
    return copied


def needs_bnhead(model: keras.Model) -> bool:
    """Whether a model's file loads only where bnhead is installed."""
    return any(type(layer).__module__.startswith("bnhead.") for layer in model._flatten_layers())


def vanishes(layer: keras.Operation) -> bool:
    """Whether a layer of bnhead's is the identity in inference."""
    return hasattr(layer, "to_plain") and layer.to_plain() is None
