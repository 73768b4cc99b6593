"""The rules of `bnhead check`, a row each.

An id keeps its meaning for ever, and the id of a removed rule is not used again. Every rule has a threshold.
A finding beyond it has the rule's severity. A finding below it, or one whose number could not be measured, is
an "info" with its reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bnhead.errors import UsageError, nearest

SEVERITIES = ("info", "warning", "error")  # ascending
GROUPS = {
    "BN1": "Structure of the net",
    "BN2": "Training settings and batches",
    "BN3": "Frozen layers",
    "BN4": "Features and statistics at a batch norm",
    "BN5": "Units",
}
NEEDS = {  # what a rule cannot be checked without -> its name in messages
    "model": "the net",
    "data": "data",
    "labels": "data with labels",
    "epochs": "data and epochs",
    "optimizer": "a compiled model",
    "fitted": "a compiled model that was trained, on TensorFlow",
}


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        id: permanent, "BN401"; its first digit is the group.
        name: short, in kebab case.
        severity: of a finding beyond the threshold: "warning" or "error".
        headline: the mistake, in a few words.
        figure: name of the number that is compared with the threshold.
        threshold: the number.
        notable: a number that is not beyond this one is not reported at all.
        above: whether a number above the threshold is beyond it; otherwise one below it is.
        form: format of the number, as of `format`, such as ".0%".
        needs: a key of `NEEDS`; without it the rule is not checked.
        measures: a key of `NEEDS`; without it the number is not measured.
        why: why it matters, in one or two sentences.
        fix: the remedy, in one line.
        source: a paper, an issue or a documentation that describes it; "" without one.
    """

    id: str
    name: str
    severity: str
    headline: str
    figure: str
    threshold: float
    notable: float
    above: bool
    form: str
    needs: str
    why: str
    fix: str
    source: str = ""
    measures: str = ""

    @property
    def group(self) -> str:
        """Heading of the rule's group."""
        return GROUPS[self.id[:3]]

    @property
    def limit(self) -> str:
        """The threshold in words: "more than 5%"."""
        return f"{'more' if self.above else 'less'} than {format(self.threshold, self.form)}"

    def is_beyond(self, value: float, limit: float) -> bool:
        """Whether a number lies beyond a limit, in the rule's direction."""
        return value > limit if self.above else value < limit

    def severity_of(self, value: float | None) -> str:
        """The severity of a finding with this number; None for one that was not measured."""
        return self.severity if value is not None and self.is_beyond(value, self.threshold) else "info"


