"""The command `bnhead inspect`: a model or run, and test images -> table, JSON, CSV and an HTML page."""

import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from bnhead import texts
from bnhead.cli import flags
from bnhead.cli.request import Request
from bnhead.devices import startup
from bnhead.errors import ResourcesError, RunDirectoryError, UsageError

PROGRAM = "bnhead inspect"
_HEADLINE = "Counts the units of a model on test images: table, census.json, census.csv and index.html."
_STATUS = "Exit status: 0 ok, 2 usage, 3 run directory, 4 data, 6 memory or disk is full, 130 interrupted."


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    if flags.asks_for_help(arguments):
        return flags.told(flags.usage(Request, PROGRAM, _HEADLINE, _STATUS, positional="model"))
    return flags.reported(PROGRAM, lambda: _inspect(flags.parse(Request, arguments, positional="model")))


def _inspect(request: Request) -> int:
    with startup.quiet():
        import keras
        import tensorflow as tf

        from bnhead.training.reopen import open_source

        keras.ops.zeros(1)  # starts the backend, which has things to say
    import absl.logging
    from rich.console import Console

    from bnhead.report.census_tables import terminal

    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS' notes on what it looks up
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
    about = {
        "model": f"{request.model}, {source.model.count_params():,} parameters",
        "counted on": f"the first {first.inputs:,} test images of {source.dataset.name}, in evaluation mode",
        "pixels": source.pixels,
        "bound": f"a unit that is dead here fires on less than {first.bound:.2%} of inputs, at 95 %",
    }
    if census.not_looked_at:
        missed = (f"{path or 'the model'} ({why})" for path, why in census.not_looked_at.items())
        about["not looked at"] = "; ".join(missed)
    if census.notes:
        about["notes"] = "; ".join(census.notes)
    _write(request, census, about, source.dataset.classes)
    width = None if sys.stdout.isatty() else 190
    Console(width=width, highlight=False).print(terminal(census))
    for name, counts in census.layers.items():
        if counts.unknown:
            print(texts.one_line(f"{name}: unknown, {counts.unknown}"))
    print(texts.printable("".join(f"\n{name:<13} {text}" for name, text in about.items())))
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

        names = [other for name in names for other in (default_layers(model) if name == "last" else [name])]
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
    """The task's loss, on logits or on what the model has made of them."""
    from keras import activations, losses

    last = getattr(model.layers[-1], "activation", None)
    if task == "regression":
        return losses.MeanSquaredError()
    if task == "multilabel":
        return losses.BinaryCrossentropy(from_logits=last is not activations.sigmoid)
    return losses.SparseCategoricalCrossentropy(from_logits=last is not activations.softmax)


def _write(request: Request, census: Any, about: dict[str, str], classes: Sequence[str]) -> None:
    """Writes the three files; each is there whole or not at all."""
    from bnhead.report import census_page, census_tables
    from bnhead.runs.directory import RunDirectory

    directory = RunDirectory(request.directory)
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"out {directory.path} cannot be written: {error.strerror}") from error
    content = {"about": about, "classes": list(classes), **census_tables.as_data(census)}
    texts = {
        "census.json": json.dumps(_finite(content), allow_nan=False) + "\n",
        "census.csv": census_tables.as_csv(census),
        "index.html": census_page.page(census, title=request.model, about=about, classes=classes),
    }
    for name, text in texts.items():
        directory.replace(name, lambda path, text=text: path.write_text(text, encoding="utf-8"))


def _finite(value: Any) -> Any:
    """The same data with None in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
