"""Backbones that exist elsewhere: keras.applications, keras-hub, a saved `.keras` file.

Where the feature map lies is read off the graph, so any net with one image input and one output will do, with
its classifier or without; a net that ends in a vector (a vision transformer, say) gives that vector.
"""

import inspect
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence

import keras
import numpy as np

from bnhead import seeds
from bnhead.errors import DataError, UsageError, nearest
from bnhead.graph import inlined, replay
from bnhead.heads import feature_map
from bnhead.models.blocks import Norm, backbone

Shape = tuple[int | None, int | None, int]
Opened = tuple[keras.KerasTensor, keras.KerasTensor, str]  # a net's input, its feature map, its name


def applications() -> dict[str, Callable[..., keras.Model]]:
    """The nets of keras.applications by name."""
    found = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name: build for name, build in found if "include_top" in inspect.signature(build).parameters}


def downloaded(name: str, **options) -> keras.Model:
    """A net of keras.applications; a DataError says when its weights cannot be had."""
    try:
        with warnings.catch_warnings():
            # of MobileNet's weights for another size; without the classifier they are the same for all sizes
            warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
            return applications()[name](**options)
    except (ValueError, TypeError):
        raise
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise DataError(f"weights 'imagenet' of {name} cannot be had: {_first_line(error)}") from error


@backbone()
def from_applications(
    input_shape: Shape,
    preprocessing: keras.layers.Layer | None,
    name: str,
    *,
    weights: str | None = None,
    norm: Norm | None = None,
    seed: int | None = None,
) -> Opened:
    """A net of keras.applications without its classifier.

    Args:
        name: such as `"MobileNetV2"`.
        weights: as keras.applications': None, "imagenet" (downloaded by Keras) or a file.
        norm: must be None: these nets bring their own.
        seed: of the initial weights: Keras' global seed is set to it for the time of building.

    Raises:
        UsageError: no such net, or an image that it does not take.
        DataError: the weights cannot be downloaded.
    """
    _check_known(name)
    _no_norm(norm, f"keras:{name}")
    if seed is not None:
        keras.utils.set_random_seed(seed)
    inputs = keras.Input(tuple(input_shape), name="image")
    x = inputs if preprocessing is None else preprocessing(inputs)
    try:
        net = downloaded(name, include_top=False, weights=weights, input_tensor=x, input_shape=x.shape[1:])
    except ValueError as error:
        raise UsageError(
            f"backbone 'keras:{name}' takes no {tuple(input_shape)}: {_first_line(error)}"
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
) -> Opened:
    """A keras-hub image backbone with its pre-trained weights; needs the package keras-hub.

    Args:
        preset: a preset's name, or a folder that `save_to_preset` wrote.
        input_shape: must be the preset's, where that has a fixed one.
        norm: must be None.
    """
    _no_norm(norm, f"hub:{preset}")
    if seed is not None:
        keras.utils.set_random_seed(seeds.stream(seed, "backbone"))  # a file holds no random states
    try:
        import keras_hub
    except ImportError as error:
        raise UsageError(f"backbone 'hub:{preset}' needs keras-hub: pip install bnhead[hub]") from error
    try:
        net = keras_hub.models.Backbone.from_preset(preset)
    except (ValueError, OSError, FileNotFoundError) as error:
        raise UsageError(f"backbone 'hub:{preset}' cannot be opened: {_first_line(error)}") from error
    _same_shape(net, input_shape, f"hub:{preset}")
    return _features(net, preprocessing)


@backbone()
def from_file(
    input_shape: Shape,
    preprocessing: keras.layers.Layer | None,
    path: str,
    *,
    norm: Norm | None = None,
    seed: int | None = None,
) -> Opened:
    """The net in a `.keras` file, with its weights and without its classifier.

    Loading a model can run code that the file's author wrote. Keras' safe mode is left on, so Lambda layers
    are refused, but open only files from people you trust.

    Args:
        path: the file.
        input_shape: must be the file's, where that has a fixed one.
        norm: must be None.
    """
    _no_norm(norm, path)
    if seed is not None:
        keras.utils.set_random_seed(seeds.stream(seed, "backbone"))
    try:
        net = opened(path)
    except ValueError as error:
        raise UsageError(f"backbone {path!r} cannot be loaded: {error}") from error
    net = inlined(net)
    _same_shape(net, input_shape, path)
    return _features(net, preprocessing)


def opened(path: str | os.PathLike) -> keras.Model:
    """The model in a `.keras` file, in Keras' safe mode.

    Raises:
        ValueError: it cannot be loaded; the message, one line, says why.
    """
    if os.path.isfile(path) and not zipfile.is_zipfile(path):
        raise ValueError("it is no .keras file, which is a zip archive")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(_first_line(error)) from error


def pixel_preprocessing(name: str) -> keras.layers.Layer:
    """keras.applications' preprocessing for a net, as a frozen 1x1 convolution on raw pixels.

    Each of theirs is a linear map of a pixel's three channels (scaling, centring, swapping red and blue), so
    it is read off its values on black and on the three primary colours, and it saves as a plain layer.

    Args:
        name: a net of keras.applications.

    Raises:
        UsageError: there is no such net.
    """
    _check_known(name)
    preprocess = sys.modules[applications()[name].__module__].preprocess_input
    colours = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype("float32")
    values = np.asarray(preprocess(colours[:, None, None, :].copy()))[:, 0, 0]
    kernel = ((values[1:] - values[0]) / 255)[None, None]
    layer = keras.layers.Conv2D(3, 1, trainable=False, name="scale_pixels")
    layer.build((None, None, None, 3))
    layer.set_weights([kernel, values[0]])
    return layer


def _features(net: keras.Model, preprocessing: keras.layers.Layer | None) -> Opened:
    """A net's input, feature map and name; with preprocessing, those of the net behind it."""
    inputs, features = net.inputs[0], feature_map(net)
    if preprocessing is not None:
        if any(layer.name == preprocessing.name for layer in net.layers):
            clash = f"scales pixels itself, in its layer {preprocessing.name!r}"
            raise UsageError(f"backbone {net.name!r} {clash}; use --pixels=raw")
        inputs = keras.Input(net.inputs[0].shape[1:], name="image")
        (features,) = replay(keras.Model(net.inputs, features), [preprocessing(inputs)])
    return inputs, features, net.name


def _check_known(name: str) -> None:
    if name not in applications():
        there = ", ".join(applications())
        hint = nearest(name, applications())
        raise UsageError(f"backbone 'keras:{name}' is not known{hint} (there are {there})")


def _no_norm(norm, backbone: str) -> None:
    if norm is not None:
        raise UsageError(f"norm must be None for backbone {backbone!r}: it brings its own norms")


def _same_shape(net: keras.Model, input_shape: Sequence[int | None], backbone: str) -> None:
    own = tuple(net.inputs[0].shape[1:])
    if len(own) != len(input_shape) or any(
        a is not None and a != b for a, b in zip(own, input_shape, strict=True)
    ):
        raise UsageError(f"backbone {backbone!r} takes images of {own}, got {tuple(input_shape)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
