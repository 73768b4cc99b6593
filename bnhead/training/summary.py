"""The summary of a run in words, as the terminal and `print(result)` show it."""

import math
import os

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.training.config import TrainConfig

_NOT_FINITE = "not finite"


def format_summary(config: TrainConfig, result: dict, seconds: float | None) -> str:
    """The table at the end of a run: the result, and the paths to look at.

    Args:
        config: the run's settings.
        result: the result of `train`, or the content of `result.json`.
        seconds: duration of the run; None leaves the row out.
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
    rows += [("head", result.get("head", "")), *_scores(result)]
    for layer in keys.layers_of(result):
        rows += _rows_of_units(layer, keys.figures(result, layer))
    if result.get("replicas", 1) > 1 and "batch_norm_examples" in result:
        examples = f"{result['batch_norm_examples']} of the {config.batch_size} images of a step"
        rows.append(("replicas", f"{result['replicas']}; batch norms normalise over {examples}"))
    if seconds is not None:
        rows.append(("time", f"{seconds:.1f} s"))
    rows += [("warning", text) for text in result["data"].get("checks", {}).get("warnings", [])]
    logs = os.path.join(config.workdir or "runs", "")
    rows += [("run", config.directory), ("look", f"tensorboard --logdir {logs}")]
    return "\n".join(f"{name:<19} {text}".rstrip() for name, text in rows)


def _scores(result: dict) -> list[tuple[str, str]]:
    """A row for the test split, and for the validation split if there is one."""
    sizes = {"test": result["data"]["test"]}
    splits = result["data"].get("checks", {}).get("splits", {})
    if "validation_loss" in result and "validation" in splits:
        sizes["validation"] = splits["validation"]
    rows = []
    for split, size in sizes.items():
        if f"{split}_accuracy" in result:
            accuracy = _number(result[f"{split}_accuracy"], ".2%")
            rows.append((f"{split} accuracy", f"{accuracy} of {size} images"))
        else:
            error = f"mean absolute error {_number(result.get(f'{split}_mae'), '.4g')}"
            r2 = _number(result.get(f"{split}_r2"), ".4f")
            rows.append((f"{split} R^2", f"{r2}, {error}, on {size} images"))
    return rows


def _rows_of_units(layer: str, figures: dict) -> list[tuple[str, str]]:
    if _number(figures.get("per_input"), "g") == _NOT_FINITE:
        return [("dead units", f"{layer}: unknown, since values in the net are not finite")]
    rows = [row for row in figures_at("summaries") if row.name in figures]
    return [
        (f"units of {layer}", f"on {_number(figures.get('inputs'), 'g')} test images"),
        *((f"  {row.heading}", row.summary(figures)) for row in rows),
    ]


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else _NOT_FINITE
