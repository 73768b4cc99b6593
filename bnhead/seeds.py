"""Named random streams: every source of randomness has a separate seed.

With one global seed, adding a dropout layer shifts the initial weights of all later layers, and two runs
that ought to differ in one layer differ everywhere. Here a seed depends only on the run's seed and on a
name, so a longer head leaves all other random numbers unchanged, and runs can be paired by seed.
"""

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """Seed of the random stream called `names` in a run with `seed`.

    Args:
        seed: the run's seed.
        names: the path of the thing that draws, such as `"backbone", "stage1_block1_conv1"`.

    Returns:
        An integer in [0, 2**31), the first 31 bits of SHA-256 of the seed and the path.
    """
    path = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") >> 1
