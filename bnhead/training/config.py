"""The settings of a training run: one frozen dataclass, checked without TensorFlow."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bnhead import heads, texts
from bnhead.training import rules

LEARNING_RATES = {"classification": 0.1, "multilabel": 0.1, "regression": 0.01}
# Fields about location and procedure: two runs that differ only in these are the same run.
LOCATION_FIELDS = ("workdir", "data_dir", "checkpoint_seconds", "overwrite", "dry_run", "verbose")


def setting(default: Any, text: str) -> Any:
    """A field of a dataclass of settings: its default, and the help text of its flag."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. Each field is a flag of the same name, with its meaning in `help`.

    Raises:
        UsageError: a value breaks its rule, or a name is unknown; the message has the nearest known one.
    """

    dataset: str = setting(
        "digits",
        "TFDS image set, with or without version (cifar10:3.0.2); folder:PATH for pictures in "
        "PATH/train/<class>/ and PATH/test/<class>/, or in PATH/<class>/; domains:A,B for several "
        "sets as one. The default is embedded: 1,797 real digits of 8 x 8 pixels; so is digits_rotation, for "
        "regression.",
    )
    task: str = setting(
        "classification",
        "Task: classification (softmax); multilabel (a sigmoid for each class, predicted independently); "
        "regression (numbers, mean squared error).",
    )
    data_dir: str = setting("", "TFDS directory that holds the prepared sets. Default: TFDS' own.")
    image_size: int = setting(
        0, "Height and width in pixels that images are resized to. 0 keeps them, if all have one size."
    )
    augment: str = setting(
        "crop",
        "Augmentation: none; crop (shift by up to an eighth of the height); crop_flip (and mirror); imagenet "
        "(a random window of 8 % to 100 % of the area, resized, and mirror; images of many sizes are then "
        "tested on their middle). The default never mirrors, since mirrored digits are not digits; the "
        "CIFAR papers use crop_flip.",
    )
    cutout: int = setting(
        0,
        "Side in pixels of a grey square painted over each training image. 0 paints none; CIFAR-10 takes 16.",
    )
    mixup: float = setting(
        0.0,
        "Alpha of mixup: training images and their targets are mixed in pairs, by a share from "
        "Beta(alpha, alpha). 0 mixes nothing; the paper takes 1 for CIFAR-10 and 0.2 for ImageNet.",
    )
    train_examples: int = setting(
        0,
        "Training examples that are used, of each class about the same share and the same for every seed. 0 "
        "uses all.",
    )
    test_examples: int = setting(0, "Test examples that are used, likewise. 0 uses all.")
    validation: float = setting(
        0.0,
        "Share of the training split, in [0, 1), held out for choosing settings; the same examples for every "
        "seed. The default trains on all examples, as the papers do, and leaves none for choosing.",
    )
    imbalance: str = setting(
        "none",
        "Imbalance of the training classes, fixed for all seeds: longtail:100 (exponential, largest to "
        "smallest 100 to 1), step:10 (half of the classes), one_majority:100, two_majorities:100.",
    )
    label_noise: float = setting(
        0.0, "Share of the training labels, in [0, 1], replaced by another class, the same for all seeds."
    )
    test_corruption: str = setting(
        "none",
        "Corruption of the test images with a severity of 1 to 5: gaussian_noise:3, blur:3, contrast:3, "
        "brightness:3, pixelate:3.",
    )
    backbone: str = setting(
        "resnet20",
        "A net of bnhead.models (resnet20, wrn16_8, vgg16_bn, resnet50, ...), keras:<name> of "
        "keras.applications, hub:<preset> of keras-hub, or a .keras file. Loading a file can run code of its "
        "author's: open only those you trust. The default is the smallest of the ResNet paper (0.27 M).",
    )
    weights: str = setting(
        "",
        "Pre-trained weights of the backbone: imagenet (keras:<name>, resnet50_v1, resnet50_v2 and deeper), "
        "a .keras or .weights.h5 file, or a run directory. Default: initial weights by the seed.",
    )
    weights_control: str = setting(
        "none",
        "Control of pre-trained weights: random (initial weights in their place, the same for every seed), "
        "shuffled (each kernel's weights in another order, with the same norms), or none. Batch norms get "
        "the statistics of training images.",
    )
    pretrain_on: str = setting(
        "",
        "Data set on which the backbone is trained first, where no weights can be downloaded, such as "
        "fashion_mnist for mnist. The weights are kept beside the data sets and used again.",
    )
    pretrain_epochs: int = setting(15, "Epochs of that training.")
    pretrain_size: int = setting(0, "Training images of it, of each class about the same share. 0 uses all.")
    freeze_backbone: bool = setting(
        False,
        "Train the head alone. The backbone, with batch norms and dropout in inference mode, computes the "
        "features of every image once; they are kept beside the data sets and used by every head. Needs "
        "--augment=none, or several --feature_passes.",
    )
    feature_passes: int = setting(
        1,
        "Passes over the training images with --freeze_backbone: the first without augmentation, the others "
        "augmented. Epoch after epoch trains on the next of them.",
    )
    unfreeze_at: int = setting(
        0,
        "Epochs in which the head trains on the features of the frozen backbone, before the whole net trains "
        "in the others, with a warm-up of its own. 0 trains the whole net from the first epoch.",
    )
    insert_bn: bool = setting(
        False,
        "Train the first stage without the batch norms (bn) of the head, and put them in before the second "
        "so that no output changes yet: gain and offset undo the statistics of the training images.",
    )
    backbone_rate: float = setting(
        1.0,
        "Learning rate of the backbone, as a factor of that of the head: below 1, pre-trained weights change "
        "less.",
    )
    backbone_bn: str = setting(
        "trained",
        "Batch norms of the backbone while it is trained: trained, or frozen (inference mode; moving "
        "averages, gain and offset stay as they are).",
    )
    pixels: str = setting(
        "auto",
        "Input of the backbone: signed (pixels scaled to -1 to 1), unit (0 to 1), raw (0 to 255), or auto: "
        "keras.applications' own preprocessing for keras:<name> and with imagenet weights; raw for a file "
        "whose net begins with a scaling layer; else signed.",
    )
    head: str = setting(
        "fc",
        "Everything after the feature map, tokens joined by _: fc, bn_fc, bn_out, bn_gap_fc, fc_bn, "
        "catpool_bn_dropout0.25_fc512. The default is the usual head, the control of every comparison.",
    )
    fc_units: int = setting(
        256, "Units of an fc or dense that names none. The default is wide enough for units to die."
    )
    fc_activation: str = setting("relu", f"Activation of fc: {', '.join(rules.CHOICES['fc_activation'])}.")
    head_bn_epsilon: float = setting(
        1e-5,
        "Epsilon of the head's batch norms, added to the variance. Features of a smaller variance are not "
        "brought to a variance of 1. The default is the backbones'.",
    )
    head_bn_momentum: float = setting(
        0.9,
        "Momentum of the head's batch norms, in [0, 1): the weight of the previous moving average in each "
        "step. After n steps the initial value has a weight of momentum^n. The default is the backbones'.",
    )
    neutral_init: bool = setting(
        False,
        "Before the first step, shift the output layer's bias so that the mean of the logits is the log of "
        "the classes' shares of the training split: no class is preferred by chance.",
    )
    epochs: int = setting(15, "Passes over the training split. The default trains digits to over 97 %.")
    batch_size: int = setting(
        128, "Images per step. A batch norm's noise depends on it; the default is the ResNet paper's."
    )
    learning_rate: float = setting(
        0.0,
        "Peak learning rate, after the warm-up; it falls to 0 by a cosine. The default, 0, is the "
        "paper's 0.1, and 0.01 for regression, whose loss is steeper.",
    )
    warmup_epochs: float = setting(
        2.0,
        "Epochs over which the learning rate rises from 0, at most half of the training. The default "
        "prevents divergence in the first steps.",
    )
    momentum: float = setting(0.9, "Nesterov momentum of SGD, in [0, 1). The default is the paper's.")
    weight_decay: float = setting(
        1e-3,
        "Decoupled decay of convolution and dense kernels, per step and times the learning rate; batch norms "
        "and biases have none. The default equals the paper's coupled 1e-4 at momentum 0.9.",
    )
    fc_decay: str = setting(
        "weights",
        "Unit of the weight decay of the head's first linear layer, which reads the features: weights (as of "
        "all kernels); features (of W diag(gamma / sd), the weights that read the features themselves, "
        "so that a batch norm makes no feature cheap); none.",
    )
    adaptation: str = setting(
        "none",
        "Use of domains:SOURCE,TARGET. none joins the sets; with the others the source has labels, the "
        "target's are for its test alone: source (trains on the source), adabn (then takes the target's "
        "statistics), dsbn_1 (a set of statistics for each domain), dsbn (and pseudo labels in the second "
        "half), pseudo (pseudo labels with one set).",
    )
    adversarial: str = setting(
        "none",
        "Adversarial images in training: none; pgd (AdvProp: an adversarial copy of every image, through "
        "batch norms of its own, and the test uses the others); pgd_cheap (the same for a fifth of each "
        "batch, in place of the images); pgd_one_bn (adversarial training: copies through the same batch "
        "norms).",
    )
    adversarial_epsilon: float = setting(
        1.0,
        "Largest change of a pixel by an attack, of 255. The default is AdvProp's for small nets; a robust "
        "net needs 8.",
    )
    adversarial_steps: int = setting(
        1, "Steps of an attack. Each takes the time of a forward and a backward pass."
    )
    adversarial_step_size: float = setting(
        0.0, "Length of an attack's step, of 255. 0 takes the larger of 1 and epsilon / steps."
    )
    adversarial_targeted: bool = setting(
        False, "Attack towards a wrong class, drawn at random, instead of away from the right one."
    )
    robustness: bool = setting(
        False,
        "Measure the trained model on attacked test images too (untargeted, 10 steps, adversarial_epsilon), "
        "and on corrupted ones: test_robust_accuracy and test_corrupted_accuracy in result.json.",
    )
    seed: int = setting(0, "Seed of all random streams. Runs with one seed share weights and batches.")
    logit_adjustment: float = setting(
        0.0,
        "Tau of the logit-adjusted loss: in training tau times the log of the classes' shares is added to "
        "the logits, so that the logits themselves leave these shares out. 0 adjusts nothing; 1 aims at the "
        "smallest balanced error.",
    )
    class_weights: str = setting(
        "none",
        "Weight of an example in the training loss by its class: none; inverse (to the number of its "
        "examples); effective:0.9999 (to their effective number at that beta). Weights have a mean of 1 over "
        "the training examples, so that the learning rate keeps its meaning.",
    )
    recompute_batch_stats: str = setting(
        "none",
        "Batch norms whose moving averages are replaced after training by the statistics of an epoch of "
        "training batches: none, head (those of the head), all. For short runs and high momentum.",
    )
    population_stats: bool = setting(
        False,
        "Measure the trained model a second time with the head's batch norms on the statistics of an epoch "
        "of training batches. result.json has it as population, predictions.npz has its outputs.",
    )
    without_norms: bool = setting(
        False,
        "Measure the trained model a second time without the head's batch norms. result.json has it as "
        "without_norms, predictions.npz has its outputs.",
    )
    dead_layers: str = setting(
        "", "Names of the layers whose dead units are counted, joined by commas. Default: the head's fc."
    )
    probe_examples: int = setting(
        2_048,
        "Test images on which dead units are counted after each epoch, at most. A unit dead on N may fire on "
        "3/N of inputs; by default the count takes 2 % of the time of an epoch of CIFAR-10.",
    )
    mixed_precision: bool | str = setting(
        False,
        "Compute in bfloat16 and keep weights, batch norms' statistics and logits in float32. Off by "
        "default, since results may differ; auto: where a few measured steps are faster.",
    )
    distribution: str = setting(
        "none",
        "How devices share a batch: none; mirrored (all GPUs of this machine, on TensorFlow); "
        "data_parallel (all devices of this machine or of several, with KERAS_BACKEND=jax). batch_size is "
        "that of the whole batch. See docs/scale.md.",
    )
    sync_bn: bool = setting(
        True,
        "Batch norms normalise by the whole batch, so that several devices train as one would. Without, each "
        "replica normalises by its part of the batch, which gives other results: mirrored only.",
    )
    measure: str = setting(
        "",
        "Mechanisms to measure after each epoch, joined by commas: noise, gap, guess, scale, calibration, "
        "inputs, gradients, dropout, rank, collapse, decay, or all (docs/mechanisms.md); initial is the "
        "guess before the first step alone. By default none: they take the time of several evaluations.",
    )
    weight_histograms: bool = setting(False, "Write histograms of all weights to TensorBoard each epoch.")
    learn_within: int = setting(
        5,
        "Epochs after which a run ends as failed_to_learn if its training loss was never better than that of "
        "the best constant prediction, falls no further, and its accuracy is no better either. 0 disables "
        "the check.",
    )
    deterministic: bool = setting(
        False,
        "Use deterministic operations only. Slower on a GPU; no effect on a CPU.",
    )
    steps_per_execution: int = setting(
        0,
        "Training steps per call from Python, a divisor of an epoch's steps. 0 takes 1 on a CPU, and up to "
        "32 on a GPU.",
    )
    jit_compile: str = setting(
        "auto",
        "Whether XLA compiles the training step: on, off, or auto: under TensorFlow on a GPU if compiling "
        "takes less time than it saves in the steps ahead, never on a CPU.",
    )
    workdir: str = setting("", "Run directory. Default: runs/<dataset>/<backbone>/<head>/seed<seed>.")
    checkpoint_seconds: float = setting(
        30.0,
        "Seconds between two checkpoints. 0 writes one after every step, which takes longer than the step.",
    )
    overwrite: bool = setting(False, "Remove the run in the run directory, and list what was removed.")
    dry_run: bool = setting(
        False,
        "Train a few steps, print settings, size and estimated time, and write nothing.",
    )
    verbose: bool = setting(
        False, "List all settings in a dry run. Default: those that differ from their defaults."
    )

    def __post_init__(self):
        for spec in dataclasses.fields(self):
            value = rules.as_type(spec.type, spec.name, getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)
        rules.check_values(self)
        object.__setattr__(self, "head", self.parsed_head.text)
        object.__setattr__(self, "learning_rate", self.learning_rate or LEARNING_RATES[self.task])
        rules.check_combinations(self)

    @property
    def has_own_weights(self) -> bool:
        """Whether the backbone brings its weights: a file, or a preset of keras-hub."""
        return self.backbone.startswith("hub:") or self.backbone.endswith(".keras")

    @property
    def is_pretrained(self) -> bool:
        """Whether the backbone begins with other weights than those that the seed draws."""
        return bool(self.weights or self.pretrain_on or self.has_own_weights)

    @functools.cached_property
    def parsed_head(self) -> heads.Head:
        """`head`, parsed once."""
        return heads.parse(self.head)

    @property
    def features_pooling(self) -> str:
        """The pooling, without weights, whose outputs are a frozen backbone's features; "" if none is."""
        return self.parsed_head.leading_pooling if self.freeze_backbone else ""

    @functools.cached_property
    def trained_head(self) -> heads.Head:
        """The head that the run trains: on a frozen backbone the part after `features_pooling`."""
        head = self.parsed_head
        if not self.features_pooling:
            return head
        rest = head.words if head.pooling is None else head.words[1:]
        return heads.parse("_".join(rest) or "out")

    @property
    def ghost_sizes(self) -> list[int]:
        """The ghost batch sizes of the head's `gbn` tokens."""
        return [token.number for token in self.parsed_head.tokens if token.name == "gbn"]

    @property
    def directory(self) -> str:
        """`workdir`, or the default run directory."""
        dataset, backbone = self.dataset.replace("/", "-").replace(":", "-"), self.backbone.replace("/", "-")
        return self.workdir or "/".join(("runs", dataset, backbone, self.head, f"seed{self.seed}"))

    def data_options(self) -> dict[str, Any]:
        """The arguments of `data.load` for the data set, its validation split and its shifts."""
        return {
            "name": self.dataset,
            "data_dir": self.data_dir or None,
            "task": self.task,
            "image_size": self.image_size,
            "crop": self.augment == "imagenet",
            "train_examples": self.train_examples,
            "test_examples": self.test_examples,
            "validation": self.validation,
            "imbalance": self.imbalance,
            "label_noise": self.label_noise,
            "test_corruption": self.test_corruption,
            "unlabelled_target": self.adaptation != "none",
        }

    def feature_settings(self) -> dict[str, Any]:
        """The settings that the features of a frozen backbone depend on, besides the data set."""
        names = ("backbone", "weights", "pixels", "feature_passes", "weights_control")
        names += ("pretrain_on", "pretrain_epochs", "pretrain_size")
        settings = {name: getattr(self, name) for name in names}
        settings["pooling"] = self.features_pooling
        settings["seed"] = None if self.is_pretrained else self.seed
        if self.feature_passes > 1:
            settings |= {"augment": self.augment, "cutout": self.cutout}
        return settings

    def describe_backbone(self) -> str:
        """How the run trains its backbone, in a line; "" if it trains it as it does the head."""
        if self.freeze_backbone:
            return "frozen"
        parts = []
        if self.unfreeze_at:
            parts.append(f"frozen for {texts.counted(self.unfreeze_at, 'epoch')}, then trained")
        if self.insert_bn:
            parts.append("batch norms of the head put in then")
        if self.backbone_rate != 1:
            parts.append(f"at {self.backbone_rate:g} of the head's learning rate")
        if self.backbone_bn == "frozen":
            parts.append("batch norms in inference mode")
        return ", ".join(parts)

    def changed(self) -> dict:
        """The fields that differ from their defaults, as plain values."""
        return changed(dataclasses.asdict(self))

    def without_seed(self) -> dict:
        """The settings that runs with different seeds have in common."""
        return {**self.settings(), "seed": None}

    def settings(self) -> dict:
        """The fields as plain values, without `LOCATION_FIELDS`."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in LOCATION_FIELDS}


def changed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a run that differ from their defaults.

    Args:
        fields: fields of `TrainConfig`, which need not be valid; other names count as changed.
    """
    task = fields.get("task")
    # the default of the learning rate depends on the task
    config = TrainConfig(task=task) if task in list(LEARNING_RATES) else TrainConfig()
    defaults = {**dataclasses.asdict(config), "task": TrainConfig.task}
    return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}
