"""Backbones for small images, 32 x 32 and less.

    resnet20 ... resnet110, any 6n + 2   He et al. 2015, "Deep Residual Learning", section 4.2
    preresnet20 ... preresnet110         He et al. 2016, "Identity Mappings", figure 4e: norm and ReLU first
    wrn16_8, wrn28_10, any 6n + 4        Zagoruyko & Komodakis 2016, "Wide Residual Networks", table 1
    plain20, any 6n + 2                  the ResNets without shortcuts, He et al. 2015, figure 6 left
    vgg16_bn                             Simonyan & Zisserman 2014, configuration D, with a norm per layer
    allcnn                               Springenberg et al. 2014, All-CNN-C: strides instead of pooling

Shapes (height x width x channels) of the ResNets for a 32 x 32 image, k = 1 except in wide ones:

    image           32 x 32 x 3
    stem            32 x 32 x 16      one 3x3 convolution
    stage1          32 x 32 x 16k     blocks of two 3x3 convolutions
    stage2          16 x 16 x 32k     stride 2 in the first block
    stage3           8 x  8 x 64k     stride 2 in the first block

Each function makes the feature map of `x`, the images `(batch, height, width, channels)`. `backbone` turns it
into a builder with the arguments that all builders share, see `help(resnet_cifar)`. A builder returns a
functional model from images to logits `(batch, outputs)`, or to the feature map if `head` is None, and raises
UsageError for an invalid shape, depth or head.
"""

import functools

import keras
from keras import layers

from bnhead.errors import UsageError
from bnhead.layers import batch_norm
from bnhead.models.blocks import Features, Norm, backbone, basic_block, conv, preactivation_block, relu

CHANNELS = (16, 32, 64)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
ALLCNN = ((96, 96, 96), (192, 192, 192), (192, 192))


@backbone(stride=4)
def resnet_cifar(
    x: keras.KerasTensor,
    depth: int,
    *,
    shortcut: str = "A",
    norm: Norm = batch_norm,
    seed: int | None = None,
) -> Features:
    """The CIFAR ResNet of any depth 6n + 2; feature map `(batch, height / 4, width / 4, 64)`.

    Args:
        depth: number of layers with weights, 6n + 2: 8, 14, 20, ...
        shortcut: "A", as in the paper's table 6, has no parameters; "B" is a 1x1 convolution and a norm if
            the shape changes; "none" omits shortcuts.
    """
    blocks = _blocks_per_stage(depth, 2)
    if shortcut not in ("A", "B", "none"):
        raise UsageError(f"shortcut must be 'A', 'B' or 'none', got {shortcut!r}")
    x = relu(norm("stem_bn")(conv(x, CHANNELS[0], 3, 1, "stem_conv", seed)), "stem_relu")
    x = _stages(basic_block, x, CHANNELS, blocks, norm, seed, shortcut)
    return x, f"{'plain' if shortcut == 'none' else 'resnet'}{depth}"


@backbone(stride=4)
def preresnet_cifar(
    x: keras.KerasTensor,
    depth: int,
    *,
    shortcut: str = "A",
    norm: Norm = batch_norm,
    seed: int | None = None,
) -> Features:
    """The pre-activation ResNet of any depth 6n + 2; feature map `(batch, height / 4, width / 4, 64)`.

    Like `resnet_cifar`, but with norm and ReLU before each convolution and after the last sum.

    Args:
        depth: 6n + 2.
        shortcut: "A" without parameters, or "B", a 1x1 convolution if the shape changes.
    """
    blocks = _blocks_per_stage(depth, 2)
    if shortcut not in ("A", "B"):
        raise UsageError(f"shortcut must be 'A' or 'B', got {shortcut!r}")
    x = conv(x, CHANNELS[0], 3, 1, "stem_conv", seed)
    x = _stages(preactivation_block, x, CHANNELS, blocks, norm, seed, shortcut)
    return relu(norm("final_bn")(x), "final_relu"), f"preresnet{depth}"


