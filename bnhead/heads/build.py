"""The layers of the tokens; puts a head on a feature map."""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import keras
from keras import layers

from bnhead import layers as ours, seeds
from bnhead.errors import UsageError
from bnhead.heads.grammar import Head, parse
from bnhead.heads.tokens import ACTIVATIONS, HeadError
from bnhead.layers.normalization import EPSILON, MOMENTUM


def _dense(initializer: Callable, *, seed: int | None, **arguments) -> layers.Dense:
    return layers.Dense(kernel_initializer=initializer(seed), **arguments)


def _catpool(name: str) -> Callable:
    maximum = layers.GlobalMaxPooling2D(name=f"{name}_max")
    average = layers.GlobalAveragePooling2D(name=f"{name}_average")
    concatenate = layers.Concatenate(name=name)
    return lambda x: concatenate([maximum(x), average(x)])  # in fastai's order


_BATCH_NORM = "momentum", "epsilon", "dtype"
# Token -> the function that makes its layer, and the arguments `apply` passes to it besides the layer's name,
# the token's number and the parts left out.
LAYERS: dict[str, tuple[Callable, *tuple[str, ...]]] = {
    "gap": (layers.GlobalAveragePooling2D,),
    "gmp": (layers.GlobalMaxPooling2D,),
    "catpool": (_catpool,),
    "gem": (ours.GeMPooling2D,),
    "flatten": (layers.Flatten,),
    "fc": (partial(_dense, keras.initializers.HeNormal), "seed", "activation"),
    "dense": (partial(_dense, keras.initializers.GlorotUniform), "seed"),
    "out": (partial(_dense, keras.initializers.GlorotUniform), "seed", "units", "dtype"),
    "bn": (ours.BatchNormalization, *_BATCH_NORM),
    "gbn": (ours.GhostBatchNormalization, *_BATCH_NORM),
    "brn": (ours.BatchRenormalization, *_BATCH_NORM, "steps"),
    "fbn": (ours.FrozenBatchNormalization, *_BATCH_NORM),
    "center": (ours.BatchCentering, *_BATCH_NORM),
    "scale": (ours.BatchScaling, *_BATCH_NORM),
    "fcenter": (ours.FrozenCentering, *_BATCH_NORM),
    "fscale": (ours.FrozenScaling, *_BATCH_NORM),
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
    head_bn_epsilon: float = EPSILON,
    head_bn_momentum: float = MOMENTUM,
    renorm_steps: int = 40_000,
    class_counts: Sequence[int] | None = None,
    labels: keras.KerasTensor | None = None,
    norm: ours.RoutedNorm | None = None,
    seed: int | None = None,
) -> keras.KerasTensor:
    """Puts a head on a feature map.

    The layers are called `head_<token>`, a repeated token's `head_<token>_2` and so on. Each layer draws from
    a separate random stream, so heads with the same seed share the initial weights of all layers that have
    the same name and shape.

    Args:
        head: a text such as `"bn_fc"` (grammar: see the package's docstring), a preset's name or a `Head`.
        features: Keras tensor `(batch, height, width, channels)`, or `(batch, channels)`, a vector.
        outputs: number of outputs: classes, labels of a multi-label task, or numbers to predict.
        fc_units: units of an `fc` or `dense` without a number.
        fc_activation: name of the activation of `fc`.
        head_bn_epsilon: added to the variance by batch norms and parts of one.
        head_bn_momentum: weight of their previous moving average in each step, in [0, 1).
        renorm_steps: training steps after which `brn` has its final bounds.
        class_counts: number of training examples of each class, for `cdropout`.
        labels: Keras tensor of the labels, an input of the model, for `cdropout`: `(batch,)` class numbers or
            `(batch, classes)` zeros and ones.
        norm: makes the layer of each `bn`, so that it reads a route; None for `BatchNormalization`.
        seed: seed of the head's random streams; None draws a fresh one.

    Returns:
        Keras tensor `(batch, outputs)`, float32: logits or predicted numbers, without activation.

    Raises:
        HeadError: an invalid text, or one that does not fit the features and the other arguments.
        UsageError: an invalid `outputs`, or Keras is set to channels_first.
    """
    head, shape = parse(head), tuple(features.shape)
    title = f"head {head.text!r}"
    _check_arguments(head, title, shape, outputs, labels, class_counts)
    settings = {"units": int(outputs), "activation": fc_activation, "steps": renorm_steps}
    settings |= {"class_counts": class_counts, "momentum": head_bn_momentum, "dtype": None}  # global policy
    x, uses = features, Counter()
    for t in head.on(shape[1:]):
        uses[t.name] += 1
        name = f"head_{t.name}" + (f"_{uses[t.name]}" if uses[t.name] > 1 else "")
        number = fc_units if t.number is None else t.number
        if x.shape[-1] is not None:
            t.type.weights(x.shape[-1], number, t.left_out)  # a HeadError if the layer cannot have this width
        settings["epsilon"] = head_bn_epsilon if t.type.normalises_batch else EPSILON
        if t.name == "out" and keras.config.dtype_policy().variable_dtype != "float64":
            # under mixed precision too, and a norm on them: the loss needs the full range of the logits
            settings["dtype"] = "float32"
        settings["seed"] = None if seed is None else seeds.stream(seed, "head", name)
        make_layer, *names = LAYERS[t.name]
        if norm is not None and t.type.normalises_batch:
            if t.name != "bn":
                raise HeadError(f"{title}: {t.name} has no statistics for each route; bn has")
            make_layer = norm
        arguments = {argument: settings[argument] for argument in names}
        if t.type.number:
            arguments[t.type.number.attribute] = number
        for part in t.left_out:
            arguments |= t.type.parts[part]
        layer = make_layer(name=name, **arguments)
        x = layer(x, labels) if t.type.reads_labels else layer(x)
    return x


