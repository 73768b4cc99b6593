"""The flags that name a model and its data, of every command that opens both."""

import contextlib
import math
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bnhead import heads, models, texts
from bnhead.data.catalog import check_name
from bnhead.devices import startup
from bnhead.errors import DataError, ResourcesError, UsageError, nearest
from bnhead.training.config import setting
from bnhead.training.rules import CHOICES

if TYPE_CHECKING:
    from bnhead.training.reopen import Source


@dataclass(frozen=True)
class SourceFlags:
    """A model, and a data set or arrays. Each field except `model` is a flag of the same name.

    Attributes:
        command: name of the command, for the examples in messages.
        needs_data: whether a file, too, must come with data.

    Raises:
        UsageError: an invalid value, or an unknown name, with the nearest valid one.
    """

    command: ClassVar[str] = "inspect"
    needs_data: ClassVar[bool] = True

    model: str = setting(
        "",
        "A run directory; a .keras file (loading a file can run its author's code: open only files you "
        "trust); or a backbone's name, such as resnet20 or keras:ResNet50, with its initial weights.",
    )
    dataset: str = setting(
        "",
        "TFDS image set, or an embedded one. Default: the run's own, with the run's limits, imbalance and "
        "corruption.",
    )
    data: str = setting(
        "",
        "An .npz file (numpy.savez) in place of a data set, for a run or a file: an array for each of the "
        "model's inputs, as the model takes it, by the input's name (x, if there is one input), and labels "
        "in y, if there are any. For text, tables, series and any other input.",
    )
    task: str = setting(
        "",
        f"Meaning of the labels: {', '.join(CHOICES['task'])}. Default: the run's own, else classification.",
    )
    data_dir: str = setting("", "TFDS directory that holds the prepared sets. Default: that of TFDS.")
    image_size: int = setting(
        0,
        "Height and width in pixels of the resized images. 0: as the model expects them, else unchanged.",
    )
    pixels: str = setting(
        "auto",
        "Scale of the model's input: signed (pixels scaled to -1 to 1), unit (0 to 1), raw (0 to 255), or "
        "auto, as in training: keras.applications' own preprocessing for keras:<name> and with imagenet "
        "weights; raw for a run and for a file whose net scales its input; else signed.",
    )
    head: str = setting(
        "out", "Head of a backbone that is given by name; the default is its output layer alone."
    )
    weights: str = setting("", "Pre-trained weights of a backbone that is given by name: imagenet or a file.")
    seed: int = setting(0, "Seed of the initial weights of a backbone that is given by name.")
    custom_objects: str = setting(
        "",
        "Classes and functions of your own that a file needs, joined by commas: module:Name, or module for "
        "all that it defines. The modules are imported, from the current directory too.",
    )
    safe_mode: bool = setting(
        True, "Refuse a file with Lambda layers, which are code of its author. Only if you trust it: no."
    )

    def __post_init__(self):
        if not self.model:
            raise UsageError("model is missing")
        for name, choices in (("pixels", CHOICES["pixels"]), ("task", ("", *CHOICES["task"]))):
            require_choice(name, getattr(self, name), choices)
        for name, least in (("image_size", 0), ("seed", 0)):
            require_least(name, getattr(self, name), least)
        object.__setattr__(self, "head", heads.canonical(self.head))
        if not self.is_run:
            _check_model(self.model)
        self._check_data()
        for text in self.needed_objects:
            if not re.fullmatch(r"\w+(\.\w+)*(:\w+)?", text):
                raise UsageError(f"custom_objects {text!r} must be module:Name or module, as in layers:Scale")

    def _check_data(self) -> None:
        """Raises UsageError or DataError for a missing or second source of data; reads no more than names."""
        if self.data:
            from bnhead.data import arrays  # NumPy takes a tenth of a second

            forbidden = {"dataset": "", "data_dir": "", "image_size": 0, "pixels": "auto"}
            for name in [name for name, default in forbidden.items() if getattr(self, name) != default]:
                raise UsageError(
                    f"{name} does not go with --data, whose arrays are the model's inputs as they are"
                )
            if not self.is_run and not self.model.endswith(".keras"):
                raise UsageError(f"data is for a run or a .keras file; {self.model} needs --dataset")
            if not os.path.isfile(self.data):
                raise DataError(f"data {self.data!r}: no such file{_nearest_file(self.data)}")
            arrays.check_npz(self.data)
        elif self.dataset:
            check_name(self.dataset, self.data_dir)
        elif not self.is_run and (self.needs_data or not self.model.endswith(".keras")):
            example = f"{texts.command()} {self.command} {shlex.quote(self.model)} --dataset=digits"
            also = " (or --data=FILE.npz)" if self.model.endswith(".keras") else ""
            raise UsageError(f"dataset is missing; only a run has its own: {example}{also}")

    @property
    def needed_objects(self) -> list[str]:
        """The parts of `custom_objects`."""
        return [text for text in self.custom_objects.split(",") if text]

    @property
    def is_run(self) -> bool:
        """Whether the model is a directory, and so a run's."""
        return os.path.isdir(self.model)  # False also for text that cannot be a path

    def open(self) -> "Source":
        """The model and its data, None without any.

        Modules of `custom_objects` are imported from the current directory, too.

        Raises:
            RunDirectoryError, UsageError, ResourcesError, DataError: as of `open_source`.
        """
        import absl.logging

        from bnhead.training.reopen import open_source

        absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS logs every look-up
        if self.needed_objects and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return open_source(
            self.model,
            self.dataset,
            arrays=self.data,
            task=self.task,
            data_dir=self.data_dir or None,
            image_size=self.image_size,
            pixels=self.pixels,
            head=self.head,
            weights=self.weights,
            seed=self.seed,
            custom_objects=self.needed_objects,
            safe_mode=self.safe_mode,
        )


