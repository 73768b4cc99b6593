"""Pre-trained weights for a backbone: ImageNet's through keras.applications, a file's, another run's."""

import os
import re
import warnings

import keras

from bnhead.errors import UsageError
from bnhead.graph import copy_state
from bnhead.models import existing

TWINS = {  # ours -> the same net in keras.applications
    "resnet50_v1": "ResNet50",
    "resnet101_v1": "ResNet101",
    "resnet152_v1": "ResNet152",
    "resnet50_v2": "ResNet50V2",
    "resnet101_v2": "ResNet101V2",
    "resnet152_v2": "ResNet152V2",
}


def load(model: keras.Model, source: str) -> None:
    """Puts pre-trained weights into all of `model`'s layers but the head's and the preprocessing's.

    Args:
        model: a model from `bnhead.models`.
        source: "imagenet", for the nets of `TWINS`; a `.keras` file; a `.weights.h5` file of the same net; or
            a run directory, whose `model.keras` is read.

    Raises:
        UsageError: there are no such weights, or they are of another net; the message names both sides.
        DataError: the ImageNet weights cannot be downloaded.
    """
    if source == "imagenet":
        transplant(_twin(model), model)
    elif source.endswith(".weights.h5"):
        _load_h5(model, source)
    else:
        file = os.path.join(source, "model.keras") if os.path.isdir(source) else source
        copy_layers(_open(file), model, source)


def copy_layers(source: keras.Model, target: keras.Model, name: str) -> None:
    """Copies weights layer by layer, by name; the target's head is left out.

    Args:
        source: where the weights come from.
        target: the model that gets them.
        name: what messages call the source.

    Raises:
        UsageError: the source lacks a layer, or has one of another shape. The target is left as it was.
    """
    given = {layer.name: layer for layer in source.layers}
    layers = [layer for layer in target.layers if layer.weights and not _is_not_backbone(layer)]
    for layer in layers:
        if layer.name not in given:
            lacks = f"has no layer {layer.name!r} of {target.name!r}"
            raise UsageError(f"weights {name!r} are of {source.name!r}, which {lacks}")
        shapes = [[tuple(w.shape) for w in side.weights] for side in (given[layer.name], layer)]
        if shapes[0] != shapes[1]:
            both = f"shapes {shapes[0]} there, {shapes[1]} in {target.name!r}"
            raise UsageError(f"weights {name!r}: layer {layer.name!r} has {both}")
    for layer in layers:
        copy_state(given[layer.name], layer)


def transplant(theirs: keras.Model, ours: keras.Model) -> None:
    """Copies weights between one of our ResNets and its twin of keras.applications, in either direction.

    Args:
        theirs: where the weights come from.
        ours: the model that gets them. One of the two has our layer names, the other keras.applications'.
    """
    there = {_kerass_name(layer.name, _preactivated(theirs)): layer for layer in theirs.layers}
    for layer in ours.layers:
        if layer.weights and not _is_not_backbone(layer):
            copy_state(there[_kerass_name(layer.name, _preactivated(ours))], layer)


def _preactivated(model: keras.Model) -> bool:
    return any(layer.name == "final_bn" for layer in model.layers)


def _is_not_backbone(layer: keras.layers.Layer) -> bool:
    """Whether a layer is not the backbone's: the head's or the preprocessing."""
    return layer.name.startswith("head_") or layer.name == "scale_pixels"


def _kerass_name(name: str, preactivated: bool) -> str:
    """keras.applications' name of one of our layers; every other name as it is.

    Theirs counts a pre-activation norm by the convolution before it, ours by the convolution behind it.
    """
    match = re.fullmatch(r"stage(\d)_block(\d+)_(conv|bn)(\d)", name)
    if not match:
        return {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn", "final_bn": "post_bn"}.get(name, name)
    stage, block, kind, number = match.groups()
    if kind == "bn" and preactivated:
        number = "preact" if number == "1" else int(number) - 1
    return f"conv{int(stage) + 1}_block{block}_{number}_{kind}"


def _twin(model: keras.Model) -> keras.Model:
    if model.name not in TWINS:
        there = f"{', '.join(TWINS)} and every keras:<name>"
        raise UsageError(f"weights 'imagenet' are not there for backbone {model.name!r} (there are {there})")
    return existing.downloaded(TWINS[model.name], include_top=False, weights="imagenet")


def _open(file: str) -> keras.Model:
    try:
        return keras.saving.load_model(file, compile=False)
    except (ValueError, OSError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"weights {file!r} cannot be read: {str(error).strip().splitlines()[0]}") from error


def _load_h5(model: keras.Model, file: str) -> None:
    before = model.get_weights()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Keras cannot place it skips with a warning
            warnings.simplefilter("ignore", DeprecationWarning)
            model.load_weights(file)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        model.set_weights(before)
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"weights {file!r} do not fit {model.name!r}: {first}") from error
