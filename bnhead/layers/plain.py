"""A copy of a model in plain Keras layers, which loads without bnhead."""

import keras

from bnhead import graph


def plain(model: keras.Model, *, compare: bool = True) -> keras.Model:
    """A copy of a functional `model` for inference in plain Keras layers: same outputs, separate weights.

    Layers of nested functional models become layers of the copy.

    Our batch norms, also ghost, renorm and frozen ones, become Keras' batch norm. Centring and scaling become
    frozen batch norms. Layers that are the identity in inference are removed: batch noise, and
    class-conditional dropout together with the label input. `L2Normalization` and `GeMPooling2D` have no
    counterpart in Keras and remain, so such a copy needs bnhead (`needs_bnhead`).

    Args:
        model: the model, which does not change.
        compare: whether to compare the copy's outputs with the model's.

    Raises:
        CopyError: the outputs differ.
    """

    def remake(layer):
        return layer.to_plain() if hasattr(layer, "to_plain") else graph.clone_layer(layer)

    copied = graph.copy(graph.inlined(model), remake)
    if compare:
        graph.require_agreement(model, copied)
    return copied


def needs_bnhead(model: keras.Model) -> bool:
    """Whether the file of a model loads only with bnhead."""
    return any(type(layer).__module__.startswith("bnhead.") for layer in model._flatten_layers())


def vanishes(layer: keras.Operation) -> bool:
    """Whether a layer of bnhead is the identity in inference."""
    return hasattr(layer, "to_plain") and layer.to_plain() is None
