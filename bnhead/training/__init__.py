"""One training run: `train(TrainConfig(head="bn_fc"))`.

`config` says what a run is, `run` does it, `feed` gives its batches, `state` trains from any step and saves,
`records` keeps it in its directory, `logs` has what is logged each epoch, `console` what a person sees,
`command` turns flags into a config; `reuse` is what several runs of one process share.
"""

from bnhead.training.config import TrainConfig

__all__ = ["TrainConfig", "train"]


def __getattr__(name: str):
    if name != "train":
        raise AttributeError(f"module 'bnhead.training' has no attribute {name!r}")
    from bnhead.training.run import train  # brings TensorFlow

    return train
