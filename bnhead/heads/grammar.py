"""The head grammar: a text is parsed once, into a `Head`, which is all that is known without building it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bnhead.errors import nearest
from bnhead.heads.presets import PRESETS
from bnhead.heads.tokens import KINDS, HeadError, Kind

if TYPE_CHECKING:
    import keras

LONGEST_NUMBER = 30  # digits; Python itself refuses whole numbers of more than 4,300


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
class Head:
    """A parsed head, made by `parse`. Two heads are equal when their canonical texts are.

    Attributes:
        text: the canonical text, which all texts of the same head share. What is put in anyway is left out: a
            leading `gap`, and a closing `out` after an `fc` or `dense`. `gap_bn_fc_out` and `bn_fc` are both
            `bn_fc`; `bn` is `bn_out`; `fc512` stays `fc512`; a preset's name becomes its text.
        tokens: from a feature map to the output, with the pooling and the output layer put in where the text
            leaves them out. On a vector they are `on(shape)`.
        words: the tokens as written, for messages.
        pooling: which of the words is the pooling; None when it was put in.
    """

    text: str
    tokens: tuple[Token, ...] = field(compare=False, repr=False)
    words: tuple[str, ...] = field(compare=False, repr=False)
    pooling: int | None = field(compare=False, repr=False)

    def __reduce__(self):
        # a config and its head go to other processes, where the functions of a Kind cannot
        return parse, ("_".join(self.words),)

    @property
    def placement(self) -> tuple[str, ...]:
        """Where the head's batch norms stand, in order: `("P1",)` for `bn_fc`, `()` for `fc`.

        Ghost, renorm and frozen batch norms count, and so do centring, scaling and noise, the parts of one.
        """
        places, place = [], "P0"
        for t in self.tokens:
            if t.kind.normalises_batch:
                places.append(place)
            elif t.kind.pools:
                place = "P1"
            elif t.kind.name in ("fc", "dense"):
                place = "P2"
            elif t.kind.name == "out":
                place = "P3"
        return tuple(places)

    @property
    def needs_labels(self) -> bool:
        """Whether the head reads the labels in training, as a second input of the model."""
        return any(t.kind.reads_labels for t in self.tokens)

    def on(self, features: Sequence[int | None]) -> tuple[Token, ...]:
        """The tokens on features of a shape: on a vector, `(channels,)`, there is no pooling.

        Raises:
            HeadError: the text pools a vector.
        """
        if len(features) != 1:
            return self.tokens
        if self.pooling is not None:
            raise _error(self.words, self.pooling, "has nothing to pool, the features are a vector already")
        return self.tokens[1:]

    def describe(
        self,
        features: Sequence[int | None] | None = None,
        outputs: int | None = None,
        *,
        fc_units: int = 256,
        fc_activation: str = "relu",
    ) -> str:
        """The head as one line: `8x8x64 -> gap -> 64 -> bn -> fc(256, relu) -> out(10)  [P1]`.

        Args:
            features: shape of the features without the batch axis, `(height, width, channels)` or
                `(channels,)`; None leaves the sizes out.
            outputs: number of outputs.
            fc_units: units of an `fc` or `dense` that names none.
            fc_activation: activation of `fc`.
        """
        options = {"fc_units": fc_units, "fc_activation": fc_activation, "outputs": outputs or "?"}
        parts = ["x".join(str(size or "?") for size in features) if features else "features"]
        for t in self.on(features or ()):
            parts.append(_label(t, options))
            if t.kind.pools and features:
                parts.append(str(t.kind.pools(features) or "?"))
        return " -> ".join(parts) + (f"  [{', '.join(self.placement)}]" if self.placement else "")

    def parameters(self, features: Sequence[int], outputs: int, *, fc_units: int = 256) -> int:
        """How many numbers the head's layers hold: trained ones and moving averages, as `count_params()`.

        Args:
            features: shape of the features, `(height, width, channels)` or `(channels,)`.
            outputs: number of outputs.
            fc_units: units of an `fc` or `dense` that names none.

        Raises:
            HeadError: the head cannot stand on such features.
        """
        width, total = features[-1], 0
        for t in self.on(features):
            number = {"out": outputs}.get(t.kind.name, fc_units if t.number is None else t.number)
            total += t.kind.weights(width, number, t.left_out)
            if t.kind.pools:
                width = t.kind.pools(features)
            elif t.kind.name in ("fc", "dense", "out"):
                width = number
        return total

    def apply(self, features: "keras.KerasTensor", outputs: int, **options) -> "keras.KerasTensor":
        """Puts the head on a feature map; arguments, result and errors are `bnhead.heads.apply`'s."""
        from bnhead.heads.build import apply  # brings Keras

        return apply(self, features, outputs, **options)


