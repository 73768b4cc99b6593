"""The constants of a batch norm that backbones and heads share.

Those of the reference ResNets (He et al. 2015) in Keras' convention, in which momentum is the share of the
moving average that is *kept*. Keras' default of 0.99 still holds 37 % of its initial value after 100 steps,
and a short run then looks broken in evaluation mode though nothing is wrong.
"""

MOMENTUM = 0.9
EPSILON = 1e-5
