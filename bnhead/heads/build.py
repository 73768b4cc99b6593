"""The layers of the tokens; putting a head on a feature map, and reading it back from a model."""

import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import keras
from keras import layers

from bnhead import graph, seeds
from bnhead import layers as ours
from bnhead.errors import UsageError
from bnhead.heads.grammar import Head, Token, parse, spell
from bnhead.heads.tokens import ACTIVATIONS, KINDS, HeadError
from bnhead.layers.constants import EPSILON, MOMENTUM


def _dense(initial: Callable, *, seed: int | None, **arguments) -> layers.Dense:
    return layers.Dense(kernel_initializer=initial(seed), **arguments)


def _catpool(name: str) -> Callable:
    largest = layers.GlobalMaxPooling2D(name=f"{name}_max")
    average = layers.GlobalAveragePooling2D(name=f"{name}_average")
    both = layers.Concatenate(name=name)
    return lambda x: both([largest(x), average(x)])  # fastai's order


_BATCH_NORM = "momentum", "epsilon", "dtype"
# Token -> what makes its layer, and the arguments of it that `apply` knows besides the layer's name, the
# token's number and the parts that are left out.
LAYERS: dict[str, tuple[Callable, *tuple[str, ...]]] = {
    "gap": (layers.GlobalAveragePooling2D,),
    "gmp": (layers.GlobalMaxPooling2D,),
    "catpool": (_catpool,),
    "gem": (ours.GeMPooling2D,),
    "flatten": (layers.Flatten,),
    "fc": (partial(_dense, keras.initializers.HeNormal), "seed", "activation"),
    "dense": (partial(_dense, keras.initializers.GlorotUniform), "seed"),
    # float32 also under mixed precision: the loss needs the logits' full range
    "out": (partial(_dense, keras.initializers.GlorotUniform, dtype="float32"), "seed", "units"),
    "bn": (ours.BatchNormalization, *_BATCH_NORM),
    "gbn": (ours.GhostBatchNormalization, *_BATCH_NORM),
    "brn": (ours.BatchRenormalization, *_BATCH_NORM, "steps"),
    "fbn": (ours.FrozenBatchNormalization, *_BATCH_NORM),
    "center": (ours.BatchCentering, *_BATCH_NORM),
    "scale": (ours.BatchScaling, *_BATCH_NORM),
    "noise": (ours.BatchNoise, *_BATCH_NORM),
    "ln": (layers.LayerNormalization, "epsilon"),
    "rms": (layers.RMSNormalization, "epsilon"),
    "gn": (layers.GroupNormalization, "epsilon"),
    "l2": (ours.L2Normalization,),
    "dropout": (layers.Dropout, "seed"),
    "cdropout": (ours.ClassConditionalDropout, "seed", "class_counts"),
    **{token: (partial(layers.Activation, name),) for token, name in ACTIVATIONS.items()},
}


def apply(
    head: str | Head,
    features: keras.KerasTensor,
    outputs: int,
    *,
    fc_units: int = 256,
    fc_activation: str = "relu",
    renorm_steps: int = 40_000,
    class_counts: Sequence[int] | None = None,
    labels: keras.KerasTensor | None = None,
    seed: int | None = None,
) -> keras.KerasTensor:
    """Puts a head on a feature map.

    The layers are called `head_<token>`, a repeated token's `head_<token>_2` and so on. Every layer draws its
    initial weights (and dropout its masks) from a stream of its own, so two heads with the same seed share
    the weights of all layers that have the same name and shape.

    Args:
        head: its text, such as `"bn_fc"`, or a preset's name, see the package's docstring for the grammar; or
            a parsed head.
        features: Keras tensor `(batch, height, width, channels)`, or `(batch, channels)` from a net that
            ends in a vector.
        outputs: number of outputs: classes, labels of a multi-label task, or numbers to predict.
        fc_units: units of an `fc` or `dense` that names none.
        fc_activation: name of the activation of `fc`.
        renorm_steps: training steps after which `brn` corrects within its final bounds.
        class_counts: training examples of each class, for `cdropout`.
        labels: Keras tensor of the labels, `(batch,)` class numbers or `(batch, classes)` zeros and ones, for
            `cdropout`: an input of the model, see `inference`.
        seed: seed of the head's random streams; None draws fresh ones.

    Returns:
        Keras tensor `(batch, outputs)`, the logits (or the predicted numbers), without activation, float32.

    Raises:
        HeadError: the text is no head, or does not fit the features or what else is given.
        UsageError: `outputs` is no number of outputs, or Keras is set to channels_first.
    """
    head = parse(head)
    if len(features.shape) not in (2, 4):
        shape = tuple(features.shape)
        raise HeadError(f"head {head.text!r}: features must have rank 2 or 4, got shape {shape}")
    if keras.config.image_data_format() != "channels_last":
        raise UsageError(
            f"head {head.text!r} needs Keras' image data format channels_last, got channels_first"
        )
    if isinstance(outputs, bool) or not hasattr(outputs, "__index__") or operator.index(outputs) < 1:
        raise UsageError(
            f"outputs must be a whole number of at least 1 for head {head.text!r}, got {outputs!r}"
        )
    known = {
        "units": int(outputs),
        "activation": fc_activation,
        "momentum": MOMENTUM,
        "epsilon": EPSILON,
        "dtype": None,  # the global policy's
        "steps": renorm_steps,
        "class_counts": class_counts,
    }
    seen: Counter[str] = Counter()
    x = features
    for t in head.on(features.shape[1:]):
        if t.kind.reads_labels and labels is None:
            raise HeadError(
                f"head token '{t}': labels must be a Keras tensor, an input of the model, got None"
            )
        if t.kind.reads_labels and class_counts is None:
            raise HeadError(f"head token '{t}': class_counts must be the training examples of each class")
        number = fc_units if t.number is None else t.number
        if x.shape[-1] is not None:
            t.kind.weights(x.shape[-1], number, t.left_out)  # for its error about a width that cannot be
        seen[t.kind.name] += 1
        name = f"head_{t.kind.name}" + (f"_{seen[t.kind.name]}" if seen[t.kind.name] > 1 else "")
        known["seed"] = None if seed is None else seeds.stream(seed, "head", name)
        make, *wanted = LAYERS[t.kind.name]
        arguments = {argument: known[argument] for argument in wanted}
        if t.kind.number:
            arguments[t.kind.number.attribute] = number
        for part in t.left_out:
            arguments |= t.kind.parts[part]
        layer = make(name=name, **arguments)
        x = layer(x, labels) if t.kind.reads_labels else layer(x)
        if t.kind.name == "out":
            known["dtype"] = "float32"  # a norm on the logits keeps them in full range
    return x


