"""The predictions of a finished run for each test image: `predictions.npz`, in the order of the test split.

labels    `(images,)` or `(images, targets)`: the labels
outputs   `(images, outputs)` float32: logits, or for regression numbers in the targets' units
correct   `(images,)` bool, loss `(images,)` float32: instead of `outputs`, where outputs x images > 2e7
silent    `(images, layers)` float32: share of the units of each counted layer that are silent on the image
layers    `(layers,)`: names of the counted layers
population_outputs, population_silent, ...
          the same with population statistics in the head's batch norms (`TrainConfig.population_stats`)
without_norms_outputs, ...
          the same without the head's batch norms (`TrainConfig.without_norms`)

Verdicts are about these numbers. Whatever else is asked of a trained model's outputs (calibration, adjusted
logits) reads them too.
"""

import pathlib
import zipfile
from dataclasses import dataclass

import numpy as np

from bnhead.runs import atomic
from bnhead.runs.directory import PREDICTIONS as NAME

MOST_OUTPUTS = 20_000_000  # above, 80 MB and more, only what a verdict needs is kept
_ARRAYS = {"labels", "outputs", "correct", "loss", "silent", "layers"}
_OF_A_MODEL = _ARRAYS - {"labels", "layers"}
VARIANTS = ("population", "without_norms")  # of the trained model, each with arrays of its own


@dataclass(frozen=True)
class Predictions:
    """The arrays of `predictions.npz`.

    Attributes:
        labels, outputs, correct, loss, silent, layers: as in the module's docstring.
        population: those with population statistics, if they were measured.
        without_norms: those without the head's batch norms, likewise.
    """

    labels: np.ndarray
    silent: np.ndarray
    layers: tuple[str, ...]
    outputs: np.ndarray | None = None
    correct: np.ndarray | None = None
    loss: np.ndarray | None = None
    population: "Predictions | None" = None
    without_norms: "Predictions | None" = None

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self.labels)

    def accuracy(self) -> np.ndarray:
        """`(images,)` float64: 1 if the largest output is the label's, else 0."""
        correct = self.outputs.argmax(1) == self.labels if self.correct is None else self.correct
        return correct.astype("float64")

    def negative_log_likelihood(self, task: str) -> np.ndarray:
        """`(images,)` float64: the loss of each image, in nats.

        Args:
            task: "classification", or "multilabel": the mean over the classes, each a yes or no.
        """
        return _losses(self.outputs, self.labels, task) if self.loss is None else self.loss.astype("float64")

    def silent_share(self, layer: str = "") -> np.ndarray:
        """`(images,)` float64: share of silent units of a layer, the first for ""."""
        return self.silent[:, self.layers.index(layer) if layer else 0].astype("float64")


def of_outputs(
    outputs: np.ndarray, labels: np.ndarray, silent: np.ndarray, layers: tuple[str, ...], task: str
) -> Predictions:
    """The predictions of a run, without the outputs if they are too many to keep.

    Args:
        outputs: `(images, outputs)`.
        labels: `(images,)`, or `(images, targets)` for regression.
        silent: `(images, layers)`.
        layers: names of the counted layers.
        task: of the run.
    """
    predictions = Predictions(labels, silent.astype("float32"), layers, outputs.astype("float32"))
    if task == "regression" or outputs.size <= MOST_OUTPUTS:
        return predictions
    correct, loss = predictions.accuracy().astype(bool), predictions.negative_log_likelihood(task)
    return Predictions(labels, predictions.silent, layers, correct=correct, loss=loss.astype("float32"))


def write_predictions(path: pathlib.Path, predictions: Predictions) -> None:
    """Writes the arrays to a new file; equal arrays give equal bytes."""
    arrays = {name: getattr(predictions, name) for name in sorted(_ARRAYS)}
    for variant in VARIANTS:
        if (of_variant := getattr(predictions, variant)) is not None:
            arrays |= {f"{variant}_{name}": getattr(of_variant, name) for name in sorted(_OF_A_MODEL)}
    with open(path, "wb") as file:
        np.savez(file, **{name: np.asarray(array) for name, array in arrays.items() if array is not None})


def read_predictions(directory: pathlib.Path) -> Predictions:
    """The predictions of the run in a directory.

    Raises:
        OSError: the file does not exist, or it cannot be read.
        ValueError: it is damaged, or holds something else.
    """
    path = directory / NAME
    atomic.check_regular(path)
    known = {"": _ARRAYS, **{f"{variant}_": _OF_A_MODEL for variant in VARIANTS}}  # prefix -> names
    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            read = {
                prefix: {name: file[prefix + name] for name in sorted(names) if prefix + name in file.files}
                for prefix, names in known.items()
            }
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as error:
        raise ValueError(f"it is damaged: {error}") from error
    arrays = read.pop("")
    for second in ({}, *filter(None, read.values())):
        if problem := _problem(arrays | second):
            raise ValueError(problem)
    arrays["layers"] = tuple(map(str, arrays["layers"]))
    variants = {
        prefix.removesuffix("_"): Predictions(**{**arrays, **second})
        for prefix, second in read.items()
        if second
    }
    return Predictions(**arrays, **variants)


def _problem(arrays: dict[str, np.ndarray]) -> str:
    """The first contradiction to the format of a run; "" for sound arrays."""
    if missing := {"labels", "silent", "layers"} - arrays.keys():
        return f"it has no array {min(missing)!r}"
    if "outputs" not in arrays and not {"correct", "loss"} <= arrays.keys():
        return "it has neither 'outputs' nor 'correct' and 'loss'"
    images, layers = arrays["labels"].shape[:1], arrays["layers"].shape
    if arrays["silent"].shape != (*images, *layers) or not layers or not layers[0]:
        return f"'silent' must be of shape {(*images, *layers)}, got {arrays['silent'].shape}"
    for name in ("outputs", "correct", "loss"):
        if name in arrays and (not arrays[name].ndim or arrays[name].shape[:1] != images):
            return f"{name!r} must have {images[0]} rows, got the shape {arrays[name].shape}"
    if "outputs" in arrays and arrays["outputs"].ndim != 2:
        return f"'outputs' must have 2 axes, got {arrays['outputs'].ndim}"
    return ""


def _losses(outputs: np.ndarray, labels: np.ndarray, task: str) -> np.ndarray:
    logits, rows = outputs.astype("float64"), np.arange(len(labels))
    if task == "multilabel":
        positive = np.zeros(logits.shape, bool)
        positive[rows, labels] = True
        return np.logaddexp(0, np.where(positive, -logits, logits)).mean(1)
    from scipy import special  # not at the top: reports read files of runs without SciPy

    return special.logsumexp(logits, axis=1) - logits[rows, labels]
