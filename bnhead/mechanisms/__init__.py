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
"""

from typing import TYPE_CHECKING

from bnhead import public

if TYPE_CHECKING:
    from bnhead.mechanisms.averages import AverageBias, average_bias
    from bnhead.mechanisms.collapse import Collapse, effective_rank, neural_collapse, pillai
    from bnhead.mechanisms.dropout import VarianceShift, variance_shift
    from bnhead.mechanisms.guess import Guess, initial_guess, neutralise
    from bnhead.mechanisms.moments import FeatureMoments
    from bnhead.mechanisms.noise import Noise, batch_noise, predicted_variance
    from bnhead.mechanisms.population import Reference, reference
    from bnhead.mechanisms.split import Affine, Split

_HOMES = {
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
    "Noise",
    "Reference",
    "Split",
    "VarianceShift",
    "average_bias",
    "batch_noise",
    "effective_rank",
    "initial_guess",
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
