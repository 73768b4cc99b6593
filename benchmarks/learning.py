"""Does our ResNet-20 learn as fast as the same net written in plain Keras? On CIFAR-10, epoch by epoch.

Both start from the same weights and see the same batches under the same schedule; the plain net is written
out below with Keras' own layers and nothing of ours. They train side by side, in one process and thread each.

    python benchmarks/learning.py [--epochs=3] [--seed=0] [--data_dir=...]
"""

import argparse
import multiprocessing
import os

import checkout  # noqa: F401


def plain_resnet20(keras, classes: int):
    """The textbook's ResNet-20 with parameter-free shortcuts and bnhead's default head."""
    layers = keras.layers

    def conv(x, channels, stride):
        x = layers.ZeroPadding2D(1)(x)
        return layers.Conv2D(channels, 3, stride, use_bias=False)(x)

    def norm(x):
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = layers.ReLU()(norm(conv(x, 16, 1)))
    for channels in (16, 32, 64):
        for block in range(3):
            stride = 2 if channels > 16 and block == 0 else 1
            shortcut = x
            if stride == 2:
                shortcut = keras.ops.pad(
                    x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (channels // 4, channels // 4))
                )
            x = layers.ReLU()(norm(conv(x, channels, stride)))
            x = layers.ReLU()(norm(conv(x, channels, 1)) + shortcut)
    x = layers.Dense(256, "relu")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(classes)(x))


def learn(kind: str, options: argparse.Namespace, pipe) -> None:
    """Trains one of the two and sends its test accuracy and loss after each epoch."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    import keras

    from bnhead.data import load
    from bnhead.training import TrainConfig
    from bnhead.training.build import build_model, optimizer

    data_dir = options.data_dir or ""
    config = TrainConfig(
        dataset="cifar10", data_dir=data_dir, augment="crop_flip", epochs=options.epochs, seed=options.seed
    )
    dataset = load("cifar10", data_dir or None)
    model = build_model(config, dataset)
    steps = dataset.train.size // config.batch_size
    if kind == "plain Keras":
        ours, model = model, plain_resnet20(keras, 10)
        model.set_weights(ours.get_weights())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(config, model, steps), loss, metrics=["accuracy"])
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: pipe.send((logs["val_accuracy"], logs["val_loss"]))
    )
    model.fit(
        dataset.train.training_batches(config.batch_size, config.epochs, config.seed, config.augment),
        epochs=config.epochs,
        steps_per_epoch=steps,
        validation_data=dataset.test.evaluation_batches(500),
        shuffle=False,
        verbose=0,
        callbacks=[report],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_dir", default="")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for kind in ("bnhead", "plain Keras"):
        pipes[kind], theirs = context.Pipe()
        context.Process(target=learn, args=(kind, options, theirs), daemon=True).start()
    print(f"test accuracy (loss) after each epoch, seed {options.seed}")
    for epoch in range(options.epochs):
        accuracies = {kind: pipe.recv() for kind, pipe in pipes.items()}
        print(
            f"  epoch {epoch + 1}  "
            + "   ".join(f"{k} {a:.4f} ({x:.4f})" for k, (a, x) in accuracies.items())
        )


if __name__ == "__main__":
    main()
