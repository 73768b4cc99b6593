"""The figures of the mechanisms, one row each, in the form of the census' figures.

Logs, `history.csv`, `result.json` and TensorBoard contain each as `mechanisms/<name>`. To add a figure, add a
row; tables, files and the site read them.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bnhead.census.figures import Figure
from bnhead.errors import UsageError, nearest

PREFIX = "mechanisms/"
GROUPS = {  # name of a group -> what its figures are about
    "noise": "the noise of random batch-mates",
    "gap": "training against evaluation: the norm's statistics",
    "guess": "how the answers are spread over the classes",
    "initial": "how the answers are spread before the first step",
    "scale": "the scale of the logits",
    "calibration": "loss, margin and calibration",
    "inputs": "inputs of the FC that are far from 0",
    "gradients": "gradients of a training step",
    "dropout": "dropout before a norm",
    "rank": "effective ranks of the output layer's input",
    "collapse": "neural collapse of the output layer's input",
    "decay": "weight decay in the units of the features",
}

INTERVENTIONS = {  # name -> what is done to the model in evaluation mode
    "none": "nothing: the model in evaluation mode",
    "population": "statistics of the training examples: no bias of moving averages, no noise",
    "batch": "statistics of a batch with random mates: noise added, as in training",
    "own_share": "moving averages in which the example has its share of a batch",
    "no_centring": "the mean is not subtracted",
    "no_scaling": "nothing is divided by the deviation",
    "folded": "the norm is folded into the next Dense: nothing changes but rounding",
    "neutral_bias": "output bias less the mean logits, plus the log prior",
}


def _largest_shift(m: Any) -> float:
    return max((shift.median for shift in m.dropout.values()), default=math.nan)


def _rows(group: str, *rows: tuple) -> dict[str, tuple[Figure, ...]]:
    """The rows of a group: name, heading, meaning, formula and unit of each. Formulas read `Measured`."""
    needs = "ranks" if group == "rank" else group
    return {
        group: tuple(
            Figure(name, heading, meaning, formula, needs, unit, "files")
            for name, heading, meaning, formula, unit in rows
        )
    }


FIGURES_BY_GROUP = {
    **_rows(
        "noise",
        (
            "noise_logit_sd",
            "noise of a logit",
            "standard deviation of a logit over random batch-mates",
            lambda m: m.noise.logit_sd,
            "value",
        ),
        (
            "noise_flipped",
            "flipped",
            "share of the answers that random batch-mates change",
            lambda m: m.noise.flipped,
            "rate",
        ),
        (
            "noise_flipped_rare",
            "flipped, rare classes",
            "the same for the third of the classes with the fewest examples",
            lambda m: m.noise.flipped_third(rarest=True),
            "rate",
        ),
        (
            "noise_flipped_frequent",
            "flipped, frequent classes",
            "the same for the third of the classes with the most examples",
            lambda m: m.noise.flipped_third(rarest=False),
            "rate",
        ),
        (
            "noise_sd",
            "noise of a feature",
            "standard deviation of a normalised feature over random batch-mates",
            lambda m: m.noise.sd,
            "value",
        ),
        (
            "noise_predicted_sd",
            "noise by formula",
            "the same by skewness, kurtosis and batch size; far too large for rare units",
            lambda m: m.noise.predicted_sd,
            "value",
        ),
        (
            "noise_rare_units",
            "rare in a batch",
            "share of the features that are active on fewer than 3 examples of a batch on average",
            lambda m: m.noise.rare.mean(),
            "share",
        ),
        (
            "noise_rare_distance",
            "distance, rare",
            "distance of the rare features' values in a batch from those by the population",
            lambda m: m.noise.rare_distance,
            "value",
        ),
        (
            "noise_usual_distance",
            "distance, others",
            "distance of the other features' values in a batch from those by the population",
            lambda m: m.noise.usual_distance,
            "value",
        ),
    ),
    **_rows(
        "gap",
        (
            "accuracy_moving",
            "accuracy, moving",
            "accuracy with the norm's moving averages",
            lambda m: m.gap.accuracy["moving"],
            "rate",
        ),
        (
            "accuracy_batch",
            "accuracy, batch",
            "accuracy with statistics of batches with random mates",
            lambda m: m.gap.accuracy["batch"],
            "rate",
        ),
        (
            "accuracy_population",
            "accuracy, population",
            "accuracy with statistics of the training examples",
            lambda m: m.gap.accuracy["population"],
            "rate",
        ),
        (
            "accuracy_own_share",
            "accuracy, own share",
            "accuracy with moving averages in which the example has its share of a batch",
            lambda m: m.gap.accuracy["own_share"],
            "rate",
        ),
        (
            "loss_moving",
            "loss, moving",
            "loss with the norm's moving averages",
            lambda m: m.gap.loss["moving"],
            "value",
        ),
        (
            "loss_batch",
            "loss, batch",
            "loss with statistics of batches with random mates",
            lambda m: m.gap.loss["batch"],
            "value",
        ),
        (
            "loss_population",
            "loss, population",
            "loss with statistics of the training examples",
            lambda m: m.gap.loss["population"],
            "value",
        ),
        (
            "loss_own_share",
            "loss, own share",
            "loss with moving averages in which the example has its share of a batch",
            lambda m: m.gap.loss["own_share"],
            "value",
        ),
        (
            "mode_cka",
            "CKA of the modes",
            "linear CKA of the norm's output with moving averages and in a batch; 1 if alike",
            lambda m: m.gap.cka,
            "value",
        ),
        (
            "average_bias",
            "moving mean's bias",
            "distance of the moving mean from the population's, in deviations, mean over channels",
            lambda m: m.gap.averages.typical,
            "value",
        ),
        (
            "average_bias_largest",
            "largest bias of a mean",
            "largest distance of a moving mean from the population's, in deviations",
            lambda m: m.gap.averages.largest,
            "value",
        ),
        (
            "average_log_variance",
            "moving variance's bias",
            "|ln(moving variance / variance)|, mean over channels",
            lambda m: m.gap.averages.log_variance,
            "value",
        ),
    ),
    **_rows(
        "guess",
        (
            "modal_share",
            "modal share",
            "share of the examples that get the most frequent answer",
            lambda m: m.guess.modal_share,
            "rate",
        ),
        (
            "answer_entropy",
            "entropy of the answers",
            "entropy of the answers / ln C: 1 if they are spread evenly",
            lambda m: m.guess.entropy,
            "value",
        ),
        (
            "loss_to_chance",
            "loss / ln C",
            "loss over that of a net that knows nothing",
            lambda m: m.guess.loss,
            "value",
        ),
        (
            "largest_prior",
            "largest prior",
            "share of the most frequent label",
            lambda m: m.guess.prior,
            "rate",
        ),
    ),
    "initial": (),  # those of `INITIAL`, beside "guess"
    **_rows(
        "scale",
        (
            "feature_norm",
            "feature norm",
            "mean length of the output layer's input",
            lambda m: m.scale.feature_norm,
            "value",
        ),
        (
            "weight_norm",
            "weight norm",
            "mean length of the output layer's weights of a class",
            lambda m: m.scale.weight_norm,
            "value",
        ),
        (
            "logit_norm",
            "logit norm",
            "mean length of the logits, less their mean",
            lambda m: m.scale.logit_norm,
            "value",
        ),
        (
            "scale_floor",
            "floor of the loss",
            "smallest loss that these norms allow for balanced classes, without a bias",
            lambda m: m.scale.floor,
            "value",
        ),
        (
            "beyond_batch",
            "beyond sqrt(B - 1)",
            "share of the normalised features that are larger than a batch of B can make them",
            lambda m: m.scale.beyond,
            "rate",
        ),
    ),
    **_rows(
        "calibration",
        (
            "margin",
            "margin",
            "mean distance of the label's logit from the largest other one",
            lambda m: m.calibration.margin,
            "value",
        ),
        ("nll", "NLL", "mean negative log-likelihood", lambda m: m.calibration.loss, "value"),
        (
            "temperature",
            "temperature",
            "divides the logits for the smallest loss: above 1 the net is too sure",
            lambda m: m.calibration.temperature,
            "value",
        ),
        (
            "ece",
            "ECE",
            "expected calibration error, 15 bins of equal width",
            lambda m: m.calibration.ece,
            "rate",
        ),
        (
            "ece_floor",
            "ECE, floor",
            "that of a perfectly calibrated net on so few examples, simulated",
            lambda m: m.calibration.ece_floor,
            "rate",
        ),
        (
            "ece_excess",
            "ECE above the floor",
            "calibration error less that floor",
            lambda m: m.calibration.ece_excess,
            "rate",
        ),
    ),
    **_rows(
        "inputs",
        (
            "severity",
            "severity",
            "|mean| / deviation of the FC's inputs, median over the channels that vary",
            lambda m: m.inputs.typical_severity,
            "value",
        ),
        (
            "severity_largest",
            "severity, largest",
            "largest |mean| / deviation of the FC's inputs that vary",
            lambda m: m.inputs.largest_severity,
            "value",
        ),
    ),
    **_rows(
        "gradients",
        (
            "gradient_fc",
            "gradient at the FC",
            "root mean square over examples of the gradient's length at the FC's output, in training",
            lambda m: m.gradients.fc,
            "value",
        ),
        (
            "gradient_backbone",
            "gradient at the backbone",
            "the same at the backbone's output",
            lambda m: m.gradients.backbone,
            "value",
        ),
        ("gradient_ratio", "backbone / FC", "the ratio of the two", lambda m: m.gradients.ratio, "value"),
    ),
    **_rows(
        "dropout",
        (
            "variance_shift",
            "variance shift",
            "variance of a norm's input with dropout over that without, or its inverse; largest norm",
            lambda m: _largest_shift(m),
            "value",
        ),
    ),
    **_rows(
        "rank",
        (
            "rank_centred",
            "effective rank, centred",
            "exp(entropy) of the singular values of the output layer's input, less its mean",
            lambda m: m.ranks.centred,
            "value",
        ),
        (
            "rank_uncentred",
            "effective rank, uncentred",
            "the same without subtracting the mean (RankMe)",
            lambda m: m.ranks.uncentred,
            "value",
        ),
    ),
    **_rows(
        "collapse",
        (
            "nc1",
            "NC1",
            "tr(pinv(Sb) Sw) / K of the output layer's input; 0 if each class is a point",
            lambda m: m.collapse.nc1,
            "value",
        ),
        ("nc1_quotient", "NC1, quotient", "tr Sw / tr Sb", lambda m: m.collapse.nc1_quotient, "value"),
        (
            "nc2",
            "NC2",
            "distance of the class means from an equiangular tight frame",
            lambda m: m.collapse.nc2,
            "value",
        ),
        (
            "nc3",
            "NC3",
            "distance of weights and class means from one frame: 1.41 for random weights",
            lambda m: m.collapse.nc3,
            "value",
        ),
        (
            "nc4",
            "NC4",
            "share of the examples whose nearest class mean is not the answer, bias included",
            lambda m: m.nc4,
            "rate",
        ),
        (
            "pillai",
            "Pillai trace",
            "share of the variance that the classes explain; unchanged by a norm, unlike NC1 to NC3",
            lambda m: m.collapse.pillai,
            "value",
        ),
    ),
    **_rows(
        "decay",
        (
            "decay_ratio",
            "penalty ratio",
            "penalty of the FC's weights over that of the weights folded with the norm",
            lambda m: m.decay.ratio,
            "value",
        ),
        (
            "decay_spread",
            "penalty spread",
            "95th over 5th percentile of the features' penalties in their own units",
            lambda m: m.decay.spread,
            "value",
        ),
    ),
}
INITIAL = tuple(  # of the guess before the first step, which `callback.Measure` takes
    Figure(name, heading, meaning, formula, "", unit, "files")
    for name, heading, meaning, formula, unit in (
        (
            "initial_modal_share",
            "modal share, step 0",
            "share of the examples that get the most frequent answer before the first step",
            lambda guess: guess.modal_share,
            "rate",
        ),
        (
            "initial_entropy",
            "entropy, step 0",
            "entropy of the answers before the first step / ln C",
            lambda guess: guess.entropy,
            "value",
        ),
        (
            "initial_loss_to_chance",
            "loss / ln C, step 0",
            "loss before the first step over that of a net that knows nothing",
            lambda guess: guess.loss,
            "value",
        ),
    )
)
PREJUDICED = Figure(
    "prejudiced_epochs",
    "prejudiced epochs",
    "epochs until the most frequent answer has less than twice the share of the most frequent label",
    lambda measure: math.nan if measure.prejudiced is None else measure.prejudiced,
    unit="count",
    display="files",
)
FIGURES = tuple(row for rows in FIGURES_BY_GROUP.values() for row in rows)


def figures_of(measured: Any) -> dict[str, float]:
    """Name -> value of the figures of a `Measured` that are defined, in order; others are left out."""
    values = {}
    for row in FIGURES:
        if row.is_counted(measured):
            try:
                value = float(row.formula(measured))
            except KeyError:  # accuracies and losses without labels
                continue
            if math.isfinite(value):
                values[row.name] = value
    return values


def tables_of(values: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The figures of a run in groups.

    Args:
        values: figures by `mechanisms/<name>`; other keys are ignored, None and NaN are left out.

    Returns:
        What each group with figures is about, with heading, meaning and value of each figure as text.
    """
    tables = []
    for group, subject in GROUPS.items():
        rows = FIGURES_BY_GROUP[group] + ((*INITIAL, PREJUDICED) if group == "guess" else ())
        numbers = ((row, values.get(PREFIX + row.name)) for row in rows)
        cells = [
            (row.heading, row.meaning, row.text(number))
            for row, number in numbers
            if isinstance(number, int | float) and math.isfinite(number)
        ]
        if cells:
            tables.append((subject, cells))
    return tables


