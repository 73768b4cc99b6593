"""Labels as classes: how they are read is decided once, from the first of them, and said."""

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
        form: "whole numbers", "one-hot", or "" where they are not counted by class.
        classes: number of classes.
        note: why they are not counted by class; empty where they are, or where there are none.
    """

    form: str = ""
    classes: int = 0
    note: str = ""

    @classmethod
    def of(cls, y: Any, classes: int, *, given: bool = False) -> "Labels":
        """How labels like these are read.

        Args:
            y: whole numbers `(batch,)` or `(batch, 1)` of any dtype, or one-hot `(batch, classes)`; anything
                else is not counted by class.
            classes: number of classes; 0 where it is not known.
            given: whether the user gave the number of classes, so that labels must fit it.

        Raises:
            UsageError: whole numbers outside of 0 to classes - 1, where `given`.
        """
        if y is None:
            return cls()
        if not hasattr(y, "shape") or not hasattr(y, "dtype"):
            return cls(note=_not("they are no single array"))
        if classes < 2:
            return cls(note=_not("the model's output does not say how many classes there are; give classes"))
        try:
            numbers = class_numbers(y, classes)
        except UsageError as error:
            if given:
                raise
            return cls(note=_not(str(error).removeprefix("labels ").replace("must be", "they are not all")))
        if numbers is None:
            return cls(note=_not(f"they are neither whole numbers nor one-hot of {classes} classes"))
        return cls(ONE_HOT if len(y.shape) == 2 and y.shape[1] == classes else NUMBERS, classes)

    def one_hot(self, y: Any) -> tuple[Any, Any]:
        """A batch's labels in the graph.

        Returns:
            `(batch, classes)` float32, a row of zeros where a label is no class, and the number of such
            labels.
        """
        if self.form == ONE_HOT:
            found = ops.cast(y, "float32")
            ones = ops.sum(ops.cast(found == 1, "int32"), axis=1)
            zeros = ops.sum(ops.cast(found == 0, "int32"), axis=1)
            valid = ops.logical_and(ones == 1, zeros == self.classes - 1)
            return found * ops.cast(valid, "float32")[:, None], _false(valid)
        y = ops.reshape(y, (-1,))
        numbers = ops.cast(y, "int32")
        valid = ops.logical_and(numbers >= 0, numbers < self.classes)
        if keras.backend.is_float_dtype(y.dtype):
            valid = ops.logical_and(valid, ops.cast(numbers, y.dtype) == y)
        return ops.one_hot(ops.where(valid, numbers, -1), self.classes, dtype="float32"), _false(valid)


def _not(why: str) -> str:
    return f"labels: not counted by class, since {why}"


def _false(valid: Any) -> Any:
    return ops.sum(ops.cast(ops.logical_not(valid), "int32"))
