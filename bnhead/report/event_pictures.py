"""The pictures of dead units that a run left in its event files, read without TensorFlow."""

import pathlib
import struct
from collections.abc import Iterator

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event

from bnhead.census import keys
from bnhead.runs.directory import EVENTS

_FRAME = struct.Struct("<QI")  # of a record: length of the data, checksum of the length; a checksum follows
_CHECKSUM = 4  # bytes


def last_pictures(directory: pathlib.Path) -> dict[tuple[str, str], tuple[int, bytes]]:
    """The last picture of each kind in a run's event files.

    Args:
        directory: the run's directory.

    Returns:
        (layer, kind), such as ("head_fc", "classes"), -> epoch and PNG; in the order of their first writing.
        The layer of a picture of all layers is "". Files that cannot be read, and their damaged ends, are
        left out.
    """
    pictures: dict[tuple[str, str], tuple[int, bytes]] = {}
    for path in sorted((directory / "units").glob(EVENTS)):
        for event in _events(path):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images" and keys.is_plot(value.tag):
                    # width and height as text, then the pictures
                    pngs = value.tensor.string_val[2:]
                    if pngs and pngs[-1].startswith(b"\x89PNG"):
                        pictures[keys.plot_parts(value.tag)] = (event.step, pngs[-1])
    return pictures


def _events(path: pathlib.Path) -> Iterator[Event]:
    try:
        content = path.read_bytes()
    except OSError:
        return
    start = 0
    while start + _FRAME.size <= len(content):
        length, _ = _FRAME.unpack_from(content, start)
        start += _FRAME.size
        if start + length > len(content):
            return
        try:
            yield Event.FromString(content[start : start + length])
        except DecodeError:
            return
        start += length + _CHECKSUM
