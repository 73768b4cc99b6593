"""Weight decay in the units of the features: a penalty on the weights after a norm, seen before the norm."""

from dataclasses import dataclass

import keras
import numpy as np

from bnhead.layers.folding import inference_affine
from bnhead.mechanisms.split import Split


@dataclass(eq=False)
class Decay:
    """The penalty of a Dense after a norm, in the units of the norm's input.

    Folded into the Dense, a norm of scale s_j = gamma_j / sd_j makes w_j s_j of the weights w_j of feature j.
    So the penalty sum |w_j|^2 is sum |w_j s_j|^2 / s_j^2: cheap for features of low variance, dear for
    others.

    Attributes:
        factors: `(channels,)` float64, 1 / s_j^2 = (sd_j / gamma_j)^2: how much more the folded weights of a
            feature are penalised than by a separate decay; 1 without a norm.
        ratio: sum |w_j|^2 / sum |w_j s_j|^2, the penalty in the norm's units over that in the features'.
    """

    factors: np.ndarray
    ratio: float

    @property
    def spread(self) -> float:
        """95th over 5th percentile of `factors`: 1 if all features are penalised alike."""
        finite = self.factors[np.isfinite(self.factors)]
        if not len(finite):
            return np.nan
        low, high = np.percentile(finite, (5, 95))
        return float(high / low) if low > 0 else np.inf


def effective_decay(split: Split) -> Decay | None:
    """The penalty of the first Dense after the norm, by the moving averages.

    Returns:
        None without a Dense after the norm, or if layers between them mix the channels.

    Reference: van Laarhoven 2017, arXiv 1706.05350, section 2, for the penalty of a normalised layer.
    """
    if split.fc is None:
        return None
    kernel = np.asarray(keras.ops.convert_to_numpy(split.fc.kernel), "float64")
    affine = None if split.norm is None else inference_affine(split.norm)
    scale = np.ones(len(kernel)) if affine is None else np.broadcast_to(affine[0], affine[1].shape)
    if len(kernel) % len(scale):
        return None
    scale = np.tile(
        scale, len(kernel) // len(scale)
    )  # above 1 after a Flatten: channels are its fastest axis
    with np.errstate(divide="ignore"):
        scaled = ((kernel * scale[:, None]) ** 2).sum()
        return Decay(1 / scale**2, float((kernel**2).sum() / scaled) if scaled else np.inf)