# ---- text -> tokens -----------------------------------------------------------------------------


def parse(head: str | Head) -> Head:
    """The head that a text describes; a `Head` is returned as it is.

    Args:
        head: tokens joined by `_`, such as `"bn_fc512_dropout0.5"`, or a preset's name.

    Raises:
        HeadError: with the failing token marked, the rule it breaks and the nearest valid token.
    """
    if isinstance(head, Head):
        return head
    if not isinstance(head, str) or not head:
        raise HeadError(f"head must be tokens joined by '_', such as 'bn_fc', got {head!r}")
    words = (PRESETS[head].text if head in PRESETS else head).split("_")
    tokens = [_read(words, i) for i in range(len(words))]
    _check_order(words, tokens)
    pooling = next((i for i, t in enumerate(tokens) if t.kind.pools), None)
    if pooling is None:
        tokens.insert(0, Token(KINDS["gap"]))
    if not any(t.kind.name == "out" for t in tokens):
        tokens.append(Token(KINDS["out"]))
    return Head(spell(tokens), tuple(tokens), tuple(words), pooling)


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


def _check_order(words: Sequence[str], tokens: Sequence[Token]) -> None:
    pooling = [i for i, t in enumerate(tokens) if t.kind.pools]
    output = [i for i, t in enumerate(tokens) if t.kind.name == "out"]
    for extra in pooling[1:] + output[1:]:
        raise _error(words, extra, f"is a second {'output layer' if extra in output else 'pooling'}")
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


def _label(t: Token, options: Mapping[str, Any]) -> str:
    arguments = [t.kind.label.format(**options)] if t.kind.label else []
    if t.kind.number:
        number = t.number if t.number is not None else options[t.kind.number.option]
        arguments.insert(0, _digits(number))
    arguments += [f"no {part}" for part in sorted(t.left_out)]
    return t.kind.name + (f"({', '.join(arguments)})" if arguments else "")


# ---- what is asked of a text --------------------------------------------------------------------


def canonical(text: str) -> str:
    """The one spelling that all texts of the same head share, `Head.text`."""
    return parse(text).text


def placement(text: str) -> tuple[str, ...]:
    """Where the head's batch norms stand, `Head.placement`: `("P1",)` for `bn_fc`, `()` for `fc`."""
    return parse(text).placement


def needs_labels(text: str) -> bool:
    """Whether the head reads the labels in training, as a second input of the model."""
    return parse(text).needs_labels


def describe(
    text: str,
    features: Sequence[int | None] | None = None,
    outputs: int | None = None,
    *,
    fc_units: int = 256,
    fc_activation: str = "relu",
) -> str:
    """The head as one line, `Head.describe`: `8x8x64 -> gap -> 64 -> bn -> out(10)  [P1]`."""
    return parse(text).describe(features, outputs, fc_units=fc_units, fc_activation=fc_activation)


def parameters(text: str, features: Sequence[int], outputs: int, *, fc_units: int = 256) -> int:
    """How many numbers the head's layers hold, `Head.parameters`."""
    return parse(text).parameters(features, outputs, fc_units=fc_units)
