"""The Keras callback."""

from collections.abc import Sequence
from typing import Any

import keras

from bnhead.census.batches import check_data
from bnhead.census.counters import Census
from bnhead.census.probe import Probe


class DeadUnits(keras.callbacks.Callback):
    """Counts silent units at the end of every epoch, in evaluation mode, on inputs that stay the same.

    The figures enter `logs` as `dead/<layer>/per_input` and so on (`Counts.figures`), shares in [0, 1]. Keras
    puts its own `History` behind all callbacks, so it has them; so has any callback that stands *behind* this
    one in the list, such as `keras.callbacks.TensorBoard`.

        model.fit(x, y, callbacks=[DeadUnits(x_val), keras.callbacks.TensorBoard("logs")])

    Args:
        data: the probe set: an array, a tuple `(x, y)` whose x is used, or a batched `tf.data.Dataset`.
        layers: names of the layers to count; None for the head's FC layer, see
            `bnhead.census.probe.default_layers`.
        batch_size: inputs at a time, where `data` is arrays.
        eps: a unit is silent where its absolute output is at most this; 0 is right for ReLU.

    Attributes:
        census: the latest `Census`; None before the first epoch has ended.

    Raises:
        UsageError: at once for data that cannot be read; when `fit` begins for a layer or a model that cannot
            be counted, see `Probe`. (A Sequential model that is not built yet says so at the first count.)
    """

    def __init__(
        self,
        data: Any,
        layers: Sequence[str] | None = None,
        *,
        batch_size: int = 256,
        eps: float = 0.0,
    ):
        super().__init__()
        check_data(data, batch_size)
        self.data = data
        self.layers = layers
        self.batch_size = batch_size
        self.eps = eps
        self.census: Census | None = None
        self._probe: Probe | None = None

    def set_model(self, model: keras.Model) -> None:
        """Finds the layers to count; called by Keras when `fit` begins."""
        if model is not self.model:
            self._probe = None
        super().set_model(model)
        if model.built:
            self._prepare()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Counts, and adds the figures to `logs`."""
        self.census = self._prepare().count(self.data, batch_size=self.batch_size)
        if logs is not None:
            logs.update(self.census.figures())

    def _prepare(self) -> Probe:
        """The probe, built once for a model: a new one for each count would be traced for each count."""
        if self._probe is None:
            self._probe = Probe(self.model, self.layers, eps=self.eps)
        return self._probe
