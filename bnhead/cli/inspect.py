"""The command `bnhead inspect`: a model or run, and test images or arrays -> table, JSON, CSV and a page."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnhead import heads, texts
from bnhead.census.units import encoded, require_format
from bnhead.cli.flags import Command
from bnhead.cli.source import SourceFlags, memory_as_error, require_least, start_backend
from bnhead.errors import UsageError
from bnhead.mechanisms.figures import check_groups
from bnhead.report.inspected import INITIAL, Inspected, file_name
from bnhead.runs import atomic
from bnhead.runs.directory import CENSUS, MECHANISMS, RunDirectory
from bnhead.training.config import TrainConfig, setting

_LABELS = 12  # columns of the labels on the terminal
INTERVENTIONS = "interventions"


@dataclass(frozen=True)
class Request(SourceFlags):
    """The settings of one inspection. Each field except `model` is a flag of the same name.

    Raises:
        UsageError: an invalid value, or an unknown name, with the nearest valid one.
    """

    layers: str = setting(
        "all",
        "Layers to count, joined by commas: names, patterns such as stage3_*, all (every activation), norms "
        "(every batch norm), last (the last activation before the output).",
    )
    examples: int = setting(
        2048, "Test images to count on, at most. A unit dead on N may fire on 3/N of inputs."
    )
    batch_size: int = setting(256, "Images at a time; no figure depends on it.")
    eps: float = setting(0.0, "A unit is silent if its output is at most this; 0 suits ReLU.")
    codeath: bool = setting(
        False, "Count which units are silent together; memory grows with the square of the units."
    )
    gradients: bool = setting(
        False, "Count gradient-dead and gradient-dormant units, by the task's loss; takes a backward pass."
    )
    clones: bool = setting(
        False, "Count units whose outputs correlate by 0.99; memory grows with the square of the units."
    )
    ablate: bool = setting(
        False,
        "Measure how loss and accuracy change when the dead, the dormant or the rarely active units of a "
        "layer are set to 0; takes a pass for each group.",
    )
    measure: str = setting(
        "",
        "Mechanisms of the head's batch norm to measure, joined by commas: noise, gap, guess, scale, "
        "calibration, inputs, gradients, dropout, rank, collapse, decay; interventions; or all. Writes "
        "mechanisms.json too.",
    )
    training_batch: int = setting(
        0, "Batch size of the training, for --measure. Default: the run's own, else 128."
    )
    alert: float = setting(
        1.0,
        "Name the layers of which more than this share of the units is dead, and end with status 1 if there "
        "are any; 1 never does.",
    )
    units: str = setting(
        "",
        "File for the units one by one, which are dead, rarely active, always on, ...: .npz for masks, .csv "
        "for a row per unit, .json for indices.",
    )
    wide: bool = setting(False, "Print every figure and a row for each layer, at any width of the terminal.")
    out: str = setting(
        "",
        "Output directory. Default: census in a run's directory; for anything else census/<data set, model, "
        "head, weights, seed>.",
    )
    overwrite: bool = setting(False, "Replace the census of another model in the output directory.")

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("examples", 1), ("batch_size", 1), ("eps", 0), ("training_batch", 0)):
            require_least(name, getattr(self, name), least)
        if not 0 <= self.alert <= 1:
            raise UsageError(f"alert must be a share from 0 to 1, got {self.alert}")
        if self.units:
            require_format(pathlib.Path(self.units).suffix)
            if not (folder := pathlib.Path(self.units).parent).is_dir():
                raise UsageError(f"units {self.units}: there is no folder {folder}")
        if self.training_batch == 1:
            raise UsageError("training_batch must be at least 2, since a batch norm has no noise from one")
        self.measured_groups()

    def measured_groups(self) -> tuple[tuple[str, ...], bool]:
        """The groups of figures in `measure`, and whether it asks for interventions."""
        names = [name.strip() for name in self.measure.split(",") if name.strip()]
        groups = check_groups(name for name in names if name != INTERVENTIONS)
        return groups, bool({INTERVENTIONS, "all"} & set(names))


def inspected_by(request: Request) -> Inspected:
    """The model, its weights and the data of a request, known without opening any of them.

    Raises:
        RunDirectoryError: the directory holds no finished run.
    """
    path = pathlib.Path(request.model)
    net, head, seed = request.model, request.head, request.seed
    dataset, task = request.dataset, request.task
    weights, file = request.weights or INITIAL, request.weights
    if request.is_run:
        directory = RunDirectory(path)
        settings = directory.trained_settings()
        net, head = settings.get("backbone", path.resolve().name), settings.get("head", "")
        dataset, task = dataset or settings.get("dataset", ""), task or settings.get("task", "")
        weights, seed, file = "run", None, directory.model_file
    elif request.model.endswith(".keras"):
        net, head, weights, seed, file = path.stem, "", "file", None, request.model
    elif request.model.startswith("hub:"):
        weights = "preset"
    data_of = {"dataset": dataset, "task": task, "image_size": request.image_size, "pixels": request.pixels}
    if request.data:
        data_of |= {"dataset": os.path.basename(request.data), "data_sha256": _sha256(request.data)}
    of_weights = _sha256(pathlib.Path(file, "model.keras") if os.path.isdir(file) else file)
    return Inspected(request.model, net, head, weights, seed, of_weights, **data_of)


def _sha256(file: str | os.PathLike) -> str:
    """SHA-256 of a file; empty for one that cannot be read, since opening it reports the error."""
    with contextlib.suppress(OSError):
        return atomic.sha256(pathlib.Path(file))
    return ""


def output_directory(request: Request, inspected: Inspected) -> RunDirectory:
    """`out`, or its default: inside a run, for other data in a folder named after the data."""
    if request.out or not request.is_run:
        return RunDirectory(request.out or inspected.directory)
    folder = pathlib.Path(request.model, CENSUS)
    trained_on = RunDirectory(request.model).trained_settings().get("dataset")
    return RunDirectory(folder if inspected.dataset == trained_on else folder / file_name(inspected.dataset))


OPTIONAL = ("codeath", "gradients", "clones", "ablate")  # counts that take more time or memory
GROUPS = {
    "Data": ("dataset", "data", "task", "data_dir", "image_size", "examples", "batch_size"),
    "Model": ("head", "weights", "seed", "pixels", "custom_objects", "safe_mode"),
    "Count": ("layers", "eps", *OPTIONAL),
    "Mechanisms": ("measure", "training_batch"),
    "Output": ("alert", "units", "wide", "out", "overwrite"),
}
EXAMPLES = (
    ("runs/digits/resnet20/bn_fc/seed0", "A run, on the test images of its own data set."),
    (
        "mine.keras --dataset=digits --layers=last",
        "A model of your own: the last activation before the output.",
    ),
    (
        "mine.keras --data=test.npz --custom_objects=my_layers:Scale",
        "On arrays of your own, with a layer of your own.",
    ),
    ("keras:MobileNetV2 --dataset=cifar10 --weights=imagenet", "A net of keras.applications."),
    ("resnet20 --dataset=digits --codeath --gradients", "Initial weights; co-death and gradients too."),
    ("runs/digits/resnet20/bn_fc/seed0 --measure=all", "What its batch norm does: noise, statistics, ..."),
    ("mine.keras --dataset=digits --layers=fc --clones", "Which units of a layer compute the same."),
)
COMMAND = Command(
    "bnhead inspect",
    Request,
    "Counts the units of a model on test images: table, census.json, census.csv and index.html.",
    "Exit status: 0 ok, 1 more dead units than --alert, 2 usage, 3 run directory, 4 data, 6 memory or disk "
    "full, 130 interrupted.",
    positional="model",
    groups=GROUPS,
    examples=EXAMPLES,
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, inspect_model)


def inspect_model(request: Request) -> int:
    """Counts the units, writes the files and prints the table."""
    from bnhead.report import census_files

    inspected = inspected_by(request)
    directory = output_directory(request, inspected)
    if not request.overwrite:
        census_files.check_directory(directory, inspected)
    start_backend(f"TensorFlow, {request.model} and {inspected.dataset}")
    from bnhead.graph.outline import steps_of

    source = request.open()
    with memory_as_error(request.model):
        census = _count_units(request, source)
    facts = _facts(request, inspected, source, census)
    steps = steps_of(source.model)
    census_files.write_census(directory, census, inspected, facts, source.dataset.classes, steps)
    if request.units:
        path = pathlib.Path(request.units)
        try:
            atomic.replace(path, lambda file: file.write_bytes(encoded(census, path.suffix)))
        except OSError as error:
            raise atomic.unwritable(error, f"units {path}") from error
    _print_census(census, f"{inspected.title}: {inspected.origin}", facts, wide=request.wide)
    if request.measure:
        census_files.add_mechanisms(directory, _measure(request, source))
    page, command = str(directory.path / "index.html"), next_command(request)
    rows = [("page", page), ("files", str(directory.path / "census.{json,csv}"))]
    rows += [("", str(directory.path / MECHANISMS))] if request.measure else []
    rows += [("units", request.units)] if request.units else []
    rows += [("next", command)] if command else []
    print(texts.printable("\n".join(f"{label:<{_LABELS}}{text}" for label, text in rows)))  # to be copied
    if exceeding := census.more_dead_than(request.alert):
        layers = ", ".join(f"{name} ({share:.1%})" for name, share in exceeding.items())
        texts.notice(texts.one_line(f"more than {request.alert:.1%} of the units are dead: {layers}"))
    return 1 if exceeding else 0


def _measure(request: Request, source: Any) -> dict[str, Any]:
    """Measures the mechanisms and prints them. Returns the content of `mechanisms.json`."""
    from bnhead import mechanisms
    from bnhead.training.feed import REFERENCE_EXAMPLES
    from bnhead.training.tasks import labels_for_softmax

    groups, intervenes = request.measured_groups()
    settings = RunDirectory(request.model).trained_settings() if request.is_run else {}
    size = request.training_batch or settings.get("batch_size", TrainConfig.batch_size)
    data = source.batches(request.batch_size, request.examples)
    train = source.training_batches(request.batch_size, source.recipe)
    if hasattr(train, "take"):
        train = train.take(max(1, REFERENCE_EXAMPLES // request.batch_size))
    data, train = (labels_for_softmax(batches, source.task) for batches in (data, train))
    options = {"training_batch": size, "batch_size": request.batch_size}
    content: dict[str, Any] = {"training_batch": size}
    split = mechanisms.Split(source.model)
    hidden_norms = _other_norms(settings.get("head", ""))
    if hidden_norms:
        texts.notice(
            f"{request.model}: its model.keras has {hidden_norms} as a batch norm, and is measured as one; "
            "train --measure measures the layer itself"
        )
    with source.dataset.naming_pictures():
        if groups:
            measured = mechanisms.measure(split, data, train, groups, **options)
            print(f"{measured}\n")
            content |= {"norm": measured.layer if measured.has_norm else "", "figures": measured.figures()}
        if intervenes and source.task == "classification":
            effects = mechanisms.interventions(split, data, train, **options)
            print(f"{effects}\n")
            content["interventions"] = {e.name: dataclasses.asdict(e) for e in effects.effects}
    return content


def _other_norms(head: str) -> str:
    """The tokens of a run's head that are other norms in training than in its file, joined by commas."""
    tokens = heads.parse(head).tokens if head else ()
    return ", ".join(str(t.name) for t in tokens if t.name != "bn" and t.type.normalises_batch)


