"""The data set and the compiled model of a config, kept for the next run of the process.

Opening data and tracing a training step take longer than training a short run. Neither depends on the seed:
models of two seeds differ only in the values of their variables, initial weights and random states.
"""

import functools
import math

import keras

from bnhead import heads, models, seeds
from bnhead.census import Probe
from bnhead.data import DataSet, load
from bnhead.data.checks import check_batches, inspect_data
from bnhead.devices import environment
from bnhead.errors import UsageError
from bnhead.heads import feature_shape
from bnhead.heads.surgery import is_of_a_head
from bnhead.layers import with_routes
from bnhead.runs.directory import HEAD_FILES
from bnhead.training.adaptation import LABELLING, MIXING, ROUTED, TARGET, train_with_target
from bnhead.training.attack import Attack
from bnhead.training.backbone import (
    FeatureData,
    choose_pixels,
    feature_data,
    freeze_norms,
    unknown_features,
    whole_model,
)
from bnhead.training.choices import Choices
from bnhead.training.config import TrainConfig
from bnhead.training.decay import FeatureDecaySGD, decay_in_feature_units, reader_and_norm
from bnhead.training.imbalance import rebalance
from bnhead.training.model_file import ModelFile
from bnhead.training.pretrained import apply_control, weights_of
from bnhead.training.sgd import FusedSGD
from bnhead.training.step import CHEAP_SHARE, train_adversarially
from bnhead.training.tasks import compile_for_task

# Share of the training after which batch renorm's bounds are final: Ioffe 2017, section 4.
RENORM_SHARE = 40_000 / 130_000
AT_ONCE = 32  # training steps per execution on a GPU, at most
FEATURES = "head_features"  # a layer that counts as the last activation, of a head that has none


class Reuse:
    """Keeps the last data set and the last model for a next run with the same settings.

    One run at a time: the next run trains the same model object, with other values.

    Args:
        extracts: whether the features of frozen backbones are computed; a dry run has zeros for them.
        shares_backbone: whether runs write the head alone that they train on a frozen backbone, not the net.

    Attributes:
        chosen: the choices that `choices.choose` made.
    """

    def __init__(self, *, extracts: bool = True, shares_backbone: bool = False):
        self._shares_backbone = shares_backbone
        self._make_features = feature_data if extracts else unknown_features
        self._images: tuple[dict, DataSet] | None = None
        self._checks: dict = {}  # of the images; shared with siblings, which may be the first to make them
        self._features: tuple[dict, FeatureData] | None = None
        self._models: list[tuple[dict, keras.Model]] = []
        self._watch: tuple[Probe, ModelFile] | None = None
        self.chosen: list[tuple[dict, Choices]] = []
        self._stage: Reuse | None = None

    def data(self, config: TrainConfig) -> DataSet:
        """The data of a config: images, or features of a frozen backbone. The last ones, or new ones."""
        images = self.images(config)
        if not config.freeze_backbone:
            return images
        settings = config.feature_settings()
        if self._features is None or self._features[0] != settings:
            self._features, self._models, self._watch = None, [], None
            self._features = settings, self._make_features(config, images)
        return self._features[1]

    def images(self, config: TrainConfig) -> DataSet:
        """The images of a config: those of the last run, or newly opened ones."""
        options = config.data_options()
        if self._images is None or self._images[0] != options:
            self._images, self._features, self._models, self._watch = None, None, [], None  # frees the memory
            self._images, self._checks = (options, load(**options)), {}
        return self._images[1]

    def checks(self, config: TrainConfig) -> dict:
        """The checks of a config's data (`data.checks`), of which those of kept images are made once.

        Returns:
            The summary of `inspect_data`, and `batches`: steps of an epoch and examples left out of it.

        Raises:
            DataError: training cannot use the data.
        """
        images = self.images(config)
        if not self._checks:  # a second of CPU time for CIFAR-10
            self._checks.update(inspect_data(images))
        return {**self._checks, "batches": check_batches(images.train.size, config.batch_size)}

    def stage(self) -> "Reuse":
        """Keeps the models of runs' first stages; it has the same images."""
        self._stage = self._stage or Reuse()
        self._stage._images, self._stage._checks = self._images, self._checks
        return self._stage

    def sibling(self) -> "Reuse":
        """Keeps another model on the same images and features."""
        other = Reuse(shares_backbone=self._shares_backbone)
        other._images, other._checks, other._features = self._images, self._checks, self._features
        return other

    def holds_model(self, config: TrainConfig) -> bool:
        """Whether a model of the config is kept, whatever its seed."""
        return any(settings == config.without_seed() for settings, _ in self._models)

    def model(self, config: TrainConfig, data: DataSet) -> keras.Model:
        """The compiled model of a config, with its initial values.

        A model is built in any case, for the values. If only the seed differs from that of a model that is
        kept, this one gets them and keeps its traced graph.
        """
        fresh, key = build_model(config, data), config.without_seed()
        for settings, model in self._models:
            if settings == key:
                assign_values(model, fresh)
                return model
        self._models.append((key, fresh))
        return fresh

    def keep(self, model: keras.Model, data: DataSet, layers: str = "") -> tuple[Probe, ModelFile]:
        """Forgets all models but one; returns what counts its units and what writes its file.

        Both are those of the last run if it trained the same model object.

        Args:
            model: from `model`.
            data: that of the model.
            layers: names of the layers to count, joined by commas; "" for the last activation, or for the
                features that a head without one reads.

        Raises:
            UsageError: the model lacks a layer that is to be counted.
        """
        self._models = [(settings, held) for settings, held in self._models if held is model]
        if self._watch is None or self._watch[0].model is not model:
            self._watch = None  # frees the memory
            on_features = any(layer.name == FEATURES for layer in model.layers)
            layers = layers or FEATURES * on_features
            probe = Probe(model, layers.split(",") if layers else None)
            shares = self._shares_backbone and isinstance(data, FeatureData)
            file = (
                ModelFile(model, names=HEAD_FILES) if shares else ModelFile(model, whole_model(model, data))
            )
            self._watch = probe, file
        return self._watch


