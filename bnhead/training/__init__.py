"""One training run: `train(TrainConfig(head="bn_fc"))`.

`config` has the settings, `run` trains, `build` opens the data and makes the model, `tasks` its loss,
`feed` the batches, `watchers`, `logs` and `failures` the callbacks, `state` trains from any step and saves
checkpoints and the best epoch, `signals` ends a run after a step. `result` measures and writes the outcome,
`run_result` is what `train` returns, `summary` has its words. `estimate` is the dry run, `reopen` opens a
finished run.
"""

from typing import TYPE_CHECKING

from bnhead import public
from bnhead.training.config import TrainConfig

if TYPE_CHECKING:
    from bnhead.training.run import train
    from bnhead.training.run_result import RunResult

__all__ = ["RunResult", "TrainConfig", "train"]
__getattr__, __dir__ = public.names(  # `train` imports TensorFlow
    __name__, {"RunResult": "bnhead.training.run_result", "train": "bnhead.training.run"}
)