_ROWS = (
    Rule(
        "BN101",
        "bias-before-norm",
        "warning",
        "a bias before a batch norm has no effect",
        figure="share of the net's trainable parameters",
        threshold=0.01,
        notable=0,
        above=True,
        form=".2%",
        needs="model",
        why="A batch norm subtracts the batch's mean, and the bias with it: its gradient is 0, and weight "
        "decay is all that moves it. beta is the offset that learns.",
        fix="use_bias=False in the layer before the batch norm.",
        source="Ioffe & Szegedy 2015, section 3.2",
    ),
    Rule(
        "BN102",
        "shared-norm",
        "warning",
        "a batch norm is called several times and averages the statistics of all its inputs",
        figure="distance of its inputs' means, in deviations (or |log2| of the ratio of their deviations)",
        threshold=0.25,
        notable=-1,
        above=True,
        form=".2f",
        needs="model",
        why="Training normalises each call by its own batch. Inference uses one moving average for all "
        "calls, which fits none of them if their inputs differ.",
        fix="a batch norm for each call; other layers may stay shared.",
        source="Chang et al. 2019, Domain-Specific Batch Normalization",
        measures="data",
    ),
    Rule(
        "BN103",
        "norm-on-regression-output",
        "warning",
        "a batch norm makes the outputs of a regression",
        figure="distance of the outputs from the targets, in the targets' deviations (or |log2| of the "
        "ratio of their deviations)",
        threshold=0.5,
        notable=-1,
        above=True,
        form=".2f",
        needs="labels",
        why="In training its outputs have mean beta and deviation gamma in every batch, 0 and 1 at first, "
        "whatever the targets are; a prediction depends on the other examples of its batch.",
        fix="remove the batch norm, or end with a Dense layer; standardise the targets.",
        source="https://discuss.ai.google.dev/t/31604",
        measures="data",
    ),
    Rule(
        "BN201",
        "slow-averages",
        "warning",
        "training is too short for the moving averages",
        figure="weight of their values at its start, momentum^steps",
        threshold=0.05,
        notable=0.005,
        above=True,
        form=".1%",
        needs="epochs",
        why="Inference normalises by the moving averages. After a short training they are still a mixture "
        "with their initial values 0 and 1, and a net that has learned scores like one that has not.",
        fix="momentum=0.9, or bnhead.layers.recompute_batch_stats(model, data) after training.",
        source="https://github.com/keras-team/keras/issues/7177",
    ),
    Rule(
        "BN202",
        "fast-averages",
        "warning",
        "the moving averages cover almost no batches",
        figure="batches that they average, (1 + momentum) / (1 - momentum)",
        threshold=5,
        notable=10,
        above=False,
        form=".1f",
        needs="model",
        why="Keras' momentum is the weight of the old average. 0.1, PyTorch's default for the weight of "
        "the new one, makes inference depend on the last batch alone.",
        fix="momentum=0.9, which is PyTorch's 0.1.",
        source="https://keras.io/api/layers/normalization_layers/batch_normalization",
    ),
    Rule(
        "BN203",
        "batch-of-one",
        "warning",
        "a training batch has too few values for batch statistics",
        figure="values of a channel in the smallest batch",
        threshold=2,
        notable=8,
        above=False,
        form=".0f",
        needs="model",
        why="The variance of one value is 0: the batch norm outputs beta, nothing before it learns, and "
        "the step pulls the moving variance towards 0. As the last batch of an epoch it does so just "
        "before validation.",
        fix="drop_remainder=True, or another batch size.",
        source="https://github.com/keras-team/keras/issues/8837",
    ),
    Rule(
        "BN204",
        "decayed-norm",
        "warning",
        "weight decay shrinks gamma and beta",
        figure="shrinkage over the training, 1 - exp(-rate decay steps)",
        threshold=0.05,
        notable=-1,
        above=True,
        form=".1%",
        needs="optimizer",
        why="They are one gain and one offset for each channel, not a capacity to restrict: the decay "
        "pulls the features that the next layer reads to 0.",
        fix="optimizer.exclude_from_weight_decay(var_names=['gamma', 'beta']) before fit; no "
        "gamma_regularizer.",
        source="Summers & Dinneen 2020, arXiv 1906.03548",
        measures="epochs",
    ),
    Rule(
        "BN205",
        "zero-output-bias",
        "warning",
        "the output bias starts at 0 and the classes are skewed",
        figure="loss that the shares of the classes alone take away, in nats",
        threshold=0.1,
        notable=0.01,
        above=True,
        form=".3f",
        needs="labels",
        why="The net starts by predicting equal shares. The first steps teach the last bias the shares of "
        "the classes, with large gradients of one sign into everything before it.",
        fix="bias_initializer=keras.initializers.Constant(log of the classes' shares) in the output layer.",
        source="Karpathy 2019, A Recipe for Training Neural Networks",
    ),
    Rule(
        "BN206",
        "unmixed-batches",
        "warning",
        "batches are not mixed by class or domain",
        figure="classes in a batch, relative to mixed batches",
        threshold=0.8,
        notable=0.95,
        above=False,
        form=".2f",
        needs="labels",
        why="The batch's statistics then tell which class it is, and the net learns from them. In "
        "inference there is one set of statistics, and that information is gone.",
        fix="shuffle all examples before batching: dataset.shuffle(buffer of the whole set).batch(...).",
        source="Wu & Johnson 2021, arXiv 2105.07576, section 5",
    ),
    Rule(
        "BN301",
        "frozen-after-compile",
        "error",
        "trainable was changed after the training step was compiled",
        figure="variables whose change has no effect",
        threshold=0,
        notable=0,
        above=True,
        form=".0f",
        needs="fitted",
        why="fit goes on with the step it has compiled: a batch norm that was frozen since keeps "
        "normalising by the batch and moving its averages, and one that was thawed does not learn.",
        fix="model.compile(...) again after the change.",
        source="https://keras.io/guides/transfer_learning",
    ),
    Rule(
        "BN302",
        "norm-behind-frozen-layers",
        "warning",
        "a batch norm keeps updating behind frozen layers",
        figure="distance of its moving averages from those of the data, in deviations (or |log2| of the "
        "ratio of the deviations)",
        threshold=0.25,
        notable=-1,
        above=True,
        form=".2f",
        needs="model",
        why="Its layers keep the weights of another training, and its averages move to the statistics of "
        "this one: the backbone is not the frozen one that was meant, and cached features differ from "
        "it.",
        fix="freeze the batch norm with its layers (trainable=False), and call the backbone with "
        "training=False.",
        source="https://github.com/kdexd/virtex/issues/16",
        measures="data",
    ),
    Rule(
        "BN401",
        "dropout-before-norm",
        "warning",
        "dropout before a batch norm changes the variance between training and inference",
        figure="ratio of the two variances, median of the channels",
        threshold=1.1,
        notable=0,
        above=True,
        form=".2f",
        needs="model",
        why="Dropout adds variance in training, and the moving variance learns it. In inference the "
        "features vary less, and the batch norm divides by too much.",
        fix="put the dropout after the last batch norm; recompute_batch_stats repairs a part of it.",
        source="Li et al. 2019, arXiv 1801.05134",
        measures="data",
    ),
    Rule(
        "BN402",
        "large-epsilon",
        "warning",
        "epsilon is large beside the features' variance",
        figure="share of the channels whose variance is below epsilon",
        threshold=0.5,
        notable=0.05,
        above=True,
        form=".0%",
        needs="data",
        why="A channel of variance v leaves with a deviation of gamma sqrt(v / (v + epsilon)): small "
        "features are not brought to the same size as the others.",
        fix="a smaller epsilon, such as 1e-5 (Keras' default is 1e-3).",
    ),
    Rule(
        "BN403",
        "constant-features",
        "warning",
        "features of a batch norm are constant",
        figure="share of the channels",
        threshold=0.1,
        notable=0.01,
        above=True,
        form=".0%",
        needs="data",
        why="A constant channel is beta in training, and its moving variance goes to 0. In inference any "
        "other value is multiplied by gamma / sqrt(epsilon), 316 at 1e-5.",
        fix="remove constant features; count the dead units before the batch norm with bnhead inspect.",
    ),
    Rule(
        "BN404",
        "rare-features",
        "warning",
        "features of a batch norm are rarely active",
        figure="share of the channels with fewer than 3 active examples in a batch",
        threshold=0.1,
        notable=0.01,
        above=True,
        form=".0%",
        needs="data",
        why="With B p < 3 more than e^-3 = 5 % of the batches have no active example, and the variance of "
        "a batch is mostly chance: the same example leaves with another value in each batch.",
        fix="a larger batch, a narrower layer, or fbn or ln in place of bn.",
    ),
    Rule(
        "BN405",
        "moving-variance-out-of-range",
        "warning",
        "the moving averages do not fit the data",
        figure="share of the channels whose moving variance is not within a factor of 4 of the data's; 1 "
        "if any is negative or not finite",
        threshold=0.5,
        notable=0.05,
        above=True,
        form=".0%",
        needs="data",
        why="In inference a channel is divided by the root of the moving variance: a factor of 4 doubles "
        "or halves it, and a negative or infinite one makes NaN or 0.",
        fix="bnhead.layers.recompute_batch_stats(model, data); check that inputs are scaled as in training.",
    ),
    Rule(
        "BN501",
        "dead-units",
        "warning",
        "units of an activation are silent on all examples",
        figure="share of the layer's units",
        threshold=0.5,
        notable=0.05,
        above=True,
        form=".0%",
        needs="data",
        why="A dead unit passes no signal and gets no gradient. One that its weights or bias prove dead "
        "comes back only if the layers before it change.",
        fix="a smaller learning rate or initial bias; LeakyReLU or GELU; a batch norm before the activation.",
        source="Lu et al. 2019, arXiv 1903.06733",
    ),
)
RULES = {rule.id: rule for rule in _ROWS}


