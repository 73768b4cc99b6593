"""What all residual families are made of: inputs, convolutions, shortcuts, stages.

Layer names carry the path, `stage2_block1_conv1`; `name` below is such a path.
"""

import re
from collections.abc import Callable, Sequence

import keras
from keras import layers

from bnhead import seeds
from bnhead.errors import UsageError

Norm = Callable[[str], keras.layers.Layer]


def image(
    input_shape: Sequence[int | None], preprocessing: keras.layers.Layer | None, stride: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input tensor and what the first convolution reads, the input after `preprocessing`.

    Args:
        input_shape: `(height, width, channels)`.
        preprocessing: layer put on the input; None for none.
        stride: the net's total stride: an image must be at least that high and wide.

    Raises:
        UsageError: a shape that is no image's, or an image smaller than the stride.
    """
    if len(input_shape) != 3 or not input_shape[-1]:
        raise UsageError(f"input_shape must be (height, width, channels), got {tuple(input_shape)}")
    if keras.config.image_data_format() != "channels_last":
        raise UsageError("backbones need Keras' image data format channels_last, got channels_first")
    if any(size is not None and size < stride for size in input_shape[:2]):
        size = f"{input_shape[0]} x {input_shape[1]}"
        raise UsageError(
            f"input_shape must be at least {stride} x {stride} for a net of stride {stride}, got {size}"
        )
    inputs = keras.Input(tuple(input_shape), name="image")
    return inputs, inputs if preprocessing is None else preprocessing(inputs)


def conv(x, channels: int, kernel: int, stride: int, name: str, seed: int | None, *, bias: bool = False):
    """Convolution with kernel // 2 zeros on each side, He's initial weights from a stream of its own.

    A strided one is centred on the first pixel of each step, as in PyTorch and on the pixels that a
    subsampling shortcut keeps. (Keras' "same" would centre it on the second where the size is even.)
    """
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    stream = None if seed is None else seeds.stream(seed, "backbone", name)
    return layers.Conv2D(
        channels,
        kernel,
        stride,
        "same" if stride == 1 else "valid",
        use_bias=bias,
        kernel_initializer=keras.initializers.HeNormal(stream),
        name=name,
    )(x)


def relu(x, name: str):
    """ReLU layer."""
    return layers.Activation("relu", name=name)(x)


def subsample(x, channels: int, stride: int, name: str):
    """Option A of He et al. 2015, without parameters: every `stride`-th pixel, zeros for new channels."""
    if stride > 1:
        x = layers.AveragePooling2D(1, strides=stride, name=f"{name}_subsample")(x)
    new = channels - x.shape[-1]
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))) if new else x


def endpoints(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Output of each stage, `{"stem": ..., "stage1": ..., ...}`, of a backbone from `bnhead.models`.

    `keras.Model(model.inputs, endpoints(model))` gives them all at once.
    """
    found = {}
    for layer in model.layers:
        stage = re.match(r"(stem|stage\d+)_", layer.name)
        if stage:
            found[stage[1]] = layer.output
    return found
