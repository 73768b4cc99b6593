"""Frozen backbones: features are computed once and kept, and heads are trained from them.

`store` keeps arrays on disk, `features` runs a frozen backbone over a data set.
"""

from typing import TYPE_CHECKING

from bnhead import public

if TYPE_CHECKING:
    from bnhead.frozen.features import Features, features

__all__ = ["Features", "features"]
__getattr__, __dir__ = public.names(  # these import TensorFlow
    __name__, {"Features": "bnhead.frozen.features", "features": "bnhead.frozen.features"}
)