def next_command(request: Request) -> str:
    """The command that is useful after this inspection; empty if there is none."""
    if request.is_run:
        arguments = ["report", request.model]
    elif request.model.endswith(".keras"):
        if all(getattr(request, name) for name in OPTIONAL):
            return ""
        read = [f"--{name}={getattr(request, name)}" for name in ("dataset", "data", "task", "custom_objects")
                if getattr(request, name)]  # fmt: skip
        read += [] if request.safe_mode else ["--nosafe_mode"]
        arguments = ["inspect", request.model, *read, *(f"--{name}" for name in OPTIONAL)]
    else:
        names = ("dataset", "head", *(["weights"] if request.weights else []))
        flags = [f"--{name}={getattr(request, name)}" for name in names]
        arguments = ["train", f"--backbone={request.model}", *flags]
    return f"{texts.command()} {shlex.join(arguments)}"


def _facts(request: Request, inspected: Inspected, source: Any, census: Any) -> dict[str, str]:
    """Rows of facts on the terminal and on the page."""
    from bnhead.report.census_remarks import accumulated, causes

    first = next(iter(census.layers.values()))
    examples = "examples" if request.data else "test images"
    later = {
        "bound": "; ".join(census.bounds_in_words()),
        "dead by N": accumulated(census),
        "cause": causes(census),
    }
    facts = {
        "model": f"{request.model}, {source.model.count_params():,} parameters",
        "weights": inspected.source,
        "counted on": f"the first {first.inputs:,} {examples} of {source.dataset.name}, in evaluation mode",
        "inputs" if request.data else "pixels": source.pixels,
        **{label: text for label, text in later.items() if text},
    }
    if census.not_looked_at:
        sites = (f"{path or 'the model'} ({why})" for path, why in census.not_looked_at.items())
        facts["not looked at"] = "; ".join(sites)
    if census.notes:
        facts["notes"] = "; ".join(census.notes)
    return facts


