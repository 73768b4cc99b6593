"""The callbacks of every run."""

from dataclasses import dataclass

import keras

from bnhead.census import DeadUnits
from bnhead.runs.directory import RunDirectory
from bnhead.training.best import Best
from bnhead.training.build import describe_head
from bnhead.training.config import TrainConfig
from bnhead.training.failures import Finite, Learning, constant_loss
from bnhead.training.feed import Feed
from bnhead.training.logs import Elapsed, HistoryFile, Pace, Scalars
from bnhead.training.tasks import TASKS


@dataclass(frozen=True)
class Watchers:
    """The callbacks of every run.

    Attributes:
        elapsed: the run's time.
        finite: ends a run that diverges.
        dead_units: the census of each epoch; `scalars` writes its figures with the others.
        pace: learning rate and images per second.
        best: keeps the best epoch; None without a validation split.
        history: `history.csv`.
        learning: ends a run that does not learn.
        scalars: TensorBoard's; None in processes that do not write.
        layers: names of the layers whose dead units are counted; None for the head's.
        diagram: the head's.
    """

    elapsed: Elapsed
    finite: Finite
    dead_units: DeadUnits
    pace: Pace
    best: Best | None
    history: HistoryFile
    learning: Learning
    scalars: Scalars | None
    layers: list[str] | None
    diagram: str

    @classmethod
    def of(cls, config: TrainConfig, directory: RunDirectory, feed: Feed, model: keras.Model) -> "Watchers":
        """The watchers of a config's run.

        Raises:
            UsageError: the net lacks a layer that is to be counted.
        """
        layers = config.dead_layers.split(",") if config.dead_layers else None
        units = f"{directory.path}/tensorboard/units" if directory.writable else None
        dead_units = DeadUnits(feed.probe(), layers, log_dir=units, log_scalars=False)
        dead_units.set_model(model)  # reports a missing layer before anything is written
        best = None
        if feed.data.validation is not None:
            best = Best(feed.validation(), TASKS[feed.task].primary, directory, config.settings())
        diagram = describe_head(config, model)
        description = f"`{config.backbone}`, head `{config.head}`: {diagram}"
        scalars = Scalars(directory, description, histograms=config.weight_histograms)
        history = HistoryFile(directory)
        constant = constant_loss(feed.task, feed.data, feed.recipe.mixup)
        return cls(
            Elapsed(),
            Finite(),
            dead_units,
            Pace(feed.batch_size),
            best,
            history,
            Learning(constant, config.learn_within, history.losses),
            scalars if directory.writable else None,
            layers,
            diagram,
        )

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """In the order in which they see an epoch: those that add figures, then those that use them."""
        ordered = (
            self.finite,
            self.dead_units,
            self.pace,
            self.best,
            self.history,
            self.learning,
            self.scalars,
        )
        return [callback for callback in ordered if callback is not None]
