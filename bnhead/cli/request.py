"""What an inspection is: one frozen dataclass. Checked without TensorFlow."""

import math
import os
import pathlib
from dataclasses import dataclass, field

from bnhead import data, heads, models
from bnhead.errors import UsageError, nearest
from bnhead.training.config import PIXELS

TASKS = ("classification", "multilabel", "regression")


def _flag(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Request:
    """The settings of one inspection. Each field is a flag of the same name, but for `model`.

    Raises:
        UsageError: a value that breaks its rule or a name that does not exist, with the nearest that does.
    """

    model: str = _flag(
        "",
        "A run directory; a .keras file (loading a file can run code of its author's: open only those you "
        "trust); or a backbone's name, such as resnet20 or keras:ResNet50, with its initial weights.",
    )
    dataset: str = _flag("", "TFDS image set, or an embedded one. Default: the run's own.")
    task: str = _flag(
        "",
        f"What the labels are for: {', '.join(TASKS)}. Default: the run's own, else classification.",
    )
    data_dir: str = _flag("", "TFDS directory that holds the prepared sets. Default: TFDS' own.")
    image_size: int = _flag(
        0, "Height and width in pixels that images are resized to. 0: as the model wants them, else as is."
    )
    pixels: str = _flag(
        "auto",
        "What the model reads: signed (pixels scaled to -1 to 1), unit (0 to 1), raw (0 to 255), or auto, as "
        "in training: keras.applications' own preprocessing for keras:<name> and with imagenet weights; raw "
        "for a run and for a file whose net begins with scaling of its own; else signed.",
    )
    layers: str = _flag(
        "all",
        "Layers to count, joined by commas: names, all (every activation), norms (every batch norm), last "
        "(the last activation before the output).",
    )
    examples: int = _flag(
        2048, "Test images to count on, at most. A unit dead on N may fire on 3/N of inputs."
    )
    batch_size: int = _flag(256, "Images at a time; no figure depends on it.")
    eps: float = _flag(0.0, "A unit is silent where its output is at most this; the default is ReLU's.")
    codeath: bool = _flag(False, "Count which units are silent together; memory grows with units squared.")
    gradients: bool = _flag(False, "Count gradient-dead units, by the task's loss; takes a backward pass.")
    head: str = _flag(
        "out", "Head of a backbone that is given by name; the default is its output layer alone."
    )
    weights: str = _flag("", "Pre-trained weights of a backbone that is given by name: imagenet or a file.")
    seed: int = _flag(0, "Seed of the initial weights of a backbone that is given by name.")
    out: str = _flag("", "Directory of what is written. Default: census/<name of the model>.")

    def __post_init__(self):
        if not self.model:
            raise UsageError("model is missing")
        for name, choices in (("pixels", PIXELS), ("task", ("", *TASKS))):
            value = getattr(self, name)
            if value not in choices:
                there = f"there are {', '.join(filter(None, choices))}"
                raise UsageError(f"{name} {value!r} is not known{nearest(value, choices)} ({there})")
        for name, least in (("examples", 1), ("batch_size", 1), ("image_size", 0), ("seed", 0), ("eps", 0)):
            value = getattr(self, name)
            if not math.isfinite(value) or value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}")
        object.__setattr__(self, "head", heads.canonical(self.head))
        if not self.is_run:
            models.check_backbone(self.model)
            if not self.dataset:
                raise UsageError("dataset is missing; a run has its own, everything else needs --dataset")
        if self.dataset:
            data.check_name(self.dataset, self.data_dir)

    @property
    def is_run(self) -> bool:
        """Whether the model is a directory, and so a run's."""
        return os.path.isdir(self.model)  # False for what no path can be, too

    @property
    def directory(self) -> str:
        """`out`, or the place that an inspection without one gets."""
        name = pathlib.Path(self.model).resolve().name if self.is_run else pathlib.Path(self.model).stem
        return self.out or f"census/{name.replace(':', '-')}"