def _print_census(census: Any, title: str, facts: dict[str, str], *, wide: bool) -> None:
    """Prints the facts, the table and the conclusion, in the width of the terminal."""
    from rich.console import Console
    from rich.measure import Measurement

    from bnhead.report.census_remarks import conclusion, worst_layers
    from bnhead.report.census_tables import terminal_table

    rows = [(name, texts.one_line(text)) for name, text in facts.items()]
    print(f"{texts.wrapped(texts.one_line(title))}\n\n{texts.labelled(rows, _LABELS)}\n")
    console = Console(highlight=False, width=texts.columns())
    table = terminal_table(census, console.width, wide=wide)
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    console.width = max(console.width, needed)  # a table that is wider than the terminal is not folded
    console.print(table)
    for name, counts in census.layers.items():
        if counts.unknown:
            print(texts.wrapped(texts.one_line(f"{name}: unknown, {counts.unknown}"), hanging=2))
    most = f" Most: {', '.join(worst_layers(census))}." if worst_layers(census) else ""
    print(f"\n{texts.wrapped(texts.one_line(conclusion(census) + most))}\n")


def _count_units(request: Request, source: Any) -> Any:
    from bnhead.census import ablate, count

    model = source.model
    if request.gradients or request.ablate:
        loss, metrics = _loss_and_metrics(model, source.task)
        model.compile(loss=loss, metrics=metrics)
    names = [name for name in request.layers.split(",") if name]
    if not names:
        raise UsageError("layers must name at least one layer, all, norms or last")
    if "last" in names:
        from bnhead.census.sites import default_layers

        names = [path for name in names for path in (default_layers(model) if name == "last" else [name])]
    batches = functools.partial(source.batches, request.batch_size, request.examples)
    with source.dataset.naming_pictures():
        census = count(
            model,
            batches(),
            names,
            eps=request.eps,
            batch_size=request.batch_size,
            together=request.codeath,
            clones=request.clones,
            gradients=request.gradients,
            classes=source.classes,
        )
        return ablate(model, batches(), census, batch_size=request.batch_size) if request.ablate else census


def _loss_and_metrics(model: Any, task: str) -> tuple[Any, list[Any]]:
    """The task's loss and accuracy, on logits or on the outputs of a final sigmoid or softmax."""
    from keras import activations, losses, metrics

    last = getattr(model.layers[-1], "activation", None)
    if task == "regression":
        return losses.MeanSquaredError(), []
    if task == "multilabel":
        logits = last is not activations.sigmoid
        accuracy = metrics.BinaryAccuracy("accuracy", threshold=0.0 if logits else 0.5)
        return losses.BinaryCrossentropy(from_logits=logits), [accuracy]
    logits = last is not activations.softmax
    accuracy = metrics.SparseCategoricalAccuracy("accuracy")
    return losses.SparseCategoricalCrossentropy(from_logits=logits), [accuracy]
