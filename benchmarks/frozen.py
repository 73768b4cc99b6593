"""Heads on frozen features: all in one stack, one after another in Keras' `fit`, and end to end.

Eight heads, each with several seeds, train for an epoch on the 64 pooled features of a ResNet-20 on CIFAR-10
and then on 2,048 drawn ones. Both sides have the same features in memory and the same compiled heads; they
take turns in one process. Keras trains the heads of one seed in a turn, and its time is multiplied by the
seeds. No time includes building or tracing. End to end the same net with a frozen backbone trains a head on
the images; the time of a step is multiplied by steps, heads and seeds, and the extraction of the features
counts on our side.

All times are CPU seconds of all threads, which other processes on the machine disturb less than wall seconds.
The share of the peak is that of the products of the heads' matrices in the rate of one large product.

    python benchmarks/frozen.py [--seeds=10] [--rounds=3] [--images=50000] [--widths=64,2048] [--threads=1]
        [--heads=out,bn_out,fc,bn_fc,fc_bn,fc_out_bn,ln_fc,center_fc] [--fc_units=256] [--end_to_end_steps=40]
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import tempfile
import time

HEADS = "out,bn_out,fc,bn_fc,fc_bn,fc_out_bn,ln_fc,center_fc"
BATCH, EPOCHS = 128, 15


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--widths", default="64,2048")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--heads", default=HEADS)
    parser.add_argument("--fc_units", type=int, default=256)
    parser.add_argument("--end_to_end_steps", type=int, default=40)
    return parser.parse_args()


GIVEN = parsed()
os.environ |= {"TF_NUM_INTRAOP_THREADS": str(GIVEN.threads), "TF_NUM_INTEROP_THREADS": str(GIVEN.threads)}

import checkout  # noqa: E402, F401
import keras  # noqa: E402
import numpy as np  # noqa: E402

from bnhead import heads, models  # noqa: E402
from bnhead.data import load  # noqa: E402
from bnhead.frozen.extraction import features, joined, pooled  # noqa: E402
from bnhead.frozen.stacked import Stack  # noqa: E402
from bnhead.training import TrainConfig  # noqa: E402
from bnhead.training.build import optimizer  # noqa: E402


def cpu(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def head_on(text: str, width: int, seed: int) -> keras.Model:
    """A head on features, compiled as `bnhead train` compiles it."""
    inputs = keras.Input((width,))
    model = heads.attach(text, inputs, inputs, 10, name="head", seed=seed, fc_units=GIVEN.fc_units)
    return compiled(model)


def compiled(model: keras.Model) -> keras.Model:
    sgd = optimizer(TrainConfig(epochs=EPOCHS), model, GIVEN.images // BATCH)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(sgd, loss, weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    return model


def products(model: keras.Model) -> int:
    """Operations of a step's products: forward, of the kernel and, after the first layer, of the input."""
    sizes = [layer.kernel.shape for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return sum(2 * BATCH * rows * columns * (2 if i == 0 else 3) for i, (rows, columns) in enumerate(sizes))


def peak() -> float:
    """Operations per CPU second of a product of two matrices of 2,048 x 2,048, the best of several."""
    matrix = keras.random.normal((2048, 2048))
    np.asarray(keras.ops.matmul(matrix, matrix))
    return 2 * 2048**3 / min(cpu(lambda: np.asarray(keras.ops.matmul(matrix, matrix))) for _ in range(8))


def compare(x: np.ndarray, y: np.ndarray) -> float:
    """Prints the times of both sides for an epoch of all heads and seeds, and returns the stack's median."""
    texts, width = GIVEN.heads.split(","), x.shape[1]
    size = len(x) - len(x) % BATCH  # one shape of batches
    stack, singles = Stack(x, y), [head_on(text, width, 0) for text in texts]
    for seed in range(GIVEN.seeds):
        for text in texts:
            stack.add(head_on(text, width, seed), seed)
    orders = {seed: np.random.default_rng(seed).permutation(len(x))[:size] for seed in range(GIVEN.seeds)}
    few = {seed: order[: 2 * BATCH] for seed, order in orders.items()}
    stack.epoch(few, BATCH)
    stack.epoch(orders, BATCH)
    for model in singles:
        model.fit(x[: 2 * BATCH], y[: 2 * BATCH], batch_size=BATCH, verbose=0)
    times, each = {"stack": [], "fit": []}, {text: [] for text in texts}
    for number in range(GIVEN.rounds):
        total = 0.0
        for text, model in zip(texts, singles, strict=True):
            order = orders[number % GIVEN.seeds]
            options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
            each[text].append(cpu(lambda m=model, o=order, k=options: m.fit(x[o], y[o], **k)))
            total += each[text][-1] * GIVEN.seeds
        times["fit"].append(total)
        times["stack"].append(cpu(lambda: stack.epoch(orders, BATCH)))
        ratio = times["fit"][-1] / times["stack"][-1]
        print(f"  round {number + 1}: fit {total:.1f} s, stack {times['stack'][-1]:.2f} s, {ratio:.1f} times")
    steps = size // BATCH
    flops = sum(map(products, singles)) * GIVEN.seeds * steps
    ours, theirs = (statistics.median(times[name]) for name in ("stack", "fit"))
    rate = peak()
    print(f"  {width} features, {len(texts)} heads x {GIVEN.seeds} seeds, an epoch of {size:,} examples")
    per_step = {text: f"{1000 * statistics.median(own) / steps:.2f}" for text, own in each.items()}
    print("  fit, ms a step: " + ", ".join(f"{text} {value}" for text, value in per_step.items()))
    print(f"  stack, ms a step and head: {1000 * ours / steps / GIVEN.seeds / len(texts):.3f}")
    ratios = [t / s for s, t in zip(times["stack"], times["fit"], strict=True)]
    spread = f"({min(ratios):.1f} to {max(ratios):.1f})"
    print(f"  the stack is faster than fit: {statistics.median(ratios):.1f} times {spread}")
    shares = (f"{name} {flops / seconds / rate:.0%}" for name, seconds in (("stack", ours), ("fit", theirs)))
    print(f"  share of the peak, {rate / 1e9:.0f} GFLOP/s: {', '.join(shares)}")
    return ours


def main() -> None:
    data = load("cifar10")
    backbone = pooled(models.resnet20((32, 32, 3)))
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)
    images = keras.Input((32, 32, 3))
    extractor = keras.Model(images, backbone(scaled(images)))
    train = data.train.take(np.arange(min(GIVEN.images, data.train.size)))
    with tempfile.TemporaryDirectory() as folder:
        small = dataclasses.replace(data, train=train, test=data.test.take(np.arange(256)))
        start = time.process_time()
        found = features(extractor, small, directory=pathlib.Path(folder))
        extraction = time.process_time() - start
        x, y = np.array(found.train), np.array(found.train_labels)
    print(f"features of {len(x):,} images extracted in {extraction:.1f} CPU s")
    widths, ours = [int(width) for width in GIVEN.widths.split(",")], None
    for width in widths:
        print(f"\n{width} features")
        drawn = np.maximum(np.random.default_rng(0).standard_normal((len(x), width), "float32"), 0)
        seconds = compare(x if width == x.shape[1] else drawn, y)
        ours = seconds if width == x.shape[1] else ours
    if ours is None or not GIVEN.end_to_end_steps:
        return
    extractor.trainable = False
    model = compiled(joined(extractor, head_on("bn_fc", x.shape[1], 0)))
    batches = train.training_batches(BATCH, 1, 0, "none")
    model.fit(batches.take(2), verbose=0, shuffle=False)
    seconds = cpu(lambda: model.fit(batches.take(GIVEN.end_to_end_steps), verbose=0, shuffle=False))
    steps, runs = len(x) // BATCH, GIVEN.seeds * len(GIVEN.heads.split(","))
    epoch = seconds / GIVEN.end_to_end_steps * steps
    print(
        f"\nend to end: {epoch:.1f} s an epoch of one head ({GIVEN.end_to_end_steps} of {steps} steps timed)"
    )
    for epochs in (1, EPOCHS):
        ratio = runs * epochs * epoch / (extraction + epochs * ours)
        print(f"  {runs} runs of {epochs} epochs: the stack and the extraction are {ratio:.0f} times faster")


if __name__ == "__main__":
    main()