def assign_values(model: keras.Model, fresh: keras.Model) -> None:
    """Assigns the values of a newly built model to a trained one of the same structure.

    These are weights, moving averages, random states and the optimizer's variables; metrics are reset. After
    a divergence the model executes single steps (`failures.locate`); it gets the fresh model's number again.
    """
    if model.steps_per_execution != fresh.steps_per_execution:
        model.steps_per_execution, model.train_function = fresh.steps_per_execution, None
    fresh.optimizer.build(fresh.trainable_variables)
    model.optimizer.build(model.trainable_variables)
    for target, source in ((model, fresh), (model.optimizer, fresh.optimizer)):
        for variable, value in zip(target.variables, source.variables, strict=True):
            variable.assign(value)
    model.reset_metrics()


def build_model(config: TrainConfig, dataset: DataSet) -> keras.Model:
    """The compiled model of a config for a data set: from raw pixels, or from features, to logits."""
    steps = dataset.train.size // config.batch_size
    policy = keras.config.dtype_policy()
    head = config.trained_head
    options = {
        "seed": config.seed,
        "fc_units": config.fc_units,
        "fc_activation": config.fc_activation,
        "head_bn_epsilon": config.head_bn_epsilon,
        "head_bn_momentum": config.head_bn_momentum,
        "renorm_steps": max(1, round(RENORM_SHARE * config.epochs * steps)),
        "class_counts": dataset.class_counts() if head.needs_labels else None,
    }
    keras.config.set_dtype_policy("mixed_bfloat16" if config.mixed_precision is True else "float32")
    try:
        if isinstance(dataset, FeatureData):
            inputs = keras.Input(dataset.shape, name="features")
            features = inputs if head.has_activation else keras.layers.Identity(name=FEATURES)(inputs)
            model = heads.attach(head, inputs, features, dataset.outputs, name="head", **options)
        else:
            scaling, _ = choose_pixels(config, dataset.shape[-1])
            options |= {"weights": weights_of(config, dataset), "preprocessing": scaling}
            model = models.build(config.backbone, dataset.shape, head, dataset.outputs, **options)
            apply_control(model, config.weights_control, dataset)
    finally:
        keras.config.set_dtype_policy(policy)
    if config.backbone_bn == "frozen":
        freeze_norms(model)
    if config.adversarial in ("pgd", "pgd_cheap"):
        model = with_routes(model, 2, routed_affine=True, as_input=False)
    if config.adaptation in ROUTED:
        model = with_routes(model, 2, default_route=TARGET, as_input=False)
    sgd, at_once = optimizer(config, model, steps), executed_at_once(steps, config.steps_per_execution)
    model = compile_for_task(
        model,
        config.task,
        dataset,
        sgd,
        soft=config.mixup > 0,
        steps_per_execution=at_once,
        jit_compile={"auto": "auto", "on": True, "off": False}[config.jit_compile],
    )
    return with_changed_step(rebalance(model, config, dataset), config, dataset)


def with_changed_step(model: keras.Model, config: TrainConfig, dataset: DataSet) -> keras.Model:
    """The compiled model; its training step attacks or reads a target domain if the config asks for it."""
    if config.adaptation in MIXING:
        steps = dataset.train.size // config.batch_size
        return train_with_target(
            model,
            dataset.target.size,
            half=config.epochs // 2 * steps,
            steps=config.epochs * steps,
            routed=config.adaptation in ROUTED,
            labelling=config.adaptation in LABELLING,
        )
    if config.adversarial == "none":
        return model
    attack = Attack(
        config.adversarial_epsilon,
        config.adversarial_steps,
        config.adversarial_step_size,
        config.adversarial_targeted,
    )
    return train_adversarially(
        model,
        attack,
        share=CHEAP_SHARE if config.adversarial == "pgd_cheap" else 0.0,
        routed=config.adversarial != "pgd_one_bn",
        seed=seeds.stream(config.seed, "attack"),
    )


