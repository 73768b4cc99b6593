"""The head grammar: text -> tokens -> text, and what can be said of a head without building it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bnhead import seeds
from bnhead.errors import UsageError, nearest
from bnhead.heads.presets import PRESETS

if TYPE_CHECKING:
    import keras


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
        option: the option it comes from when the text has none; empty when the text must have it.
        attribute: the attribute of the layer that holds it.
        whole: whether it is a whole number.
    """

    name: str
    rule: str
    example: str
    holds: Callable[[float], bool]
    attribute: str
    option: str = ""
    whole: bool = True


LONGEST_NUMBER = 30  # digits; Python itself refuses whole numbers of more than 4,300
_WHOLE = "of at least 1, a whole number", "256", lambda value: value >= 1, "units"
UNITS = Number("units", *_WHOLE, option="fc_units")
GROUPS = Number("groups", "of at least 1, a whole number", "8", lambda value: value >= 1, "groups")
GHOST_SIZE = Number(
    "ghost size", "of at least 2, a whole number", "16", lambda value: value >= 2, "ghost_size"
)
RATE = Number("rate", "between 0 and 1", "0.5", lambda value: 0 < value < 1, "rate", whole=False)


@dataclass(frozen=True)
class Kind:
    """What a token's name means.

    Attributes:
        name: the token.
        build: `(x, number, context) -> x`, the token's layers on a Keras tensor.
        number: what its number is; None for a token without one.
        pools: for a pooling, the vector's width from the feature map's shape (None where that is unknown).
        vector_only: whether it needs a vector, that is, stands after the pooling.
        parts: what can be left out with a minus, each with the layer's arguments that leave it out.
        label: how `describe` writes it, a format string over the number and the options; empty for the text.
        weights: `(width, number, parts left out) -> numbers` that the layers hold, moving averages included;
            the width is the channels it reads.
        normalises_batch: whether it is a batch norm, which `placement` looks for.
        after_output: whether it can stand behind the output layer.
        reads_labels: whether it needs the labels in training.
    """

    name: str
    build: Callable
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


@dataclass(frozen=True)
class Token:
    """One token of a parsed head."""

    kind: Kind
    number: int | float | None = None
    left_out: frozenset[str] = frozenset()

    def __str__(self) -> str:
        number = "" if self.number is None else _digits(self.number)
        return self.kind.name + number + "".join(f"-{part}" for part in sorted(self.left_out))


@dataclass(frozen=True)
class Context:
    """What a token's function may use besides its input: its layer's name, the options, the labels.

    Attributes:
        name: the layer's name.
        outputs: number of outputs.
        on_logits: whether the output layer stands before it: logits stay float32 under mixed precision.
        without: arguments of the layer that leave out the parts the text leaves out.
        options: `fc_units`, `fc_activation`, `renorm_steps`, `class_counts`.
        labels: Keras tensor of the labels; None where no token reads them.
        seed: the head's seed.
        word: the token as written, for messages.
    """

    name: str
    outputs: int
    on_logits: bool
    without: Mapping[str, Any]
    options: Mapping[str, Any]
    labels: Any
    seed: int | None
    word: str

    def stream(self) -> int | None:
        """Seed of this layer's own random stream; None (a fresh one each time) when the head has no seed."""
        return None if self.seed is None else seeds.stream(self.seed, "head", self.name)

    def initial(self, scheme: str) -> "keras.initializers.Initializer":
        """An initializer that draws from this layer's own stream."""
        import keras

        return keras.initializers.get({"class_name": scheme, "config": {"seed": self.stream()}})

    @property
    def dtype(self) -> str | None:
        """The layer's dtype policy: float32 on the logits, else the global one."""
        return "float32" if self.on_logits else None


KINDS: dict[str, Kind] = {}


def token(name: str, **rules) -> Callable:
    """Adds the decorated function to the grammar as the token `name`; `rules` are the fields of `Kind`."""

    def register(build: Callable) -> Callable:
        KINDS[name] = Kind(name, build, **rules)
        return build

    return register


# ---- text -> tokens -----------------------------------------------------------------------------


