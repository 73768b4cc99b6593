"""The tokens: what each is called, what its number is, what can be left out, how many numbers it holds.

To add one, write a row in `KINDS` here, its layer's row in `building.LAYERS`, and a line in the package's
table. Nothing here needs Keras.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bnhead.errors import UsageError


class HeadError(UsageError):
    """The text of a head that cannot be built; the message marks the failing token."""


@dataclass(frozen=True)
class Number:
    """What the number of a token is.

    Attributes:
        name: such as "units".
        rule: what it must be, as messages say it.
        example: a valid number.
        holds: whether a value obeys the rule.
        attribute: the layer's argument, and the attribute that holds it.
        option: the option it comes from when the text has none; empty when the text must have it.
        whole: whether it is a whole number.
    """

    name: str
    rule: str
    example: str
    holds: Callable[[float], bool]
    attribute: str
    option: str = ""
    whole: bool = True


_POSITIVE = "of at least 1, a whole number"
_UNITS = Number("units", _POSITIVE, "256", lambda value: value >= 1, "units", option="fc_units")
_GROUPS = Number("groups", _POSITIVE, "8", lambda value: value >= 1, "groups")
_GHOST = Number("ghost size", "of at least 2, a whole number", "16", lambda value: value >= 2, "ghost_size")
_RATE = Number("rate", "between 0 and 1", "0.5", lambda value: 0 < value < 1, "rate", whole=False)


@dataclass(frozen=True)
class Kind:
    """What a token's name means.

    Attributes:
        name: the token.
        number: what its number is; None for a token without one.
        pools: for a pooling, the vector's width from the feature map's shape (None where that is unknown).
        vector_only: whether it needs a vector, that is, stands after the pooling.
        parts: what can be left out with a minus, each with the layer's arguments that leave it out.
        label: how `describe` writes it, a format string over the number and the options; empty for the text.
        weights: `(width, number, parts left out) -> numbers` that the layers hold, moving averages included;
            the width is the channels it reads. Raises HeadError for a width that the layer cannot have.
        normalises_batch: whether it is a batch norm, which `placement` looks for.
        after_output: whether it can stand behind the output layer.
        reads_labels: whether it needs the labels in training.
    """

    name: str
    number: Number | None = None
    pools: Callable[[Sequence[int]], int | None] | None = None
    vector_only: bool = False
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    label: str = ""
    weights: Callable[[int, int, frozenset], int] = lambda width, number, left_out: 0
    normalises_batch: bool = False
    after_output: bool = False
    reads_labels: bool = False

    @property
    def example(self) -> str:
        """A valid token of this kind."""
        return self.name + (self.number.example if self.number else "")


def _channels(shape):
    return shape[-1]


def _dense_weights(width, units, left_out):
    return (width + 1 - len(left_out)) * units


def _affine_weights(more):
    """Numbers in a norm of some width: `more` for each channel besides gamma and beta."""
    return lambda width, _, left_out: width * (more + 2 - len(left_out))


def _group_weights(width, groups, left_out):
    if width % groups:
        raise HeadError(
            f"head token 'gn{groups}': groups must divide the {width} features it reads, got {groups}"
        )
    return width * (2 - len(left_out))


_DENSE = {"vector_only": True, "parts": {"bias": {"use_bias": False}}, "weights": _dense_weights}
_AFFINE = {"parts": {"beta": {"center": False}, "gamma": {"scale": False}}}
_PART_OF_A_BATCH_NORM = {
    "normalises_batch": True,
    "after_output": True,
    "weights": lambda width, *_: 2 * width,
}
_BATCH_NORM = {**_PART_OF_A_BATCH_NORM, **_AFFINE, "weights": _affine_weights(2)}
ACTIVATIONS = {  # token -> Keras' name
    **{name: name for name in ("relu", "relu6", "elu", "selu", "gelu", "silu", "mish", "tanh")},
    "leakyrelu": "leaky_relu",
}
_ROWS = (
    # pooling
    Kind("gap", pools=_channels),
    Kind("gmp", pools=_channels),
    Kind("catpool", pools=lambda shape: 2 * shape[-1]),
    Kind("gem", pools=_channels, weights=lambda *_: 1),
    Kind("flatten", pools=lambda shape: None if None in shape else math.prod(shape)),
    # linear layers
    Kind("fc", number=_UNITS, label="{fc_activation}", **_DENSE),
    Kind("dense", number=_UNITS, **_DENSE),
    Kind("out", label="{outputs}", **_DENSE),
    # norms by the batch, and their parts
    Kind("bn", **_BATCH_NORM),
    Kind("gbn", number=_GHOST, **_BATCH_NORM),
    Kind("brn", **{**_BATCH_NORM, "weights": lambda *arguments: 1 + _affine_weights(2)(*arguments)}),
    Kind("fbn", **_BATCH_NORM),
    Kind("center", **_PART_OF_A_BATCH_NORM),
    Kind("scale", **_PART_OF_A_BATCH_NORM),
    Kind("noise", **{**_PART_OF_A_BATCH_NORM, "weights": lambda width, *_: 2 * width + 1}),
    # norms by the example
    Kind("ln", weights=_affine_weights(0), **_AFFINE),
    Kind("rms", weights=lambda width, *_: width),
    Kind("gn", number=_GROUPS, weights=_group_weights, **_AFFINE),
    Kind("l2", weights=lambda *_: 1),
    # dropout and activations
    Kind("dropout", number=_RATE),
    Kind("cdropout", number=_RATE, reads_labels=True),
    *map(Kind, ACTIVATIONS),
)
KINDS = {kind.name: kind for kind in _ROWS}
