"""Dead units against the width of the FC layer, with and without a batch norm before it."""

from bnhead.studies.plan import Study

WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)

STUDY = Study(
    "How does the share of dead units change with the width of the last fully connected layer, and does a "
    "batch norm before it change that?",
    heads=("fc", "bn_fc"),
    strata=lambda base: ({"fc_units": width} for width in WIDTHS),
    varies=("fc_units",),
)
