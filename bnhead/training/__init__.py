"""One training run: `train(TrainConfig(head="bn_fc"))`.

`config` has the settings, `run` trains, `build` opens the data and makes the model, `tasks` its loss,
`feed` the batches, `watchers`, `logs` and `failures` the callbacks, `state` trains from any step and saves
checkpoints and the best epoch, `result` measures and writes the outcome, `signals` ends a run after a step.
`summary` puts a result into words, `estimate` is the dry run, `reopen` opens a finished run.
"""

from bnhead.training.config import TrainConfig

__all__ = ["TrainConfig", "train"]


def __getattr__(name: str):
    if name != "train":
        raise AttributeError(f"module 'bnhead.training' has no attribute {name!r}")
    from bnhead.training.run import train  # imports TensorFlow

    return train
