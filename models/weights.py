"""Pre-trained weights for a backbone: of ImageNet through keras.applications, of a file, of a run."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping

import keras
from keras.src.utils.naming import to_snake_case

from bnhead.errors import UsageError
from bnhead.graph import copy_state, functional, model_calls, require_agreement, used_inputs
from bnhead.heads.surgery import features_of
from bnhead.models.existing import downloaded_net, load_keras_file
from bnhead.texts import first_line

TWINS = {  # our net -> the same net in keras.applications
    "resnet50_v1": "ResNet50",
    "resnet101_v1": "ResNet101",
    "resnet152_v1": "ResNet152",
    "resnet50_v2": "ResNet50V2",
    "resnet101_v2": "ResNet101V2",
    "resnet152_v2": "ResNet152V2",
}


def load_weights(model: keras.Model, source: str) -> None:
    """Loads pre-trained weights into all layers of `model` except the head and the preprocessing.

    Then compares the features with those of the source's net, except for a `.weights.h5` file, which contains
    no net.

    Args:
        model: a model from `bnhead.models`.
        source: "imagenet", for the nets of `TWINS`; a `.keras` file; a `.weights.h5` file of the backbone,
            with or without a head; or a run directory, whose `model.keras` is read.

    Raises:
        UsageError: no such weights, or weights of another net; the message names both nets, and the model
            is not changed.
        DataError: the ImageNet weights cannot be downloaded.
        CopyError: with these weights the features differ from those of the source's net.
    """
    if source == "imagenet":
        if model.name not in TWINS:
            choices = f"{', '.join(TWINS)} and every keras:<name>"
            raise UsageError(f"backbone {model.name!r} has no weights 'imagenet' (there are {choices})")
        transplant(downloaded_net(TWINS[model.name], include_top=False, weights="imagenet"), model)
    elif source.endswith(".weights.h5"):
        _load_h5(model, source)
    else:
        file = os.path.join(source, "model.keras") if os.path.isdir(source) else source
        if os.path.isfile(os.path.join(source, "head.keras")) and not os.path.isfile(file):
            raise UsageError(
                f"weights {source!r}: the run has no model.keras but its head alone (head.keras), since its "
                "backbone was frozen; give the weights that it started from"
            )
        try:
            net = load_keras_file(file)
        except ValueError as error:
            raise UsageError(f"weights {file!r} cannot be read: {error}") from error
        copy_layers(net, model, source)


def copy_layers(source: keras.Model, target: keras.Model, name: str) -> None:
    """Copies weights layer by layer, except those of the target's head.

    Layers correspond by name. Layers named by Keras (`conv2d_3`) correspond by their order within their
    class, since Keras numbers all layers that a process makes.

    Args:
        source: the model to copy from.
        target: the model to copy to.
        name: the source's name in error messages.

    Raises:
        UsageError: the source lacks a layer, or has one of another shape. The target is not changed.
        CopyError: the features of the two differ after copying.
    """
    sources, pairs = _layers_by_key(source), {}
    for key, layer in _layers_by_key(target).items():
        if not _is_of_backbone(layer):
            continue
        if key in sources:
            pairs[layer] = sources[key]
        elif layer.weights:
            lacks = f"has no layer {layer.name!r} of {target.name!r}"
            raise UsageError(f"weights {name!r} are of {source.name!r}, which {lacks}")
    for layer, source_layer in pairs.items():
        shapes = [[tuple(w.shape) for w in side.weights] for side in (source_layer, layer)]
        if shapes[0] != shapes[1]:
            shapes_of_both = f"shapes {shapes[0]} in the source, {shapes[1]} in {target.name!r}"
            raise UsageError(f"weights {name!r}: layer {layer.name!r} has {shapes_of_both}")
    _copy_states(pairs, source, target, f"the backbone with weights {name!r}")


def _layers_by_key(model: keras.Model) -> dict[str | tuple[str, int], keras.layers.Layer]:
    """Layers by a key that is the same in every process: name, or class and index for Keras' own names."""
    keyed, counts = {}, Counter()
    for layer in model.layers:
        automatic = to_snake_case(type(layer).__name__)
        if re.fullmatch(rf"{re.escape(automatic)}(_\d+)?", layer.name):
            keyed[automatic, counts[automatic]] = layer
            counts[automatic] += 1
        else:
            keyed[layer.name] = layer
    return keyed


