"""The best epoch by the validation split: evaluated after each epoch, saved apart from the checkpoints."""

import keras
import tensorflow as tf

from bnhead.runs import checkpoints
from bnhead.runs.checkpoints import Checkpoint
from bnhead.runs.directory import RunDirectory
from bnhead.training.state import captured

NAME = f"{checkpoints.FOLDER}/best"


class Best(keras.callbacks.Callback):
    """Adds `validation_...` figures to the logs, and saves the state of the best epoch so far.

    Args:
        validation: batches of the validation split, as the model takes them.
        primary: name of the metric that decides; the higher the better.
        directory: the run's directory.
        settings: the run's settings.

    Attributes:
        record: `epoch`, from 1, and `value` of the best epoch so far; empty before the first.
    """

    def __init__(self, validation: tf.data.Dataset, primary: str, directory: RunDirectory, settings: dict):
        super().__init__()
        self._validation, self._primary = validation, primary
        self._directory, self._settings = directory, settings
        self.record: dict = {}

    def state(self) -> dict:
        """The state for a checkpoint."""
        return self.record

    def resume(self, state: dict) -> None:
        """Restores what `state` returned."""
        self.record = dict(state)

    def on_epoch_end(self, epoch, logs=None):
        figures = self.model.evaluate(self._validation, verbose=0, return_dict=True)
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
        OSError, ValueError: the file cannot be read, or is damaged.
    """
    return checkpoints.decode(checkpoints.read_content(directory.path / NAME))
