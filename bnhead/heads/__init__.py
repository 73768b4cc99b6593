"""Heads: everything after the backbone's feature map, written as a short text.

A head is tokens joined by `_`, read from the features to the output: `bn_fc` is a batch norm on the pooled
features, a fully connected layer and the output layer. Pooling (`gap`) and the output layer (`out`) are put
in where the text leaves them out.

    token                            layer                                             number
    gap gmp catpool gem flatten      feature map -> vector                             none
    fc                               Dense with an activation (`fc_activation`)        units, else `fc_units`
    dense                            Dense without activation                          units, else `fc_units`
    bn                               batch norm                                        none
    gbn                              ghost batch norm                                  ghost size: gbn16
    brn                              batch renorm, bounds growing over `renorm_steps`  none
    fbn                              batch norm with frozen statistics, no noise       none
    ln rms gn                        layer, RMS, group norm                            groups: gn8
    center scale                     a batch norm's subtraction; its division          none
    noise                            a batch norm's noise, nothing normalised          none
    l2                               L2-normalised, with a learned scale               none
    dropout cdropout                 dropout; more of it for rarer classes             rate: dropout0.5
    relu relu6 leakyrelu elu selu    an activation                                     none
    gelu silu mish tanh
    out                              the output layer: Dense, logits                   none

A part can be left out with a minus: `bn-beta` (no offset), `bn-gamma` (no gain), `bn-beta-gamma`; so for
`gbn`, `brn`, `fbn`, `ln` and `gn`. `out-bias`, `dense512-bias` and `fc-bias` have no bias.

A token before the pooling works on the feature map: `bn_gap_fc`. Four places are all called "final batch
norm" by somebody; here they have names (`placement`):

    P0  before the pooling              bn_gap_fc
    P1  on the pooled features          bn_fc, bn_out
    P2  between the FC and the output   fc_bn
    P3  on the logits                   fc_out_bn

Heads that are known by a name, `fastai` or `bnneck`, are `PRESETS`; a name stands for its text everywhere.

`parse` makes a `Head` of a text: it knows its tokens, placement, diagram and number of parameters, and puts
itself on features. The other functions take texts.

`grammar` has `Head` and its parser, `tokens` the table of the tokens, `presets` the known heads; none of them
needs Keras. `building` has the tokens' layers and puts a head on a feature map, `surgery` changes the head of
a model that exists, `diagram` draws one, `command` is `bnhead heads`.
"""

import importlib

from bnhead.heads.grammar import (
    Head,
    canonical,
    describe,
    needs_labels,
    parameters,
    parse,
    placement,
)
from bnhead.heads.presets import PRESETS
from bnhead.heads.tokens import KINDS, HeadError

_WITH_KERAS = {  # public name -> the module that brings Keras
    **dict.fromkeys(("apply", "attach", "feature_shape", "inference", "read"), "build"),
    **dict.fromkeys(("feature_map", "fold", "insert_bn", "swap"), "surgery"),
}
__all__ = [
    "KINDS",
    "PRESETS",
    "Head",
    "HeadError",
    "apply",
    "attach",
    "canonical",
    "describe",
    "feature_map",
    "feature_shape",
    "fold",
    "inference",
    "insert_bn",
    "needs_labels",
    "parameters",
    "parse",
    "placement",
    "read",
    "swap",
]


def __getattr__(name: str):
    if name not in _WITH_KERAS:
        raise AttributeError(f"module 'bnhead.heads' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bnhead.heads.{_WITH_KERAS[name]}"), name)


def __dir__():
    return __all__
