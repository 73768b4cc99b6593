"""Data sets: any TFDS set of images with classes or numbers by name, as `tf.data` pipelines.

`catalog` knows the names, `digits` has the embedded sets, `builders` opens TFDS' sets and `folders` lists
pictures, `sources` opens either and decides whether it is kept in memory or streamed, `pipelines` makes
batches of it, `augment` shifts and mirrors whole batches.
"""

from bnhead.data.catalog import check_name

__all__ = ["DataSet", "check_name", "load"]


def __getattr__(name: str):
    if name not in ("DataSet", "load"):
        raise AttributeError(f"module 'bnhead.data' has no attribute {name!r}")
    from bnhead.data import sources  # brings TensorFlow

    return getattr(sources, name)
