"""One training run: `train(TrainConfig(head="bn_fc"))`.

`config` has the settings, `run` trains, `build` makes the model and `tasks` its loss, `feed` the batches,
`watchers` and `logs` the callbacks, `best` keeps the best epoch, `state` trains from any step and saves
checkpoints, `failures` stops and explains a failed run, `result` measures and writes the outcome,
`signals` ends a run after a step. `estimate` is the dry run, `reopen` opens a finished run, `reuse` shares
data and graphs between runs of one process.
"""

from bnhead.training.config import TrainConfig

__all__ = ["TrainConfig", "train"]


def __getattr__(name: str):
    if name != "train":
        raise AttributeError(f"module 'bnhead.training' has no attribute {name!r}")
    from bnhead.training.run import train  # imports TensorFlow

    return train