def start_backend(loading: str) -> None:
    """Imports TensorFlow and starts the backend without the lines that they write to stderr.

    Args:
        loading: names for a line on a terminal.
    """
    with startup.quiet(loading):
        import keras

        keras.ops.zeros(1)


@contextlib.contextmanager
def memory_as_error(model: str) -> Iterator[None]:
    """Raises a ResourcesError, which names the model, if its computation needs too much memory."""
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ResourcesError(
            f"model {model} needs more memory than there is; a smaller --batch_size needs less"
        ) from error


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises UsageError for a value that is not one of the choices; "" is one that messages do not list."""
    if value not in choices:
        valid = f"there are {', '.join(filter(None, choices))}"
        raise UsageError(f"{name} {value!r} is not known{nearest(value, choices)} ({valid})")


def require_least(name: str, value: float, least: float) -> None:
    """Raises UsageError for a number below the least valid one, or one that is not finite."""
    if not least <= value < math.inf:  # also NaN; a whole number may be too large for a float
        raise UsageError(f"{name} must be at least {least}, got {value}")


def _check_model(model: str) -> None:
    """Raises UsageError unless `model` is the name of a backbone or a file that can be a model's."""
    if model.startswith(("keras:", "hub:")) or not (os.sep in model or pathlib.Path(model).suffix):
        models.check_backbone(model)
    elif not os.path.exists(model):
        raise UsageError(f"model {model!r}: no such file or directory{_nearest_file(model)}")
    elif not model.endswith(".keras"):
        convert = f"keras.saving.load_model({model!r}).save('{pathlib.Path(model).stem}.keras') converts it"
        also = f"; {convert}" if model.endswith((".h5", ".hdf5")) else ""
        raise UsageError(f"model {model!r} must be a .keras file or a run's directory{also}")


def _nearest_file(path: str) -> str:
    """`"; did you mean 'x'?"` with the nearest existing name, for a path that does not exist."""
    parent, name = os.path.split(path)
    with contextlib.suppress(OSError):
        return nearest(name, os.listdir(parent or "."), cutoff=0.7)
    return ""
