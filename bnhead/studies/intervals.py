"""The interval of a paired difference whose seeds and test images are both samples.

A mean over test images, such as accuracy, differs between two heads by d[s, i] for seed s (of n) and image i
(of N). Seeds and images are crossed random factors: d[s, i] = mean + S_s + I_i + E_si. The mean squares are

    MS_S = N sum_s (d[s, .] - d[., .])^2 / (n - 1)
    MS_I = n sum_i (d[., i] - d[., .])^2 / (N - 1)
    MS_E = sum_si (d[s, i] - d[s, .] - d[., i] + d[., .])^2 / ((n - 1) (N - 1))

The variance of the mean over all n N differences is V = (MS_S + max(0, MS_I - MS_E)) / (n N). The interval
takes Student's t with n - 1 degrees of freedom. It is never narrower than the interval over seeds alone,
whose variance is MS_S / (n N). The sum of the variances of both means would count the interaction twice, and
Satterthwaite's degrees of freedom cover too rarely at 3 to 5 seeds.

A figure other than a mean over images, such as R^2, is one number per seed: N = 1, and the interval is
the usual t interval over seeds.
"""

from dataclasses import dataclass

import numpy as np
from etils import epy

with epy.lazy_imports():  # a report reads its verdict and needs no SciPy
    from scipy import stats


@dataclass(frozen=True)
class Crossed:
    """Mean and variances of paired differences; for a batch of studies each is an array.

    Attributes:
        seeds: number of seeds n, at least 2.
        images: number of images N; 1 for a figure with one number a seed.
        mean: mean over seeds and images.
        mean_squares: MS_S, MS_I and MS_E; the last two are 0 for N = 1.
    """

    seeds: int
    images: int
    mean: float
    mean_squares: tuple[float, float, float]

    @property
    def seed_variance(self) -> float:
        """Variance of the mean from the seeds alone, their interaction with the images included."""
        return self.mean_squares[0] / (self.seeds * self.images)

    @property
    def image_variance(self) -> float:
        """Variance of the mean from the images, at least 0."""
        by_image, residual = self.mean_squares[1:]
        return np.maximum(0.0, by_image - residual) / (self.seeds * self.images)

    @property
    def components(self) -> tuple[float, float, float]:
        """Variances of S, I and E by the method of moments, each at least 0."""
        by_seed, by_image, residual = self.mean_squares
        seeds = np.maximum(0.0, by_seed - residual) / self.images
        return seeds, np.maximum(0.0, by_image - residual) / self.seeds, residual

    def interval(self, alpha: float, *, seeds_only: bool = False) -> tuple[float, float]:
        """The interval of confidence 1 - alpha.

        Args:
            alpha: error rate of this interval.
            seeds_only: whether the test images count as fixed.
        """
        variance = self.seed_variance + (0.0 if seeds_only else self.image_variance)
        reach = stats.t.isf(alpha / 2, self.seeds - 1) * np.sqrt(variance)
        return self.mean - reach, self.mean + reach


def crossed(differences: np.ndarray) -> Crossed:
    """Mean and mean squares of paired differences.

    The order of seeds and of images changes no bit of the result: every sum is over sorted numbers.

    Args:
        differences: `(..., seeds, images)`, treatment minus control; leading axes are a batch of studies.

    Raises:
        ValueError: there are fewer than two seeds, or no image.
    """
    # one layout in memory, on which the order of additions depends
    d = np.ascontiguousarray(differences, "float64")
    n, images = d.shape[-2:]
    if n < 2 or images < 1:
        raise ValueError(f"differences must have at least 2 seeds and 1 image, got {n} and {images}")
    by_seed, by_image = _mean(d, -1), _mean(d, -2)
    mean = _mean(by_seed, -1)
    seeds = images * _sum((by_seed - mean[..., None]) ** 2, -1) / (n - 1)
    if images == 1:
        images_and_residuals = np.zeros_like(seeds), np.zeros_like(seeds)
    else:
        residuals = d - by_seed[..., None] - by_image[..., None, :] + mean[..., None, None]
        flat = residuals.reshape(*d.shape[:-2], n * images)
        images_and_residuals = (
            n * _sum((by_image - mean[..., None]) ** 2, -1) / (images - 1),
            _sum(flat**2, -1) / ((n - 1) * (images - 1)),
        )
    scalar = (lambda value: float(value)) if d.ndim == 2 else (lambda value: value)
    return Crossed(n, images, scalar(mean), tuple(scalar(value) for value in (seeds, *images_and_residuals)))


def _sum(values: np.ndarray, axis: int) -> np.ndarray:
    return np.sort(values, axis).sum(axis)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis; of equal values exactly their value, so that a constant has no variance."""
    ordered = np.sort(values, axis)
    first = np.take(ordered, [0], axis)
    return np.squeeze(first, axis) + (ordered - first).sum(axis) / values.shape[axis]
