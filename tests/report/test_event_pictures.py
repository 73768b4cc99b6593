import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from bnhead.report.event_pictures import last_pictures

pytestmark = pytest.mark.quick
PNG = b"\x89PNG"


def picture(tag, step, content, plugin="images"):
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    tensor = make_tensor_proto([b"8", b"8", content])
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]))


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "units" / "events.out.tfevents.1.host"
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in (
            picture("plots/head_fc/classes", 1, PNG + b"old"),
            picture("plots/encoder/relu/raster", 2, PNG + b"r"),
            picture("plots/head_fc/classes", 12, PNG + b"new"),
            picture("sample", 12, PNG),
            picture("plots/ends", 12, PNG + b"e"),
            picture("plots/head_fc/activity", 12, PNG, plugin="scalars"),
            picture("plots/head_fc/activity", 12, b"GIF"),
        ):
            writer.write(event.SerializeToString())
    return path


def test_the_last_picture_of_each_kind(tmp_path, events):
    assert last_pictures(tmp_path) == {
        ("head_fc", "classes"): (12, PNG + b"new"),
        ("encoder/relu", "raster"): (2, PNG + b"r"),
        ("", "ends"): (12, PNG + b"e"),
    }


def test_a_damaged_file_is_read_up_to_its_damage(tmp_path, events):
    content = events.read_bytes()
    for size in range(0, len(content), 7):
        events.write_bytes(content[:size])
        assert set(last_pictures(tmp_path)) <= {
            ("head_fc", "classes"),
            ("encoder/relu", "raster"),
            ("", "ends"),
        }
    events.write_bytes(b"\x00" * 100 + b"\xff" * 100)
    assert last_pictures(tmp_path) == {}
    assert last_pictures(tmp_path / "nowhere") == {}
