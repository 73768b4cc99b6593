"""The head grammar: `parse` makes a `Head` of a text; a `Head` answers everything that needs no Keras."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from bnhead.errors import nearest
from bnhead.heads.presets import PRESETS
from bnhead.heads.tokens import ACTIVATIONS, TOKENS, HeadError, TokenType

if TYPE_CHECKING:
    import keras

PLACEMENTS = {  # where the four batch norms that are all called final act
    "P0": "on the feature map, before the pooling",
    "P1": "on the pooled features",
    "P2": "between the FC and the output layer",
    "P3": "on the logits",
}
_PARTS = {"beta": "offset", "bias": "bias", "gamma": "gain"}
LONGEST_NUMBER = 30  # digits; Python refuses to read integers of more than 4,300


@dataclass(frozen=True)
class Token:
    """One token of a parsed head."""

    type: TokenType
    number: int | float | None = None
    left_out: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The token without number and parts: `fc` for `fc512-bias`."""
        return self.type.name

    def __str__(self) -> str:
        number = "" if self.number is None else _decimal(self.number)
        return self.name + number + "".join(f"-{part}" for part in sorted(self.left_out))


@dataclass(frozen=True)
class Head:
    """A parsed head, made by `parse`. Two heads are equal if their canonical texts are.

    Attributes:
        text: the canonical text, the same for all texts of a head. It omits a leading `gap`, and a closing
            `out` after an `fc` or `dense`: `gap_bn_fc_out` and `bn_fc` are both `bn_fc`, `bn` is `bn_out`,
            `fc512` stays `fc512`. A preset's name becomes its text.
        tokens: from a feature map to the output, with pooling and output layer. For features without height
            and width use `on(shape)`.
        words: the tokens as written, for error messages.
        pooling: index of the pooling in `words`; None if the text has none.
    """

    text: str
    tokens: tuple[Token, ...] = field(compare=False, repr=False)
    words: tuple[str, ...] = field(compare=False, repr=False)
    pooling: int | None = field(compare=False, repr=False)

    def __reduce__(self):
        # A TokenType holds lambdas, which cannot be pickled, but a config and its head go to other processes.
        return parse, ("_".join(self.words),)

    @property
    def placement(self) -> tuple[str, ...]:
        """Placements of the head's batch norms, in order: `("P1",)` for `bn_fc`, `()` for `fc`.

        Ghost, renorm and frozen batch norms count, and so do centring, scaling and noise.
        """
        placements, current = [], "P0"
        for t in self.tokens:
            if t.type.normalises_batch:
                placements.append(current)
            elif t.type.pools:
                current = "P1"
            elif t.type.linear:
                current = "P3" if t.name == "out" else "P2"
        return tuple(placements)

    @property
    def leading_pooling(self) -> str:
        """The first token if it is a pooling without weights, else ""."""
        first = self.tokens[0]
        has_weights = first.type.weights(1, 0, frozenset()) > 0
        return str(first) if first.type.pools and not has_weights else ""

    @property
    def counterpart(self) -> "Head":
        """The head to compare with: without its batch norms or, if it has none, with one at P1."""
        without_norms = [t for t in self.tokens if not t.type.normalises_batch]
        if len(without_norms) == len(self.tokens):
            pooling = next(i for i, t in enumerate(without_norms) if t.type.pools)
            without_norms.insert(pooling + 1, Token(TOKENS["bn"]))
        return parse(spell(without_norms))

    @property
    def needs_labels(self) -> bool:
        """Whether the head reads the labels in training, as a second input of the model."""
        return any(t.type.reads_labels for t in self.tokens)

    @property
    def has_activation(self) -> bool:
        """Whether the head has an activation: that of an FC layer, or an activation token."""
        return any(t.name == "fc" or t.name in ACTIVATIONS for t in self.tokens)

    def on(self, features: Sequence[int | None]) -> tuple[Token, ...]:
        """The tokens for features of a shape: without pooling for a vector, `(channels,)`.

        Raises:
            HeadError: the text pools a vector.
        """
        if len(features) != 1:
            return self.tokens
        if self.pooling is not None:
            raise _marked_error(
                self.words, self.pooling, "has nothing to pool: the features are already a vector"
            )
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
                `(channels,)`; None omits the sizes.
            outputs: number of outputs.
            fc_units: units of an `fc` or `dense` without a number.
            fc_activation: activation of `fc`.
        """
        options = {"fc_units": fc_units, "fc_activation": fc_activation, "outputs": outputs or "?"}
        steps = ["x".join(str(size or "?") for size in features) if features else "features"]
        for t in self.on(features or ()):
            details = []
            if t.type.number:
                details.append(_decimal(options[t.type.number.option] if t.number is None else t.number))
            if t.type.label:
                details.append(t.type.label.format(**options))
            details += [f"no {part}" for part in sorted(t.left_out)]
            steps.append(t.name + (f"({', '.join(details)})" if details else ""))
            if t.type.pools and features:
                steps.append(str(t.type.pools(features) or "?"))
        return " -> ".join(steps) + (f"  [{', '.join(self.placement)}]" if self.placement else "")

    def explain(self) -> str:
        """The head in words: `batch norm (P1, on the pooled features), then an FC layer`.

        Average pooling, and an output layer that follows an FC layer, go without saying.
        """
        phrases, places = [], iter(self.placement)
        has_fc = any(t.type.linear for t in self.tokens[:-1])
        for t in self.tokens:
            if str(t) == "gap" or (has_fc and t is self.tokens[-1] and str(t) == "out"):
                continue
            number = "" if t.number is None else _decimal(t.number)
            phrase = t.type.meaning.format(number=number) or t.name
            if t.type.linear and number:
                phrase += f" of {number} units"
            if t.left_out:
                phrase += f" without {' and '.join(_PARTS[part] for part in sorted(t.left_out))}"
            if t.type.normalises_batch:
                position = next(places)
                phrase += f" ({position}, {PLACEMENTS[position]})"
            phrases.append(phrase)
        return ", then ".join(phrases)

    def parameters(self, features: Sequence[int], outputs: int, *, fc_units: int = 256) -> int:
        """Number of the head's weights, moving averages included, as `count_params()`.

        Args:
            features: shape of the features, `(height, width, channels)` or `(channels,)`.
            outputs: number of outputs.
            fc_units: units of an `fc` or `dense` without a number.

        Raises:
            HeadError: the head does not fit the features.
        """
        width, total = features[-1], 0
        for t in self.on(features):
            number = outputs if t.name == "out" else fc_units if t.number is None else t.number
            total += t.type.weights(width, number, t.left_out)
            if t.type.pools:
                width = t.type.pools(features)
            elif t.type.linear:
                width = number
        return total

    def apply(self, features: "keras.KerasTensor", outputs: int, **options) -> "keras.KerasTensor":
        """Puts the head on a feature map; arguments, result and errors as in `bnhead.heads.apply`."""
        from bnhead.heads.build import apply  # imports Keras

        return apply(self, features, outputs, **options)


# ---- text -> tokens -----------------------------------------------------------------------------


def parse(head: str | Head) -> Head:
    """The head of a text; a `Head` is returned unchanged.

    Args:
        head: tokens joined by `_`, such as `"bn_fc512_dropout0.5"`, or a preset's name.

    Raises:
        HeadError: an invalid text; the message marks the failing token and gives the rule and the nearest
            valid token.
    """
    if isinstance(head, Head):
        return head
    if not isinstance(head, str) or not head:
        raise HeadError(f"head must be tokens joined by '_', such as 'bn_fc', got {head!r}")
    words = (PRESETS[head].text if head in PRESETS else head).split("_")
    tokens = [_parse_token(words, i) for i in range(len(words))]
    poolings = [i for i, t in enumerate(tokens) if t.type.pools]
    outputs = [i for i, t in enumerate(tokens) if t.name == "out"]
    for repeated in poolings[1:] + outputs[1:]:
        layer = "output layer" if repeated in outputs else "pooling"
        raise _marked_error(words, repeated, f"is a second {layer}")
    for i, t in enumerate(tokens):
        if poolings and i < poolings[0] and t.type.linear:
            raise _marked_error(words, i, f"needs a vector; put it after the pooling {words[poolings[0]]!r}")
        if outputs and i > outputs[0] and not t.type.after_output:
            rule = "cannot follow the output layer; only a batch norm or a part of one can"
            raise _marked_error(words, i, rule)
    if not poolings:
        tokens.insert(0, Token(TOKENS["gap"]))
    if not outputs:
        tokens.append(Token(TOKENS["out"]))
    return Head(spell(tokens), tuple(tokens), tuple(words), poolings[0] if poolings else None)


def _parse_token(words: Sequence[str], i: int) -> Token:
    base, *parts = words[i].split("-")
    # Longest name first: `relu6` is a token, not `relu` with a number.
    name = base if base in TOKENS else base.rstrip("0123456789.")
    digits = base[len(name) :]
    if digits and not re.fullmatch(r"[0-9]*\.?[0-9]+", digits):
        name, digits = base, ""
    if words[i] in PRESETS:
        raise _marked_error(words, i, "is the name of a head and must stand alone; write out its text")
    if name not in TOKENS:
        longest_first = "|".join(sorted(TOKENS, key=len, reverse=True))
        joined = re.findall(rf"(?:{longest_first})[0-9.]*", base)  # "bnfc" -> "bn", "fc"
        hint = nearest("_".join(words), PRESETS, cutoff=0.75) or nearest(name.rstrip("0123456789."), TOKENS)
        if "".join(joined) == base:
            hint = f"; did you mean {'_'.join(joined) + words[i][len(base) :]!r}?"
        raise _marked_error(words, i, f"is not a token{hint}")
    token_type, value = TOKENS[name], None
    for part in parts:
        if part not in token_type.parts:
            parts_it_has = " and ".join(f"'{name}-{p}'" for p in token_type.parts)
            only = f", only {parts_it_has}" if parts_it_has else ""
            raise _marked_error(words, i, f"has no part {part!r} to leave out{only}")
        if parts.count(part) > 1:
            raise _marked_error(words, i, f"leaves out {part!r} twice")
    number = token_type.number
    if digits and not number:
        raise _marked_error(words, i, f"takes no number; write '{name}'")
    if number and not digits and not number.option:
        raise _marked_error(words, i, f"needs its {number.name}, as in '{token_type.example}'")
    if digits:
        rule = f"needs {number.rule} as its {number.name}, as in '{token_type.example}'"
        if len(digits) > LONGEST_NUMBER or (number.integer and not re.fullmatch("[1-9][0-9]*", digits)):
            raise _marked_error(words, i, rule)
        value = int(digits) if number.integer else float(digits)
        if not number.holds(value):
            raise _marked_error(words, i, rule)
    return Token(token_type, value, frozenset(parts))


def _marked_error(words: Sequence[str], i: int, rule: str) -> HeadError:
    text = "_".join([*words[:i], f">>{words[i]}<<", *words[i + 1 :]])
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    rule = rule if rule.endswith("?") else f"{rule};"
    return HeadError(f"head '{text}': {words[i]!r} {rule} `bnhead heads` lists tokens and heads")


# ---- tokens -> text -----------------------------------------------------------------------------


def spell(tokens: Sequence[Token]) -> str:
    """The canonical text of tokens, without a leading `gap` and an `out` that goes without saying."""
    tokens = list(tokens)
    if tokens[0].name == "gap":
        del tokens[0]
    if str(tokens[-1]) == "out" and any(t.type.linear for t in tokens[:-1]):
        del tokens[-1]
    return "_".join(map(str, tokens))


def _decimal(number: int | float) -> str:
    """The number as the grammar reads it: all its digits and no exponent."""
    return format(Decimal(repr(number)), "f")


# ---- the same, from a text ----------------------------------------------------------------------


def canonical(text: str) -> str:
    """The canonical text of a head, `Head.text`."""
    return parse(text).text


def placement(text: str) -> tuple[str, ...]:
    """Placements of the head's batch norms, `Head.placement`: `("P1",)` for `bn_fc`, `()` for `fc`."""
    return parse(text).placement


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
