"""The README's study: the usual head, with and without a batch norm before its FC layer."""

from bnhead.studies.plan import Study

STUDY = Study(
    "Does a batch norm before the last fully connected layer help, hurt or make no material difference?",
    heads=("fc", "bn_fc"),
)