def parse(text: str, *, pooled: bool = False) -> tuple[Token, ...]:
    """The head's tokens, with the pooling and the output layer put in where the text leaves them out.

    Args:
        text: tokens joined by `_`, such as `"bn_fc512_dropout0.5"`, or a preset's name.
        pooled: whether the features are a vector already, so that no pooling is put in and none is allowed.

    Raises:
        HeadError: with the failing token marked, the rule it breaks and the nearest valid token.
    """
    if not isinstance(text, str) or not text:
        raise HeadError(f"head must be tokens joined by '_', such as 'bn_fc', got {text!r}")
    words = (PRESETS[text].text if text in PRESETS else text).split("_")
    tokens = [_read(words, i) for i in range(len(words))]
    _check_order(words, tokens, pooled)
    if not pooled and not any(t.kind.pools for t in tokens):
        tokens.insert(0, Token(KINDS["gap"]))
    if not any(t.kind.name == "out" for t in tokens):
        tokens.append(Token(KINDS["out"]))
    return tuple(tokens)


def _read(words: Sequence[str], i: int) -> Token:
    base, *left_out = words[i].split("-")
    name = base if base in KINDS else base.rstrip("0123456789.")
    number = base[len(name) :] or None
    if number is not None and not re.fullmatch(r"[0-9]*\.?[0-9]+", number):
        name, number = base, None
    if words[i] in PRESETS:
        raise _error(words, i, "is a known head's name and stands alone; write its text, see `bnhead heads`")
    if name not in KINDS:
        hint = nearest("_".join(words), PRESETS, cutoff=0.75) or nearest(name.rstrip("0123456789."), KINDS)
        raise _error(words, i, f"is no token{hint}")
    kind = KINDS[name]
    for part in left_out:
        if part not in kind.parts:
            there = " and ".join(f"'{name}-{p}'" for p in kind.parts) or "nothing"
            raise _error(words, i, f"has no part {part!r} to leave out; there is {there}")
        if left_out.count(part) > 1:
            raise _error(words, i, f"leaves out {part!r} twice")
    return Token(kind, _number(words, i, kind, number), frozenset(left_out))


def _number(words: Sequence[str], i: int, kind: Kind, number: str | None) -> int | float | None:
    if kind.number is None:
        if number is not None:
            raise _error(words, i, f"takes no number; write '{kind.name}'")
        return None
    if number is None:
        if not kind.number.option:
            raise _error(words, i, f"needs its {kind.number.name}, as in '{kind.example}'")
        return None
    rule = f"needs {kind.number.name} {kind.number.rule}, as in '{kind.example}'"
    if len(number) > LONGEST_NUMBER or (kind.number.whole and not re.fullmatch("[1-9][0-9]*", number)):
        raise _error(words, i, rule)
    value = int(number) if kind.number.whole else float(number)
    if not kind.number.holds(value):
        raise _error(words, i, rule)
    return value


def _check_order(words: Sequence[str], tokens: Sequence[Token], pooled: bool) -> None:
    pooling = [i for i, t in enumerate(tokens) if t.kind.pools]
    output = [i for i, t in enumerate(tokens) if t.kind.name == "out"]
    for extra in pooling[1:] + output[1:]:
        raise _error(words, extra, f"is a second {'output layer' if extra in output else 'pooling'}")
    if pooled and pooling:
        raise _error(words, pooling[0], "has nothing to pool, the features are a vector already")
    for i, t in enumerate(tokens):
        if pooling and i < pooling[0] and t.kind.vector_only:
            raise _error(words, i, f"needs a vector, so it stands after the pooling {words[pooling[0]]!r}")
        if output and i > output[0] and not t.kind.after_output:
            raise _error(
                words, i, "stands after the output layer, where only a batch norm or a part of one can"
            )


def _error(words: Sequence[str], i: int, rule: str) -> HeadError:
    marked = "_".join([*words[:i], f">>{words[i]}<<", *words[i + 1 :]])
    marked = "".join(c if c.isprintable() else repr(c)[1:-1] for c in marked)
    return HeadError(f"head '{marked}': {words[i]!r} {rule} (tokens: {' '.join(sorted(KINDS))})")