@backbone(stride=4)
def wide_resnet(
    x: keras.KerasTensor,
    depth: int,
    width: int,
    *,
    norm: Norm = batch_norm,
    seed: int | None = None,
) -> Features:
    """WRN-depth-width; feature map `(batch, height / 4, width / 4, 64 * width)`.

    A pre-activation ResNet with `width` times the channels in its stages and 1x1 convolutions as shortcuts.

    Args:
        depth: 6n + 4: 10, 16, 22, 28, 40, ...
        width: factor of the channels, at least 1.
    """
    blocks = _blocks_per_stage(depth, 4)
    if not isinstance(width, int) or width < 1:
        raise UsageError(f"width must be a whole number of at least 1, got {width}")
    x = conv(x, CHANNELS[0], 3, 1, "stem_conv", seed)
    x = _stages(preactivation_block, x, [width * channels for channels in CHANNELS], blocks, norm, seed, "B")
    return relu(norm("final_bn")(x), "final_relu"), f"wrn{depth}_{width}"


def _blocks_per_stage(depth: int, extra: int) -> int:
    """n of a depth 6n + extra."""
    if not isinstance(depth, int) or depth < 6 + extra or depth % 6 != extra:
        examples = ", ".join(str(6 * n + extra) for n in (1, 2, 3))
        raise UsageError(f"depth must be 6n + {extra} ({examples}, ...), got {depth}")
    return (depth - extra) // 6


def _stages(block, x, stage_channels, blocks, norm, seed, option):
    for stage, channels in enumerate(stage_channels, start=1):
        for i in range(1, blocks + 1):
            stride = 2 if stage > 1 and i == 1 else 1
            x = block(x, channels, stride, f"stage{stage}_block{i}", norm, seed, option)
    return x


@backbone(stride=32)
def vgg16_bn(
    x: keras.KerasTensor,
    *,
    norm: Norm = batch_norm,
    seed: int | None = None,
) -> Features:
    """VGG-16 with a norm after each convolution; feature map `(batch, height / 32, width / 32, 512)`.

    Thirteen 3x3 convolutions without bias in five stages, each followed by 2x2 max pooling. The head replaces
    the two fully connected layers of the original.
    """
    for stage, stage_channels in enumerate(VGG16, start=1):
        for i, channels in enumerate(stage_channels, start=1):
            name = f"stage{stage}"
            x = norm(f"{name}_bn{i}")(conv(x, channels, 3, 1, f"{name}_conv{i}", seed))
            x = relu(x, f"{name}_relu{i}")
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    return x, "vgg16_bn"


@backbone(stride=4)
def allcnn(
    x: keras.KerasTensor,
    *,
    norm: Norm | None = None,
    seed: int | None = None,
) -> Features:
    """All-CNN-C without its last, class-wise convolution; feature map `(batch, height / 4, width / 4, 192)`.

    Strides of 2 replace all pooling, so use a head `flatten_...`.

    Args:
        norm: None, as in the paper, for convolutions with biases and without norms.
    """
    for stage, stage_channels in enumerate(ALLCNN, start=1):
        for i, channels in enumerate(stage_channels, start=1):
            kernel = 1 if (stage, i) == (3, 2) else 3
            name, stride = f"stage{stage}", 2 if i == 3 else 1
            x = conv(x, channels, kernel, stride, f"{name}_conv{i}", seed, bias=norm is None)
            x = relu(norm(f"{name}_bn{i}")(x) if norm else x, f"{name}_relu{i}")
    return x, "allcnn"


plain = functools.partial(resnet_cifar, shortcut="none")
resnet8 = functools.partial(resnet_cifar, 8)
resnet14 = functools.partial(resnet_cifar, 14)
resnet20 = functools.partial(resnet_cifar, 20)
resnet32 = functools.partial(resnet_cifar, 32)
resnet44 = functools.partial(resnet_cifar, 44)
resnet56 = functools.partial(resnet_cifar, 56)
resnet110 = functools.partial(resnet_cifar, 110)
preresnet20 = functools.partial(preresnet_cifar, 20)
preresnet56 = functools.partial(preresnet_cifar, 56)
preresnet110 = functools.partial(preresnet_cifar, 110)
wrn16_8 = functools.partial(wide_resnet, 16, 8)
wrn28_10 = functools.partial(wide_resnet, 28, 10)
wrn40_4 = functools.partial(wide_resnet, 40, 4)
plain20 = functools.partial(plain, 20)
plain56 = functools.partial(plain, 56)
