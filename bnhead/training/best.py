"""The best epoch by the validation split: looked at after each epoch, kept apart from the checkpoints."""

import keras
import tensorflow as tf

from bnhead.runs import checkpoints
from bnhead.runs.checkpoints import Checkpoint
from bnhead.runs.directory import RunDirectory
from bnhead.training.state import captured

NAME = f"{checkpoints.FOLDER}/best"


class Best(keras.callbacks.Callback):
    """Adds `validation_...` figures to the logs, and keeps the state of the best epoch so far.

    Args:
        held_out: the validation split, as the model takes it.
        primary: name of the metric that counts; the higher the better.
        directory: the run's directory.
        settings: the run's settings.

    Attributes:
        record: `epoch`, from 1, and `value` of the best epoch so far; empty before the first.
    """

    def __init__(self, held_out: tf.data.Dataset, primary: str, directory: RunDirectory, settings: dict):
        super().__init__()
        self._held_out, self._primary = held_out, primary
        self._directory, self._settings = directory, settings
        self.record: dict = {}

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        return self.record

    def resume(self, state: dict) -> None:
        """Goes on from what `state` gave."""
        self.record = dict(state)

    def on_epoch_end(self, epoch, logs=None):
        figures = self.model.evaluate(self._held_out, verbose=0, return_dict=True)
        logs.update({f"validation_{name}": value for name, value in figures.items()})
        value = float(figures[self._primary])
        if self.model.stop_training or not value > self.record.get("value", float("-inf")):
            return
        self.record = {"epoch": epoch + 1, "value": value}
        state = Checkpoint(self._settings, epoch + 1, captured(self.model), {})
        self._directory.replace(NAME, lambda path: path.write_bytes(checkpoints.encode(state)))


def best_state(directory: RunDirectory) -> Checkpoint:
    """The state of the best epoch.

    Raises:
        OSError, ValueError: its file cannot be read, or is damaged.
    """
    return checkpoints.read(directory.path / NAME)
