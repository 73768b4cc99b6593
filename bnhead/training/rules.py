"""The rules for the settings of a run: for each value, and for values together. Without TensorFlow."""

import math
from typing import TYPE_CHECKING, Any

from bnhead import data, models
from bnhead.data.catalog import domain_names
from bnhead.errors import UsageError, nearest
from bnhead.mechanisms.figures import check_groups

if TYPE_CHECKING:
    from bnhead.training.config import TrainConfig

OPEN, MEASURED = "auto", ("mixed_precision", "jit_compile")  # settings that a measurement may choose
CHOICES = {
    "task": ("classification", "multilabel", "regression"),
    "pixels": ("auto", "signed", "unit", "raw"),
    "augment": ("none", "crop", "crop_flip", "imagenet"),
    # Keras' activations that reach zero or below, so that a silent unit has a meaning
    "fc_activation": ("elu", "gelu", "leaky_relu", "mish", "relu", "relu6", "selu", "silu", "tanh"),
    "fc_decay": ("weights", "features", "none"),
    "backbone_bn": ("trained", "frozen"),
    "weights_control": ("none", "random", "shuffled"),
    "recompute_batch_stats": ("none", "head", "all"),
    "adversarial": ("none", "pgd", "pgd_cheap", "pgd_one_bn"),
    "adaptation": ("none", "source", "adabn", "pseudo", "dsbn_1", "dsbn"),
    "distribution": ("none", "mirrored", "data_parallel"),
    "jit_compile": ("auto", "on", "off"),
}
CLASS_WEIGHTS = ("none", "inverse", "effective:0.9999")
_NATURAL = "at least 1", lambda x: x >= 1
_NOT_NEGATIVE = "a finite number of at least 0", lambda x: x >= 0
_RANGES = {
    "image_size": _NOT_NEGATIVE,
    "train_examples": _NOT_NEGATIVE,
    "test_examples": _NOT_NEGATIVE,
    "cutout": _NOT_NEGATIVE,
    "mixup": _NOT_NEGATIVE,
    "fc_units": _NATURAL,
    "feature_passes": _NATURAL,
    "unfreeze_at": _NOT_NEGATIVE,
    "pretrain_epochs": _NATURAL,
    "pretrain_size": _NOT_NEGATIVE,
    "backbone_rate": _NOT_NEGATIVE,
    "head_bn_epsilon": ("a finite number above 0", lambda x: x > 0),
    "head_bn_momentum": ("in [0, 1)", lambda x: 0 <= x < 1),
    "epochs": _NATURAL,
    "batch_size": ("at least 2, since a batch norm has nothing to learn from one", lambda x: x >= 2),
    "learning_rate": _NOT_NEGATIVE,
    "warmup_epochs": _NOT_NEGATIVE,
    "momentum": ("in [0, 1)", lambda x: 0 <= x < 1),
    "weight_decay": _NOT_NEGATIVE,
    "logit_adjustment": _NOT_NEGATIVE,
    "adversarial_epsilon": _NOT_NEGATIVE,
    "adversarial_steps": _NATURAL,
    "adversarial_step_size": _NOT_NEGATIVE,
    "seed": _NOT_NEGATIVE,
    "probe_examples": _NATURAL,
    "learn_within": _NOT_NEGATIVE,
    "steps_per_execution": _NOT_NEGATIVE,
    "checkpoint_seconds": _NOT_NEGATIVE,
}
# Before the FC that reads the features: tokens that change no scale, and norms with a scale for each feature.
_SCALELESS = ("dropout", "cdropout", "noise", "center", "fcenter")
_SCALING = ("bn", "gbn", "brn", "fbn", "scale", "fscale")


def as_type(field_type: type, name: str, value: Any) -> Any:
    """`value` if it has the field's type; an int is converted to a float field's type, as in Python."""
    if field_type is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if field_type == bool | str:
        if not isinstance(value, bool) and value != OPEN:
            raise UsageError(f"{name} must be true, false or auto, got {value!r}")
        return value
    if not isinstance(value, field_type) or (isinstance(value, bool) and field_type is not bool):
        raise UsageError(f"{name} must be of type {field_type.__name__}, got {value!r}")
    return value


def check_values(config: "TrainConfig") -> None:
    """Checks each setting by itself, apart from the head, which its text's parser checks."""
    for name, (rule, holds) in _RANGES.items():
        value = getattr(config, name)
        if (isinstance(value, float) and not math.isfinite(value)) or not holds(value):
            raise UsageError(f"{name} must be {rule}, got {value}")
    if "worker" in config.distribution:
        raise UsageError(
            f"distribution {config.distribution!r}: TensorFlow's does not work with Keras 3; one model on "
            "several machines is KERAS_BACKEND=jax and --distribution=data_parallel, see docs/scale.md"
        )
    for name, choices in CHOICES.items():
        _check_choice(name, getattr(config, name), choices)
    for name in ("workdir", "data_dir"):
        try:
            getattr(config, name).encode()  # TensorFlow and terminals need UTF-8
        except UnicodeEncodeError:
            raise UsageError(f"{name} must be a path in UTF-8, got {getattr(config, name)!r}") from None
    if "://" in config.workdir or "\0" in config.workdir:
        raise UsageError(f"workdir must be a path on a disk of this machine, got {config.workdir!r}")
    parse_class_weights(config.class_weights)
    check_groups(config.measure)
    models.check_backbone(config.backbone)
    data.check_name(config.dataset, config.data_dir, config.task)


