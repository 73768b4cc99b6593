"""Which code and which environment a run used, and what differs between two environments."""

import functools
import hashlib
import pathlib

PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy")
# A run that resumes with another value of one of these may end in other digits.
DECISIVE = ("python", "bnhead", *PACKAGES, "backend", "backend_version", "devices", "cores", "threads")


@functools.cache
def source_sha256() -> str:
    """SHA-256 over the names and texts of all modules of the package, including the backbones.

    It is computed once per process, whose modules do not change.
    """
    import bnhead.models

    digest = hashlib.sha256()
    package = pathlib.Path(__file__).parents[1]
    for root in (package, pathlib.Path(bnhead.models.__file__).parent):
        for file in sorted(root.rglob("*.py")):
            if root is package and file.is_relative_to(package / "models"):
                continue  # an installed package holds the backbones, a checkout has them next to it
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def environment_changes(previous: dict, current: dict) -> str:
    """The decisive values that differ between two environments, in words; empty if none does."""
    keys = [key for key in DECISIVE if key in previous and previous[key] != current[key]]
    return ", ".join(f"{key} {previous[key]} before, {current[key]} now" for key in keys)
