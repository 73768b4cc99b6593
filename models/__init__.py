"""Backbones as plain functions: `resnet20((32, 32, 3), head="bn_fc", outputs=10) -> keras.Model`.

    from bnhead.models import resnet20
    from bnhead import models
    models.build("keras:MobileNetV2", (96, 96, 3), "bn_out", 10, weights="imagenet")

Modules: `cifar` and `imagenet` are our families, made of `blocks`; `existing` makes a backbone of a net from
elsewhere, `weights` loads pre-trained weights, `pixels` scales the pixels. They are imported at first use, so
that names can be checked without Keras.
"""

import functools
import importlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bnhead import public
from bnhead.errors import UsageError, nearest

if TYPE_CHECKING:
    import keras

    from bnhead.models.cifar import (
        allcnn as allcnn,
        plain20 as plain20,
        plain56 as plain56,
        preresnet20 as preresnet20,
        preresnet56 as preresnet56,
        preresnet110 as preresnet110,
        resnet8 as resnet8,
        resnet14 as resnet14,
        resnet20 as resnet20,
        resnet32 as resnet32,
        resnet44 as resnet44,
        resnet56 as resnet56,
        resnet110 as resnet110,
        vgg16_bn as vgg16_bn,
        wrn16_8 as wrn16_8,
        wrn28_10 as wrn28_10,
        wrn40_4 as wrn40_4,
    )
    from bnhead.models.imagenet import (
        resnet18 as resnet18,
        resnet18_v2 as resnet18_v2,
        resnet34 as resnet34,
        resnet34_v2 as resnet34_v2,
        resnet50 as resnet50,
        resnet50_v1 as resnet50_v1,
        resnet50_v2 as resnet50_v2,
        resnet101 as resnet101,
        resnet101_v1 as resnet101_v1,
        resnet101_v2 as resnet101_v2,
        resnet152 as resnet152,
        resnet152_v1 as resnet152_v1,
        resnet152_v2 as resnet152_v2,
    )

_CIFAR = (
    "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56 resnet110 preresnet20 preresnet56 preresnet110 "
    "wrn16_8 wrn28_10 wrn40_4 plain20 plain56 vgg16_bn allcnn"
)
_IMAGENET = (
    "resnet18 resnet34 resnet50 resnet101 resnet152 resnet50_v1 resnet101_v1 resnet152_v1 "
    "resnet18_v2 resnet34_v2 resnet50_v2 resnet101_v2 resnet152_v2"
)
BUILDERS = (*_CIFAR.split(), *_IMAGENET.split())
__all__ = (*BUILDERS, "build", "find")
__getattr__, __dir__ = public.names(
    __name__,
    {
        **dict.fromkeys(_CIFAR.split(), "bnhead.models.cifar"),
        **dict.fromkeys(_IMAGENET.split(), "bnhead.models.imagenet"),
    },
)
# The nets of keras.applications: names are checked before Keras is imported, and a test compares the two
_KERAS = (
    "ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge DenseNet121 DenseNet169 "
    "DenseNet201 EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 "
    "EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 "
    "EfficientNetV2B3 EfficientNetV2L EfficientNetV2M EfficientNetV2S InceptionResNetV2 InceptionV3 "
    "MobileNet MobileNetV2 MobileNetV3Large MobileNetV3Small NASNetLarge NASNetMobile ResNet101 "
    "ResNet101V2 ResNet152 ResNet152V2 ResNet50 ResNet50V2 VGG16 VGG19 Xception"
)
APPLICATIONS = (*_KERAS.split(),)
_FAMILIES = (
    "resnetD, preresnetD, plainD with D = 6n + 2, such as resnet20; wrnD_K with D = 6n + 4; vgg16_bn; "
    "allcnn; resnet18 to resnet152, also _v1 and _v2; keras:<name>, hub:<preset>, <path>.keras"
)


