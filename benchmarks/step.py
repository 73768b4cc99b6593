"""Where the time of a training step goes, op by op: ResNet-20 on TensorFlow's CPU, one thread.

TensorFlow's profiler records every operation; times are summed by kind, and given as share of the step and in
milliseconds, with the number of operations. The sum of all is the time of the operations alone, without the
time between them.

    python benchmarks/step.py [--side=32] [--batch=128] [--steps=5] [--norm=bnhead|keras] [--rows=25]
"""

import argparse
import collections
import os
import pathlib
import tempfile

import checkout  # noqa: F401
import numpy as np

from bnhead.devices import startup

GROUPS = {  # beginnings of an operation's type -> group
    "convolutions and products": ("Conv2D", "FusedConv2D", "MatMul", "FusedMatMul", "BiasAdd"),
    "norms": ("FusedBatchNorm", "Mean", "SquaredDifference", "Rsqrt"),
    "ReLU": ("Relu",),
    "sums of shortcuts": ("AddV2", "AddN"),
    "padding and subsampling": ("Pad", "Slice", "StridedSlice", "AvgPool"),
    "variables": ("Assign", "ResourceApply", "ReadVariable", "Mul", "Sub"),
}


def record(options: argparse.Namespace, folder: str) -> None:
    """Writes the profile of a few steps."""
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with startup.quiet():
        import keras
        import tensorflow as tf

        tf.zeros(1)
    from bnhead.models import resnet20

    rng = np.random.default_rng(0)
    images = rng.normal(size=(options.batch, options.side, options.side, 3)).astype("float32")
    labels = rng.integers(0, 10, options.batch)
    own = {}
    if options.norm == "keras":
        own = {"norm": lambda name: keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)}
    model = resnet20(images.shape[1:], "bn_fc", 10, seed=0, **own)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sgd = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=1e-3)
    model.compile(sgd, loss, metrics=["accuracy"])
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    for _ in range(3):
        model.train_function(batches)
    with tf.profiler.experimental.Profile(folder):
        for _ in range(options.steps):
            model.train_function(batches)["loss"].numpy()


def operations(folder: str) -> dict[str, tuple[float, int]]:
    """Seconds and number of the executed operations, by type."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    totals: dict[str, list] = collections.defaultdict(lambda: [0.0, 0])
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # "name:type" is an operation; "Class::Method" is the executor itself
                name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if colon and kind and name and not name.endswith(":") and " " not in kind:
                    totals[kind][0] += event.duration_ps / 1e12
                    totals[kind][1] += 1
    return {kind: (seconds, number) for kind, (seconds, number) in totals.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--norm", choices=("bnhead", "keras"), default="bnhead")
    parser.add_argument("--rows", type=int, default=25)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record(options, folder)
        totals = operations(folder)
    whole = sum(seconds for seconds, _ in totals.values())
    print(f"{options.batch} images of {options.side} x {options.side}, norms of {options.norm}")
    print(f"{1e3 * whole / options.steps:.1f} ms of operations a step")
    groups: dict[str, list] = collections.defaultdict(lambda: [0.0, 0])
    for kind, (seconds, number) in totals.items():
        plain = kind.removeprefix("_").removeprefix("Mkl").removeprefix("Native")
        group = next((name for name, starts in GROUPS.items() if plain.startswith(starts)), "other")
        groups[group][0] += seconds
        groups[group][1] += number
    for title, table in (("group", groups), ("operation", totals)):
        print(f"\n{title:<34}{'share':>7}{'ms':>9}{'number':>8}")
        for kind, (seconds, number) in sorted(table.items(), key=lambda row: -row[1][0])[: options.rows]:
            print(
                f"{kind:<34}{seconds / whole:>7.1%}{1e3 * seconds / options.steps:>9.2f}"
                f"{number / options.steps:>8.0f}"
            )


if __name__ == "__main__":
    main()