def transplant(source: keras.Model, target: keras.Model) -> None:
    """Copies weights between one of our ResNets and its twin of keras.applications, in either direction.

    Args:
        source: the model to copy from.
        target: the model to copy to. One of the two has our layer names, the other those of
            keras.applications.

    Raises:
        CopyError: the features of the two differ after copying.
    """
    sources, targets = _by_applications_name(source), _by_applications_name(target)
    pairs = {
        layer: sources[name]
        for name, layer in targets.items()
        if _is_of_backbone(layer) and (layer.weights or name in sources)
    }
    _copy_states(pairs, source, target, "the backbone with weights")


def _copy_states(
    pairs: Mapping[keras.layers.Layer, keras.layers.Layer],
    source: keras.Model,
    target: keras.Model,
    name: str,
) -> None:
    """Gives the target's layers the state of their counterparts, and compares the outputs of the last."""
    for layer, source_layer in pairs.items():
        copy_state(source_layer, layer)
    graphs = functional(source), functional(target)
    if None in graphs:
        return
    # Heads and preprocessing may differ, so compare from scaled pixels to the last layer that both nets have.
    outputs = {call.operation: call.outputs[0] for call in model_calls(graphs[0])}
    features = features_of(graphs[1])
    trunk = keras.Model(used_inputs(graphs[1], graphs[1].inputs, features), features)
    last = next(call for call in reversed(model_calls(trunk)) if pairs.get(call.operation) in outputs)
    expected = keras.Model(_scaled_pixels(source), outputs[pairs[last.operation]], name=source.name)
    require_agreement(expected, keras.Model(_scaled_pixels(target), last.outputs[0]), name=name)


def _scaled_pixels(model: keras.Model) -> keras.KerasTensor:
    """The tensor that a model's backbone reads: the input, or the output of its preprocessing."""
    for call in model_calls(functional(model)):
        if call.operation.name == "scale_pixels":
            return call.outputs[0]
    return model.inputs[0]


def _is_of_backbone(layer: keras.layers.Layer) -> bool:
    """Whether a layer belongs to the backbone: neither to the head nor to the preprocessing."""
    return not (layer.name.startswith("head_") or layer.name == "scale_pixels")


def _by_applications_name(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """A ResNet's layers by their names in keras.applications, which its layers may have already."""
    preactivated = any(layer.name == "final_bn" for layer in model.layers)
    layers = {}
    for layer in model.layers:
        match = re.fullmatch(r"stage(\d)_block(\d+)_(conv|bn)(\d)", layer.name)
        if match:
            stage, block, operation, number = match.groups()
            if operation == "bn" and preactivated:
                # we number a pre-activation norm by the convolution after it, they by the one before it
                number = "preact" if number == "1" else int(number) - 1
            name = f"conv{int(stage) + 1}_block{block}_{number}_{operation}"
        else:
            unstaged = {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn", "final_bn": "post_bn"}
            name = unstaged.get(layer.name, layer.name)
        layers[name] = layer
    return layers


def _load_h5(model: keras.Model, file: str) -> None:
    """Loads a file of weights into the backbone only.

    Such a file stores layers by class and order. So a head in it, which comes last, does not matter, but a
    preprocessing with weights does, because it comes first: try with and without.
    """
    initial, features, reasons = model.get_weights(), features_of(model), []
    for start in dict.fromkeys([_scaled_pixels(model), model.inputs[0]]):
        backbone = keras.Model(start, features)
        scaling = [layer for layer in backbone.layers if layer.name == "scale_pixels"]
        scales = [layer.get_weights() for layer in scaling]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Keras only warns about weights that it skips
                warnings.simplefilter("ignore", DeprecationWarning)
                backbone.load_weights(file)
        except (ValueError, OSError, KeyError, UserWarning) as error:
            model.set_weights(initial)
            reasons.append(first_line(error))
            continue
        for layer, weights in zip(scaling, scales, strict=True):
            layer.set_weights(weights)
        return
    raise UsageError(f"weights {file!r} do not fit {model.name!r}: {reasons[0]}")
