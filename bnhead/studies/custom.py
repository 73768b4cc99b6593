"""A study of heads of the user's choice."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from bnhead.errors import UsageError, nearest
from bnhead.studies.plan import OWNED
from bnhead.studies.study import STUDIES, Study
from bnhead.training.config import TrainConfig

# The settings that a fingerprint of the data depends on: a plan has one.
OF_DATA = (
    "task",
    "dataset",
    "image_size",
    "train_examples",
    "test_examples",
    "validation",
    "imbalance",
    "label_noise",
    "test_corruption",
)


def custom_study(
    name: str,
    heads: Sequence[str],
    *,
    control: str = "",
    vary: str = "",
    question: str = "",
    outcome: str = "",
) -> Study:
    """A study of `heads`.

    Args:
        name: of the study's directory, too; not that of a named study.
        heads: at least two.
        control: one of `heads`; "" is the first.
        vary: a setting and its values, at each of which the heads are compared: "fc_units=64,256".
        question: one sentence; "" asks whether the heads differ from the control.
        outcome: the primary outcome; "" is that of the task.

    Raises:
        UsageError: an argument that does not fit.
    """
    if not re.fullmatch(r"\w[\w.-]{0,59}", name):  # it names a directory
        raise UsageError(
            "name must be up to 60 letters, digits, _, . or - and begin with one of the first three, "
            f"got {name!r:.70}"
        )
    if name in STUDIES:
        raise UsageError(f"name {name!r} is that of another study; choose another --name")
    text = ",".join(heads)
    if control and control not in heads:
        raise UsageError(
            f"control must be one of the heads{nearest(control, heads)} ({text}), got {control!r}"
        )
    if control:
        heads = [control, *(head for head in heads if head != control)]
    if len(heads) < 2:
        raise UsageError(f"heads must be at least 2, a control and another, got {text!r}")
    strata, varies = varied_strata(vary) if vary else (({},), ())
    return Study(question or usual_question(heads), tuple(heads), lambda base: strata, varies, outcome)


def usual_question(heads: Sequence[str]) -> str:
    """The question of a study of heads that is given none; the control is the first."""
    verb = "Does" if len(heads) == 2 else "Do"
    return f"{verb} {' and '.join(heads[1:])} differ from {heads[0]}?"


def varied_strata(text: str) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The strata of "fc_units=64,256", and the names of the settings that they fix.

    Raises:
        UsageError: an unknown setting, or values that it cannot have.
    """
    key, _, values = text.partition("=")
    settings = [name for name in TrainConfig().settings() if name not in OWNED]
    if key not in settings:
        raise UsageError(f"vary must be a setting=values, got {text!r:.60}{nearest(key, settings)}")
    if key in OF_DATA:
        raise UsageError(f"vary: all runs of a study have one {key}; do a study for each")
    (value_type,) = (spec.type for spec in dataclasses.fields(TrainConfig) if spec.name == key)
    strata = []
    for value in values.split(","):
        try:
            is_bool = value_type in (bool, bool | str)
            typed = {"true": True, "false": False}[value.lower()] if is_bool else value_type(value)
        except (KeyError, ValueError):
            raise UsageError(f"vary: {key} cannot be {value!r:.60}") from None
        strata.append({key: typed})
    if len(strata) < 2:
        raise UsageError(f"vary needs at least two values of {key}, got {values!r:.60}")
    if len({stratum[key] for stratum in strata}) < len(strata):
        raise UsageError(f"vary: a value of {key} is given twice: {values:.60}")
    return tuple(strata), (key,)