def attach(
    head: str | Head | None,
    inputs: keras.KerasTensor,
    features: keras.KerasTensor,
    outputs: int | None,
    *,
    name: str,
    seed: int | None = None,
    **options,
) -> keras.Model:
    """The model from `inputs` to the head's logits, or to the bare features when `head` is None.

    Every backbone builder ends with this call. `options` are `apply`'s other keyword arguments. With a head
    that reads labels (`cdropout`) the model has a second input called `label`, `(batch,)` int32, unless
    `labels` says otherwise: fit it on `((images, labels), labels)`, and predict with `inference(model)`.

    Raises:
        UsageError: a head without `outputs`, or `outputs` or an option without a head.
    """
    if head is None:
        meant_for_a_head = {**options, **({} if outputs is None else {"outputs": outputs})}
        if meant_for_a_head:
            raise UsageError(f"{next(iter(meant_for_a_head))} needs a head, such as head='fc'; got head=None")
        return keras.Model(inputs, features, name=name)
    head = parse(head)
    labels = options.pop("labels", None)
    labels = label_input(head) if labels is None else labels
    logits = apply(head, features, outputs, labels=labels, seed=seed, **options)
    return keras.Model(inputs if labels is None else [inputs, labels], logits, name=name)


def label_input(head: Head, name: str = "label") -> keras.KerasTensor | None:
    """An input for the labels, `(batch,)` int32; None for a head that reads none."""
    return keras.Input((), dtype="int32", name=name, optional=True) if head.needs_labels else None


def inference(model: keras.Model) -> keras.Model:
    """`model` without its label input: images in, logits out, with the same layers and weights.

    A model that reads no labels is returned as it is.
    """
    if not any(isinstance(layer, ours.ClassConditionalDropout) for layer in model.layers):
        return model

    def perform(operation, *arguments, **keywords):
        dropped = isinstance(operation, ours.ClassConditionalDropout)
        return arguments[0] if dropped else operation(*arguments, **keywords)

    inputs = graph.new_inputs(model)
    outputs = keras.tree.pack_sequence_as(model._outputs_struct, graph.replay(model, inputs, perform))
    return keras.Model(graph.used_inputs(model, inputs, outputs), outputs, name=model.name)


def feature_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Shape, without the batch axis, of the features that `model`'s head was put on.

    Raises:
        ValueError: the model has no layer called `head_...`.
    """
    return tuple(head_calls(model)[0].inputs[0].shape[1:])


def head_calls(model: keras.Model) -> list:
    """The calls of the layers that `apply` made, by their names, in order.

    Raises:
        ValueError: there is none.
    """
    made = [call for call in graph.calls(model) if is_of_a_head(call.operation.name)]
    if not made:
        raise ValueError(
            f"model {model.name!r} has no layer called head_...: it was not built by bnhead.heads"
        )
    return made


def is_of_a_head(name: str) -> bool:
    """Whether a layer's name is one that `apply` gives: `head_<token>`, `head_<token>_2`."""
    match = _NAME.fullmatch(name)
    return bool(match and match[1] in KINDS) or name in _HALVES


_NAME = re.compile(r"head_([a-z0-9]+?)(_\d+)?")
_HALVES = ("head_catpool_max", "head_catpool_average")


def read(model: keras.Model) -> str:
    """The text of a model's head, read from its layers' names and settings, all numbers written out.

    For `model = resnet20(shape, head="bn_fc", outputs=10)` it is `"bn_fc256"`. What no text says is not in it
    (the activation of `fc`, the weights).

    Raises:
        ValueError: the model's head was not built by bnhead.heads.
    """
    tokens = []
    for call in head_calls(model):
        if call.operation.name in _HALVES:
            continue
        kind, layer = KINDS[_NAME.fullmatch(call.operation.name)[1]], call.operation
        if kind.normalises_batch and type(layer).__module__.startswith("keras."):
            kind = KINDS["bn"]  # what `bnhead.layers.plain` makes of all of them
        number = getattr(layer, kind.number.attribute) if kind.number else None
        left_out = {
            part
            for part, settings in kind.parts.items()
            if all(getattr(layer, key) == value for key, value in settings.items())
        }
        tokens.append(Token(kind, number, frozenset(left_out)))
    if not any(t.kind.name == "out" for t in tokens):
        raise ValueError(f"model {model.name!r} has no layer called head_out: its head is not bnhead.heads'")
    return spell(tokens)
