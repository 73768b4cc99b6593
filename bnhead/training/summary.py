"""The summary of a run in words, as the terminal and `print(result)` show it."""

import math
import os
import pathlib
import shlex

from bnhead import texts
from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.census.reading import read_layer
from bnhead.heads.grammar import PLACEMENTS
from bnhead.runs import history
from bnhead.runs.reading import cautions, wilson
from bnhead.training.config import TrainConfig

_NOT_FINITE = "not finite"


def format_summary(
    config: TrainConfig, result: dict, seconds: float | None, *, program: str = "bnhead train"
) -> str:
    """The table at the end of a run: the result, its meaning, and commands to go on with.

    Args:
        config: the run's settings.
        result: the result of `train`, or the content of `result.json`.
        seconds: duration of the run; None leaves the row out.
        program: the command that trains, for the command of the paired run.
    """
    rows = [("", "")]
    if result["status"] != "finished":
        rows.append(("status", f"{result['status']} in epoch {result['epochs']} of {config.epochs}"))
    if failure := result.get("failure"):
        layer = failure.get("layer")
        origins = {
            "input": "an input is not finite",
            "activation": f"the output of {layer} is not finite",
            "loss": "the loss is not finite, all activations are",
            "gradient": f"a gradient is not finite, first that of {layer}",
        }
        origin = origins.get(failure.get("where"), "a value is not finite")
        rows.append(("  first", f"step {failure['step']}: {origin}"))
    rows.append(("head", result.get("head", "")))
    rows += [(f"  {place}", PLACEMENTS[place]) for place in dict.fromkeys(config.parsed_head.placement)]
    rows += scores(config, result)
    for layer in keys.layers_of(result):
        activation = config.fc_activation if layer.startswith("head_fc") else ""
        rows += _rows_of_units(layer, keys.figures(result, layer), activation)
    if result.get("replicas", 1) > 1 and "batch_norm_examples" in result:
        examples = f"{result['batch_norm_examples']} of the {config.batch_size} images of a step"
        rows.append(("replicas", f"{result['replicas']}; batch norms normalise over {examples}"))
    if seconds is not None:
        rows.append(("time", f"{seconds:.1f} s"))
    rows += [("warning", text) for text in result["data"].get("checks", {}).get("warnings", [])]
    rows += [("warning", text) for text in cautions(config.settings(), result, _history(config))]
    commands = [("run", config.directory), *_next_commands(config, program)]
    return f"{texts.labelled(rows, 20)}\n{texts.labelled(commands, 20, whole=True)}"


def _history(config: TrainConfig) -> list[dict[str, float]]:
    try:
        return history.read_history(pathlib.Path(config.directory))
    except (OSError, ValueError):  # the result alone is shown
        return []


def _next_commands(config: TrainConfig, program: str) -> list[tuple[str, str]]:
    """The commands that are useful after the run; the paired one has the same seed and batches."""
    logs = os.path.join(config.workdir or "runs", "")
    flags = {"head": config.parsed_head.counterpart.text}
    for name, value in config.changed().items():
        if name not in ("head", "workdir", "overwrite", "dry_run", "verbose"):
            flags[name] = value
    command = shlex.join([*program.split(), *(f"--{name}={value}" for name, value in flags.items())])
    return [
        ("next", f"{texts.command()} report {shlex.quote(config.directory)}"),
        ("", f"{texts.command()} inspect {shlex.quote(config.directory)}"),
        ("", f"tensorboard --logdir {shlex.quote(logs)}"),
        ("to compare", command),
    ]


def scores(config: TrainConfig, result: dict) -> list[tuple[str, str]]:
    """A row for the test split, and for the validation split if there is one."""
    sizes = {"test": result["data"]["test"]}
    splits = result["data"].get("checks", {}).get("splits", {})
    if "validation_loss" in result and "validation" in splits:
        sizes["validation"] = splits["validation"]
    rows = []
    for split, size in sizes.items():
        if f"{split}_accuracy" in result:
            accuracy = _number(result[f"{split}_accuracy"], ".2%")
            text = f"{accuracy} of {size} images"
            if accuracy != _NOT_FINITE and config.task == "classification":  # each image counts once
                low, high = wilson(result[f"{split}_accuracy"], size)
                text += f" (95 % interval {low:.2%} to {high:.2%})"
            rows.append((f"{split} accuracy", text))
        else:
            error = f"mean absolute error {_number(result.get(f'{split}_mae'), '.4g')}"
            r2 = _number(result.get(f"{split}_r2"), ".4f")
            rows.append((f"{split} R^2", f"{r2}, {error}, on {size} images"))
    return rows


def _rows_of_units(layer: str, figures: dict, activation: str) -> list[tuple[str, str]]:
    """The reading of a layer's figures, then the figures."""
    if _number(figures.get("per_input"), "g") == _NOT_FINITE:
        return [("dead units", f"{layer}: unknown, since values in the net are not finite")]
    rows = [row for row in figures_at("summaries") if row.name in figures]
    return [
        (f"units of {layer}", read_layer(figures, activation)),
        ("  counted on", f"{_number(figures.get('inputs'), 'g')} test images"),
        *((f"  {row.heading}", row.summary(figures)) for row in rows),
    ]


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else _NOT_FINITE
