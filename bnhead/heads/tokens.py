"""The tokens: names, numbers, parts that can be left out, parameter counts. Needs no Keras.

A new token is one row of `_ROWS` here and its layer in `build.LAYERS`. Document it in the table of
`bnhead/heads/__init__.py` and in `docs/heads.md`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from bnhead.errors import UsageError


class HeadError(UsageError):
    """An invalid head text; the message marks the failing token."""


@dataclass(frozen=True)
class Number:
    """The number of a token, as 512 in `fc512`.

    Attributes:
        name: such as "units".
        rule: the valid values, as error messages give them.
        example: a valid number.
        holds: whether a value obeys the rule.
        attribute: argument and attribute of the layer that hold it.
        option: the option used when the text has no number; empty when the text must have one.
        integer: whether it must be an integer.
    """

    name: str
    rule: str
    example: str
    holds: Callable[[float], bool]
    attribute: str
    option: str = ""
    integer: bool = True


_POSITIVE = "a whole number of at least 1"
_UNITS = Number("units", _POSITIVE, "256", lambda value: value >= 1, "units", option="fc_units")
_GROUPS = Number("groups", _POSITIVE, "8", lambda value: value >= 1, "groups")
_GHOST = Number("ghost size", "a whole number of at least 2", "16", lambda value: value >= 2, "ghost_size")
_RATE = Number("rate", "a number between 0 and 1", "0.5", lambda value: 0 < value < 1, "rate", integer=False)


@dataclass(frozen=True)
class TokenType:
    """The meaning of a token's name.

    Attributes:
        name: the token without number and parts.
        number: the number it takes; None for a token without one.
        pools: for a pooling: shape of the feature map -> width of the vector (None if unknown).
        linear: whether it is a Dense layer: it must follow the pooling, and its number is its output's width.
        parts: part that a minus leaves out -> the layer's arguments for that.
        label: text for `describe`, a format string over number and options; empty for the token itself.
        weights: `(width, number, parts left out) -> count` of the layer's weights, moving averages included;
            width is the number of channels it reads. Raises HeadError for a width that the layer cannot have.
        normalises_batch: whether it is a batch norm or a part of one; `placement` lists these.
        after_output: whether it may follow the output layer.
        reads_labels: whether it needs the labels in training.
        meaning: a few words for a reader, a format string over `number`; empty if the name suffices.
    """

    name: str
    number: Number | None = None
    pools: Callable[[Sequence[int]], int | None] | None = None
    linear: bool = False
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    label: str = ""
    weights: Callable[[int, int, frozenset], int] = lambda width, number, left_out: 0
    normalises_batch: bool = False
    after_output: bool = False
    reads_labels: bool = False
    meaning: str = ""

    @property
    def example(self) -> str:
        """A valid token of this type."""
        return self.name + (self.number.example if self.number else "")


def _affine_weights(extra):
    """Weights of a norm: gamma, beta and `extra` numbers for each channel."""
    return lambda width, _, left_out: width * (extra + 2 - len(left_out))


def _group_norm_weights(width, groups, left_out):
    if width % groups:
        raise HeadError(
            f"head token 'gn{groups}': groups must divide the {width} features it reads, got {groups}"
        )
    return width * (2 - len(left_out))


_CHANNELS = itemgetter(-1)
_DENSE = {
    "linear": True,
    "parts": {"bias": {"use_bias": False}},
    "weights": lambda width, units, left_out: (width + 1 - len(left_out)) * units,
}
_AFFINE = {"parts": {"beta": {"center": False}, "gamma": {"scale": False}}}
_BATCH_STATISTICS = {
    "normalises_batch": True,
    "after_output": True,
    "weights": lambda width, *_: 2 * width,  # moving mean and variance
}
_BATCH_NORM = {**_BATCH_STATISTICS, **_AFFINE, "weights": _affine_weights(2)}
ACTIVATIONS = {  # token -> Keras' name
    **{name: name for name in ("relu", "relu6", "elu", "selu", "gelu", "silu", "mish", "tanh")},
    "leakyrelu": "leaky_relu",
}
_ROWS = (
    # pooling
    TokenType("gap", pools=_CHANNELS, meaning="average pooling"),
    TokenType("gmp", pools=_CHANNELS, meaning="maximum pooling"),
    TokenType(
        "catpool", pools=lambda shape: 2 * shape[-1], meaning="average and maximum pooling side by side"
    ),
    TokenType("gem", pools=_CHANNELS, weights=lambda *_: 1, meaning="generalised mean pooling"),
    TokenType("flatten", pools=lambda shape: None if None in shape else math.prod(shape)),
    # linear layers
    TokenType("fc", number=_UNITS, label="{fc_activation}", meaning="an FC layer", **_DENSE),
    TokenType("dense", number=_UNITS, meaning="an FC layer without activation", **_DENSE),
    TokenType("out", label="{outputs}", meaning="the output layer", **_DENSE),
    # normalisation over the batch, and its parts
    TokenType("bn", meaning="batch norm", **_BATCH_NORM),
    TokenType(
        "gbn",
        number=_GHOST,
        meaning="ghost batch norm over {number} examples at a time",
        **_BATCH_NORM,
    ),
    TokenType(
        "brn",
        meaning="batch renorm",
        **{**_BATCH_NORM, "weights": lambda *arguments: 1 + _affine_weights(2)(*arguments)},
    ),
    TokenType("fbn", meaning="batch norm with frozen statistics and so without noise", **_BATCH_NORM),
    TokenType("center", meaning="a batch norm's centring alone", **_BATCH_STATISTICS),
    TokenType("scale", meaning="a batch norm's scaling alone", **_BATCH_STATISTICS),
    TokenType("fcenter", meaning="a batch norm's centring alone with frozen statistics", **_BATCH_STATISTICS),
    TokenType("fscale", meaning="a batch norm's scaling alone with frozen statistics", **_BATCH_STATISTICS),
    TokenType(
        "noise",
        meaning="a batch norm's noise alone with nothing normalised",
        **{**_BATCH_STATISTICS, "weights": lambda width, *_: 2 * width + 1},
    ),
    # normalisation of each example
    TokenType("ln", weights=_affine_weights(0), meaning="layer norm within each example", **_AFFINE),
    TokenType("rms", weights=lambda width, *_: width, meaning="RMS norm within each example"),
    TokenType(
        "gn", number=_GROUPS, weights=_group_norm_weights, meaning="group norm of {number} groups", **_AFFINE
    ),
    TokenType("l2", weights=lambda *_: 1, meaning="features of unit length times a learned scale"),
    # dropout and activations
    TokenType("dropout", number=_RATE, meaning="dropout at a rate of {number}"),
    TokenType("cdropout", number=_RATE, reads_labels=True, meaning="class-conditional dropout"),
    *map(TokenType, ACTIVATIONS),
)
TOKENS = {row.name: row for row in _ROWS}