def check_combinations(config: "TrainConfig") -> None:
    """Checks the settings that depend on each other; `check_values` has passed."""
    _check_distribution(config)
    _check_task(config)
    _check_fc_decay(config)
    _check_frozen(config)
    _check_adversarial(config)
    _check_adaptation(config)
    _check_weights(config)
    if config.population_stats and config.recompute_batch_stats != "none":
        raise UsageError(
            "population_stats compares with moving averages, which recompute_batch_stats "
            f"{config.recompute_batch_stats} replaces; leave one out"
        )
    shifts = config.validation, config.imbalance, config.label_noise, config.test_corruption
    if shifts != (0.0, "none", 0.0, "none"):
        from bnhead.data.subsets import check_shifts  # imports NumPy, which others need not wait for

        check_shifts(config.task, *shifts)


def _check_task(config: "TrainConfig") -> None:
    if config.mixup and config.parsed_head.needs_labels:
        raise UsageError(f"head {config.head!r} reads classes, and mixup mixes them")
    for name in ("logit_adjustment", "class_weights"):
        if config.task != "classification" and getattr(config, name) != getattr(type(config), name):
            raise UsageError(f"{name} is of a softmax, and task {config.task} has none")
    if config.task != "regression":
        return
    if config.parsed_head.needs_labels:
        raise UsageError(f"head {config.head!r} reads classes, and task regression has none")
    if config.neutral_init:
        raise UsageError("neutral_init is for classes, and task regression has numbers")


def _check_weights(config: "TrainConfig") -> None:
    if config.pretrain_on:
        if config.weights or config.has_own_weights:
            text = config.weights or config.backbone
            raise UsageError(f"pretrain_on makes weights, and {text} has some: leave one of the two out")
        data.check_name(config.pretrain_on, config.data_dir)
    if config.weights_control != "none" and not config.is_pretrained:
        raise UsageError(
            f"weights_control {config.weights_control} is a control of pre-trained weights (--weights, "
            "--pretrain_on or a .keras file as backbone), and this backbone has none"
        )


def _check_distribution(config: "TrainConfig") -> None:
    if config.mixed_precision == OPEN and config.distribution != "none":
        raise UsageError(
            "mixed_precision=auto measures one device; with distribution "
            f"{config.distribution} it must be true or false"
        )
    if not config.sync_bn and config.distribution != "mirrored":
        reason = {
            "none": "on one device there is one batch",
            "data_parallel": "on JAX a batch norm sees the whole batch; a gbn head cuts it",
        }[config.distribution]
        raise UsageError(f"sync_bn can be left out with distribution mirrored only: {reason}")


def _check_frozen(config: "TrainConfig") -> None:
    augmented = config.augment != "none" or config.cutout > 0
    if config.unfreeze_at:
        if config.freeze_backbone or config.unfreeze_at >= config.epochs:
            text = f"{config.unfreeze_at} of {config.epochs} epochs"
            text += " and freeze_backbone, which has no end" * config.freeze_backbone
            raise UsageError(f"unfreeze_at must leave epochs in which the backbone is trained, got {text}")
        if config.distribution != "none":
            raise UsageError(f"unfreeze_at needs distribution none, got {config.distribution}")
    if config.insert_bn:
        norms = [token for token in config.parsed_head.tokens if token.name == "bn"]
        if not config.unfreeze_at or not norms or any(token.left_out for token in norms):
            raise UsageError(
                "insert_bn needs two stages (--unfreeze_at) and a head with a bn that has gain and offset, "
                f"got unfreeze_at {config.unfreeze_at} and head {config.head!r}"
            )
    if not config.freeze_backbone:
        if config.feature_passes > 1 and (not config.unfreeze_at or config.augment in ("none", "imagenet")):
            raise UsageError(
                "feature_passes is for a frozen backbone (--freeze_backbone or --unfreeze_at) and augmented "
                f"images, got {config.feature_passes} and augment {config.augment}"
            )
        return
    for name in ("backbone_rate", "backbone_bn"):
        if getattr(config, name) != getattr(type(config), name):
            raise UsageError(f"{name} is for a backbone that is trained, and freeze_backbone trains none")
    if config.mixup or config.augment == "imagenet":
        name = "mixup" if config.mixup else "augment imagenet"
        raise UsageError(
            f"freeze_backbone computes features of whole images, and {name} changes them in every epoch"
        )
    if augmented and config.feature_passes == 1:
        raise UsageError(
            "freeze_backbone computes an image's features once, without augmentation: augment must be none "
            f"and cutout 0, got {config.augment} and {config.cutout}; or feature_passes at least 2"
        )
    if not augmented and config.feature_passes > 1:
        raise UsageError(
            "feature_passes must be 1 without an augmentation, which would differ, got "
            f"{config.feature_passes}"
        )
    if config.distribution != "none":
        raise UsageError(f"freeze_backbone needs distribution none, got {config.distribution}")


