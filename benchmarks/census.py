"""Counting dead units: `census.count` against `model.predict` of the activations and NumPy.

The peer is what one writes without bnhead: a model that returns the activations, `predict` on everything,
NumPy on the arrays. Both count the same layers of a ResNet-20 on the same 32 x 32 images, in turn; the ratio
is taken run by run. A plain `predict` of the logits is timed beside them, the forward pass that both need.

    python benchmarks/census.py [--images=2000] [--runs=7]
"""

import argparse
import statistics
import time

import keras
import numpy as np

from bnhead.census import Probe
from bnhead.models import resnet20


def peer(model: keras.Model, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """Per layer the share silent per input and dead on all inputs, from the activations themselves."""
    shares = {}
    for name, values in model.predict(images, batch_size=256, verbose=0).items():
        silent = (values.reshape(len(values), -1, values.shape[-1]) == 0).all(1)
        shares[name] = silent.mean(), silent.all(0).mean()
    return shares


def timed(function, *arguments) -> tuple[float, object]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def line(name: str, seconds: list[float]) -> str:
    return f"  {name:<28}{statistics.median(seconds):8.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})"


def compare(model: keras.Model, layers: list[str], images: np.ndarray, runs: int) -> None:
    probe = Probe(model, layers)
    activations = keras.Model(model.inputs, {name: model.get_layer(name).output for name in layers})
    ours, theirs, forward = [], [], []
    for run in range(runs + 1):  # the first traces the functions and is not counted
        seconds, census = timed(probe.count, images)
        peer_seconds, shares = timed(peer, activations, images)
        forward_seconds, _ = timed(lambda: model.predict(images, batch_size=256, verbose=0))
        for name, counts in census.layers.items():
            figures = counts.figures()
            np.testing.assert_allclose([figures["per_input"], figures["dataset"]], shares[name], atol=1e-9)
        if run:
            ours.append(seconds), theirs.append(peer_seconds), forward.append(forward_seconds)
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"{len(layers)} layers, {len(images)} images, {runs} runs: median (range)")
    print(line("census.count", ours))
    print(line("predict + NumPy", theirs))
    print(line("predict of the logits alone", forward))
    print(f"  ratio count / (predict + NumPy) {statistics.median(ratios):.2f} ", end="")
    print(f"({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    images = np.random.default_rng(0).normal(size=(options.images, 32, 32, 3)).astype("float32")
    model = resnet20((32, 32, 3), "bn_fc", 10, seed=0)
    every = [layer.name for layer in model.layers if "relu" in layer.name]
    compare(model, ["head_fc"], images, options.runs)
    compare(model, [*every, "head_fc"], images, options.runs)


if __name__ == "__main__":
    main()