def check_backbone(name: str) -> None:
    """Raises UsageError unless `find` knows `name`; without Keras, so names in `keras:` and `hub:` pass."""
    if name in BUILDERS or _family(name):
        return
    if name.endswith(".keras"):
        if not pathlib.Path(name).is_file():
            raise UsageError(f"backbone {name!r}: no such file")
    elif name.startswith("keras:"):
        if (net := name.removeprefix("keras:")) not in APPLICATIONS:
            hint = nearest(net, APPLICATIONS) or f" (there are {', '.join(APPLICATIONS)})"
            raise UsageError(f"backbone {name!r} is not known{hint}")
    elif not re.fullmatch("hub:.+", name):
        hint = _depths_near(name) or nearest(name, BUILDERS) or f" (there are {_FAMILIES})"
        raise UsageError(f"backbone {name!r} is not known{hint}")


def find(name: str) -> Callable:
    """The builder called `name`: one of `BUILDERS`, another depth of a CIFAR family, or an existing net.

    `resnet26` is a CIFAR net. `resnet50` and `resnet152` are the ImageNet nets, although these depths are
    6n + 2 too.

    Raises:
        UsageError: an unknown name; the message has the nearest one.
    """
    check_backbone(name)
    if name in BUILDERS:
        return __getattr__(name)
    if family := _family(name):
        builder, *numbers = family
        return functools.partial(getattr(importlib.import_module("bnhead.models.cifar"), builder), *numbers)
    existing = importlib.import_module("bnhead.models.existing")
    if name.startswith("keras:"):
        return functools.partial(existing.from_applications, name.removeprefix("keras:"))
    if name.startswith("hub:"):
        return functools.partial(existing.from_hub, name.removeprefix("hub:"))
    return functools.partial(existing.from_file, name)


def build(
    name: str,
    input_shape: Sequence[int | None],
    head: str | None = None,
    outputs: int | None = None,
    *,
    weights: str = "",
    **options,
) -> "keras.Model":
    """The model called `name`, with pre-trained weights if `weights` is given.

    Args:
        name: as for `find`.
        input_shape, head, outputs, options: as for the builder.
        weights: as for `bnhead.models.weights.load_weights`; empty for initial weights.
    """
    builder = find(name)
    if name.startswith("keras:") and weights == "imagenet":
        return builder(input_shape, head, outputs, weights="imagenet", **options)
    model = builder(input_shape, head, outputs, **options)
    if weights:
        importlib.import_module("bnhead.models.weights").load_weights(model, weights)
    return model


def _family(name: str) -> tuple:
    """Builder and numbers of a CIFAR net that is not in `BUILDERS`; empty if `name` is not of this form."""
    if len(name) > 20:  # a depth of so many digits cannot be built, and `int` is slow on thousands
        return ()
    match = re.fullmatch(r"(resnet|preresnet|plain)([1-9]\d*)|wrn([1-9]\d*)_([1-9]\d*)", name)
    if not match:
        return ()
    family, depth, wide_depth, width = match.groups()
    if family:
        builder = {"resnet": "resnet_cifar", "preresnet": "preresnet_cifar", "plain": "plain"}[family]
        return (builder, int(depth)) if int(depth) % 6 == 2 and int(depth) > 2 else ()
    valid = int(wide_depth) % 6 == 4 and int(wide_depth) > 4
    return ("wide_resnet", int(wide_depth), int(width)) if valid else ()


def _depths_near(name: str) -> str:
    """The hint for a CIFAR net of another depth than its family has: the nearest two; empty otherwise."""
    match = re.fullmatch(r"(resnet|preresnet|plain|wrn)(\d{1,4})((?:_\d{1,4})?)", name)
    if not match or (match[1] == "wrn") != bool(match[3]):
        return ""
    offset = 4 if match[1] == "wrn" else 2
    below = (int(match[2]) - offset) // 6 * 6 + offset
    depths = [depth for depth in (below, below + 6) if depth > offset]
    return f"; did you mean {' or '.join(repr(f'{match[1]}{depth}{match[3]}') for depth in depths)}?"
