"""Pre-trained weights for a backbone: ImageNet's through keras.applications, a file's, another run's."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import keras
from keras.src.utils.naming import to_snake_case

from bnhead.errors import UsageError
from bnhead.graph import Call, calls, copy_state, functional, require_agreement, used_inputs
from bnhead.heads.surgery import features_of
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

    The features are then compared with those of the net that the weights come from, except with a
    `.weights.h5` file, which holds no net.

    Args:
        model: a model from `bnhead.models`.
        source: "imagenet", for the nets of `TWINS`; a `.keras` file; a `.weights.h5` file of the backbone
            alone or of a net with any head on it; or a run directory, whose `model.keras` is read.

    Raises:
        UsageError: there are no such weights, or they are of another net; the message names both sides, and
            the model is left as it was.
        DataError: the ImageNet weights cannot be downloaded.
        CopyError: with these weights the features are not those of the net that they come from.
    """
    if source == "imagenet":
        transplant(_twin(model), model)
    elif source.endswith(".weights.h5"):
        _load_h5(model, source)
    else:
        file = os.path.join(source, "model.keras") if os.path.isdir(source) else source
        copy_layers(_open(file), model, source)


def copy_layers(source: keras.Model, target: keras.Model, name: str) -> None:
    """Copies weights layer by layer; the target's head is left out.

    Layers are told by their names, and those that Keras named (`conv2d_3`) by their order among the layers of
    their class: Keras numbers through all that a process makes.

    Args:
        source: where the weights come from.
        target: the model that gets them.
        name: what messages call the source.

    Raises:
        UsageError: the source lacks a layer, or has one of another shape. The target is left as it was.
        CopyError: the target's features are then not the source's.
    """
    given = dict(zip(_keys(source.layers), source.layers, strict=True))
    pairs = {}
    for key, layer in zip(_keys(target.layers), target.layers, strict=True):
        if _is_not_backbone(layer):
            continue
        if key in given:
            pairs[layer] = given[key]
        elif layer.weights:
            lacks = f"has no layer {layer.name!r} of {target.name!r}"
            raise UsageError(f"weights {name!r} are of {source.name!r}, which {lacks}")
    for layer, other in pairs.items():
        shapes = [[tuple(w.shape) for w in side.weights] for side in (other, layer)]
        if shapes[0] != shapes[1]:
            both = f"shapes {shapes[0]} there, {shapes[1]} in {target.name!r}"
            raise UsageError(f"weights {name!r}: layer {layer.name!r} has {both}")
    _carry_over(pairs, source, target, f"the backbone with weights {name!r}")


def _keys(layers: Sequence[keras.layers.Layer]) -> list[str | tuple[str, int]]:
    """What tells each layer in every process: its name, or its class and place if Keras named it."""
    keys, counts = [], Counter()
    for layer in layers:
        automatic = to_snake_case(type(layer).__name__)
        if re.fullmatch(rf"{re.escape(automatic)}(_\d+)?", layer.name):
            keys.append((automatic, counts[automatic]))
            counts[automatic] += 1
        else:
            keys.append(layer.name)
    return keys


def transplant(theirs: keras.Model, ours: keras.Model) -> None:
    """Copies weights between one of our ResNets and its twin of keras.applications, in either direction.

    Args:
        theirs: where the weights come from.
        ours: the model that gets them. One of the two has our layer names, the other keras.applications'.

    Raises:
        CopyError: the features of the two are then not the same.
    """
    given = {_kerass_name(layer.name, _preactivated(theirs)): layer for layer in theirs.layers}
    names = {layer: _kerass_name(layer.name, _preactivated(ours)) for layer in ours.layers}
    pairs = {
        layer: given[name]
        for layer, name in names.items()
        if not _is_not_backbone(layer) and (layer.weights or name in given)
    }
    _carry_over(pairs, theirs, ours, "the backbone with weights")


def _carry_over(
    pairs: Mapping[keras.layers.Layer, keras.layers.Layer],
    source: keras.Model,
    target: keras.Model,
    name: str,
) -> None:
    """Gives each layer the state of its counterpart, and compares what the last of them return."""
    for layer, other in pairs.items():
        copy_state(other, layer)
    graphs = functional(source), functional(target)
    if None in graphs:
        return
    returned = {call.operation: call.outputs[0] for call in calls(graphs[0])}
    last = next(c for c in reversed(_backbone_calls(graphs[1])) if pairs.get(c.operation) in returned)
    before = keras.Model(_pixels(source), returned[pairs[last.operation]], name=source.name)
    require_agreement(before, keras.Model(_pixels(target), last.outputs[0]), name=name)


def _backbone_calls(model: keras.Model) -> list[Call]:
    """The calls up to the features."""
    features = features_of(model)
    return calls(keras.Model(used_inputs(model, model.inputs, features), features))


def _pixels(model: keras.Model) -> keras.KerasTensor:
    """What a model's backbone reads: pixels after the preprocessing, where there is one."""
    for call in calls(functional(model)):
        if call.operation.name == "scale_pixels":
            return call.outputs[0]
    return model.inputs[0]


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
        return existing.opened(file)
    except ValueError as error:
        raise UsageError(f"weights {file!r} cannot be read: {error}") from error


def _load_h5(model: keras.Model, file: str) -> None:
    """Loads a file of weights into the backbone alone.

    Such a file knows layers by class and order, so that the head of the net it was saved from, which comes
    last, does not matter; a preprocessing with weights, which comes first, does.
    """
    before = model.get_weights()
    (features, inputs), reasons = (features_of(model), model.inputs[0]), []
    for start in dict.fromkeys([_pixels(model), inputs]):
        backbone = keras.Model(start, features)
        scaling = [layer for layer in backbone.layers if layer.name == "scale_pixels"]
        kept = [layer.get_weights() for layer in scaling]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what Keras cannot place it skips with a warning
                warnings.simplefilter("ignore", DeprecationWarning)
                backbone.load_weights(file)
        except (ValueError, OSError, KeyError, UserWarning) as error:
            model.set_weights(before)
            reasons.append(str(error).strip().splitlines()[0])
            continue
        for layer, weights in zip(scaling, kept, strict=True):
            layer.set_weights(weights)
        return
    raise UsageError(f"weights {file!r} do not fit {model.name!r}: {reasons[0]}")
