"""The command `bnhead train`, also `train.py`: flags -> TrainConfig -> a run."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnhead import texts
from bnhead.cli.flags import Command
from bnhead.data.catalog import check_embedded
from bnhead.devices import startup
from bnhead.training.config import TrainConfig

if TYPE_CHECKING:
    from bnhead.runs.directory import RunDirectory

EXIT_DIVERGED = 5
GROUPS = {
    "Data": (
        "dataset", "task", "data_dir", "image_size", "augment", "cutout", "mixup", "train_examples",
        "test_examples", "validation", "imbalance", "label_noise", "test_corruption", "adaptation",
    ),
    "Model": (
        "backbone", "weights", "weights_control", "pretrain_on", "pretrain_epochs", "pretrain_size",
        "freeze_backbone", "feature_passes", "unfreeze_at", "insert_bn", "backbone_rate",
        "backbone_bn", "pixels", "head", "fc_units", "fc_activation", "head_bn_epsilon", "head_bn_momentum",
        "neutral_init",
    ),
    "Optimisation": (
        "epochs", "batch_size", "learning_rate", "warmup_epochs", "momentum", "weight_decay",
        "fc_decay", "logit_adjustment", "class_weights", "recompute_batch_stats", "population_stats",
        "without_norms", "learn_within",
    ),
    "Adversarial images": (
        "adversarial", "adversarial_epsilon", "adversarial_steps", "adversarial_step_size",
        "adversarial_targeted", "robustness",
    ),
    "Dead units and mechanisms": ("dead_layers", "probe_examples", "measure"),
    "Run": ("seed", "workdir", "overwrite", "dry_run", "verbose", "checkpoint_seconds", "weight_histograms"),
    "Device": (
        "mixed_precision", "distribution", "sync_bn", "deterministic", "steps_per_execution", "jit_compile",
    ),
}  # fmt: skip
EXAMPLES = (
    ("--head=bn_fc", "The embedded digits with a batch norm before the last fully connected layer."),
    ("--head=fc", "The control: the same backbone, seed and batches without the batch norm."),
    ("--dataset=cifar10 --augment=crop_flip --epochs=160", "A data set of TFDS, at length."),
    ("--head=fastai --dry_run", "Size and estimated time of a run, from a few steps; writes nothing."),
)
COMMAND = Command(
    "bnhead train",
    TrainConfig,
    "Trains one backbone with one head, counts the head's dead units, and leaves a run directory.",
    "Exit status: 0 ok, 2 usage, 3 run directory, 4 data, 5 diverged or failed to learn, 6 memory or disk "
    "full, 8 the file of the trained model gives other outputs than the model, 130 or 143 interrupted by "
    "SIGINT or SIGTERM. The same command continues an interrupted run.",
    groups=GROUPS,
    aliases={"lr": "learning_rate"},
    examples=EXAMPLES,
)


def main(arguments: Sequence[str], program: str = "bnhead train") -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: the command line after the program's name.
        program: the name that messages begin with.
    """
    command = dataclasses.replace(COMMAND, program=program)
    return command.run(arguments, lambda config: train_and_summarize(config, command.typed))


def train_and_summarize(config: TrainConfig, program: str) -> int:
    """Trains, or finds the finished run, and prints the summary.

    Args:
        config: the run's settings.
        program: the command as it is typed.
    """
    from bnhead.runs.directory import RunDirectory  # imports NumPy, which `--help` need not wait for

    if config.distribution != "data_parallel":  # its processes agree first on which of them reads
        directory = RunDirectory(config.directory)
        if not config.dry_run:
            if (result := directory.admit(config.settings(), overwrite=config.overwrite)) is not None:
                return _summarize(config, directory, result, program, was_finished=True)
            directory.check_writable()
        check_embedded(config.dataset, config.task, config.batch_size)
    with startup.quiet(f"TensorFlow and {config.dataset}"):
        from bnhead.devices.environment import device_names
        from bnhead.devices.replicas import open_replicas

        replicas = open_replicas(
            config.distribution, config.batch_size, sync_bn=config.sync_bn, ghost_sizes=config.ghost_sizes
        )
        device_names()
    import absl.logging

    from bnhead.training.signals import obey_termination

    obey_termination()
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS logs every look-up
    directory = replicas.processes.directory(config.directory)
    if config.dry_run:
        from bnhead.training.estimate import estimate, format_estimate

        estimated = estimate(config)
        if directory.writable:
            print(texts.printable(format_estimate(estimated, config)))
        return 0
    if (result := directory.admit(config.settings(), overwrite=config.overwrite)) is not None:
        return _summarize(config, directory, result, program, was_finished=True)
    from bnhead.cli.console import EpochLines
    from bnhead.training.run import train

    with EpochLines(config) as lines:  # the first process prints for all
        result = train(config, [lines] if directory.writable else [])
    return _summarize(config, directory, result, program)


def _summarize(
    config: TrainConfig, directory: "RunDirectory", result: dict, program: str, *, was_finished: bool = False
) -> int:
    """Prints the summary of a run, in the first process, and returns the exit status."""
    from bnhead.training.summary import format_summary

    if directory.writable:
        seconds = (directory.read("environment.json") or {}).get("seconds")
        if was_finished:
            print(texts.printable(f"{config.directory} holds this run, finished; its result:"))
            if changes := ", ".join(f"{name} {text}" for name, text in directory.changes().items()):
                line = f"bnhead: {config.directory}: {changes}; --overwrite trains it again"
                texts.notice(texts.one_line(line))
        print(texts.printable(format_summary(config, result, seconds, program=program)))
    return EXIT_DIVERGED if result["status"] in ("diverged", "failed_to_learn") else 0
