"""How far moving averages are from the statistics of the population."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead import graph
from bnhead.graph import trace
from bnhead.layers.population import population_stats


@dataclass(eq=False)
class AverageBias:
    """The distance of a norm's moving averages from the population, for each channel.

    Attributes:
        mean: `(channels,)`, |moving mean - mean| / sd.
        variance: `(channels,)`, ln(moving variance / variance): 0 if they are equal.

    Of a constant channel both are NaN.
    """

    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(
        cls, moving: tuple[np.ndarray, np.ndarray], population: tuple[np.ndarray, np.ndarray]
    ) -> "AverageBias":
        """From mean and variance `(channels,)` of both."""
        (moving_mean, moving_variance), (mean, variance) = moving, population
        sd = np.where(variance > 0, np.sqrt(variance), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(np.abs(moving_mean - mean) / sd, np.log(moving_variance / sd**2))

    @property
    def largest(self) -> float:
        """Largest entry of `mean`, in standard deviations; NaN if all channels are constant."""
        return float(np.nanmax(self.mean)) if np.isfinite(self.mean).any() else np.nan

    @property
    def typical(self) -> float:
        """Mean over channels of `mean`."""
        return float(np.nanmean(self.mean)) if np.isfinite(self.mean).any() else np.nan

    @property
    def log_variance(self) -> float:
        """Mean over channels of |`variance`|."""
        finite = self.variance[np.isfinite(self.variance)]
        return float(np.abs(finite).mean()) if len(finite) else np.nan


def average_bias(
    model: keras.Model, data: Any, layers: str | Iterable[str] = "all", *, batch_size: int = 256
) -> dict[str, AverageBias]:
    """The bias of the moving averages of batch norms, without changing the model.

    Args:
        model, data, layers, batch_size: as for `bnhead.layers.recompute_batch_stats`.

    Returns:
        Name of each norm, in the model's order -> its bias.
    """
    trace.synchronize_variables(model)
    flat, biases = graph.flattened(model), {}
    for name, moments in population_stats(model, data, layers, batch_size=batch_size).items():
        norm = flat.originals[flat.name(name)]
        moving = tuple(
            np.asarray(ops.convert_to_numpy(v), "float64") for v in (norm.moving_mean, norm.moving_variance)
        )
        biases[name] = AverageBias.of(moving, (moments.mean, moments.squares / moments.count))
    return biases
