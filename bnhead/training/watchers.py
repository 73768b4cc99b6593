"""The callbacks of every run."""

import keras

from bnhead.census import Probe
from bnhead.mechanisms.callback import Measure
from bnhead.runs.directory import RunDirectory
from bnhead.training.adaptation import LABELLING, Teaching
from bnhead.training.build import describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.evaluation import Evaluation
from bnhead.training.failures import Finite, Learning, constant_loss
from bnhead.training.feed import Feed
from bnhead.training.imbalance import class_weights
from bnhead.training.logs import Elapsed, HistoryFile, Pace, Scalars
from bnhead.training.state import Best
from bnhead.training.tasks import TASKS, labels_for_softmax


class Watchers:
    """The callbacks of every run.

    Args:
        config: the run's settings.
        directory: its directory.
        feed: its batches.
        model: the model to be trained.
        probe: counts its units.
        watched: whether somebody may follow the run in TensorBoard. A study's runs are plotted at their end.

    Attributes:
        diagram: the head's.
        elapsed: the run's time.
        finite: ends a run that diverges.
        evaluation: the test split and the census of each epoch; `scalars` writes the figures.
        measure: the mechanisms; None unless they are asked for.
        teaching: labels a target domain; None without one, and where its images stay without labels.
        pace: learning rate and images per second.
        best: keeps the best epoch; None without a validation split.
        history: `history.csv`.
        learning: ends a run that does not learn.
        scalars: TensorBoard's; None in processes that do not write.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        feed: Feed,
        model: keras.Model,
        probe: Probe,
        *,
        watched: bool = True,
    ):
        self.diagram = describe_head(config, model)
        self.elapsed, self.finite, self.pace = (
            Elapsed(),
            Finite(probe.first_nonfinite_weight),
            Pace(feed.batch_size),
        )
        units = str(directory.path / "units") if directory.writable else None
        self.evaluation = Evaluation(feed, probe, units, plots_often=watched)
        self.best = None
        if feed.data.validation is not None:
            self.best = Best(feed.validation(), TASKS[feed.task].primary, directory, config.settings())
        self.measure = None
        if config.measure:
            data = (labels_for_softmax(batches, feed.task) for batches in (feed.probe(), feed.reference()))
            self.measure = Measure(*data, config.measure, training_batch=feed.batch_size, seed=feed.seed)
        self.teaching = None
        if config.adaptation in LABELLING:
            self.teaching = Teaching(feed.data.target, feed.epochs)
        self.history = HistoryFile(directory, self.evaluation, self.measure)
        self.scalars = None
        if directory.writable:
            description = f"`{config.backbone}`, head `{config.head}`: {self.diagram}"
            self.scalars = Scalars(
                directory,
                description,
                config.settings(),
                TASKS[feed.task].primary,
                histograms=config.weight_histograms,
            )
        weights, majority = 1.0, None
        if feed.task != "regression":
            counts = feed.data.class_counts()
            weights, majority = class_weights(feed.class_weights, counts), max(counts) / sum(counts)
        constant = constant_loss(feed.task, feed.data, feed.recipe.mixup, weights)
        self.learning = Learning(
            constant, config.learn_within, lambda: self.history.rows, feed.first_epoch, majority
        )

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """In the order in which they see an epoch: those that add figures, then those that use them."""
        ordered = (
            self.teaching,
            self.finite,
            self.evaluation,
            self.measure,
            self.pace,
            self.best,
            self.history,
            self.learning,
            self.scalars,
        )
        return [callback for callback in ordered if callback is not None]
