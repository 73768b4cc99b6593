"""The shapes of the JSON files of runs and studies, which every reader checks.

A shape is a type (`float` takes whole numbers too, and None is null), a tuple of alternative shapes, a list,
or a dict. `[shape]` is a list of any length, `[shape, shape]` a list of two entries. In a dict `"key"` is
required, `"key?"` is optional, and `"prefix*"` stands for every key with that prefix; further keys may hold
anything.
"""

from collections.abc import Mapping
from typing import Any

_NUMBER = (float, None)
_BOUNDS = ([_NUMBER, _NUMBER], None)
_SETTINGS = {"learning_rate?": float, "*": (str, int, float, bool)}
_COMPARED = {"name": str, "control": str, "treatment": str, "stratum": {"*": (str, int, float, bool)}}

CONFIG = {
    "dataset?": str, "task?": str, "image_size?": int, "train_examples?": int, "test_examples?": int,
    "validation?": float, "imbalance?": str, "label_noise?": float, "test_corruption?": str,
}  # fmt: skip
ENVIRONMENT = {"seconds?": _NUMBER, "sessions?": list}
STATUS = {"status": str, "sha256?": {"*": str}}
RESULT = {
    "status": str,
    "epochs": int,
    "head?": str,
    "data": {
        "test": int,
        "checks?": {"warnings?": [str], "splits?": {"*": int}, "class_counts?": {"*": [int]}},
        "prior?": [float],
    },
    "failure?": {"step": int, "where?": (str, None), "layer?": (str, None)},
    "replicas?": int,
    "batch_norm_examples?": int,
    "test_*": _NUMBER,
    "validation_*": _NUMBER,
    "dead/*": _NUMBER,
    "population?": {"test_*": _NUMBER, "dead/*": _NUMBER},
    "without_norms?": {"test_*": _NUMBER, "dead/*": _NUMBER},
    "mechanisms/*": _NUMBER,
}
PLAN = {
    "study": str,
    "question": str,
    "primary?": str,
    "measures?": [{"name": str, "margin": float, "better": int}],
    "alpha": float,
    "looks?": [int],
    "seeds": [int],
    "exclusions": str,
    "cells": [
        {"name": str, "head": str, "placement?": (str, None), "stratum": dict, "settings": _SETTINGS},
    ],
    "comparisons": [_COMPARED],
    "trend?": str,
    "settings": _SETTINGS,
    "runs": [{"id": str, "cell": str, "seed": int}],
    "code": {"*": str},
    "threads?": (int, None),
    "data?": dict,
    "amendments?": [str],
    "sha256": str,
}
_ROW = {  # a judged row of a verdict
    "name": str,
    "control": str,
    "treatment": str,
    "outcome": str,
    "word": str,
    "sentence": str,
    "n?": int,
    "images?": (int, None),
    "seeds": [int],
    "differences": [_NUMBER],
    "control_scores?": [_NUMBER],
    "treatment_scores?": [_NUMBER],
    **dict.fromkeys(("mean?", "sd?", "level?", "margin?", "control_mean?", "treatment_mean?"), _NUMBER),
    "interval?": _BOUNDS,
    "interval_seeds?": _BOUNDS,
    "variance?": ({"*": _NUMBER}, None),
}
_FITTED = {"slope?": _NUMBER, "interval?": _BOUNDS}
VERDICT = {
    "plan_sha256": str,
    "exploratory": [str],
    "look?": {"number": int, "seeds": int},
    "word": str,
    "sentence": str,
    "next?": ({"kind": str, "seeds?": (int, None)}, None),
    "flow": {"*": int},
    "exclusions": [{"run": str, "cell": str, "seed": int, "reason": str}],
    "comparisons": [
        {
            **_ROW,
            "stratum": {"*": (str, int, float, bool)},
            "diverged?": ({"*": int}, None),
            "converged?": ({"n?": int, "mean?": _NUMBER, "interval?": _BOUNDS}, None),
            "secondary?": [_ROW],
        }
    ],
    "trends?": [{**_ROW, "per": str}],
    "causes?": [
        {
            "outcome": str,
            "reason": str,
            "n": int,
            "seeds": [int],
            "images": (int, None),
            "level": float,
            "rows": [
                {
                    "name": str,
                    "part": str,
                    "mean": float,
                    "sd": _NUMBER,
                    "interval": [float, float],
                    "interval_seeds": [float, float],
                    "differences": [float],
                    "share": _NUMBER,
                }
            ],
            "scores": [{"cell": str, "statistics": str, "values": [float]}],
        }
    ],
    "claims?": {
        "rows?": [
            {
                "claim": str,
                "head": str,
                "word": str,
                "outcome": str,
                "n": int,
                "seeds": [int],
                "differences": [float],
                **dict.fromkeys(("mean", "sd", "level", "margin"), _NUMBER),
                "interval": _BOUNDS,
                "gains": [float],
            }
        ],
        "scores?": [{"cell": str, "outcome": str, "model": str, "seeds": [int], "values": [float]}],
    },
    "classes?": {
        "counts?": [int],
        "minority?": [bool],
        "rows?": [
            {
                "cell": str,
                "n": int,
                **{name: [_NUMBER] for name in ("recall", "adjusted_recall", "precision", "f1")},
            }
        ],
    },
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
            **_FITTED,
            "logit?": (_FITTED, None),
            "points": [{"fc_units": float, "seed": int, "share": float}],
        }
    ],
}
FAILURES = {"*": {"error": str, "message": str}}
OF = {  # file name -> shape
    "config.json": CONFIG,
    "environment.json": ENVIRONMENT,
    "status.json": STATUS,
    "result.json": RESULT,
    "plan.json": PLAN,
    "verdict.json": VERDICT,
    "failures.json": FAILURES,
}