def rule_named(text: str) -> Rule:
    """The rule of an id or a name, in any case.

    Raises:
        UsageError: an unknown rule, with the nearest id or name.
    """
    by_name = {**RULES, **{rule.name: rule for rule in RULES.values()}}
    for name, rule in by_name.items():
        if text.lower() == name.lower():
            return rule
    raise UsageError(f"rule {text!r} is not known{_nearest(text, by_name)}")


def selected(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[str]:
    """Ids of the rules to check, in their order.

    Args:
        select: ids, names, or beginnings of ids such as "BN4"; none selects all.
        ignore: as `select`: the rules that are left out.

    Raises:
        UsageError: a text that selects no rule, with the nearest id or name; or no rule is left.
    """
    selection = _matching("select", select) or list(RULES)
    remaining = [rule for rule in selection if rule not in _matching("ignore", ignore)]
    if not remaining:
        raise UsageError("select and ignore leave no rule to check")
    return [rule for rule in RULES if rule in remaining]


def _matching(argument: str, texts: Iterable[str]) -> list[str]:
    """Ids of the rules that any of the texts selects."""
    ids: list[str] = []
    for text in texts:
        matches = [
            rule.id
            for rule in RULES.values()
            if text.lower() == rule.name or (text and rule.id.lower().startswith(text.lower()))
        ]
        if not matches:
            names = [*RULES, *GROUPS, *(rule.name for rule in RULES.values())]
            raise UsageError(f"{argument}: rule {text!r} is not known{_nearest(text, names)}")
        ids += matches
    return ids


def _nearest(text: str, names: Iterable[str]) -> str:
    return nearest(text, names) or "; bnhead check --list_rules lists them"