def _check_arguments(head: Head, title: str, shape: Sequence, outputs: int, labels, class_counts) -> None:
    """Raises the errors of `apply` that concern its arguments and not the widths of single layers."""
    if len(shape) not in (2, 4):
        raise HeadError(f"{title}: features must have rank 2 or 4, got shape {shape}")
    require_channels_last(title)
    if isinstance(outputs, bool) or not hasattr(outputs, "__index__") or operator.index(outputs) < 1:
        raise UsageError(f"outputs must be a whole number of at least 1 for {title}, got {outputs!r}")
    if head.needs_labels and labels is None:
        raise HeadError(f"{title}: labels must be a Keras tensor, an input of the model, got None")
    if head.needs_labels and class_counts is None:
        raise HeadError(f"{title}: class_counts must be the training examples of each class")


def require_channels_last(user: str) -> None:
    """Raises UsageError, which names the user, if Keras is set to channels_first."""
    if keras.config.image_data_format() != "channels_last":
        raise UsageError(f"{user} needs Keras' image data format channels_last, got channels_first")


def attach(
    head: str | Head | None,
    inputs: keras.KerasTensor,
    features: keras.KerasTensor,
    outputs: int | None,
    *,
    name: str,
    norm: ours.RoutedNorm | None = None,
    seed: int | None = None,
    **options,
) -> keras.Model:
    """The model from `inputs` to the head's logits, or to the features if `head` is None.

    Every backbone builder ends with this call. `options` are `apply`'s other keyword arguments. With a head
    that reads labels (`cdropout`), the model has a second input: `labels` if given, else one called `label`,
    `(batch,)` int32. Fit it on `((images, labels), labels)`, and predict with `inference(model)`. With a
    `norm` that reads a route, the route is the last input.

    Raises:
        UsageError: a head without `outputs`, or `outputs` or an option without a head.
    """
    if head is None:
        head_arguments = options if outputs is None else {**options, "outputs": outputs}
        if head_arguments:
            raise UsageError(f"{next(iter(head_arguments))} needs a head, such as head='fc'; got head=None")
        return keras.Model(inputs if norm is None else [inputs, norm.route], features, name=name)
    head = parse(head)
    labels = options.pop("labels", None)
    labels = label_input(head) if labels is None else labels
    logits = apply(head, features, outputs, labels=labels, norm=norm, seed=seed, **options)
    more = [tensor for tensor in (labels, norm and norm.route) if tensor is not None]
    return keras.Model([inputs, *more] if more else inputs, logits, name=name)


def label_input(head: Head, name: str = "label") -> keras.KerasTensor | None:
    """An input for the labels, `(batch,)` int32; None for a head that does not read them."""
    return keras.Input((), dtype="int32", name=name, optional=True) if head.needs_labels else None
