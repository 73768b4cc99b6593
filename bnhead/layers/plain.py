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


def update_plain(copied: keras.Model, model: keras.Model) -> None:
    """Copies the current values of a model to its plain copy.

    Args:
        copied: the result of `plain(model)`.
        model: the model, with other values than at that time.
    """
    targets = {layer.name: layer for layer in copied.layers}
    for layer in graph.inlined(model).layers:
        if not hasattr(layer, "to_plain"):
            if layer.name in targets:  # an input without a reader is not
                graph.copy_state(layer, targets[layer.name], frozen=True)
        elif (made := layer.to_plain()) is not None:
            targets[layer.name].set_weights(made[1])


def needs_bnhead(model: keras.Model) -> bool:
    """Whether the file of a model loads only with bnhead."""
    return any(type(layer).__module__.startswith("bnhead.") for layer in model._flatten_layers())


def vanishes(layer: keras.Operation) -> bool:
    """Whether a layer of bnhead is the identity in inference."""
    return hasattr(layer, "to_plain") and layer.to_plain() is None