def effect_headings(*, counts_dead: bool) -> tuple[str, ...]:
    """The headings of `effect_rows`."""
    return ("intervention", "accuracy", "loss", "flipped", *(("dead",) * counts_dead), "meaning")


def effect_rows(effects: Iterable[Mapping[str, Any]], *, counts_dead: bool) -> list[tuple[str, ...]]:
    """The cells of a table of interventions: name, accuracy, loss, flipped answers, dead units, meaning.

    Args:
        effects: the fields of each `mechanisms.Effect`.
        counts_dead: whether dead units were counted; otherwise their column is left out.
    """
    return [
        (
            effect["name"],
            f"{effect['accuracy']:.2%}",
            f"{effect['loss']:.4g}",
            f"{effect['flipped']:.2%}",
            *((f"{effect['dead']:.1%}",) if counts_dead else ()),
            INTERVENTIONS[effect["name"]],
        )
        for effect in effects
    ]


def meaning_of(key: str) -> str:
    """The meaning of `mechanisms/<name>`; empty for other names."""
    name = key.removeprefix(PREFIX) if key.startswith(PREFIX) else ""
    return next((row.meaning for row in (*FIGURES, *INITIAL, PREJUDICED) if row.name == name), "")


def check_groups(groups: Iterable[str] | str) -> tuple[str, ...]:
    """The names of groups in the order of `GROUPS`; "all" stands for every group.

    Args:
        groups: names, or one text with names joined by commas.

    Raises:
        UsageError: an unknown name.
    """
    names = [name.strip() for name in groups.split(",")] if isinstance(groups, str) else list(groups)
    names = [name for name in names if name]
    for name in names:
        if name not in (*GROUPS, "all"):
            choices = ", ".join(("all", *GROUPS))
            raise UsageError(f"measure {name!r} is not known{nearest(name, GROUPS)} (there are {choices})")
    return tuple(name for name in GROUPS if name in names or "all" in names)
