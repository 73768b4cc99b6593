"""The CIFAR ResNets of He et al. 2015, "Deep Residual Learning for Image Recognition", section 4.2.

A 3x3 convolution to 16 channels, three stages of n two-convolution blocks with 16, 32 and 64 channels, the
second and third stage starting with stride 2; depth 6n + 2. Shortcuts carry no parameters (option A).
"""

from collections.abc import Callable

import keras
from keras import layers

from bnhead import heads, seeds
from bnhead.errors import UsageError
from bnhead.layers import batch_norm

CHANNELS = (16, 32, 64)


def resnet_cifar(
    depth: int,
    input_shape: tuple[int | None, int | None, int],
    head: str | None = None,
    outputs: int | None = None,
    *,
    norm: Callable[[str], keras.layers.Layer] = batch_norm,
    preprocessing: keras.layers.Layer | None = None,
    seed: int | None = None,
    **head_options,
) -> keras.Model:
    """The CIFAR ResNet of any depth 6n + 2.

    Args:
        depth: number of layers with weights, 6n + 2: 8, 14, 20, ...
        input_shape: `(height, width, channels)` of the images, without the batch axis.
        head: a head's text, such as `"bn_fc"`; None for the bare feature map.
        outputs: number of outputs; needed with a head, forbidden without.
        norm: function from a layer's name to a normalisation layer.
        preprocessing: layer put before the first convolution, such as `keras.layers.Rescaling`, so that the
            model takes raw pixels; None when the input is already scaled.
        seed: seed of the initial weights; every layer has its own stream (`bnhead.seeds`). None draws fresh.
        head_options: `bnhead.heads.apply`'s `fc_units` and `fc_activation`.

    Returns:
        A functional model from `(batch, height, width, channels)` to logits `(batch, outputs)`, or to the
        feature map `(batch, height / 4, width / 4, 64)` when `head` is None. Layers are called
        `stage<s>_block<b>_<layer>`.

    Raises:
        UsageError: a depth that is not 6n + 2, a shape that is no image, an impossible head.
    """
    if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        raise UsageError(f"depth must be 6n + 2 (8, 14, 20, ...), got {depth}")
    if len(input_shape) != 3 or not input_shape[-1]:
        raise UsageError(f"input_shape must be (height, width, channels), got {tuple(input_shape)}")
    inputs = x = keras.Input(input_shape, name="image")
    if preprocessing is not None:
        x = preprocessing(x)
    x = _conv(x, CHANNELS[0], 1, "stem_conv", seed)
    x = layers.Activation("relu", name="stem_relu")(norm("stem_bn")(x))
    for stage, channels in enumerate(CHANNELS, start=1):
        for block in range(1, (depth - 2) // 6 + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, channels, stride, f"stage{stage}_block{block}", norm, seed)
    return heads.attach(head, inputs, x, outputs, name=f"resnet{depth}", seed=seed, **head_options)


def _block(x, channels, stride, name, norm, seed):
    shortcut = _shortcut(x, channels, stride, name)
    x = norm(f"{name}_bn1")(_conv(x, channels, stride, f"{name}_conv1", seed))
    x = layers.Activation("relu", name=f"{name}_relu1")(x)
    x = norm(f"{name}_bn2")(_conv(x, channels, 1, f"{name}_conv2", seed))
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_relu2")(x)


def _shortcut(x, channels, stride, name):
    """Option A: every second pixel, and zeros for the channels that are new."""
    if stride > 1:
        x = layers.AveragePooling2D(1, strides=stride, name=f"{name}_subsample")(x)
    new = channels - x.shape[-1]
    if new:
        x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
    return x


def _conv(x, channels, stride, name, seed):
    """3x3 convolution, one zero on each side: a strided one is centred on the pixels the shortcut keeps."""
    stream = None if seed is None else seeds.stream(seed, "backbone", name)
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x) if stride > 1 else x
    convolution = layers.Conv2D(
        channels,
        3,
        stride,
        "valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(stream),
        name=name,
    )
    return convolution(x)


def resnet8(input_shape, head=None, outputs=None, **options) -> keras.Model:
    """ResNet-8, one block per stage; arguments as `resnet_cifar`'s."""
    return resnet_cifar(8, input_shape, head, outputs, **options)


def resnet14(input_shape, head=None, outputs=None, **options) -> keras.Model:
    """ResNet-14, two blocks per stage; arguments as `resnet_cifar`'s."""
    return resnet_cifar(14, input_shape, head, outputs, **options)


def resnet20(input_shape, head=None, outputs=None, **options) -> keras.Model:
    """ResNet-20, three blocks per stage, 0.27 M parameters; arguments as `resnet_cifar`'s."""
    return resnet_cifar(20, input_shape, head, outputs, **options)


def resnet32(input_shape, head=None, outputs=None, **options) -> keras.Model:
    """ResNet-32, five blocks per stage, 0.46 M parameters; arguments as `resnet_cifar`'s."""
    return resnet_cifar(32, input_shape, head, outputs, **options)


def resnet44(input_shape, head=None, outputs=None, **options) -> keras.Model:
    """ResNet-44, seven blocks per stage, 0.66 M parameters; arguments as `resnet_cifar`'s."""
    return resnet_cifar(44, input_shape, head, outputs, **options)


def resnet56(input_shape, head=None, outputs=None, **options) -> keras.Model:
    """ResNet-56, nine blocks per stage, 0.85 M parameters; arguments as `resnet_cifar`'s."""
    return resnet_cifar(56, input_shape, head, outputs, **options)


def resnet110(input_shape, head=None, outputs=None, **options) -> keras.Model:
    """ResNet-110, eighteen blocks per stage, 1.7 M parameters; arguments as `resnet_cifar`'s."""
    return resnet_cifar(110, input_shape, head, outputs, **options)
