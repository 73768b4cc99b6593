from bnhead.studies.pool import Event, Job
from bnhead.studies.progress import StudyLines, ending
from bnhead.training.config import TrainConfig
from tests.studies.fake import plan_of


def event(run, state, **detail):
    return Event(Job(run.id, run.cell, TrainConfig(), print), state, detail)


def test_outcome():
    run = plan_of().runs[0]
    detail = {"status": "finished", "test_accuracy": 0.98765, "dead": 0.0898, "seconds": 12.34}
    assert ending(event(run, "done", **detail)) == "test accuracy 98.77%, dead 9.0%, 12.3 s"
    assert ending(event(run, "done", status="failed_to_learn", test_r2=0.01)) == (
        "failed to learn, test R^2 0.0100"
    )
    assert ending(event(run, "failed", error="ValueError", message="no")) == "failed: ValueError: no"


def test_plain_lines_where_there_is_no_terminal(capsys):
    runs = plan_of(seeds=1).runs
    with StudyLines(runs, [2.0, 2.0]) as lines:
        lines.show(event(runs[0], "started"))
        lines.show(event(runs[0], "progress", share=0.5))
        lines.show(event(runs[0], "died", message="signal 9"))
        lines.show(event(runs[0], "done", status="finished", test_accuracy=0.5))
        assert (lines.ended, lines.kept, lines.planned) == (3, 3, 4)
        lines.show(event(runs[1], "failed", error="E", message="m"))
        assert (lines.ended, lines.kept, lines.remaining()) == (4, 3, "")
    assert capsys.readouterr().out.splitlines() == [
        "fc, seed 0: its worker died (signal 9); started again",
        "3 of 4  fc, seed 0: test accuracy 50.00%",
        "4 of 4  bn_fc, seed 0: failed: E: m",
    ]


def test_the_remaining_time_goes_by_first_steps_and_then_by_whole_runs(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("bnhead.studies.progress.time.monotonic", lambda: now[0])
    runs = plan_of(seeds=2).runs
    with StudyLines(runs, []) as lines:
        assert lines.remaining() == "", "nothing is known"
        lines.show(event(runs[0], "progress", share=0.1))
        lines.show(event(runs[1], "progress", share=0.1))
        assert lines.remaining() == "", "the first step is compiled, which takes longer"
        now[0] = 10.0
        lines.show(event(runs[0], "progress", share=0.3))
        lines.show(event(runs[1], "progress", share=0.3))
        assert lines.remaining() == "about 85 s left", (
            "0.2 of a run took 10 s; 3.4 runs are left, 2 at a time"
        )
        lines.show(event(runs[0], "done", status="finished", seconds=20.0))
        assert lines.remaining() == "about 27 s left", "2.7 runs of 20 s, 2 at a time"


def test_runs_of_an_earlier_session_give_an_estimate_at_once():
    runs = plan_of(seeds=1).runs
    assert StudyLines(runs, [30.0, 0.0, 50.0]).remaining() == "about 80 s left", (
        "two runs of 40 s, one by one"
    )


def shown(lines):
    """The text beside the bar."""
    return str(lines._bar.columns[-1].render(lines._bar.tasks[0]))


def test_the_remaining_time_counts_down_between_reports(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("bnhead.studies.progress.time.monotonic", lambda: now[0])
    runs = plan_of(seeds=1).runs
    with StudyLines(runs, [30.0, 50.0], bar=True) as lines:
        texts = []
        for now[0] in (100.0, 115.0, 400.0):
            texts.append(shown(lines))
        assert texts == ["runs  about 80 s left", "runs  about 65 s left", "runs  about 0 s left"]
        lines.show(event(runs[0], "progress", share=0.5))
        assert shown(lines) == "runs  about 60 s left", "1.5 runs of 40 s: a report corrects the estimate"


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    runs = plan_of(seeds=1).runs
    with StudyLines(runs, [], bar=True) as lines:
        assert shown(lines) == "runs  workers start"
        lines.show(event(runs[0], "progress", share=0.9))
        lines.show(event(runs[0], "done", status="finished", test_accuracy=0.5, seconds=7.0))
        assert shown(lines) == "runs  about 7 s left"
        assert lines._bar.tasks[0].completed == 1
    assert "1 of 2  fc, seed 0: test accuracy\n    50.00%, 7.0 s" in capsys.readouterr().out
