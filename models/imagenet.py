"""The ImageNet ResNets: 18, 34, 50, 101 and 152 layers, in the three versions that are in use.

    resnet50      v1.5: the bottleneck's 3x3 convolution carries the stride; torchvision's. No biases.
    resnet50_v1   He et al. 2015: its first 1x1 convolution carries the stride. The same net as
                  `keras.applications.ResNet50`, with its biases and padding; takes its weights.
    resnet50_v2   He et al. 2016, pre-activation; the same net as `keras.applications.ResNet50V2`.

The blocks of 18 and 34 have no bottleneck: v1 and v1.5 are one, and keras.applications has none of them;
their v2 has the stride in the first convolution of a stage.
"""

import functools

import keras
from keras import layers

from bnhead.errors import UsageError
from bnhead.layers import batch_norm
from bnhead.models.blocks import Features, Norm, backbone, conv, relu

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VERSIONS = ("v1", "v1.5", "v2")
KERAS_EPSILON = 1.001e-5  # keras.applications'


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
        norm: function from a layer's name to a normalisation layer; None for the version's own batch norm.

    Raises:
        UsageError: a depth, version, shape or head that there is not.
    """
    if depth not in BLOCKS:
        raise UsageError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
    if version not in VERSIONS:
        raise UsageError(f"version must be one of {', '.join(VERSIONS)}, got {version!r}")
    kerass = depth >= 50 and version != "v1.5"
    norm = norm or (functools.partial(batch_norm, epsilon=KERAS_EPSILON) if kerass else batch_norm)
    x = conv(x, 64, 7, 2, "stem_conv", seed, bias=kerass)
    if version != "v2":
        x = relu(norm("stem_bn")(x), "stem_relu")
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    block = _block(depth, version)
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for i in range(1, blocks + 1):
            # keras.applications' v2 goes down at the end of a stage, all others at its beginning
            down = (i == blocks and stage < 4) if kerass and version == "v2" else (i == 1 and stage > 1)
            x = block(
                x, 64 * 2 ** (stage - 1), 2 if down else 1, i == 1, f"stage{stage}_block{i}", norm, seed
            )
    if version == "v2":
        x = relu(norm("final_bn")(x), "final_relu")
    suffix = "" if version == "v1.5" or (depth < 50 and version == "v1") else f"_{version}"
    return x, f"resnet{depth}{suffix}"


def _block(depth, version):
    if depth < 50:
        return _basic_v2 if version == "v2" else _basic
    if version == "v2":
        return _bottleneck_v2
    return functools.partial(_bottleneck, stride_first=version == "v1")


def _basic(x, channels, stride, first, name, norm, seed):
    carried = x
    if stride > 1 or x.shape[-1] != channels:
        carried = norm(f"{name}_bn0")(conv(x, channels, 1, stride, f"{name}_conv0", seed))
    x = relu(norm(f"{name}_bn1")(conv(x, channels, 3, stride, f"{name}_conv1", seed)), f"{name}_relu1")
    x = norm(f"{name}_bn2")(conv(x, channels, 3, 1, f"{name}_conv2", seed))
    return relu(layers.Add(name=f"{name}_add")([carried, x]), f"{name}_relu2")


def _basic_v2(x, channels, stride, first, name, norm, seed):
    active = relu(norm(f"{name}_bn1")(x), f"{name}_relu1")
    carried = x
    if stride > 1 or x.shape[-1] != channels:
        carried = conv(active, channels, 1, stride, f"{name}_conv0", seed)
    x = conv(active, channels, 3, stride, f"{name}_conv1", seed)
    x = conv(relu(norm(f"{name}_bn2")(x), f"{name}_relu2"), channels, 3, 1, f"{name}_conv2", seed)
    return layers.Add(name=f"{name}_add")([carried, x])


def _bottleneck(x, channels, stride, first, name, norm, seed, *, stride_first):
    bias = stride_first  # v1 is keras.applications', whose convolutions have biases
    carried = x
    if first:
        carried = norm(f"{name}_bn0")(conv(x, 4 * channels, 1, stride, f"{name}_conv0", seed, bias=bias))
    strides = (stride, 1) if stride_first else (1, stride)
    x = conv(x, channels, 1, strides[0], f"{name}_conv1", seed, bias=bias)
    x = relu(norm(f"{name}_bn1")(x), f"{name}_relu1")
    x = conv(x, channels, 3, strides[1], f"{name}_conv2", seed, bias=bias)
    x = relu(norm(f"{name}_bn2")(x), f"{name}_relu2")
    x = norm(f"{name}_bn3")(conv(x, 4 * channels, 1, 1, f"{name}_conv3", seed, bias=bias))
    return relu(layers.Add(name=f"{name}_add")([carried, x]), f"{name}_relu3")


def _bottleneck_v2(x, channels, stride, first, name, norm, seed):
    active = relu(norm(f"{name}_bn1")(x), f"{name}_relu1")
    if first:
        carried = conv(active, 4 * channels, 1, stride, f"{name}_conv0", seed, bias=True)
    else:
        carried = layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x) if stride > 1 else x
    x = conv(active, channels, 1, 1, f"{name}_conv1", seed)
    x = conv(relu(norm(f"{name}_bn2")(x), f"{name}_relu2"), channels, 3, stride, f"{name}_conv2", seed)
    x = conv(
        relu(norm(f"{name}_bn3")(x), f"{name}_relu3"), 4 * channels, 1, 1, f"{name}_conv3", seed, bias=True
    )
    return layers.Add(name=f"{name}_add")([carried, x])


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
