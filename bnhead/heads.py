"""Heads: everything after the backbone's feature map, written as a short text.

A head is tokens joined by `_`, read from the features to the output: `bn_fc` is a batch norm on the pooled
features, a fully connected layer and the output layer. Pooling (`gap`) and the output layer (`out`) are put
in where the text leaves them out.

    token                          layer                                          number
    gap gmp catpool flatten        feature map -> vector                          none
    fc                             Dense with an activation (`fc_activation`)     units, else `fc_units`
    dense                          Dense without activation                       units, else `fc_units`
    bn                             batch norm                                     none
    dropout                        dropout                                        rate, required
    out                            the output layer: Dense, logits                none

A token before the pooling works on the feature map: `bn_gap_fc`. Four places are all called "final batch
norm" by somebody; here they have names (`placement`):

    P0  before the pooling              bn_gap_fc
    P1  on the pooled features          bn_fc, bn_out
    P2  between the FC and the output   fc_bn
    P3  on the logits                   fc_out_bn

Texts are parsed and described without Keras; only `apply` imports it. To add a token, write one function
under `@token`.
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bnhead import seeds
from bnhead.errors import UsageError, nearest

if TYPE_CHECKING:
    import keras


class HeadError(UsageError):
    """The text of a head that cannot be built; the message marks the failing token."""


@dataclass(frozen=True)
class Kind:
    """What a token's name means.

    Attributes:
        build: `(x, number, context) -> x`, the token's layers on a Keras tensor.
        pools: whether it turns a feature map into a vector.
        width: function from the feature map's shape to the vector's width, None where that is unknown.
        vector_only: whether it needs a vector, that is, stands after the pooling.
        number: what its number is, "units" or "rate"; empty for a token without one.
        default: the option its number comes from when the text has none; empty when the text must have it.
        label: how `describe` writes it, a format string over the number and the options.
        normalises_batch: whether it is a batch norm, which `placement` looks for.
    """

    name: str
    build: Callable
    pools: bool = False
    vector_only: bool = False
    number: str = ""
    default: str = ""
    label: str = ""
    width: Callable[[Sequence[int]], int | None] | None = None
    normalises_batch: bool = False


@dataclass(frozen=True)
class Token:
    """One token of a parsed head."""

    kind: Kind
    number: int | float | None = None

    def __str__(self) -> str:
        return self.kind.name + ("" if self.number is None else _digits(self.number))


@dataclass(frozen=True)
class Context:
    """What a token's function may use besides its input: Keras' layers, its own layer name, the options.

    `on_logits` is whether the output layer stands before it: logits stay float32 under mixed precision.
    """

    layers: Any
    name: str
    outputs: int
    on_logits: bool
    fc_units: int
    fc_activation: str
    seed: int | None

    def stream(self) -> int | None:
        """Seed of this layer's own random stream; None (a fresh one each time) when the head has no seed."""
        return None if self.seed is None else seeds.stream(self.seed, "head", self.name)

    def initial(self, scheme: str) -> "keras.initializers.Initializer":
        import keras

        return keras.initializers.get({"class_name": scheme, "config": {"seed": self.stream()}})


KINDS: dict[str, Kind] = {}


def token(name: str, **rules) -> Callable:
    """Adds the decorated function to the grammar as the token `name`; `rules` are the fields of `Kind`."""

    def register(build: Callable) -> Callable:
        KINDS[name] = Kind(name, build, **rules)
        return build

    return register


# ---- the tokens ---------------------------------------------------------------------------------


@token("gap", pools=True, width=lambda shape: shape[-1])
def _gap(x, _, context):
    return context.layers.GlobalAveragePooling2D(name=context.name)(x)


@token("gmp", pools=True, width=lambda shape: shape[-1])
def _gmp(x, _, context):
    return context.layers.GlobalMaxPooling2D(name=context.name)(x)


@token("catpool", pools=True, width=lambda shape: 2 * shape[-1])
def _catpool(x, _, context):  # fastai's order: maximum first, average second
    largest = context.layers.GlobalMaxPooling2D(name=f"{context.name}_max")(x)
    average = context.layers.GlobalAveragePooling2D(name=f"{context.name}_average")(x)
    return context.layers.Concatenate(name=context.name)([largest, average])


@token("flatten", pools=True, width=lambda shape: None if None in shape else math.prod(shape))
def _flatten(x, _, context):
    return context.layers.Flatten(name=context.name)(x)


@token("fc", vector_only=True, number="units", default="fc_units", label="fc({number}, {fc_activation})")
def _fc(x, units, context):
    kernel = context.initial("HeNormal")
    return context.layers.Dense(units, context.fc_activation, kernel_initializer=kernel, name=context.name)(x)


