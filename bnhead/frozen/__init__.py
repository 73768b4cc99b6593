"""Frozen backbones: features are computed once and kept, and heads are trained from them.

`store` keeps arrays on disk, `extraction` runs a frozen backbone over a data set. `stacked` trains many heads
on the same features in one program, with the layers of `batched` and the optimizers of `updates`;
`closed_form` has the optimum of linear heads.
"""

from typing import TYPE_CHECKING

from bnhead import public

if TYPE_CHECKING:
    from bnhead.frozen.closed_form import LinearHead, best_linear_head
    from bnhead.frozen.extraction import Features, features
    from bnhead.frozen.stacked import Stack

__all__ = ["Features", "LinearHead", "Stack", "best_linear_head", "features"]
__getattr__, __dir__ = public.names(  # these import TensorFlow
    __name__,
    {
        "Features": "bnhead.frozen.extraction",
        "LinearHead": "bnhead.frozen.closed_form",
        "Stack": "bnhead.frozen.stacked",
        "best_linear_head": "bnhead.frozen.closed_form",
        "features": "bnhead.frozen.extraction",
    },
)
