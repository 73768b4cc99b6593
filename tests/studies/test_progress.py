import pytest

from bnhead.studies.pool import Event, Job
from bnhead.studies.progress import StudyLines, duration, ending
from bnhead.training.config import TrainConfig
from tests.studies.fake import plan_of


def event(run, state, **detail):
    return Event(Job(run.id, run.cell, TrainConfig(), print), state, detail)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_outcome():
    run = plan_of().runs[0]
    assert ending(event(run, "done", status="finished", test_accuracy=0.98765, seconds=12.34)) == (
        "test accuracy 98.77%, 12.3 s"
    )
    assert ending(event(run, "done", status="failed_to_learn", test_r2=0.01)) == (
        "failed to learn, test R^2 0.0100"
    )
    assert ending(event(run, "failed", error="ValueError", message="no")) == "failed: ValueError: no"


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("bnhead.studies.progress.time.monotonic", lambda: now[0])
    runs = plan_of(seeds=1).runs
    with StudyLines(runs, 2) as lines:
        lines.show(event(runs[0], "started"))
        now[0] = 10.0
        lines.show(event(runs[0], "progress", epoch=1, epochs=2))
        assert lines.remaining() == "about 30 s left"  # a quarter of the two runs took 10 s
        lines.show(event(runs[0], "died", message="signal 9"))
        now[0] = 40.0
        lines.show(event(runs[0], "done", status="finished", test_accuracy=0.5))
        lines.show(event(runs[1], "failed", error="E", message="m"))
    assert capsys.readouterr().out.splitlines() == [
        "fc, seed 0: its worker died (signal 9); started again",
        "3 of 4  fc, seed 0: test accuracy 50.00%  about 40 s left",
        "4 of 4  bn_fc, seed 0: failed: E: m",
    ]


def test_a_bar_on_a_terminal(capsys):
    runs = plan_of(seeds=1).runs
    with StudyLines(runs, 0, bar=True) as lines:
        lines.show(event(runs[0], "done", status="finished", test_accuracy=0.5))
    assert "1 of 2  fc, seed 0: test accuracy 50.00%" in capsys.readouterr().out
