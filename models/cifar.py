"""Backbones for small images, 32 x 32 and less.

    resnet20 ... resnet110, any 6n + 2   He et al. 2015, "Deep Residual Learning", section 4.2
    preresnet20 ... preresnet110         He et al. 2016, "Identity Mappings", figure 4e: norm and ReLU first
    wrn16_8, wrn28_10, any 6n + 4        Zagoruyko & Komodakis 2016, "Wide Residual Networks", table 1
    plain20, any 6n + 2                  the ResNets without shortcuts, He et al. 2015, figure 6 left
    vgg16_bn                             Simonyan & Zisserman 2014, configuration D, with a norm per layer
    allcnn                               Springenberg et al. 2014, All-CNN-C: strides in the place of pooling

Each function makes the feature map of `x`, the images `(batch, height, width, channels)`. `backbone` turns it
into a builder, which has the arguments that all builders share, as `help(resnet_cifar)` lists them, and
returns a functional model from images to logits `(batch, outputs)`, or to the feature map when `head` is
None. A shape, depth or head that cannot be is a UsageError.
"""

import functools

import keras
from keras import layers

from bnhead.errors import UsageError
from bnhead.layers import batch_norm
from bnhead.models.blocks import Features, Norm, backbone, conv, relu, subsample

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

    A 3x3 convolution to 16 channels and three stages of n two-convolution blocks with 16, 32 and 64 channels,
    the second and third stage starting with stride 2.

    Args:
        depth: number of layers with weights, 6n + 2: 8, 14, 20, ...
        shortcut: "A", as in the paper's table 6, carries no parameters; "B" is a 1x1 convolution and a norm
            where the shape changes; "none" leaves shortcuts out.
    """
    blocks = _blocks_per_stage(depth, 2)
    if shortcut not in ("A", "B", "none"):
        raise UsageError(f"shortcut must be 'A', 'B' or 'none', got {shortcut!r}")
    x = relu(norm("stem_bn")(conv(x, CHANNELS[0], 3, 1, "stem_conv", seed)), "stem_relu")
    for name, channels, stride in _plan(CHANNELS, blocks):
        carried = _shortcut(x, shortcut, channels, stride, name, norm, seed)
        x = relu(norm(f"{name}_bn1")(conv(x, channels, 3, stride, f"{name}_conv1", seed)), f"{name}_relu1")
        x = norm(f"{name}_bn2")(conv(x, channels, 3, 1, f"{name}_conv2", seed))
        x = x if carried is None else layers.Add(name=f"{name}_add")([carried, x])
        x = relu(x, f"{name}_relu2")
    return x, f"{'plain' if shortcut == 'none' else 'resnet'}{depth}"


def _shortcut(x, kind, channels, stride, name, norm, seed):
    if kind == "none":
        return None
    if kind == "A" or (stride == 1 and x.shape[-1] == channels):
        return subsample(x, channels, stride, name)
    return norm(f"{name}_bn0")(conv(x, channels, 1, stride, f"{name}_conv0", seed))


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

    As `resnet_cifar`, with norm and ReLU before each convolution, nothing on the sum, and a norm and ReLU on
    the last sum.

    Args:
        depth: 6n + 2.
        shortcut: "A" without parameters, or "B", a 1x1 convolution where the shape changes.
    """
    blocks = _blocks_per_stage(depth, 2)
    if shortcut not in ("A", "B"):
        raise UsageError(f"shortcut must be 'A' or 'B', got {shortcut!r}")
    x = _preactivation(x, CHANNELS, blocks, shortcut, norm, seed)
    return x, f"preresnet{depth}"


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
    x = _preactivation(x, [width * channels for channels in CHANNELS], blocks, "B", norm, seed)
    return x, f"wrn{depth}_{width}"


def _preactivation(x, stage_channels, blocks, shortcut, norm, seed):
    x = conv(x, CHANNELS[0], 3, 1, "stem_conv", seed)
    for name, channels, stride in _plan(stage_channels, blocks):
        changes = stride > 1 or x.shape[-1] != channels
        first = relu(norm(f"{name}_bn1")(x), f"{name}_relu1")
        if not changes:
            carried = x
        elif shortcut == "A":
            carried = subsample(x, channels, stride, name)
        else:
            carried = conv(first, channels, 1, stride, f"{name}_conv0", seed)
        x = conv(first, channels, 3, stride, f"{name}_conv1", seed)
        x = conv(relu(norm(f"{name}_bn2")(x), f"{name}_relu2"), channels, 3, 1, f"{name}_conv2", seed)
        x = layers.Add(name=f"{name}_add")([carried, x])
    return relu(norm("final_bn")(x), "final_relu")


@backbone(stride=32)
def vgg16_bn(
    x: keras.KerasTensor,
    *,
    norm: Norm = batch_norm,
    seed: int | None = None,
) -> Features:
    """VGG-16 with a norm after each convolution; feature map `(batch, height / 32, width / 32, 512)`.

    Thirteen 3x3 convolutions without bias in five stages, each ending in a 2x2 maximum. The two fully
    connected layers of the original are the head's business.

    Args:
    """
    for stage, row in enumerate(VGG16, start=1):
        for i, channels in enumerate(row, start=1):
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

    No pooling anywhere: strides of 2 take its place, so the head that fits is `flatten_...`.

    Args:
        norm: None, as in the paper, gives the convolutions biases and puts no norm behind them.
    """
    for stage, row in enumerate(ALLCNN, start=1):
        for i, channels in enumerate(row, start=1):
            kernel = 1 if (stage, i) == (3, 2) else 3
            name, stride = f"stage{stage}", 2 if i == 3 else 1
            x = conv(x, channels, kernel, stride, f"{name}_conv{i}", seed, bias=norm is None)
            x = relu(norm(f"{name}_bn{i}")(x) if norm else x, f"{name}_relu{i}")
    return x, "allcnn"


def _blocks_per_stage(depth: int, rest: int) -> int:
    if not isinstance(depth, int) or depth < 6 + rest or depth % 6 != rest:
        first = ", ".join(str(6 * n + rest) for n in (1, 2, 3))
        raise UsageError(f"depth must be 6n + {rest} ({first}, ...), got {depth}")
    return (depth - rest) // 6


def _plan(stage_channels, blocks):
    """Name, channels and stride of every block."""
    for stage, channels in enumerate(stage_channels, start=1):
        for block in range(1, blocks + 1):
            yield f"stage{stage}_block{block}", channels, 2 if stage > 1 and block == 1 else 1


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
