"""The command `bnhead data NAME`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from bnhead import texts
from bnhead.cli.flags import Command, same_flag
from bnhead.data.catalog import check_name
from bnhead.data.subsets import check_shifts
from bnhead.devices.startup import quiet
from bnhead.errors import UsageError
from bnhead.training.config import TrainConfig

_LISTED = 12  # classes with a line each


@dataclass(frozen=True)
class Description:
    """The data set to describe, and the settings under which training would open it."""

    name: str = field(
        default="",
        metadata={
            "help": "A TFDS set (cifar10, cifar10:3.0.2), digits, digits_rotation, folder:PATH with "
            "PATH/train/<class>/*.jpg and PATH/test/..., or PATH/<class>/*.jpg, or domains:A,B."
        },
    )
    sheet: str = field(default="", metadata={"help": "PNG file for a sheet of sample pictures."})
    data_dir: str = same_flag(TrainConfig, "data_dir")
    task: str = same_flag(TrainConfig, "task")
    image_size: int = same_flag(TrainConfig, "image_size")
    validation: float = same_flag(TrainConfig, "validation")
    imbalance: str = same_flag(TrainConfig, "imbalance")
    label_noise: float = same_flag(TrainConfig, "label_noise")
    test_corruption: str = same_flag(TrainConfig, "test_corruption")

    def __post_init__(self):
        check_shifts(self.task, self.validation, self.imbalance, self.label_noise, self.test_corruption)
        if self.task not in ("classification", "multilabel", "regression"):
            raise UsageError(f"task must be classification, multilabel or regression, got {self.task!r}")
        if self.image_size < 0:
            raise UsageError(f"image_size must be at least 0, got {self.image_size}")
        check_name(self.name, self.data_dir or None, self.task)


COMMAND = Command(
    "bnhead data",
    Description,
    "Describes a data set (splits, classes, shape), runs the checks that training runs, and draws sample "
    "pictures.",
    "Exit status: 0 ok, 2 usage, 4 data.",
    positional="name",
    examples=(
        ("digits", "The embedded set."),
        ("folder:~/pictures --image_size=64 --sheet=sheet.png", "Your own pictures, some of them drawn."),
        ("cifar10 --imbalance=longtail:100", "As training would see it with imbalanced classes."),
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, describe_data_set)


def describe_data_set(settings: Description) -> int:
    """Opens and checks the data set and prints a description."""
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS logs what it looks up
    with quiet(f"TensorFlow and {settings.name}"):
        import tensorflow as tf

        tf.config.list_physical_devices()
    from bnhead.data import checks, contact_sheet, sources

    data = sources.load(
        settings.name,
        settings.data_dir or None,
        task=settings.task,
        image_size=settings.image_size,
        validation=settings.validation,
        imbalance=settings.imbalance,
        label_noise=settings.label_noise,
        test_corruption=settings.test_corruption,
    )
    print(texts.printable(format_description(data, checks.inspect_data(data))))
    if settings.sheet:
        contact_sheet.write_sheet(data, settings.sheet)
        print(f"{'sheet':<13}{settings.sheet}")
    print(f"{'next':<13}{_training_command(settings)}")
    return 0


def _training_command(settings: Description) -> str:
    """The command that trains on the data set, opened in the same way."""
    flags = {"dataset": settings.name}
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        if spec.name not in ("name", "sheet") and value != spec.default:
            flags[spec.name] = value
    return shlex.join(
        [*texts.command().split(), "train", *(f"--{name}={value}" for name, value in flags.items())]
    )


def format_description(data, inspected: dict) -> str:
    """The lines on a data set.

    Args:
        data: a `DataSet`.
        inspected: the result of `checks.inspect_data`.
    """
    access = "in memory" if data.train.in_memory else "streamed"
    lines = [("name", data.name), ("images", f"{' x '.join(map(str, data.shape))}, training {access}")]
    lines += [(name, f"{count:,} examples") for name, count in inspected["splits"].items()]
    if "split_rule" in inspected:
        lines.append(("split", inspected["split_rule"]))
    lines.append(("outputs", f"{data.outputs} {'classes' if data.classes else 'numbers'}"))
    if data.classes:
        counts = inspected["class_counts"]
        rows = zip(data.classes[:_LISTED], *(split[:_LISTED] for split in counts.values()), strict=True)
        lines += [("  class", f"{name}: {' / '.join(f'{n:,}' for n in sizes)}") for name, *sizes in rows]
        if len(data.classes) > _LISTED:
            low, high = min(counts["train"]), max(counts["train"])
            unlisted = len(data.classes) - _LISTED
            lines.append(("  classes", f"{unlisted} more; {low:,} to {high:,} training examples each"))
    for name, counts in inspected.get("domain_counts", {}).items():
        sizes = (f"{domain} {n:,}" for domain, n in zip(data.domains, counts, strict=True))
        lines.append((f"  {name} of", ", ".join(sizes)))
    pixels = inspected["pixels"]
    lines.append(
        (
            "pixels",
            f"{pixels['dtype']}, {pixels['least']:g} to {pixels['largest']:g}, mean {pixels['mean']:.1f}",
        )
    )
    if inspected["duplicates"] is None:
        lines.append(("duplicates", "not looked for, since the images are not in memory"))
    else:
        within = ", ".join(f"{n} {key.replace('_', ' ')}" for key, n in inspected["duplicates"].items())
        lines.append(("duplicates", within.replace("train test", "of test in train")))
    lines += [("fingerprint", f"train {data.train.fingerprint()[:16]}, test {data.test.fingerprint()[:16]}")]
    lines += [("warning", text) for text in inspected["warnings"]]
    return texts.labelled(lines, 13)
