"""Data sets: any TFDS set of images with classes or numbers by name, as `tf.data` pipelines.

`catalog` knows the names and `sets` the sources of data; `sources` opens a set and returns a
`dataset.DataSet` of splits, in `memory` or as a `stream`. `augment` changes batches of images, `subsets` the
training split, `corruptions` the test images; `checks` inspects a set before training.
"""

from bnhead.data.catalog import check_name

__all__ = ["DataSet", "check_name", "load"]


def __getattr__(name: str):
    if name not in ("DataSet", "load"):
        raise AttributeError(f"module 'bnhead.data' has no attribute {name!r}")
    from bnhead.data import sources  # imports TensorFlow

    return getattr(sources, name)