@token("dense", vector_only=True, number="units", default="fc_units")
def _dense(x, units, context):
    kernel = context.initial("GlorotUniform")
    return context.layers.Dense(units, kernel_initializer=kernel, name=context.name)(x)


@token("bn", normalises_batch=True)
def _bn(x, _, context):
    from bnhead.layers import batch_norm

    return batch_norm(context.name, dtype="float32" if context.on_logits else None)(x)


@token("dropout", number="rate")
def _dropout(x, rate, context):
    return context.layers.Dropout(rate, seed=context.stream(), name=context.name)(x)


@token("out", vector_only=True, label="out({outputs})")
def _out(x, _, context):  # float32 also under mixed precision: the loss needs the logits' full range
    kernel = context.initial("GlorotUniform")
    return context.layers.Dense(
        context.outputs, kernel_initializer=kernel, dtype="float32", name=context.name
    )(x)


# ---- text -> tokens -----------------------------------------------------------------------------


def parse(text: str, *, pooled: bool = False) -> tuple[Token, ...]:
    """The head's tokens, with the pooling and the output layer put in where the text leaves them out.

    Args:
        text: tokens joined by `_`, such as `"bn_fc512_dropout0.5"`.
        pooled: whether the features are a vector already, so that no pooling is put in and none is allowed.

    Raises:
        HeadError: with the failing token marked, the rule it breaks and the nearest valid token.
    """
    if not isinstance(text, str) or not text:
        raise HeadError(f"head must be tokens joined by '_', such as 'bn_fc', got {text!r}")
    words = text.split("_")
    tokens = [_read(words, i) for i in range(len(words))]
    pooling = [i for i, t in enumerate(tokens) if t.kind.pools]
    output = [i for i, t in enumerate(tokens) if t.kind.name == "out"]
    for extra in pooling[1:] + output[1:]:
        raise _error(words, extra, f"is a second {'output layer' if extra in output else 'pooling'}")
    if pooled and pooling:
        raise _error(words, pooling[0], "has nothing to pool, the features are a vector already")
    for i, t in enumerate(tokens):
        if pooling and i < pooling[0] and t.kind.vector_only:
            raise _error(words, i, f"needs a vector, so it stands after the pooling {words[pooling[0]]!r}")
        if output and i > output[0] and not t.kind.normalises_batch:
            raise _error(words, i, "stands after the output layer, where only a norm can stand")
    if not pooling and not pooled:
        tokens.insert(0, Token(KINDS["gap"]))
    if not output:
        tokens.append(Token(KINDS["out"]))
    return tuple(tokens)


def _read(words: Sequence[str], i: int) -> Token:
    word = words[i]
    match = re.fullmatch(r"([a-z][a-z0-9]*?)(\d*\.?\d+)?", word)
    name, number = (word, None) if word in KINDS or not match else match.groups()
    if name not in KINDS:
        hint = nearest(name.rstrip("0123456789."), KINDS)
        raise _error(words, i, f"is no token{hint}")
    kind = KINDS[name]
    if number is None:
        if kind.number and not kind.default:
            raise _error(words, i, f"needs its {kind.number}, as in '{name}0.5'")
        return Token(kind)
    if not kind.number:
        raise _error(words, i, f"takes no number; write '{name}'")
    if kind.number == "units":
        if not re.fullmatch(r"[1-9]\d*", number):
            raise _error(words, i, f"needs units of at least 1, a whole number, as in '{name}256'")
        return Token(kind, int(number))
    if not 0 < float(number) < 1:
        raise _error(words, i, f"needs a rate between 0 and 1, as in '{name}0.5'")
    return Token(kind, float(number))


def _error(words: Sequence[str], i: int, rule: str) -> HeadError:
    marked = "_".join([*words[:i], f">>{words[i]}<<", *words[i + 1 :]])
    return HeadError(f"head '{marked}': {words[i]!r} {rule} (tokens: {' '.join(sorted(KINDS))})")


def _digits(number: int | float) -> str:
    """The number as the grammar reads it: all its digits and no exponent."""
    return format(Decimal(repr(number)), "f")


# ---- tokens -> text -----------------------------------------------------------------------------


def canonical(text: str) -> str:
    """The one spelling that all texts of the same head share.

    What is put in anyway is left out: a leading `gap`, and a closing `out` after an `fc` or `dense`.
    `gap_bn_fc_out` and `bn_fc` are both `bn_fc`; `bn` is `bn_out`; `fc512` stays `fc512`.
    """
    tokens = list(parse(text))
    if tokens[0].kind.name == "gap":
        del tokens[0]
    if tokens[-1].kind.name == "out" and any(t.kind.name in ("fc", "dense") for t in tokens):
        del tokens[-1]
    return "_".join(map(str, tokens))


