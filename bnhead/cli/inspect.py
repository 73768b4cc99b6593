"""The command `bnhead inspect`: a model or run, and test images -> table, JSON, CSV and an HTML page."""

import json
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bnhead import data, heads, models, texts
from bnhead.cli.flags import Command
from bnhead.devices import startup
from bnhead.errors import ResourcesError, RunDirectoryError, UsageError, nearest
from bnhead.training.config import PIXELS

TASKS = ("classification", "multilabel", "regression")


def _setting(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Request:
    """The settings of one inspection. Each field except `model` is a flag of the same name.

    Raises:
        UsageError: an invalid value, or an unknown name, with the nearest valid one.
    """

    model: str = _setting(
        "",
        "A run directory; a .keras file (loading a file can run its author's code: open only files you "
        "trust); or a backbone's name, such as resnet20 or keras:ResNet50, with its initial weights.",
    )
    dataset: str = _setting("", "TFDS image set, or an embedded one. Default: the run's own.")
    task: str = _setting(
        "",
        f"Meaning of the labels: {', '.join(TASKS)}. Default: the run's own, else classification.",
    )
    data_dir: str = _setting("", "TFDS directory that holds the prepared sets. Default: that of TFDS.")
    image_size: int = _setting(
        0,
        "Height and width in pixels of the resized images. 0: as the model expects them, else unchanged.",
    )
    pixels: str = _setting(
        "auto",
        "Scale of the model's input: signed (pixels scaled to -1 to 1), unit (0 to 1), raw (0 to 255), or "
        "auto, as in training: keras.applications' own preprocessing for keras:<name> and with imagenet "
        "weights; raw for a run and for a file whose net scales its input; else signed.",
    )
    layers: str = _setting(
        "all",
        "Layers to count, joined by commas: names, all (every activation), norms (every batch norm), last "
        "(the last activation before the output).",
    )
    examples: int = _setting(
        2048, "Test images to count on, at most. A unit dead on N may fire on 3/N of inputs."
    )
    batch_size: int = _setting(256, "Images at a time; no figure depends on it.")
    eps: float = _setting(0.0, "A unit is silent if its output is at most this; 0 suits ReLU.")
    codeath: bool = _setting(
        False, "Count which units are silent together; memory grows with the square of the units."
    )
    gradients: bool = _setting(False, "Count gradient-dead units, by the task's loss; takes a backward pass.")
    head: str = _setting(
        "out", "Head of a backbone that is given by name; the default is its output layer alone."
    )
    weights: str = _setting(
        "", "Pre-trained weights of a backbone that is given by name: imagenet or a file."
    )
    seed: int = _setting(0, "Seed of the initial weights of a backbone that is given by name.")
    out: str = _setting("", "Output directory. Default: census/<name of the model>.")

    def __post_init__(self):
        if not self.model:
            raise UsageError("model is missing")
        for name, choices in (("pixels", PIXELS), ("task", ("", *TASKS))):
            value = getattr(self, name)
            if value not in choices:
                valid = f"there are {', '.join(filter(None, choices))}"
                raise UsageError(f"{name} {value!r} is not known{nearest(value, choices)} ({valid})")
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
        return os.path.isdir(self.model)  # False also for text that cannot be a path

    @property
    def directory(self) -> str:
        """`out`, or its default."""
        name = pathlib.Path(self.model).resolve().name if self.is_run else pathlib.Path(self.model).stem
        return self.out or f"census/{name.replace(':', '-')}"


COMMAND = Command(
    "bnhead inspect",
    Request,
    "Counts the units of a model on test images: table, census.json, census.csv and index.html.",
    "Exit status: 0 ok, 2 usage, 3 run directory, 4 data, 6 memory or disk full, 130 interrupted.",
    positional="model",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, inspect_model)


def inspect_model(request: Request) -> int:
    """Counts the units, writes the files and prints the table."""
    with startup.quiet():
        import keras
        import tensorflow as tf

        from bnhead.training.reopen import open_source

        keras.ops.zeros(1)  # starts the backend, which writes to stderr
    import absl.logging
    from rich.console import Console

    from bnhead.report.census_tables import terminal_table

    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS logs every look-up
    source = open_source(
        request.model,
        request.dataset,
        task=request.task,
        data_dir=request.data_dir or None,
        image_size=request.image_size,
        pixels=request.pixels,
        head=request.head,
        weights=request.weights,
        seed=request.seed,
    )
    try:
        census = _count(request, source)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        least = f"a smaller --batch_size than {request.batch_size} needs less"
        raise ResourcesError(f"model {request.model} needs more memory than there is; {least}") from error
    first = next(iter(census.layers.values()))
    facts = {
        "model": f"{request.model}, {source.model.count_params():,} parameters",
        "counted on": f"the first {first.inputs:,} test images of {source.dataset.name}, in evaluation mode",
        "pixels": source.pixels,
        "bound": f"a unit that is dead here fires on less than {first.bound:.2%} of inputs, at 95 %",
    }
    if census.not_looked_at:
        sites = (f"{path or 'the model'} ({why})" for path, why in census.not_looked_at.items())
        facts["not looked at"] = "; ".join(sites)
    if census.notes:
        facts["notes"] = "; ".join(census.notes)
    _write_census(request, census, facts, source.dataset.classes)
    width = None if sys.stdout.isatty() else 190
    Console(width=width, highlight=False).print(terminal_table(census))
    for name, counts in census.layers.items():
        if counts.unknown:
            print(texts.one_line(f"{name}: unknown, {counts.unknown}"))
    print(texts.printable("".join(f"\n{name:<13} {text}" for name, text in facts.items())))
    print(texts.printable(f"{'look':<13} {pathlib.Path(request.directory) / 'index.html'}"))
    return 0


def _count(request: Request, source: Any) -> Any:
    from bnhead.census import count

    model = source.model
    if request.gradients:
        model.compile(loss=_loss(model, source.task))
    names = [name for name in request.layers.split(",") if name]
    if not names:
        raise UsageError("layers must name at least one layer, all, norms or last")
    if "last" in names:
        from bnhead.census.sites import default_layers

        names = [path for name in names for path in (default_layers(model) if name == "last" else [name])]
    with source.dataset.naming_pictures():
        return count(
            model,
            source.batches(request.batch_size, request.examples),
            names,
            eps=request.eps,
            together=request.codeath,
            gradients=request.gradients,
            classes=len(source.dataset.classes),
        )


def _loss(model: Any, task: str) -> Any:
    """The task's loss, on logits or on the outputs of a final sigmoid or softmax."""
    from keras import activations, losses

    last = getattr(model.layers[-1], "activation", None)
    if task == "regression":
        return losses.MeanSquaredError()
    if task == "multilabel":
        return losses.BinaryCrossentropy(from_logits=last is not activations.sigmoid)
    return losses.SparseCategoricalCrossentropy(from_logits=last is not activations.softmax)


def _write_census(request: Request, census: Any, facts: dict[str, str], classes: Sequence[str]) -> None:
    from bnhead.report import census_page, census_tables
    from bnhead.runs import atomic
    from bnhead.runs.directory import RunDirectory

    directory = RunDirectory(request.directory)
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"out {directory.path} cannot be written: {error.strerror}") from error
    content = {"about": facts, "classes": list(classes), **census_tables.census_data(census)}
    files = {
        "census.json": json.dumps(atomic.finite_or_none(content), allow_nan=False) + "\n",
        "census.csv": census_tables.census_csv(census),
        "index.html": census_page.census_html(census, title=request.model, about=facts, classes=classes),
    }
    for name, text in files.items():
        directory.replace(name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