def check_shape(value: Any, shape: Any, name: str = "it") -> None:
    """Raises unless a value has a shape.

    Args:
        value: parsed from JSON.
        shape: as described in this module's docstring.
        name: of the value, for the message.

    Raises:
        ValueError: the message has the name, the rule and the value.
    """
    choices = shape if isinstance(shape, tuple) else (shape,)
    types = [choice if choice is None or isinstance(choice, type) else type(choice) for choice in choices]
    if not any(_is_instance(value, expected) for expected in types):
        names = " or ".join("null" if expected is None else expected.__name__ for expected in types)
        raise ValueError(f"{name} must be of type {names}, got {value!r:.60}")
    for choice in choices:
        if isinstance(choice, list) and isinstance(value, list):
            if len(choice) > 1 and len(value) != len(choice):
                raise ValueError(f"{name} must have {len(choice)} entries, got {len(value)}")
            for index, item in enumerate(value):
                check_shape(item, choice[0], f"{name}[{index}]")
        if isinstance(choice, dict) and isinstance(value, dict):
            _check_keys(value, choice, name)


def _is_instance(value: Any, expected: type | None) -> bool:
    if expected is None:
        return value is None
    if isinstance(value, bool):  # which is an int too
        return expected in (bool, object)
    return isinstance(value, (int, float) if expected is float else expected)


def _check_keys(value: Mapping[str, Any], shape: Mapping[str, Any], name: str) -> None:
    prefix = "" if name == "it" else f"{name}: "
    exact = {key.removesuffix("?"): item for key, item in shape.items() if not key.endswith("*")}
    by_prefix = {key.removesuffix("*"): item for key, item in shape.items() if key.endswith("*")}
    for key in shape:
        if not key.endswith(("?", "*")) and key not in value:
            raise ValueError(f"{name} has no {key!r}")
    for key, item in value.items():
        expected = next((by_prefix[start] for start in by_prefix if key.startswith(start)), object)
        check_shape(item, exact.get(key, expected), f"{prefix}{key}")
