"""Models as people write them, each with the expected census: a row per model, a module per subject."""

from tests.census.zoo import (  # noqa: F401
    formats,
    generative,
    geometry,
    own,
    plain,
    recurrent,
    sequence,
    tabular,
    unseen,
    vision,
)
from tests.census.zoo.reference import recorded, recorded_step
from tests.census.zoo.table import CASES, INPUTS

__all__ = ["CASES", "INPUTS", "recorded", "recorded_step"]
