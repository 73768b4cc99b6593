"""A batch norm's noise depends on the batch size. The learning rate goes in proportion to it (Goyal et al.
2017, section 2.1), so that every stratum trains about as far; it is the base's at 128 images.
"""

from bnhead.studies.plan import Study

SIZES = (16, 32, 64, 128, 256)

STUDY = Study(
    "Does the verdict on a batch norm before the last fully connected layer depend on the batch size?",
    heads=("fc", "bn_fc"),
    strata=lambda base: (
        {"batch_size": size, "learning_rate": float(f"{base.learning_rate * size / 128:.6g}")}
        for size in SIZES
    ),
    varies=("batch_size",),
)
