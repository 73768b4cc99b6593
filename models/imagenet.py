"""The ImageNet ResNets: 18, 34, 50, 101 and 152 layers, in the three versions in use.

    resnet50      v1.5, as in torchvision: stride in the 3x3 convolution of the bottleneck, no biases.
    resnet50_v1   He et al. 2015: stride in the first 1x1 convolution. Same net as
                  `keras.applications.ResNet50`, with its biases and padding; takes its weights.
    resnet50_v2   He et al. 2016, pre-activation. Same net as `keras.applications.ResNet50V2`.

18 and 34 layers have blocks without a bottleneck. Their v1 and v1.5 are the same, their v2 has the stride in
the first convolution of a stage, and keras.applications has neither.

Shapes (height x width x channels) for a 224 x 224 image, with c = 1 for 18 and 34 layers, else 4:

    image       224 x 224 x 3
    stem_conv   112 x 112 x 64       7x7 convolution, stride 2
    stem_pool    56 x  56 x 64       3x3 maximum, stride 2
    stage1       56 x  56 x  64c
    stage2       28 x  28 x 128c     stride 2 in the first block
    stage3       14 x  14 x 256c     stride 2 in the first block
    stage4        7 x   7 x 512c     stride 2 in the first block

resnet50_v2 and deeper, as in keras.applications, have the strides in the last block of stages 1 to 3 instead.
"""

import functools

import keras
from keras import layers

from bnhead.errors import UsageError
from bnhead.layers import batch_norm
from bnhead.models.blocks import Features, Norm, backbone, basic_block, conv, preactivation_block, relu

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VERSIONS = ("v1", "v1.5", "v2")
APPLICATIONS_EPSILON = 1.001e-5  # of the batch norms in keras.applications


@backbone(stride=32)
def resnet(
    x: keras.KerasTensor,
    depth: int,
    version: str,
    *,
    norm: Norm | None = None,
    seed: int | None = None,
) -> Features:
    """An ImageNet ResNet; feature map `(batch, height / 32, width / 32, 512 or 2048)`.

    Args:
        depth: 18, 34, 50, 101 or 152.
        version: "v1", "v1.5" or "v2"; see the module.
        norm: function from a layer's name to a normalisation layer; None for the version's batch norm.

    Raises:
        UsageError: an invalid depth, version, shape or head.
    """
    if depth not in BLOCKS:
        raise UsageError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
    if version not in VERSIONS:
        raise UsageError(f"version must be one of {', '.join(VERSIONS)}, got {version!r}")
    as_applications = depth >= 50 and version != "v1.5"
    if norm is None:
        norm = functools.partial(batch_norm, epsilon=APPLICATIONS_EPSILON) if as_applications else batch_norm
    if depth < 50:
        block = preactivation_block if version == "v2" else basic_block
    elif version == "v2":
        block = preactivation_bottleneck
    else:
        block = functools.partial(bottleneck, as_applications=as_applications)

    x = conv(x, 64, 7, 2, "stem_conv", seed, bias=as_applications)
    if version != "v2":
        x = relu(norm("stem_bn")(x), "stem_relu")
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for i in range(1, blocks + 1):
            if as_applications and version == "v2":
                strided = i == blocks and stage < 4
            else:
                strided = i == 1 and stage > 1
            x = block(x, 32 * 2**stage, 2 if strided else 1, f"stage{stage}_block{i}", norm, seed)
    if version == "v2":
        x = relu(norm("final_bn")(x), "final_relu")
    suffix = "" if version == "v1.5" or (depth < 50 and version == "v1") else f"_{version}"
    return x, f"resnet{depth}{suffix}"


def bottleneck(x, channels, stride, name, norm, seed, *, as_applications):
    """Block of He et al. 2015, figure 5 right: 1x1, 3x3 and 1x1 convolutions to 4 * channels.

    `as_applications` (v1) puts the stride in the first convolution and gives all of them biases.
    """
    bias, strides = (True, (stride, 1)) if as_applications else (False, (1, stride))
    shortcut = x
    if x.shape[-1] != 4 * channels:
        shortcut = norm(f"{name}_bn0")(conv(x, 4 * channels, 1, stride, f"{name}_conv0", seed, bias=bias))
    x = conv(x, channels, 1, strides[0], f"{name}_conv1", seed, bias=bias)
    x = relu(norm(f"{name}_bn1")(x), f"{name}_relu1")
    x = conv(x, channels, 3, strides[1], f"{name}_conv2", seed, bias=bias)
    x = relu(norm(f"{name}_bn2")(x), f"{name}_relu2")
    x = norm(f"{name}_bn3")(conv(x, 4 * channels, 1, 1, f"{name}_conv3", seed, bias=bias))
    return relu(layers.Add(name=f"{name}_add")([shortcut, x]), f"{name}_relu3")


def preactivation_bottleneck(x, channels, stride, name, norm, seed):
    """Block of He et al. 2016 as in keras.applications: norm and ReLU before each convolution."""
    active = relu(norm(f"{name}_bn1")(x), f"{name}_relu1")
    shortcut = x
    if x.shape[-1] != 4 * channels:
        shortcut = conv(active, 4 * channels, 1, stride, f"{name}_conv0", seed, bias=True)
    elif stride > 1:
        shortcut = layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)
    x = conv(active, channels, 1, 1, f"{name}_conv1", seed)
    x = conv(relu(norm(f"{name}_bn2")(x), f"{name}_relu2"), channels, 3, stride, f"{name}_conv2", seed)
    x = relu(norm(f"{name}_bn3")(x), f"{name}_relu3")
    x = conv(x, 4 * channels, 1, 1, f"{name}_conv3", seed, bias=True)
    return layers.Add(name=f"{name}_add")([shortcut, x])


resnet18 = functools.partial(resnet, 18, "v1.5")
resnet34 = functools.partial(resnet, 34, "v1.5")
resnet50 = functools.partial(resnet, 50, "v1.5")
resnet101 = functools.partial(resnet, 101, "v1.5")
resnet152 = functools.partial(resnet, 152, "v1.5")
resnet50_v1 = functools.partial(resnet, 50, "v1")
resnet101_v1 = functools.partial(resnet, 101, "v1")
resnet152_v1 = functools.partial(resnet, 152, "v1")
resnet18_v2 = functools.partial(resnet, 18, "v2")
resnet34_v2 = functools.partial(resnet, 34, "v2")
resnet50_v2 = functools.partial(resnet, 50, "v2")
resnet101_v2 = functools.partial(resnet, 101, "v2")
resnet152_v2 = functools.partial(resnet, 152, "v2")
