"""What a step with attacks costs, in passes: a pass is the plain training step of the same net and batch.

A small ResNet on 32 x 32 images, on TensorFlow. The contenders take turns, round by round, and CPU seconds
are compared, so that other processes disturb little. `pgd` with k attack steps may cost 1.15 (k + 2) passes,
the cheap mode 1.15 x 1.2.

    python benchmarks/adversarial.py [--rounds=7] [--steps=3] [--batch=64] [--backbone=resnet8]
"""

import argparse
import os
import statistics
import time

import checkout  # noqa: F401
import numpy as np


def net(options: argparse.Namespace, attack=None, *, share: float = 0.0, routed: bool = True):
    """A compiled net, with attacks in its training step if there is an attack."""
    import keras

    from bnhead.layers import with_routes
    from bnhead.models import find
    from bnhead.training.step import train_adversarially

    model = find(options.backbone)((32, 32, 3), "bn_fc", 10, seed=0)
    if attack is not None and routed:
        model = with_routes(model, 2, routed_affine=True, as_input=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])
    if attack is not None:
        train_adversarially(model, attack, share=share, routed=routed)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--backbone", default="resnet8")
    options = parser.parse_args()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    from bnhead.training.attack import Attack

    models = {"plain": (net(options), 1.0)}
    for k in (1, 5):
        models[f"pgd, {k} steps"] = net(options, Attack(4, k)), 1.15 * (k + 2)
    models["pgd_cheap, 1 step"] = net(options, Attack(1, 1), share=0.2), 1.15 * 1.2
    models["pgd_one_bn, 1 step"] = net(options, Attack(1, 1), routed=False), 1.15 * 3
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.batch, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, options.batch)
    seconds = {name: [] for name in models}
    for model, _ in models.values():
        model.train_on_batch(images, labels)
    for _ in range(options.rounds):
        for name, (model, _) in models.items():
            start = time.process_time()
            for _ in range(options.steps):
                model.train_on_batch(images, labels)
            seconds[name].append(time.process_time() - start)
    print(f"{options.backbone}, batch {options.batch}, {options.rounds} rounds of {options.steps} steps")
    print(f"{'step':<26}{'passes: median (range)':<26}{'at most':>8}")
    for name, (_, limit) in models.items():
        ratios = [a / b for a, b in zip(seconds[name], seconds["plain"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:<26}{spread:<26}{limit:>8.2f}")


if __name__ == "__main__":
    main()
