"""The tokens: a function for each, from a Keras tensor to the Keras tensor behind its layers.

To add one, write a function under `@token` here, and a line in the package's table.
"""

import math

from bnhead.heads.grammar import GHOST_SIZE, GROUPS, RATE, UNITS, HeadError, token

_AFFINE = {"beta": {"center": False}, "gamma": {"scale": False}}
_BIAS = {"bias": {"use_bias": False}}
_ACTIVATIONS = {  # token -> Keras' name
    **{name: name for name in ("relu", "relu6", "elu", "selu", "gelu", "silu", "mish", "tanh")},
    "leakyrelu": "leaky_relu",
}


def _affine_weights(more):
    """Numbers in a norm of some width: `more` for each channel besides gamma and beta."""
    return lambda width, _, left_out: width * (more + 2 - len(left_out))


def _dense_weights(width, units, left_out):
    return (width + 1 - len(left_out)) * units


def _channels(shape):
    return shape[-1]


# ---- pooling ------------------------------------------------------------------------------------


@token("gap", pools=_channels)
def _gap(x, _, context):
    from keras import layers

    return layers.GlobalAveragePooling2D(name=context.name)(x)


@token("gmp", pools=_channels)
def _gmp(x, _, context):
    from keras import layers

    return layers.GlobalMaxPooling2D(name=context.name)(x)


@token("catpool", pools=lambda shape: 2 * shape[-1])
def _catpool(x, _, context):  # fastai's order: maximum first, average second
    from keras import layers

    largest = layers.GlobalMaxPooling2D(name=f"{context.name}_max")(x)
    average = layers.GlobalAveragePooling2D(name=f"{context.name}_average")(x)
    return layers.Concatenate(name=context.name)([largest, average])


@token("gem", pools=_channels, weights=lambda *_: 1)
def _gem(x, _, context):
    from bnhead.layers import GeMPooling2D

    return GeMPooling2D(name=context.name)(x)


@token("flatten", pools=lambda shape: None if None in shape else math.prod(shape))
def _flatten(x, _, context):
    from keras import layers

    return layers.Flatten(name=context.name)(x)


# ---- linear layers ------------------------------------------------------------------------------


@token("fc", vector_only=True, number=UNITS, parts=_BIAS, label="{fc_activation}", weights=_dense_weights)
def _fc(x, units, context):
    return _linear(context, units, "HeNormal", activation=context.options["fc_activation"])(x)


@token("dense", vector_only=True, number=UNITS, parts=_BIAS, weights=_dense_weights)
def _dense(x, units, context):
    return _linear(context, units, "GlorotUniform")(x)


@token("out", vector_only=True, parts=_BIAS, label="{outputs}", weights=_dense_weights)
def _out(x, _, context):  # float32 also under mixed precision: the loss needs the logits' full range
    return _linear(context, context.outputs, "GlorotUniform", dtype="float32")(x)


def _linear(context, units, scheme, **arguments):
    from keras import layers

    kernel = context.initial(scheme)
    return layers.Dense(units, kernel_initializer=kernel, name=context.name, **context.without, **arguments)


# ---- norms by the batch, and their parts --------------------------------------------------------

_BATCH_NORM = {
    "normalises_batch": True, "after_output": True, "parts": _AFFINE, "weights": _affine_weights(2)
}  # fmt: skip
_PART_OF_ONE = {
    "normalises_batch": True, "after_output": True, "weights": lambda width, *_: 2 * width
}  # fmt: skip


@token("bn", **_BATCH_NORM)
def _bn(x, _, context):
    from bnhead.layers import BatchNormalization

    return _norm(BatchNormalization, context)(x)


@token("gbn", number=GHOST_SIZE, **_BATCH_NORM)
def _gbn(x, size, context):
    from bnhead.layers import GhostBatchNormalization

    return _norm(GhostBatchNormalization, context, ghost_size=size)(x)


@token("brn", **{**_BATCH_NORM, "weights": lambda *arguments: 1 + _affine_weights(2)(*arguments)})
def _brn(x, _, context):
    from bnhead.layers import BatchRenormalization

    return _norm(BatchRenormalization, context, steps=context.options["renorm_steps"])(x)


@token("fbn", **_BATCH_NORM)
def _fbn(x, _, context):
    from bnhead.layers import FrozenBatchNormalization

    return _norm(FrozenBatchNormalization, context)(x)


@token("center", **_PART_OF_ONE)
def _center(x, _, context):
    from bnhead.layers import BatchCentering

    return _norm(BatchCentering, context)(x)


@token("scale", **_PART_OF_ONE)
def _scale(x, _, context):
    from bnhead.layers import BatchScaling

    return _norm(BatchScaling, context)(x)


@token("noise", **{**_PART_OF_ONE, "weights": lambda width, *_: 2 * width + 1})
def _noise(x, _, context):
    from bnhead.layers import BatchNoise

    return _norm(BatchNoise, context)(x)


def _norm(kind, context, **arguments):
    from bnhead.layers.constants import MOMENTUM

    return _with_epsilon(kind, context, momentum=MOMENTUM, dtype=context.dtype, **arguments)


def _with_epsilon(kind, context, **arguments):
    from bnhead.layers.constants import EPSILON

    return kind(epsilon=EPSILON, name=context.name, **context.without, **arguments)


# ---- norms by the example -----------------------------------------------------------------------


@token("ln", parts=_AFFINE, weights=_affine_weights(0))
def _ln(x, _, context):
    from keras import layers

    return _with_epsilon(layers.LayerNormalization, context)(x)


@token("rms", weights=lambda width, *_: width)
def _rms(x, _, context):
    from keras import layers

    return _with_epsilon(layers.RMSNormalization, context)(x)


def _group_weights(width, groups, left_out):
    if width % groups:
        raise HeadError(
            f"head token 'gn{groups}': groups must divide the {width} features it reads, got {groups}"
        )
    return width * (2 - len(left_out))


@token("gn", number=GROUPS, parts=_AFFINE, weights=_group_weights)
def _gn(x, groups, context):
    from keras import layers

    _group_weights(x.shape[-1], groups, ())
    return _with_epsilon(layers.GroupNormalization, context, groups=groups)(x)


@token("l2", weights=lambda *_: 1)
def _l2(x, _, context):
    from bnhead.layers import L2Normalization

    return L2Normalization(name=context.name)(x)


# ---- dropout and activations --------------------------------------------------------------------


@token("dropout", number=RATE)
def _dropout(x, rate, context):
    from keras import layers

    return layers.Dropout(rate, seed=context.stream(), name=context.name)(x)


@token("cdropout", number=RATE, reads_labels=True)
def _cdropout(x, rate, context):
    from bnhead.layers import ClassConditionalDropout

    counts = context.options["class_counts"]
    if counts is None:
        raise HeadError(
            f"head token {context.word!r}: class_counts must be the training examples of each class"
        )
    layer = ClassConditionalDropout(rate, counts, seed=context.stream(), name=context.name)
    return layer(x, context.labels)


def _activation(x, _, context):
    from keras import layers

    name = context.word.split("-")[0]
    return layers.Activation(_ACTIVATIONS[name], name=context.name)(x)


for _name in _ACTIVATIONS:
    token(_name)(_activation)
