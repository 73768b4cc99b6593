"""Data sets: any TFDS set of images with classes or numbers by name, as `tf.data` pipelines.

`catalog` knows the names and `sets` the sources of data; `sources` opens a set and returns a
`dataset.DataSet` of splits, in `memory` or as a `stream`. `augment` changes batches of images, `subsets` the
training split, `corruptions` the test images; `checks` inspects a set before training.
"""

from typing import TYPE_CHECKING

from bnhead import public
from bnhead.data.catalog import check_name

if TYPE_CHECKING:
    from bnhead.data.dataset import DataSet
    from bnhead.data.sources import load

__all__ = ["DataSet", "check_name", "load"]
__getattr__, __dir__ = public.names(  # these import TensorFlow
    __name__, {"DataSet": "bnhead.data.dataset", "load": "bnhead.data.sources"}
)
