"""What a net reads: pixels from 0 to 255 as they are, or scaled; decided here for training and inspection."""

import zipfile
from typing import Any

import keras

from bnhead.errors import UsageError
from bnhead.models.existing import pixel_preprocessing
from bnhead.models.weights import TWINS
from bnhead.runs.atomic import parse_json

_RANGES = {"signed": "scaled to -1 to 1", "unit": "scaled to 0 to 1", "raw": "as they are, 0 to 255"}
_SCALING = ("Rescaling", "Normalization")  # layers with which a net scales pixels itself


def decide(backbone: str, channels: int, pixels: str = "auto", weights: str = "") -> tuple[Any, str]:
    """The layer from pixels to what a net reads, and why.

    Args:
        backbone: its name, or a `.keras` file.
        channels: of the images.
        pixels: "signed", "unit", "raw", or "auto": keras.applications' own preprocessing for its nets and for
            weights from ImageNet; raw for a file whose net scales them itself; else signed.
        weights: the pre-trained weights' source.

    Returns:
        A layer, or None where the net reads raw pixels; and a line that says what was decided.

    Raises:
        UsageError: keras.applications' preprocessing, which is for colour, and images that have none.
    """
    if pixels != "auto":
        return _layer(pixels), f"{_RANGES[pixels]}, as asked for"
    name = TWINS.get(backbone) if weights == "imagenet" else None
    if backbone.startswith("keras:"):
        name = backbone.removeprefix("keras:")
    if name:
        layer = pixel_preprocessing(name)
        if channels != 3:
            reads = f"{name}'s own preprocessing reads 3 channels, the images have {channels}"
            raise UsageError(f"pixels: {reads} (--pixels=signed takes any number)")
        return layer, f"keras.applications' own preprocessing of {name}"
    if backbone.endswith(".keras") and scales_itself(backbone):
        return None, f"{_RANGES['raw']}, since the file's net scales them itself"
    return _layer("signed"), _RANGES["signed"]


def scales_itself(path: str) -> bool:
    """Whether the net in a `.keras` file begins with a layer that scales pixels; its config alone is read."""
    try:
        with zipfile.ZipFile(path) as file:
            config = parse_json(file.read("config.json"))
        while True:
            layers = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
            if "layers" not in layers[0].get("config", {}):
                break
            config = layers[0]  # a nested model
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile):
        return False  # whoever loads the file says what is wrong with it
    return layers[0]["class_name"] in _SCALING or layers[0]["config"].get("name") == "scale_pixels"


def _layer(pixels: str) -> keras.layers.Layer | None:
    if pixels == "raw":
        return None
    scale, offset = (1 / 255, 0.0) if pixels == "unit" else (1 / 127.5, -1.0)
    return keras.layers.Rescaling(scale, offset=offset, name="scale_pixels")
