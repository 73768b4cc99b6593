"""Four places are called "final batch norm": each of them against none."""

from bnhead.studies.plan import Study

STUDY = Study(
    "At which of the four places of a final batch norm does it make a difference, against none?",
    heads=("fc", "bn_gap_fc", "bn_fc", "fc_bn", "fc_out_bn"),  # none, P0, P1, P2, P3
)
