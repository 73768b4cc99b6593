"""The scaling from pixels in [0, 255] to a net's input; one place decides it for training and inspection."""

import zipfile
from typing import Any

import keras

from bnhead.errors import UsageError
from bnhead.models.existing import pixel_preprocessing
from bnhead.models.weights import TWINS
from bnhead.runs.atomic import parse_json

_RANGES = {"signed": "scaled to -1 to 1", "unit": "scaled to 0 to 1", "raw": "as they are, 0 to 255"}
_SCALING = ("Rescaling", "Normalization")  # layers that scale pixels inside a net


def decide_scaling(backbone: str, channels: int, pixels: str = "auto", weights: str = "") -> tuple[Any, str]:
    """The layer that scales pixels for a net, and the reason for it.

    Args:
        backbone: its name, or a `.keras` file.
        channels: of the images.
        pixels: "signed", "unit", "raw", or "auto": the preprocessing of keras.applications for its nets and
            for ImageNet weights, raw for a file whose net scales pixels itself, else signed.
        weights: source of the pre-trained weights.

    Returns:
        A layer, or None if the net reads raw pixels; and one line that describes the decision.

    Raises:
        UsageError: the preprocessing of keras.applications, for images that do not have three channels.
    """
    if pixels != "auto":
        return _rescaling(pixels), f"{_RANGES[pixels]}, as asked for"
    name = TWINS.get(backbone) if weights == "imagenet" else None
    if backbone.startswith("keras:"):
        name = backbone.removeprefix("keras:")
    if name:
        layer = pixel_preprocessing(name)
        if channels != 3:
            reason = f"{name}'s own preprocessing reads 3 channels, the images have {channels}"
            raise UsageError(f"pixels: {reason} (--pixels=signed takes any number)")
        return layer, f"keras.applications' own preprocessing of {name}"
    if backbone.endswith(".keras") and scales_itself(backbone):
        return None, f"{_RANGES['raw']}, since the file's net scales them itself"
    return _rescaling("signed"), _RANGES["signed"]


def scales_itself(path: str) -> bool:
    """Whether the net in a `.keras` file starts with a layer that scales pixels; reads only its config."""
    try:
        with zipfile.ZipFile(path) as file:
            config = parse_json(file.read("config.json"))
        while True:
            layers = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
            if "layers" not in layers[0].get("config", {}):
                break
            config = layers[0]  # a nested model
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile):
        return False  # loading the file later reports the error
    return layers[0]["class_name"] in _SCALING or layers[0]["config"].get("name") == "scale_pixels"


def _rescaling(pixels: str) -> keras.layers.Layer | None:
    if pixels == "raw":
        return None
    scale, offset = (1 / 255, 0.0) if pixels == "unit" else (1 / 127.5, -1.0)
    return keras.layers.Rescaling(scale, offset=offset, name="scale_pixels")
