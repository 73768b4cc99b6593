"""Names of data sets, checked without TensorFlow."""

import pathlib

from bnhead.errors import UsageError, nearest

EMBEDDED = ("digits", "digits_rotation")


def check_name(name: str, data_dir: str | None = None) -> None:
    """Raises UsageError unless `name` is the embedded set, a TFDS builder, or lies prepared in `data_dir`.

    Args:
        name: a TFDS name, such as `cifar10`, `cifar10:3.0.2` or `imagenette/160px-v2`.
        data_dir: TFDS' directory; None for TFDS' default.
    """
    bare = name.split(":")[0].split("/")[0]
    if bare in EMBEDDED or (data_dir and bare and (pathlib.Path(data_dir) / bare).is_dir()):
        return
    import tensorflow_datasets as tfds  # half a second, spared to those who take the embedded set

    known = tfds.list_builders(with_community_datasets=False)
    if bare not in known:
        raise UsageError(
            f"data set {name!r} is not known{nearest(bare, [*EMBEDDED, *known])} "
            f"(there are the embedded {' and '.join(EMBEDDED)}, and TFDS' {len(known)}, "
            "such as cifar10, cifar100, fashion_mnist, mnist, svhn_cropped)"
        )
