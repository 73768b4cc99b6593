"""Backbones from elsewhere: keras.applications, keras-hub, a saved `.keras` file.

The feature map is read from the graph, so any net with one image input and one output works, with or without
its classifier. A net that ends in a vector, such as a vision transformer, gives this vector.
"""

import inspect
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from bnhead import seeds
from bnhead.errors import DataError, ForeignCode, UsageError
from bnhead.graph import inlined, replay
from bnhead.heads import feature_map
from bnhead.models import check_backbone
from bnhead.models.blocks import Norm, backbone
from bnhead.texts import first_line, printable

Shape = tuple[int | None, int | None, int]
Trunk = tuple[keras.KerasTensor, keras.KerasTensor, str]  # a net's input, its feature map, its name


def applications() -> dict[str, Callable[..., keras.Model]]:
    """The nets of keras.applications by name."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name: build for name, build in functions if "include_top" in inspect.signature(build).parameters}


def downloaded_net(name: str, **options) -> keras.Model:
    """A net of keras.applications.

    Raises:
        DataError: its weights cannot be downloaded.
    """
    try:
        with warnings.catch_warnings():
            # MobileNet warns that its weights are for another image size; only the classifier depends on it
            warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
            return applications()[name](**options)
    except (ValueError, TypeError):
        raise
    except Exception as error:  # Keras raises a bare Exception if a download fails
        raise DataError(f"cannot download the ImageNet weights of {name}: {first_line(error)}") from error


@backbone()
def from_applications(
    input_shape: Shape,
    preprocessing: keras.layers.Layer | None,
    name: str,
    *,
    weights: str | None = None,
    norm: Norm | None = None,
    seed: int | None = None,
) -> Trunk:
    """A net of keras.applications without its classifier.

    Args:
        name: such as `"MobileNetV2"`.
        weights: as in keras.applications: None, "imagenet" (downloaded by Keras) or a file.
        norm: must be None, since the net has its own.
        seed: of the initial weights; set as Keras' global seed.

    Raises:
        UsageError: an unknown net, or an image size that it does not take.
        DataError: the weights cannot be downloaded.
    """
    check_backbone(f"keras:{name}")
    _forbid_norm(norm, f"keras:{name}")
    if seed is not None:
        keras.utils.set_random_seed(seed)
    inputs = keras.Input(tuple(input_shape), name="image")
    x = inputs if preprocessing is None else preprocessing(inputs)
    options = {"include_top": False, "weights": weights, "input_tensor": x, "input_shape": x.shape[1:]}
    try:
        net = downloaded_net(name, **options)
    except ValueError as error:
        reason = first_line(error)
        raise UsageError(
            f"backbone 'keras:{name}' does not take images of {tuple(input_shape)}: {reason}"
        ) from error
    return inputs, feature_map(net), net.name


@backbone()
def from_hub(
    input_shape: Shape,
    preprocessing: keras.layers.Layer | None,
    preset: str,
    *,
    norm: Norm | None = None,
    seed: int | None = None,
) -> Trunk:
    """An image backbone of keras-hub with its pre-trained weights; needs the package keras-hub.

    Args:
        preset: a preset's name, or a folder written by `save_to_preset`.
        input_shape: the preset's, if that is fixed.
        norm: must be None.
    """
    _forbid_norm(norm, f"hub:{preset}")
    _seed_dropout(seed)
    try:
        import keras_hub
    except ImportError as error:
        raise UsageError(f"backbone 'hub:{preset}' needs keras-hub: pip install bnhead[hub]") from error
    try:
        net = keras_hub.models.Backbone.from_preset(preset)
    except (ValueError, OSError) as error:
        raise UsageError(f"backbone 'hub:{preset}' cannot be opened: {first_line(error)}") from error
    return _trunk(net, input_shape, preprocessing, f"hub:{preset}")


@backbone()
def from_file(
    input_shape: Shape,
    preprocessing: keras.layers.Layer | None,
    path: str,
    *,
    norm: Norm | None = None,
    seed: int | None = None,
) -> Trunk:
    """The net in a `.keras` file, with its weights and without its classifier.

    Loading a model can run code that the file's author wrote. Keras' safe mode refuses Lambda layers, but
    open only files from people you trust.

    Args:
        path: the file.
        input_shape: the file's, if that is fixed.
        norm: must be None.
    """
    _forbid_norm(norm, path)
    _seed_dropout(seed)
    try:
        net = load_keras_file(path)
    except ValueError as error:
        raise UsageError(f"backbone {path!r} cannot be loaded: {error}") from error
    return _trunk(inlined(net), input_shape, preprocessing, path)


def load_keras_file(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None, *, safe_mode: bool = True
) -> keras.Model:
    """The model in a `.keras` file.

    Args:
        path: the file.
        custom_objects: name -> class or function that the file needs and Keras does not have.
        safe_mode: whether to refuse the code in Lambda layers, as Keras does by default.

    Raises:
        ForeignCode: it needs a class or function that is missing, or has code that safe mode refuses.
        ValueError: it cannot be loaded for another reason; the message is one line.
    """
    if os.path.isfile(path) and not zipfile.is_zipfile(path):
        raise ValueError("it is not a .keras file (a zip archive)")
    try:
        return keras.saving.load_model(path, custom_objects, compile=False, safe_mode=safe_mode)
    except (ValueError, OSError, TypeError, KeyError, RecursionError) as error:
        # Keras' first line is on the model, and the missing class is lines below
        if missing := re.search(r"Could not locate (class|function) '([^']+)'", str(error)):
            noun, name = missing.groups()
            raise ForeignCode(printable(f"{noun} {name!r} is not one of Keras'"), name) from error
        if safe_mode and "safe_mode=False" in str(error):
            raise ForeignCode("it has a Lambda layer, which is code of the file's author") from error
        raise ValueError(first_line(error)) from error


def pixel_preprocessing(name: str) -> keras.layers.Layer:
    """The preprocessing of a net of keras.applications, as a frozen 1x1 convolution on raw pixels.

    Args:
        name: a net of keras.applications.

    Raises:
        UsageError: an unknown net.
    """
    check_backbone(f"keras:{name}")
    preprocess = sys.modules[applications()[name].__module__].preprocess_input
    # Each preprocessing is an affine map of the three channels (scaling, centring, swapping red and blue), so
    # its values for black and for the primary colours determine it. A convolution saves as a plain layer.
    colours = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype("float32")
    values = np.asarray(preprocess(colours[:, None, None, :].copy()))[:, 0, 0]
    kernel = ((values[1:] - values[0]) / 255)[None, None]
    layer = keras.layers.Conv2D(3, 1, trainable=False, name="scale_pixels")
    layer.build((None, None, None, 3))
    layer.set_weights([kernel, values[0]])
    return layer


def _trunk(
    net: keras.Model, input_shape: Shape, preprocessing: keras.layers.Layer | None, backbone: str
) -> Trunk:
    """A net's input, feature map and name, with the preprocessing put before it."""
    shape = tuple(net.inputs[0].shape[1:])
    fits = len(shape) == len(input_shape) and all(
        a in (None, b) for a, b in zip(shape, input_shape, strict=True)
    )
    if not fits:
        raise UsageError(f"backbone {backbone!r} takes images of {shape}, got {tuple(input_shape)}")
    inputs, features = net.inputs[0], feature_map(net)
    if preprocessing is not None:
        if any(layer.name == preprocessing.name for layer in net.layers):
            reason = f"scales pixels itself, in its layer {preprocessing.name!r}"
            raise UsageError(f"backbone {net.name!r} {reason}; use --pixels=raw")
        inputs = keras.Input(shape, name="image")
        (features,) = replay(keras.Model(net.inputs, features), [preprocessing(inputs)])
    return inputs, features, net.name


def _seed_dropout(seed: int | None) -> None:
    """Seeds the random layers of a net that is loaded next: a file does not contain their states."""
    if seed is not None:
        keras.utils.set_random_seed(seeds.stream(seed, "backbone"))


def _forbid_norm(norm: Norm | None, backbone: str) -> None:
    if norm is not None:
        raise UsageError(f"norm must be None for backbone {backbone!r}: it brings its own norms")
