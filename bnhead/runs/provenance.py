"""The hash of the code that trains: runs of two codes are no comparison, of one version or not."""

import functools
import hashlib
import pathlib


@functools.cache
def source_sha256() -> str:
    """SHA-256 over the names and texts of all modules of the package, the backbones included.

    It is taken once in a process, whose modules stay what they were.
    """
    import bnhead.models

    hashed = hashlib.sha256()
    here = pathlib.Path(__file__).parents[1]
    for root in (here, pathlib.Path(bnhead.models.__file__).parent):
        for file in sorted(root.rglob("*.py")):
            if root is here and file.is_relative_to(here / "models"):
                continue  # installed there; in a checkout it lies beside the package
            hashed.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return hashed.hexdigest()
