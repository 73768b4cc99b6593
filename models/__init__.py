"""Backbones as plain functions: `resnet20((32, 32, 3), head="bn_fc", outputs=10) -> keras.Model`.

    from bnhead.models import resnet20
    from bnhead import models; models.find("resnet26")

The builders are imported when they are first used, so that names can be checked without Keras.
"""

import functools
import importlib
import re
from collections.abc import Callable

from bnhead.errors import UsageError, nearest

__all__ = ["resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet_cifar"]
_CIFAR_DEPTHS = "resnetD with D = 6n + 2"


def find(name: str) -> Callable:
    """The builder called `name`: one of `__all__`, or `resnetD` of any depth D = 6n + 2.

    50 and 152 are 6n + 2 too, but by these names everybody means the ImageNet nets; ask for
    `resnet_cifar(50, ...)` instead.

    Raises:
        UsageError: there is no such backbone; the message has the nearest name.
    """
    check(name)
    module = importlib.import_module("bnhead.models.cifar")
    if hasattr(module, name):
        return getattr(module, name)
    return functools.partial(module.resnet_cifar, int(name.removeprefix("resnet")))


def check(name: str) -> None:
    """Raises UsageError unless `find` knows `name`; imports nothing."""
    named = [n for n in __all__ if n != "resnet_cifar"]
    depth = re.fullmatch(r"resnet([1-9]\d*)", name)
    if name in named or (depth and int(depth[1]) % 6 == 2 and int(depth[1]) not in (2, 50, 152)):
        return
    there = f"{', '.join(named)} and other {_CIFAR_DEPTHS}"
    raise UsageError(f"backbone {name!r} is not known{nearest(name, named)} (there are {there})")


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'bnhead.models' has no attribute {name!r}")
    return getattr(importlib.import_module("bnhead.models.cifar"), name)
