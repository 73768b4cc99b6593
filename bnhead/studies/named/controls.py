"""Which part of a batch norm does it: whole, in ghost batches, frozen, its parts alone, or another norm."""

from bnhead.studies.plan import Study

STUDY = Study(
    "Which part of a batch norm before the last fully connected layer makes the difference, if any does?",
    heads=("fc", "bn_fc", "gbn16_fc", "fbn_fc", "center_fc", "scale_fc", "noise_fc", "ln_fc"),
)
