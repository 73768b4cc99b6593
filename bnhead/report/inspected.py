"""The subject of a census: a model with its weights, and test images."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INITIAL = "initial"
_DIGITS = 8  # of a SHA-256, enough to tell the files of one person apart


@dataclass(frozen=True)
class Inspected:
    """A model with its weights, and the data it was counted on.

    Attributes:
        model: as in the command: a run directory, a file, or a backbone's name.
        net: name of the backbone, or of the file without its ending.
        head: text of the head; empty for a file, whose head has no text.
        weights: their source: "run", "file", "preset", `INITIAL`, "imagenet", or the path of a file or a run.
        seed: of the initial weights; None if there are none.
        weights_sha256: SHA-256 of the file of the weights; empty if they come from no file.
        dataset: name of the data set.
        task: of the labels; empty for the default.
        image_size: in pixels; 0 for the default.
        pixels: scale of the input, or "auto".
        data_sha256: SHA-256 of the file of arrays; empty for a data set.
    """

    model: str
    net: str
    head: str
    weights: str
    seed: int | None
    weights_sha256: str
    dataset: str
    task: str = ""
    image_size: int = 0
    pixels: str = "auto"
    data_sha256: str = ""

    @property
    def title(self) -> str:
        """The net, its head and the data: "resnet20 with head bn_fc on digits"."""
        return f"{self.net}{self.head and f' with head {self.head}'} on {self.dataset}"

    @property
    def origin(self) -> str:
        """Whose weights these are, in a few words: "initial weights, seed 0"."""
        return {
            "run": "trained weights of a run",
            "file": "weights of a file",
            "preset": "pre-trained weights, initial head",
            INITIAL: f"initial weights, seed {self.seed}",
            "imagenet": "imagenet weights, initial head",
        }.get(self.weights, "weights of a file, initial head")

    @property
    def source(self) -> str:
        """Where these weights come from, in a line."""
        head = f"; those of the head are initial, seed {self.seed}"
        return {
            "run": f"trained, of the run {self.model}",
            "file": f"of the file {self.model}",
            "preset": f"pre-trained, of the preset {self.model.removeprefix('hub:')}{head}",
            INITIAL: f"initial, seed {self.seed}; nothing was trained",
            "imagenet": f"imagenet, of keras.applications{head}",
        }.get(self.weights, f"of {self.weights}{head}")

    @property
    def directory(self) -> pathlib.Path:
        """The default directory of the census of anything but a run: each inspection has another one."""
        parts = [self.dataset, self.net, self.head]
        if self.weights not in ("file", "preset", INITIAL):
            parts.append(pathlib.PurePath(self.weights).stem)
        parts += [self.weights_sha256[:_DIGITS], "" if self.seed is None else f"seed{self.seed}"]
        return pathlib.Path("census", file_name("-".join(filter(None, parts))))

    def is_same(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of these fields is of the same inspection.

        Paths do not matter if the weights come from the same file.
        """
        paths = ("model", "net", "weights") if self.weights_sha256 else ()
        fields = dataclasses.asdict(self).items()
        return all(
            {"data_sha256": "", **record}.get(key) == value for key, value in fields if key not in paths
        )


def file_name(text: str) -> str:
    """The text as one name of a file, without separators of paths: "folder:/a/b" -> "folder-a-b"."""
    return re.sub(r"[^\w.+=-]+", "-", text).strip("-.")
