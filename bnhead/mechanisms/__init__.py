"""Why a batch norm before the last fully connected layer matters: measurements and interventions.

Modules:

    split       a model cut at the last batch norm of its head
    moments     moments of features, merged batch by batch
    population  population statistics and batch-mates, from one pass over training data
    noise       batch noise: the same example with other batch-mates
    guess       the initial guess, and the output bias that makes it neutral
    collapse    neural collapse, the Pillai trace, effective ranks
    dropout     the variance shift of dropout
    averages    the bias of moving averages
    gap         accuracy and loss by the statistics that the norm takes
    scale       norms of features, weights and logits, and the loss that they allow
    calibration margin, loss, temperature and calibration error
    backward    gradients that reach the FC and the backbone
    decay       weight decay in the units of the features
    figures     the table of figures: one row each
    measurements all of them in one pass
    effects     interventions: what changes if one effect of the norm is taken away or added
    callback    the same after every epoch of a training
"""

from typing import TYPE_CHECKING

from bnhead import public

if TYPE_CHECKING:
    from bnhead.mechanisms.averages import AverageBias, average_bias
    from bnhead.mechanisms.callback import Measure
    from bnhead.mechanisms.collapse import Collapse, effective_rank, neural_collapse, pillai
    from bnhead.mechanisms.dropout import VarianceShift, variance_shift
    from bnhead.mechanisms.effects import Interventions, interventions
    from bnhead.mechanisms.guess import Guess, initial_guess, neutralise
    from bnhead.mechanisms.measurements import Measured, measure
    from bnhead.mechanisms.moments import FeatureMoments
    from bnhead.mechanisms.noise import Noise, batch_noise, predicted_variance
    from bnhead.mechanisms.population import Reference, reference
    from bnhead.mechanisms.split import Affine, Split

_HOMES = {
    "effects": ("Interventions", "interventions"),
    "callback": ("Measure",),
    "measurements": ("Measured", "measure"),
    "averages": ("AverageBias", "average_bias"),
    "collapse": ("Collapse", "effective_rank", "neural_collapse", "pillai"),
    "dropout": ("VarianceShift", "variance_shift"),
    "guess": ("Guess", "initial_guess", "neutralise"),
    "moments": ("FeatureMoments",),
    "noise": ("Noise", "batch_noise", "predicted_variance"),
    "population": ("Reference", "reference"),
    "split": ("Affine", "Split"),
}
__all__ = [
    "Affine",
    "AverageBias",
    "Collapse",
    "FeatureMoments",
    "Guess",
    "Interventions",
    "Measure",
    "Measured",
    "Noise",
    "Reference",
    "Split",
    "VarianceShift",
    "average_bias",
    "batch_noise",
    "effective_rank",
    "initial_guess",
    "interventions",
    "measure",
    "neural_collapse",
    "neutralise",
    "pillai",
    "predicted_variance",
    "reference",
    "variance_shift",
]
__getattr__, __dir__ = public.names(
    __name__, {name: f"bnhead.mechanisms.{module}" for module, names in _HOMES.items() for name in names}
)
