"""Labels as classes. How labels are read is decided once, from the first of them, and noted in the census."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from bnhead.errors import UsageError
from bnhead.graph.inputs import class_numbers

NUMBERS, ONE_HOT = "whole numbers", "one-hot"


@dataclass(frozen=True)
class Labels:
    """How labels are read.

    Attributes:
        form: "whole numbers" or "one-hot"; "" if they are not counted by class.
        classes: number of classes.
        note: why they are not counted by class; empty if they are, and for data without labels.
    """

    form: str = ""
    classes: int = 0
    note: str = ""

    @classmethod
    def of(cls, y: Any, classes: int, *, strict: bool = False) -> "Labels":
        """How labels like `y` are read.

        Args:
            y: whole numbers `(batch,)` or `(batch, 1)` of any dtype, or one-hot `(batch, classes)`; anything
                else is not counted by class.
            classes: number of classes; 0 if unknown.
            strict: whether labels outside of the classes are an error, because the user set their number.

        Raises:
            UsageError: whole numbers outside of 0 to classes - 1, if `strict`.
        """
        if y is None:
            return cls()
        if not hasattr(y, "shape") or not hasattr(y, "dtype"):
            return cls(note=_not_counted("they are not a single array"))
        if classes < 2:
            return cls(
                note=_not_counted("the model's output does not show the number of classes; set classes")
            )
        try:
            numbers = class_numbers(y, classes)
        except UsageError as error:
            if strict:
                raise
            reason = str(error).removeprefix("labels ").replace("must be", "they are not all")
            return cls(note=_not_counted(reason))
        if numbers is None:
            return cls(note=_not_counted(f"they are neither whole numbers nor one-hot of {classes} classes"))
        return cls(ONE_HOT if len(y.shape) == 2 and y.shape[1] == classes else NUMBERS, classes)

    def one_hot(self, y: Any) -> tuple[Any, Any]:
        """A batch's labels, inside the graph.

        Returns:
            `(batch, classes)` float32, with a row of zeros for a label that is not a class, and the number of
            such labels.
        """
        if self.form == ONE_HOT:
            rows = ops.cast(y, "float32")
            ones = ops.sum(ops.cast(rows == 1, "int32"), axis=1)
            zeros = ops.sum(ops.cast(rows == 0, "int32"), axis=1)
            valid = ops.logical_and(ones == 1, zeros == self.classes - 1)
            rows = rows * ops.cast(valid, "float32")[:, None]
        else:
            y = ops.reshape(y, (-1,))
            numbers = ops.cast(y, "int32")
            valid = ops.logical_and(numbers >= 0, numbers < self.classes)
            if keras.backend.is_float_dtype(y.dtype):
                valid = ops.logical_and(valid, ops.cast(numbers, y.dtype) == y)
            rows = ops.one_hot(ops.where(valid, numbers, -1), self.classes, dtype="float32")
        return rows, ops.sum(ops.cast(ops.logical_not(valid), "int32"))


def _not_counted(reason: str) -> str:
    return f"labels: not counted by class, since {reason}"
