"""ResNet-20 on 32 x 32 images at batch 128: plain Keras, bnhead and PyTorch, training and prediction.

Every contender has a process of its own and the processes take turns, one round after the other, so that a
machine that slows down slows all of them; ratios are taken round by round. PyTorch runs channels_last. The
floor is the net's convolutions alone, with both gradients, in the same layout.

    python benchmarks/backbones.py [--rounds=7] [--steps=6] [--only=train]
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time

import checkout  # noqa: F401

BATCH, SIZE, CLASSES = 128, 32, 10
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-4
RATIOS = [  # what, against what
    ("train bnhead", "train Keras"),
    ("train bnhead", "train PyTorch"),
    ("train bnhead", "train floor"),
    ("train bnhead bf16", "train bnhead"),
    ("predict bnhead folded", "predict bnhead"),
    ("predict bnhead folded", "predict Keras"),
    ("predict bnhead folded", "predict PyTorch"),
]


def keras_contender(kind: str, precision: str, task: str):
    """A function that does one step (training) or one batch (prediction) with Keras on TensorFlow."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import numpy as np

    from bnhead.layers import fold_batch_norm
    from bnhead.models import resnet20

    keras.config.set_dtype_policy(precision)
    x = np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)).astype("float32")
    y = np.random.default_rng(0).integers(0, CLASSES, BATCH)
    own = {}
    if kind == "Keras":
        own = {"norm": lambda name: keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)}
    model = resnet20((SIZE, SIZE, 3), "fc", CLASSES, seed=0, **own)
    if kind == "bnhead folded":
        model = fold_batch_norm(model)
    model.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM, weight_decay=DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return (lambda: model.train_on_batch(x, y)) if task == "train" else (lambda: model.predict_on_batch(x))


def floor_contender(kind: str, precision: str, task: str):
    """A function that does the convolutions of a training step of ResNet-20, and nothing else."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    widths = [(3, 16, 1)] + [(16, 16, 1)] * 6 + [(16, 32, 2)] + [(32, 32, 1)] * 5 + [(32, 64, 2)]
    widths += [(64, 64, 1)] * 5
    pairs, size = [], SIZE
    for before, width, stride in widths:
        # with a stride the image is padded beforehand, as in the net
        shape = BATCH, size + 2 * (stride - 1), size + 2 * (stride - 1), before
        pairs.append((tf.random.normal(shape), tf.random.normal((3, 3, before, width)), stride))
        size //= stride

    @tf.function
    def step():
        results = []
        for images, kernel, stride in pairs:
            options = {"strides": stride, "padding": "SAME" if stride == 1 else "VALID"}
            outputs = tf.nn.conv2d(images, kernel, **options)
            options["strides"] = [1, stride, stride, 1]
            results.append(
                tf.raw_ops.Conv2DBackpropFilter(
                    input=images, filter_sizes=kernel.shape, out_backprop=outputs, **options
                )
            )
            if images.shape[-1] > 3:  # the first convolution's input has no gradient
                back = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=images.shape, filter=kernel, out_backprop=outputs, **options
                )
                results.append(back[0, 0, 0, 0])
        return results

    return lambda: step()[0].numpy()


def torch_contender(kind: str, precision: str, task: str, device: str = "cpu"):
    """The same with PyTorch, written as its users write it."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
            self.stride, self.new = stride, width - before

        def forward(self, x):
            carried = x[:, :, :: self.stride, :: self.stride]
            if self.new:
                carried = functional.pad(carried, (0, 0, 0, 0, self.new // 2, self.new // 2))
            x = functional.relu(self.bn1(self.conv1(x)))
            return functional.relu(carried + self.bn2(self.conv2(x)))

    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, CLASSES)]
    model = nn.Sequential(*stem, *(Block(*w) for w in widths), *head)
    model = model.to(device, memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, SIZE, SIZE).to(device, memory_format=torch.channels_last)
    y = torch.randint(0, CLASSES, (BATCH,), device=device)
    sgd = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    model = torch.compile(model) if kind == "PyTorch compiled" else model

    def train():
        sgd.zero_grad(set_to_none=True)
        functional.cross_entropy(model(x), y).backward()
        sgd.step()

    def predict():
        with torch.inference_mode():
            model(x)

    model.train(task == "train")
    return train if task == "train" else predict


CONTENDERS = {
    "train Keras": (keras_contender, "Keras", "float32", "train"),
    "train bnhead": (keras_contender, "bnhead", "float32", "train"),
    "train bnhead bf16": (keras_contender, "bnhead", "mixed_bfloat16", "train"),
    "train floor": (floor_contender, "floor", "float32", "train"),
    "train PyTorch": (torch_contender, "PyTorch", "float32", "train"),
    "predict Keras": (keras_contender, "Keras", "float32", "predict"),
    "predict bnhead": (keras_contender, "bnhead", "float32", "predict"),
    "predict bnhead folded": (keras_contender, "bnhead folded", "float32", "predict"),
    "predict PyTorch": (torch_contender, "PyTorch", "float32", "predict"),
}


def work(pipe, name: str) -> None:
    """A contender's process: builds, warms up, then answers each number of steps with images per second."""
    make, *how = CONTENDERS[name]
    try:
        step = make(*how)
    except ImportError as error:
        pipe.send(str(error))
        return
    for _ in range(3):
        step()
    pipe.send("ready")
    while steps := pipe.recv():
        start = time.perf_counter()
        for _ in range(steps):
            step()
        pipe.send(steps * BATCH / (time.perf_counter() - start))


def start(name: str):
    """The contender's end of the pipe once it is ready; None where its library is missing."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=work, args=(theirs, name), daemon=True).start()
    answer = ours.recv()
    if answer != "ready":
        print(f"{name}: left out, {answer}")
    return ours if answer == "ready" else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="training steps a round; thrice for prediction")
    parser.add_argument("--only", default="", help="contenders whose names begin so, with commas between")
    options = parser.parse_args()
    beginnings = tuple(options.only.split(","))
    started = {name: start(name) for name in CONTENDERS if name.startswith(beginnings)}
    pipes = {name: pipe for name, pipe in started.items() if pipe}
    speeds: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(options.rounds):
        for name, pipe in pipes.items():
            pipe.send(options.steps * (1 if name.startswith("train") else 3))
            speeds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(0)  # the processes end by themselves, not in an error when this one does
    print(f"images per second, {os.cpu_count()} CPUs, {options.rounds} rounds: median (range)")
    for name, values in speeds.items():
        print(f"  {name:<24}{statistics.median(values):8.0f}  ({min(values):.0f} to {max(values):.0f})")
    print("ratio, round by round: median (range)")
    for one, other in RATIOS:
        if one in speeds and other in speeds:
            ratios = [a / b for a, b in zip(speeds[one], speeds[other], strict=True)]
            pair = f"{one} / {other}"
            print(f"  {pair:<48}{statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    sys.exit(main())
