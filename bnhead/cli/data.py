"""The command `bnhead data NAME`: what a data set is, the checks before training, sample pictures."""

from collections.abc import Sequence

from bnhead import texts
from bnhead.cli.flags import asks_for_help, reported, split, told
from bnhead.data.catalog import check_name
from bnhead.devices.startup import quiet
from bnhead.errors import UsageError

_USAGE = """usage: bnhead data NAME [--flag=value ...]

Tells a data set's splits, classes and shape, does the checks that training does, draws sample pictures.

  NAME                    a TFDS set (cifar10, cifar10:3.0.2), digits, digits_rotation,
                          folder:PATH with PATH/train/<class>/*.jpg and PATH/test/..., or domains:A,B
  --sheet=FILE            write a sheet of sample pictures, as PNG
  --data_dir=DIR          TFDS directory that holds the prepared sets; default: TFDS' own
  --task=classification   or regression, for numbers as labels
  --image_size=0          height and width that images are resized to; 0 keeps them
  --validation=0.0        share of the training split that is cut off
  --imbalance=none        longtail:100, step:10, one_majority:100, two_majorities:100
  --label_noise=0.0       share of the training labels that are made wrong
  --test_corruption=none  gaussian_noise:3, blur:3, contrast:3, brightness:3, pixelate:3

Exit status: 0 ok, 2 usage, 4 data.
"""
_FLAGS = {
    "sheet": "",
    "data_dir": "",
    "task": "classification",
    "image_size": 0,
    "validation": 0.0,
    "imbalance": "none",
    "label_noise": 0.0,
    "test_corruption": "none",
}
_NAMED = 12  # classes whose counts are printed


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    if asks_for_help(arguments):
        return told(_USAGE)
    return reported("bnhead data", lambda: _describe(*parse(arguments)))


def parse(arguments: Sequence[str]) -> tuple[str, dict]:
    """The set's name and every flag's value, checked without TensorFlow.

    Raises:
        UsageError: no name or more than one, a flag that is unknown, given twice or malformed, a bad value.
    """
    given, names = split(arguments, _FLAGS)
    flags = {flag: _value(flag, text) for flag, text in given.items()}
    if len(names) != 1:
        raise UsageError(f"one data set must be named, as in bnhead data cifar10; got {names or 'none'}")
    flags = {**_FLAGS, **flags}
    from bnhead.data.subsets import check_shifts

    check_shifts(**{key: flags[key] for key in ("validation", "imbalance", "label_noise", "test_corruption")})
    if flags["task"] not in ("classification", "regression"):
        raise UsageError(f"task must be classification or regression, got {flags['task']!r}")
    if flags["image_size"] < 0:
        raise UsageError(f"image_size must be at least 0, got {flags['image_size']}")
    check_name(names[0], flags["data_dir"] or None)
    return names[0], flags


def _value(flag: str, text: str) -> str | int | float:
    kind = type(_FLAGS[flag])
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{flag} must be a number, as in --{flag}={_FLAGS[flag]}, got {text!r}") from None


def _describe(name: str, flags: dict) -> int:
    import absl.logging

    sheet = flags.pop("sheet")

    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS' notes on what it looks up
    with quiet():
        import tensorflow as tf

        tf.config.list_physical_devices()
    from bnhead.data import checks, sources

    data = sources.load(name, **{**flags, "data_dir": flags["data_dir"] or None})
    print(texts.printable(summary(data, checks.inspect(data))))
    if sheet:
        from bnhead.data import contact_sheet as sheets

        sheets.write(data, sheet)
        print(f"{'sheet':<13}{sheet}")
    return 0


def summary(data, seen: dict) -> str:
    """The lines that are printed: what a data set is and what the checks saw.

    Args:
        data: a `DataSet`.
        seen: what `checks.inspect` returned.
    """
    kind = "in memory" if hasattr(data.train, "images") else "streamed"
    lines = [("name", data.name), ("images", f"{' x '.join(map(str, data.shape))}, training {kind}")]
    lines += [(name, f"{count:,} examples") for name, count in seen["splits"].items()]
    lines.append(("outputs", f"{data.outputs} {'classes' if data.classes else 'numbers'}"))
    if data.classes:
        counts = seen["class_counts"]
        shown = zip(data.classes[:_NAMED], *(own[:_NAMED] for own in counts.values()), strict=True)
        lines += [("  class", f"{name}: {' / '.join(f'{n:,}' for n in own)}") for name, *own in shown]
        if len(data.classes) > _NAMED:
            low, high = min(counts["train"]), max(counts["train"])
            rest = len(data.classes) - _NAMED
            lines.append(("  classes", f"{rest} more; {low:,} to {high:,} training examples each"))
    for name, own in seen.get("domain_counts", {}).items():
        told = (f"{d} {n:,}" for d, n in zip(data.domains, own, strict=True))
        lines.append((f"  {name} of", ", ".join(told)))
    pixels = seen["pixels"]
    lines.append(
        (
            "pixels",
            f"{pixels['dtype']}, {pixels['least']:g} to {pixels['largest']:g}, mean {pixels['mean']:.1f}",
        )
    )
    if seen["duplicates"] is None:
        lines.append(("duplicates", "not looked for, since the images are not in memory"))
    else:
        within = ", ".join(f"{n} {key.replace('_', ' ')}" for key, n in seen["duplicates"].items())
        lines.append(("duplicates", within.replace("train test", "of test in train")))
    lines += [("fingerprint", f"train {data.train.fingerprint()[:16]}, test {data.test.fingerprint()[:16]}")]
    lines += [("warning", text) for text in seen["warnings"]]
    return "\n".join(f"{name:<13}{text}" for name, text in lines)