def _check_adversarial(config: "TrainConfig") -> None:
    if config.robustness and (config.task != "classification" or config.freeze_backbone):
        raise UsageError("robustness needs task classification and a backbone that is not frozen")
    if config.robustness and config.test_corruption != "none":
        raise UsageError(
            f"robustness corrupts the test images itself: test_corruption must be none, got "
            f"{config.test_corruption}"
        )
    if config.adversarial == "none":
        return
    routed = config.adversarial != "pgd_one_bn"
    _check_changed_step(config, f"adversarial {config.adversarial}", routed=routed)


def _check_adaptation(config: "TrainConfig") -> None:
    if config.adaptation == "none":
        return
    title = f"adaptation {config.adaptation}"
    if len(domain_names(config.dataset)) != 2:
        raise UsageError(f"{title} needs dataset domains:SOURCE,TARGET, got {config.dataset!r}")
    needed = {"adversarial": "none"}
    if config.adaptation not in ("source", "adabn"):  # images without labels have no class to be weighed by
        needed |= {"class_weights": "none", "logit_adjustment": 0.0}
    _check_changed_step(config, title, routed=config.adaptation in ("dsbn_1", "dsbn"), **needed)
    if config.recompute_batch_stats != "none":
        raise UsageError(f"{title} needs recompute_batch_stats 'none', got {config.recompute_batch_stats!r}")
    if config.validation and config.adaptation in ("dsbn_1", "dsbn"):
        raise UsageError(
            f"{title} needs validation 0, since validation images are of the source and the net evaluates "
            f"with the target's statistics, got {config.validation:g}"
        )


def _check_changed_step(config: "TrainConfig", title: str, *, routed: bool, **needed: Any) -> None:
    """Checks the settings of a training step that changes batches, and norms with sets of statistics."""
    head = config.parsed_head
    needed |= {"task": "classification", "freeze_backbone": False, "distribution": "none", "mixup": 0.0}
    needed["unfreeze_at"] = 0
    if routed:
        needed |= {
            "recompute_batch_stats": "none", "population_stats": False, "without_norms": False,
            "measure": "", "fc_decay": "weights", "backbone_bn": "trained",
        }  # fmt: skip
        others = [t.name for t in head.tokens if t.type.normalises_batch and t.name != "bn"]
        if others:
            raise UsageError(f"{title}: head {head.text!r}: {others[0]} has no second set of statistics")
    for name, value in needed.items():
        if (actual := getattr(config, name)) != value:
            raise UsageError(f"{title} needs {name} {value!r}, got {actual!r}")
    if head.needs_labels:
        raise UsageError(f"{title}: head {head.text!r} reads labels, which not every image of a step has")


def _check_fc_decay(config: "TrainConfig") -> None:
    if config.fc_decay != "features":
        return
    if config.distribution != "none":
        raise UsageError(f"fc_decay features needs distribution none, got {config.distribution}")
    head = config.parsed_head
    pooling = next(i for i, t in enumerate(head.tokens) if t.type.pools)
    reader = next(i for i, t in enumerate(head.tokens) if t.type.linear)
    between = [t for t in head.tokens[pooling + 1 : reader] if t.name not in _SCALELESS]
    before = {t.name for t in head.tokens[:pooling]}
    if len(between) > 1 or {t.name for t in between} - {*_SCALING} or before & {*_SCALING}:
        raise UsageError(
            "fc_decay features needs a head with at most one norm over the batch between pooling and FC, "
            f"none before the pooling and nothing else that scales, as in bn_fc, got {head.text!r}"
        )


def parse_class_weights(text: str) -> tuple[str, float]:
    """`("effective", 0.9999)` for "effective:0.9999"; a beta of 0 for the others.

    Raises:
        UsageError: unknown weights, or a beta outside of (0, 1).
    """
    name, _, number = text.partition(":")
    if name != "effective":
        _check_choice("class_weights", text, CLASS_WEIGHTS)
        return name, 0.0
    try:
        beta = float(number)
    except ValueError:
        beta = 0.0
    if not 0 < beta < 1:
        raise UsageError(f"class_weights must have a beta in (0, 1), as effective:0.9999, got {text!r}")
    return name, beta


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(
            f"{name} {value!r} is not known{nearest(value, choices)} (there are {', '.join(choices)})"
        )
