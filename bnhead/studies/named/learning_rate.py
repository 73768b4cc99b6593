"""Is the verdict one at a single learning rate? Around the base's, about a factor of 3 apart."""

from bnhead.studies.plan import Study

FACTORS = (0.1, 0.3, 1, 3)

STUDY = Study(
    "Is the verdict on a batch norm before the last fully connected layer one at a single learning rate?",
    heads=("fc", "bn_fc"),
    strata=lambda base: ({"learning_rate": float(f"{base.learning_rate * f:.6g}")} for f in FACTORS),
)
