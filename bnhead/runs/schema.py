"""What the JSON files of runs and studies hold: a shape for each, which every reader checks.

A shape is a type (`float` takes whole numbers too, and None is null), a tuple of shapes of which one must
fit, a list, or a dict. `[shape]` is a list of any length, `[shape, shape]` one of two entries. In a dict
`"key"` must be there, `"key?"` may be, and `"begin*"` is every key that begins so; other keys may hold
anything.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_NUMBER = (float, None)
_BOUNDS = ([_NUMBER, _NUMBER], None)
_SETTINGS = {"learning_rate?": float, "*": (str, int, float, bool)}
_COMPARED = {"name": str, "control": str, "treatment": str, "stratum": {"*": (str, int, float, bool)}}

CONFIG = {"dataset?": str, "task?": str, "image_size?": int}
ENVIRONMENT = {"seconds?": _NUMBER, "sessions?": list}
STATUS = {"status": str, "sha256?": {"*": str}}
RESULT = {
    "status": str,
    "epochs": int,
    "head?": str,
    "data": {
        "test": int,
        "checks?": {"warnings?": [str], "splits?": {"*": int}},
    },
    "failure?": {"step": int, "where?": (str, None), "layer?": (str, None)},
    "replicas?": int,
    "batch_norm_examples?": int,
    "test_*": _NUMBER,
    "validation_*": _NUMBER,
    "dead/*": _NUMBER,
}
PLAN = {
    "study": str,
    "question": str,
    "primary": str,
    "chance?": _NUMBER,
    "delta": float,
    "alpha": float,
    "seeds": [int],
    "exclusions": str,
    "cells": [
        {"name": str, "head": str, "placement?": (str, None), "stratum": dict, "settings": _SETTINGS},
    ],
    "comparisons": [_COMPARED],
    "settings": _SETTINGS,
    "runs": [{"id": str, "cell": str, "seed": int}],
    "code": {"*": str},
    "threads?": (int, None),
    "data?": dict,
    "amendments?": [str],
    "sha256": str,
}
VERDICT = {
    "plan_sha256": str,
    "exploratory": [str],
    "word": str,
    "sentence": str,
    "flow": {"*": int},
    "exclusions": [{"run": str, "cell": str, "seed": int, "reason": str}],
    "comparisons": [
        {
            **_COMPARED,
            "word": str,
            "sentence": str,
            "seeds": [int],
            "differences": [_NUMBER],
            **dict.fromkeys(("mean?", "sd?", "p?", "p_holm?", "p_tost?", "p_holm_tost?"), _NUMBER),
            "n?": int,
            "interval?": _BOUNDS,
            "interval_tost?": _BOUNDS,
            "more_seeds?": (int, None),
            "diverged?": ({"*": int}, None),
            "converged?": ({"n?": int, "mean?": _NUMBER, "interval?": _BOUNDS}, None),
        }
    ],
    "cells": [
        {
            "name": str,
            "n?": int,
            **dict.fromkeys(("mean?", "sd?", "min?", "max?"), _NUMBER),
            "dead": {"*": ({"n?": int, "mean?": _NUMBER, "sd?": _NUMBER}, None)},
        }
    ],
    "width_law": [
        {
            "head": str,
            "layer": str,
            "figure?": str,
            "slope?": _NUMBER,
            "interval?": _BOUNDS,
            "points": [{"fc_units": float, "seed": int, "share": float}],
        }
    ],
}
FAILURES = {"*": {"error": str, "message": str}}
OF = {  # name of a file -> its shape
    "config.json": CONFIG,
    "environment.json": ENVIRONMENT,
    "status.json": STATUS,
    "result.json": RESULT,
    "plan.json": PLAN,
    "verdict.json": VERDICT,
    "failures.json": FAILURES,
}


def check(value: Any, shape: Any, where: str = "it") -> None:
    """Raises where a value is not of the shape.

    Args:
        value: what a JSON text says.
        shape: as this module's docstring tells.
        where: the value's place, for the message.

    Raises:
        ValueError: the place, what must be there and what is.
    """
    if not any(_is(value, kind) for kind in _kinds(shape)):
        kinds = " or ".join("null" if kind is None else kind.__name__ for kind in _kinds(shape))
        raise ValueError(f"{where} must be of type {kinds}, got {value!r:.60}")
    for own in shape if isinstance(shape, tuple) else (shape,):
        if isinstance(own, list) and isinstance(value, list):
            _check_list(value, own, where)
        if isinstance(own, dict) and isinstance(value, dict):
            _check_dict(value, own, where)


def _kinds(shape: Any) -> Iterator[type | None]:
    for own in shape if isinstance(shape, tuple) else (shape,):
        yield own if own is None or isinstance(own, type) else type(own)


def _is(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool):  # which is an int too
        return kind in (bool, object)
    return isinstance(value, (int, float) if kind is float else kind)


def _check_list(value: list, shape: list, where: str) -> None:
    if len(shape) > 1 and len(value) != len(shape):
        raise ValueError(f"{where} must have {len(shape)} entries, got {len(value)}")
    for index, item in enumerate(value):
        check(item, shape[0], f"{where}[{index}]")


def _check_dict(value: Mapping[str, Any], shape: Mapping[str, Any], where: str) -> None:
    inside = "" if where == "it" else f"{where}: "
    named = {key.removesuffix("?"): own for key, own in shape.items() if not key.endswith("*")}
    begun = {key.removesuffix("*"): own for key, own in shape.items() if key.endswith("*")}
    for key in shape:
        if not key.endswith(("?", "*")) and key not in value:
            raise ValueError(f"{where} has no {key!r}")
    for key, item in value.items():
        own = named.get(key) if key in named else next((begun[b] for b in begun if key.startswith(b)), object)
        check(item, own, f"{inside}{key}")
