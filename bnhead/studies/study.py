"""The named studies: a question, its heads (the control first) and the settings that it varies."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bnhead.errors import UsageError, nearest
from bnhead.studies import claims
from bnhead.studies.chain import CAUSES, DEFAULT_HEAD, FIXED, SETTINGS, chain, chain_cells
from bnhead.training.config import TrainConfig


@dataclass(frozen=True)
class Study:
    """A question and the runs that answer it.

    Attributes:
        question: one sentence.
        heads: the control, then the heads that are compared with it.
        strata: base settings -> the settings of each stratum. In each stratum every head is compared with the
            control of that stratum.
        varies: names of the settings that the strata fix and no flag may set.
        primary: name of the primary outcome (`bnhead.studies.measures`); "" for the task's metric.
        chain: whether the cells are those of a cause table (`bnhead.studies.chain`) for the second head, and
            only the two heads are compared.
        settings: settings of all runs.
        defaults: settings of the runs if a command leaves a setting at its default; by the base settings.
        rivals: settings with which the control is compared with itself without them.
        stepwise: whether a cell is compared with the one before it rather than with the control.
        checks: base settings -> further cells, which enter no comparison: head and settings of each.
        secondary: names of the secondary outcomes, in their order; none for the task's.
        arms: base settings -> the settings of each name in `heads`, where these name more than a head.
        trend: whether the question is how the primary outcome changes from stratum to stratum, per doubling
            of the one setting that varies, rather than the difference in each stratum.
    """

    question: str
    heads: tuple[str, ...]
    strata: Callable[[TrainConfig], Iterable[Mapping[str, Any]]] = lambda base: ({},)
    varies: tuple[str, ...] = ()
    primary: str = ""
    trend: bool = False
    chain: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Callable[[TrainConfig], Mapping[str, Any]] | Mapping[str, Any] = field(default_factory=dict)
    rivals: tuple[Mapping[str, Any], ...] = ()
    stepwise: bool = False
    checks: Callable[[TrainConfig], Iterable[tuple[str, Mapping[str, Any]]]] | None = None
    secondary: tuple[str, ...] = ()
    arms: Callable[[TrainConfig], Mapping[str, Mapping[str, Any]]] | None = None

    def base(self, base: TrainConfig) -> TrainConfig:
        """The base settings of the runs, from those of a command."""
        usual = TrainConfig(task=base.task)
        defaults = self.defaults(base) if callable(self.defaults) else self.defaults
        defaults = {k: value for k, value in defaults.items() if getattr(base, k) == getattr(usual, k)}
        return dataclasses.replace(base, **defaults, **self.settings)

    def cells(self, base: TrainConfig) -> list[tuple[str, Mapping[str, Any]]]:
        """Head and stratum of each cell; in each stratum the control first, the cells of checks last."""
        base = self.base(base)
        if self.chain:
            return chain_cells(self.heads[1], base.task)
        cells = [(head, stratum) for stratum in map(dict, self.strata(base)) for head in self.heads]
        cells += [(self.heads[0], rival) for rival in self.rivals]
        return cells + (list(self.checks(base)) if self.checks else [])

    @property
    def compared(self) -> int | None:
        """The number of cells, of the first ones, that are compared; None for all."""
        return len(self.heads) + len(self.rivals) if self.chain or self.checks else None


PRETRAINED_WIDTHS = (*(2**n for n in range(5, 13)),)
BATCH_SIZES = (16, 32, 64, 128, 256)
LEARNING_RATE_FACTORS = (0.1, 0.3, 1, 3)
WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)


def _batch_sizes(base: TrainConfig) -> Iterable[Mapping[str, Any]]:
    # The learning rate is proportional to the batch size (Goyal et al. 2017, section 2.1), so that training
    # covers about the same distance in every stratum. The base's rate belongs to 128 images.
    for size in BATCH_SIZES:
        yield {"batch_size": size, "learning_rate": float(f"{base.learning_rate * size / 128:.6g}")}


def _learning_rates(base: TrainConfig) -> Iterable[Mapping[str, Any]]:
    for factor in LEARNING_RATE_FACTORS:
        yield {"learning_rate": float(f"{base.learning_rate * factor:.6g}")}


def _arms_of_pretraining(base: TrainConfig) -> Mapping[str, Mapping[str, Any]]:
    """Pre-trained features and their controls; every arm is trained on the same images."""
    frozen = {"head": "fc", "freeze_backbone": True}
    scratch = {"head": "fc", "weights": "", "pretrain_on": ""}
    if base.has_own_weights:  # the file's net cannot be had without them; resnet8 is a net for small images
        scratch |= {"backbone": "resnet8", "pixels": "auto", "image_size": 32}
    return {
        "pretrained": frozen,
        "random": {**frozen, "weights_control": "random"},
        "shuffled": {**frozen, "weights_control": "shuffled"},
        "centred": {**frozen, "head": "fcenter_fc"},
        "bn": {**frozen, "head": "bn_fc"},
        "scratch": scratch,
    }


def _pretraining(base: TrainConfig) -> Mapping[str, Any]:
    # the default rate is that of a whole net; units that die of large steps would hide what differs
    defaults = {"augment": "none", "learning_rate": 0.01}
    return defaults if base.is_pretrained else {**defaults, "pretrain_on": "fashion_mnist"}


def cause_study(head: str = DEFAULT_HEAD) -> Study:
    """The study of a cause table: which mechanism of a batch norm makes the difference.

    Raises:
        UsageError: a head without a chain.
    """
    heads = chain(head)
    return Study(
        "Which mechanism of a batch norm before the last fully connected layer makes the difference?",
        heads=(heads[""], heads["bn"]),
        varies=FIXED,
        chain=True,
        settings=SETTINGS,
    )


STUDIES = {
    "adversarial": Study(
        "Do adversarial images in training help on clean ones if they go through batch norms of their own, "
        "and do they cost accuracy with one set of norms?",
        heads=("fc",),
        rivals=tuple({"adversarial": name} for name in ("pgd_one_bn", "pgd", "pgd_cheap")),
        varies=("adversarial", "task"),
        settings={"robustness": True},
        secondary=("robust_accuracy", "corrupted_accuracy", "nll", "dead_share"),
    ),
    "batch_size": Study(
        "Does the verdict on a batch norm before the last fully connected layer depend on the batch size?",
        heads=("fc", "bn_fc"),
        strata=_batch_sizes,
        varies=("batch_size",),
    ),
    "bn_before_fc": Study(
        "Does a batch norm before the last fully connected layer help, hurt or make no material difference?",
        heads=("fc", "bn_fc"),
    ),
    CAUSES: cause_study(),
    "controls": Study(
        "Which part of a batch norm before the last fully connected layer makes the difference, if any does?",
        heads=("fc", "bn_fc", "gbn16_fc", "fbn_fc", "center_fc", "scale_fc", "noise_fc", "ln_fc"),
    ),
    "domains": Study(
        "Does a batch norm for each domain help on a target domain without labels, beyond what recomputed "
        "statistics do?",
        heads=("fc",),
        rivals=tuple({"adaptation": name} for name in ("adabn", "pseudo", "dsbn_1", "dsbn")),
        stepwise=True,
        varies=("adaptation", "task"),
        settings={"adaptation": "source"},
        defaults={"dataset": "domains:mnist,digits"},
        secondary=("nll", "dead_share"),
    ),
    "imbalance": Study(
        "Does a final batch norm help where classes are of unequal size, and is anything left of the gain "
        "once the prior is removed?",
        heads=("fc", "bn_gap_fc", "bn_fc", "fc_bn", "fc_out_bn", "cdropout0.5_fc"),  # none, P0 to P3
        rivals=({"logit_adjustment": 1.0}, {"class_weights": "effective:0.999"}),
        checks=claims.cells_of,
        varies=("task", "without_norms", "logit_adjustment", "class_weights"),
        settings={"without_norms": True},
        defaults={"imbalance": "longtail:100", "measure": "initial"},
        primary="balanced_accuracy",
        secondary=(
            "adjusted_balanced_accuracy",
            "minority_recall",
            "minority_precision",
            "macro_f1",
            "accuracy",
            "nll",
            "ece_excess",
            "dead_share",
            "class_dead",
            "initial_modal_share",
        ),
    ),
    "learning_rate": Study(
        "Is the verdict on a batch norm before the last fully connected layer one at a single learning rate?",
        heads=("fc", "bn_fc"),
        strata=_learning_rates,
    ),
    "placement": Study(
        "At which of the four places of a final batch norm does it make a difference, against none?",
        heads=("fc", "bn_gap_fc", "bn_fc", "fc_bn", "fc_out_bn"),  # none, P0, P1, P2, P3
    ),
    "pretrained": Study(
        "Is the share of dead units larger on pre-trained features, does it grow with the width, and is it "
        "the pre-training, the mean of the features, or neither?",
        heads=("pretrained", "random", "shuffled", "centred", "bn", "scratch"),
        arms=_arms_of_pretraining,
        strata=lambda base: ({"fc_units": width} for width in PRETRAINED_WIDTHS),
        varies=("fc_units", "freeze_backbone", "weights_control"),
        defaults=_pretraining,
        primary="dead_share",
        trend=True,
    ),
    "width": Study(
        "How does the share of dead units change with the width of the last fully connected layer, and does "
        "a batch norm before it change that?",
        heads=("fc", "bn_fc"),
        strata=lambda base: ({"fc_units": width} for width in WIDTHS),
        varies=("fc_units",),
        primary="dead_share",
        trend=True,
    ),
}


def named_study(name: str) -> Study:
    """The study called `name`.

    Raises:
        UsageError: an unknown name; the message has the nearest one.
    """
    if name not in STUDIES:
        raise UsageError(
            f"study {name!r} is not known{nearest(name, STUDIES)} (there are {', '.join(STUDIES)})"
        )
    return STUDIES[name]