def decisions(config: TrainConfig, model: keras.Model) -> list[str]:
    """Lines about decisions that the settings leave open and a reader may not expect."""
    lines = []
    if backbone := config.describe_backbone():
        lines.append(f"backbone {backbone}")
    if config.freeze_backbone:
        features = "x".join(map(str, model.inputs[0].shape[1:]))
        lines.append(f"the head trains on features, {features} for each image")
    elif config.weights or ":" in config.backbone or config.backbone.endswith(".keras"):
        lines.append(f"pixels {choose_pixels(config, model.inputs[0].shape[-1])[1]}")
    if config.mixed_precision is not True:
        return lines
    if environment.device_names() == ["CPU"] and environment.cpu_has_bfloat16() is False:
        lines.append(
            "--mixed_precision: this CPU has no bfloat16 instructions; on one without them training ran at "
            "0.47 of its float32 speed"
        )
    layers = [
        layer for layer in model.layers if layer.trainable_weights and not layer.name.startswith("head_")
    ]
    in_float32 = [layer for layer in layers if layer.compute_dtype == "float32"]
    if in_float32:
        lines.append(
            f"--mixed_precision: {len(in_float32)} of the backbone's {len(layers)} layers with weights "
            "compute in float32, as its file says"
        )
    return lines


def executed_at_once(steps: int, requested: int = 0) -> int:
    """Training steps per execution: several on a GPU, so that it does not wait for Python.

    TensorFlow makes the loop part of the graph; on JAX it is a Python loop, at whose end the loss is read;
    Keras has none on PyTorch. On a CPU a step takes longer than the call. Best is a divisor of the epoch's
    steps, for which one pipeline serves all epochs; where they have no large one, equal parts and a smaller
    last one.

    Args:
        steps: optimizer steps per epoch.
        requested: the user's number; 0 chooses one.

    Raises:
        UsageError: the number does not divide the epoch, whose last execution would run into the next one, or
            the backend does single steps only.
    """
    single = keras.backend.backend() == "torch"
    if single and requested > 1:
        raise UsageError(f"steps_per_execution must be 1 on PyTorch, got {requested}")
    if requested:
        if steps % requested:
            nearest = max(divisor for divisor in range(1, requested) if steps % divisor == 0)
            raise UsageError(
                f"steps_per_execution must divide the {steps} steps of an epoch, got {requested}; "
                f"{nearest} would"
            )
        return requested
    if single or environment.device_names() == ["CPU"]:
        return 1
    divisor = max(divisor for divisor in range(1, AT_ONCE + 1) if steps % divisor == 0)
    if divisor >= AT_ONCE // 4 or steps <= AT_ONCE:
        return divisor
    return math.ceil(steps / math.ceil(steps / AT_ONCE))


def optimizer(config: TrainConfig, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum; linear warm-up, then a cosine to 0; decay of kernels only, by `fc_decay`.

    Args:
        config: the run's settings.
        model: the model whose variables will be trained.
        steps: optimizer steps per epoch.

    Raises:
        UsageError: `fc_decay` in features' units on JAX.
    """
    epochs = config.epochs - config.unfreeze_at
    warmup = min(round(config.warmup_epochs * steps), epochs * steps // 2)
    peak = config.learning_rate
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else peak,
        epochs * steps - warmup,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    reader, norm = (None, None) if config.fc_decay == TrainConfig.fc_decay else reader_and_norm(model)
    make, spared = FusedSGD, []
    if config.fc_decay == "none":
        spared = [reader.kernel]
    elif config.fc_decay == "features" and norm is not None and config.weight_decay:
        if (
            keras.backend.backend() == "jax"
        ):  # whose compiled step hides the norm's averages from the optimizer
            raise UsageError("fc_decay features needs the backend tensorflow or torch, got jax")
        spared = [reader.kernel]
        make = functools.partial(FeatureDecaySGD, decay_in_feature_units(norm, reader.kernel))
    sgd = make(
        learning_rate=schedule,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay or None,
        name="sgd",
    )
    not_kernels = [v for v in model.trainable_variables if not v.name.endswith("kernel")]
    sgd.exclude_from_weight_decay([*not_kernels, *spared])
    if config.backbone_rate != 1:
        of_the_head = {id(v) for layer in model.layers if is_of_a_head(layer.name) for v in layer.variables}
        backbone = [v for v in model.trainable_variables if id(v) not in of_the_head]
        sgd.slow_down(backbone, config.backbone_rate)
    return sgd


def describe_head(config: TrainConfig, model: keras.Model) -> str:
    """The head's diagram with its shapes in `model`."""
    return config.trained_head.describe(
        feature_shape(model),
        model.output.shape[-1],
        fc_units=config.fc_units,
        fc_activation=config.fc_activation,
    )
