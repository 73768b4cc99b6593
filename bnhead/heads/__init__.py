"""Heads: everything after the backbone's feature map, written as a short text.

A head is tokens joined by `_`, from the features to the output: `bn_fc` is a batch norm on the pooled
features, a fully connected layer and the output layer. Pooling (`gap`) and output layer (`out`) are added if
the text does not contain them.

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
    fcenter fscale                   the same two with frozen statistics               none
    noise                            a batch norm's noise, nothing normalised          none
    l2                               L2-normalised, with a learned scale               none
    dropout cdropout                 dropout; more of it for rarer classes             rate: dropout0.5
    relu relu6 leakyrelu elu selu    an activation                                     none
    gelu silu mish tanh
    out                              the output layer: Dense, logits                   none

A minus leaves a part out: `bn-beta` (no offset), `bn-gamma` (no gain), `bn-beta-gamma`, also for `gbn`,
`brn`, `fbn`, `ln` and `gn`. `out-bias`, `dense512-bias` and `fc-bias` have no bias.

A token before the pooling works on the feature map: `bn_gap_fc`. "Final batch norm" can mean four positions;
`placement` names them:

    P0  before the pooling              bn_gap_fc
    P1  on the pooled features          bn_fc, bn_out
    P2  between the FC and the output   fc_bn
    P3  on the logits                   fc_out_bn

`PRESETS` are published heads such as `fastai` or `bnneck`; their names can be used like texts.

`parse` makes a `Head` of a text. A `Head` knows its tokens, placement, description and number of parameters,
and puts itself on features. The other functions take texts.

Modules: `grammar` has `Head` and its parser, `tokens` the table of tokens, `presets` the published heads,
`diagram` their pictures; these need no Keras. `build` has the tokens' layers and puts a head on a feature
map, `surgery` reads and changes the head of an existing model.
"""

from typing import TYPE_CHECKING

from bnhead import public
from bnhead.heads.grammar import Head, canonical, describe, parse, placement
from bnhead.heads.presets import PRESETS
from bnhead.heads.tokens import TOKENS, HeadError

if TYPE_CHECKING:
    from bnhead.heads.build import apply, attach
    from bnhead.heads.surgery import feature_map, feature_shape, fold, inference, insert_bn, read, swap

__all__ = [
    "PRESETS",
    "TOKENS",
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
    "parse",
    "placement",
    "read",
    "swap",
]
_SURGERY = ("feature_map", "feature_shape", "fold", "inference", "insert_bn", "read", "swap")
__getattr__, __dir__ = public.names(  # the others need no Keras
    __name__,
    {
        **dict.fromkeys(("apply", "attach"), "bnhead.heads.build"),
        **dict.fromkeys(_SURGERY, "bnhead.heads.surgery"),
    },
)