def _digits(number: int | float) -> str:
    """The number as the grammar reads it: all its digits and no exponent."""
    return format(Decimal(repr(number)), "f")


# ---- tokens -> text -----------------------------------------------------------------------------


def spell(tokens: Sequence[Token]) -> str:
    """The text of parsed tokens, without what is put in anyway."""
    tokens = list(tokens)
    if tokens[0].kind.name == "gap":
        del tokens[0]
    if str(tokens[-1]) == "out" and any(t.kind.name in ("fc", "dense") for t in tokens):
        del tokens[-1]
    return "_".join(map(str, tokens))


def canonical(text: str) -> str:
    """The one spelling that all texts of the same head share.

    What is put in anyway is left out: a leading `gap`, and a closing `out` after an `fc` or `dense`.
    `gap_bn_fc_out` and `bn_fc` are both `bn_fc`; `bn` is `bn_out`; `fc512` stays `fc512`; a preset's name
    becomes its text.
    """
    return spell(parse(text))


def placement(text: str) -> tuple[str, ...]:
    """Where the head's batch norms stand, in order: `("P1",)` for `bn_fc`, `()` for `fc`.

    Ghost, renorm and frozen batch norms count, and so do centring, scaling and noise, the parts of one.
    """
    places, place = [], "P0"
    for t in parse(text):
        if t.kind.normalises_batch:
            places.append(place)
        elif t.kind.pools:
            place = "P1"
        elif t.kind.name in ("fc", "dense"):
            place = "P2"
        elif t.kind.name == "out":
            place = "P3"
    return tuple(places)


def needs_labels(text: str) -> bool:
    """Whether the head reads the labels in training, as a second input of the model."""
    return any(t.kind.reads_labels for t in parse(text))


def describe(
    text: str,
    features: Sequence[int | None] | None = None,
    outputs: int | None = None,
    *,
    fc_units: int = 256,
    fc_activation: str = "relu",
) -> str:
    """The head as one line: `8x8x64 -> gap -> 64 -> bn -> fc(256, relu) -> out(10)  [P1]`.

    Args:
        text: the head.
        features: shape of the features without the batch axis, `(height, width, channels)` or `(channels,)`.
        outputs: number of outputs.
        fc_units: units of an `fc` or `dense` that names none.
        fc_activation: activation of `fc`.
    """
    options = {"fc_units": fc_units, "fc_activation": fc_activation, "outputs": outputs or "?"}
    parts = ["x".join(str(size or "?") for size in features) if features else "features"]
    for t in parse(text, pooled=features is not None and len(features) == 1):
        parts.append(_label(t, options))
        if t.kind.pools and features:
            parts.append(str(t.kind.pools(features) or "?"))
    places = placement(text)
    return " -> ".join(parts) + (f"  [{', '.join(places)}]" if places else "")


def _label(t: Token, options: Mapping[str, Any]) -> str:
    arguments = [t.kind.label.format(**options)] if t.kind.label else []
    if t.kind.number:
        number = t.number if t.number is not None else options[t.kind.number.option]
        arguments.insert(0, _digits(number))
    arguments += [f"no {part}" for part in sorted(t.left_out)]
    return t.kind.name + (f"({', '.join(arguments)})" if arguments else "")


def parameters(text: str, features: Sequence[int], outputs: int, *, fc_units: int = 256) -> int:
    """How many numbers the head's layers hold: trained ones and moving averages, as `count_params()` counts.

    Args:
        text: the head.
        features: shape of the features, `(height, width, channels)` or `(channels,)`.
        outputs: number of outputs.
        fc_units: units of an `fc` or `dense` that names none.

    Raises:
        HeadError: the text is no head, or cannot stand on such features.
    """
    width, total = features[-1], 0
    for t in parse(text, pooled=len(features) == 1):
        number = {"out": outputs}.get(t.kind.name, fc_units if t.number is None else t.number)
        total += t.kind.weights(width, number, t.left_out)
        if t.kind.pools:
            width = t.kind.pools(features)
        elif t.kind.name in ("fc", "dense", "out"):
            width = number
    return total