def placement(text: str) -> tuple[str, ...]:
    """Where the head's batch norms stand, in order: `("P1",)` for `bn_fc`, `()` for `fc`."""
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


def describe(
    text: str,
    features: Sequence[int] | None = None,
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
        number = options.get(t.kind.default, "") if t.number is None else t.number
        default = f"{t.kind.name}({_digits(number)})" if number else t.kind.name
        parts.append(t.kind.label.format(number=number, **options) if t.kind.label else default)
        if t.kind.pools and features:
            parts.append(str(t.kind.width(features) or "?"))
    places = placement(text)
    return " -> ".join(parts) + (f"  [{', '.join(places)}]" if places else "")


# ---- tokens -> layers ---------------------------------------------------------------------------


def apply(
    text: str,
    features: "keras.KerasTensor",
    outputs: int,
    *,
    fc_units: int = 256,
    fc_activation: str = "relu",
    seed: int | None = None,
) -> "keras.KerasTensor":
    """Puts a head on a feature map.

    The layers are called `head_<token>`, a repeated token's `head_<token>_2` and so on. Every layer draws its
    initial weights (and dropout its masks) from a stream of its own, so two heads with the same seed share
    the weights of all layers that have the same name and shape.

    Args:
        text: the head, such as `"bn_fc"`; see the module's docstring for the grammar.
        features: Keras tensor `(batch, height, width, channels)`, or `(batch, channels)` from a net that
            ends in a vector.
        outputs: number of outputs, such as the number of classes.
        fc_units: units of an `fc` or `dense` that names none.
        fc_activation: name of the activation of `fc`.
        seed: seed of the head's random streams; None draws fresh ones.

    Returns:
        Keras tensor `(batch, outputs)`, the logits, without activation, float32.

    Raises:
        HeadError: the text is no head, or does not fit the features' rank.
        UsageError: `outputs` is no number of outputs, or Keras is set to channels_first.
    """
    import keras

    rank = len(features.shape)
    if rank not in (2, 4):
        raise HeadError(f"head {text!r}: features must have rank 2 or 4, got shape {tuple(features.shape)}")
    if keras.config.image_data_format() != "channels_last":
        raise UsageError(f"head {text!r} needs Keras' image data format channels_last, got channels_first")
    if isinstance(outputs, bool) or not hasattr(outputs, "__index__") or operator.index(outputs) < 1:
        raise UsageError(f"outputs must be a whole number of at least 1 for head {text!r}, got {outputs!r}")
    options = {"fc_units": fc_units, "fc_activation": fc_activation}
    seen: dict[str, int] = {}
    x = features
    for t in parse(text, pooled=rank == 2):
        count = seen[t.kind.name] = seen.get(t.kind.name, 0) + 1
        name = f"head_{t.kind.name}" + (f"_{count}" if count > 1 else "")
        number = options.get(t.kind.default) if t.number is None else t.number
        context = Context(keras.layers, name, int(outputs), "out" in seen, seed=seed, **options)
        x = t.kind.build(x, number, context)
    return x


def attach(
    head: str | None,
    inputs: "keras.KerasTensor",
    features: "keras.KerasTensor",
    outputs: int | None,
    *,
    name: str,
    seed: int | None = None,
    **options,
) -> "keras.Model":
    """The model from `inputs` to the head's logits, or to the bare features when `head` is None.

    Every backbone builder ends with this call. `options` are `apply`'s other keyword arguments.

    Raises:
        UsageError: a head without `outputs`, or `outputs` or an option without a head.
    """
    import keras

    if head is None:
        meant_for_a_head = {**options, **({} if outputs is None else {"outputs": outputs})}
        if meant_for_a_head:
            raise UsageError(f"{next(iter(meant_for_a_head))} needs a head, such as head='fc'; got head=None")
        return keras.Model(inputs, features, name=name)
    return keras.Model(inputs, apply(head, features, outputs, seed=seed, **options), name=name)


def feature_shape(model: "keras.Model") -> tuple[int | None, ...]:
    """Shape, without the batch axis, of the features that `model`'s head was put on."""
    first = next((layer for layer in model.layers if layer.name.startswith("head_")), None)
    if first is None:
        raise ValueError(
            f"model {model.name!r} has no layer called head_...: it was not built by bnhead.heads"
        )
    return tuple(first.input.shape[1:])
