import hashlib
import json
import math
import os

import pytest

from bnhead.errors import ResourcesError, RunDirectoryError
from bnhead.runs.directory import RunDirectory

pytestmark = pytest.mark.quick

RESULT = {"status": "finished", "epochs": 1, "data": {"test": 9}}


def begun(path, **settings):
    directory = RunDirectory(path)
    directory.check(settings)
    directory.make()
    directory.begin(settings)
    return directory


def test_a_new_directory_records_its_settings(tmp_path):
    begun(tmp_path / "a" / "b", seed=1)
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == {"seed": 1}


def test_another_runs_directory_is_refused_and_left_alone(tmp_path):
    run = begun(tmp_path, seed=1, head="fc")
    run.write("result.json", RESULT)
    with pytest.raises(RunDirectoryError, match="holds another run: head 'fc' there, 'bn_fc' now"):
        RunDirectory(tmp_path).check({"seed": 1, "head": "bn_fc"})
    assert run.read("result.json") == RESULT


def test_a_directory_with_other_things_is_refused_even_where_it_may_be_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for overwrite in (False, True):
        with pytest.raises(RunDirectoryError, match="is not empty and holds no run"):
            RunDirectory(tmp_path).check({"seed": 1}, overwrite=overwrite)
        with pytest.raises(RunDirectoryError, match="is a file"):
            RunDirectory(tmp_path / "thesis.tex").check({"seed": 1}, overwrite=overwrite)
        with pytest.raises(RunDirectoryError, match=r"is a link to .*nowhere, which does not exist"):
            RunDirectory(tmp_path / "gone").check({"seed": 1}, overwrite=overwrite)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "gone"}


def test_a_config_of_something_else_is_no_run(tmp_path):
    """Many a model's directory has a config.json, and checkpoints beside it."""
    (tmp_path / "config.json").write_text('{"model_type": "vit", "image_size": 224}')
    for overwrite in (False, True):
        with pytest.raises(RunDirectoryError, match=r"its config.json is not that of a run"):
            RunDirectory(tmp_path).check({"seed": 1, "head": "fc", "image_size": 0}, overwrite=overwrite)


def test_what_an_unfinished_run_left_is_removed(tmp_path):
    run = begun(tmp_path, seed=1)
    run.write_history([{"epoch": 1}])
    (tmp_path / "train").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    run.begin({"seed": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]


def test_a_process_that_is_killed_while_it_begins_leaves_a_run_that_can_go_on(tmp_path, monkeypatch):
    run = begun(tmp_path, seed=1)
    run.write("status.json", {"status": "running"})
    (tmp_path / "checkpoints").mkdir()

    def killed(*_):
        raise KeyboardInterrupt

    for method in ("_remove", "write"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RunDirectory, method, killed)
            RunDirectory(tmp_path).begin({"seed": 1})
        RunDirectory(tmp_path).check({"seed": 1})
    run.begin({"seed": 1})
    assert run.read("config.json") == {"seed": 1}


def test_a_run_that_is_cleared_says_what_went_and_leaves_what_is_not_its_own(tmp_path):
    run = begun(tmp_path, seed=1)
    run.write("result.json", RESULT)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    run.check({"seed": 2}, overwrite=True)
    assert run.clear() == ["result.json", "checkpoints", "config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_link_to_a_folder_is_a_folder(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    begun(tmp_path / "link", seed=1)
    assert (tmp_path / "there" / "config.json").is_file()


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot be"):
        RunDirectory(tmp_path / "file" / "run").make()


def test_a_name_longer_than_disks_take_asks_for_another(tmp_path):
    with pytest.raises(
        RunDirectoryError, match=r"a longer name than disks take; give it another \(--workdir\)"
    ):
        RunDirectory(tmp_path / ("x" * 300)).check({"head": "fc"})


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"config.json cannot be read"):
        RunDirectory(tmp_path).read("config.json")


def test_numbers_that_are_not_finite_become_null(tmp_path):
    RunDirectory(tmp_path).write("x.json", {"a": math.nan, "b": {"c": math.inf}, "d": 0.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": {"c": None}, "d": 0.5}


def test_what_a_killed_process_left_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / ".writing-abc" / "config.json").write_text("{")
    begun(tmp_path, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (28, ResourcesError, "result.json cannot be written: the disk is full"),
        (122, ResourcesError, "result.json cannot be written: the disk is full"),
        (30, RunDirectoryError, "result.json cannot be written: Read-only file system"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, number, error, message):
    run = RunDirectory(tmp_path)
    run.write("result.json", RESULT)

    def fail(path):
        path.write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(error, match=message):
        run.replace("result.json", fail)
    assert run.read("result.json") == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_whoever_is_reading_the_old_file_reads_it_to_the_end(tmp_path):
    run = RunDirectory(tmp_path)
    run.write("result.json", RESULT)
    with open(tmp_path / "result.json") as old:
        run.write("result.json", {**RESULT, "epochs": 2})
        assert json.load(old) == RESULT


def test_tables_are_csv(tmp_path):
    RunDirectory(tmp_path).write_history([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "history.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"


def somebodys(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    return path


def test_only_what_a_run_made_is_removed_from_its_folders(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.begin({"a": 1})
    foreign = [
        somebodys(directory.path / name)
        for name in ("train/notes.txt", "checkpoints/best/mine", "census/notes")
    ]
    gone = [
        somebodys(directory.path / name)
        for name in (
            "train/events.out.tfevents.1.host",
            "units/events.out.tfevents.2.host",
            "checkpoints/step-0000000003",
            "checkpoints/step-0000000002.damaged",
            "checkpoints/.writing-x/step-0000000004",
            "census/census.json",
            "census/other-data/index.html",
        )
    ]
    directory.clear()
    assert all(path.read_text() == "mine" for path in foreign) and not any(path.exists() for path in gone)
    assert not (directory.path / "units").exists()


def test_the_settings_of_a_trained_model_need_the_model(tmp_path):
    directory = RunDirectory(tmp_path)
    with pytest.raises(RunDirectoryError, match="holds no finished run; give a run directory"):
        directory.trained_settings()
    directory.write("config.json", {"a": 1})
    with pytest.raises(RunDirectoryError, match="holds no finished run"):
        directory.trained_settings()
    (tmp_path / "model.keras").write_text("")
    assert directory.trained_settings() == {"a": 1}


def test_a_linked_folder_is_unlinked_and_left(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.begin({"a": 1})
    shared = somebodys(tmp_path / "logs" / "events.out.tfevents.1.host")
    (directory.path / "train").symlink_to(tmp_path / "logs")
    directory.clear()
    assert shared.read_text() == "mine" and not (directory.path / "train").exists()


@pytest.mark.parametrize(
    ("name", "entry_type"), [("history.csv", "folder"), ("model.keras", "folder"), ("checkpoints", "file")]
)
def test_what_no_run_makes_is_refused_before_anything_is_removed(tmp_path, name, entry_type):
    directory = RunDirectory(tmp_path / "run")
    directory.begin({"a": 1})
    events = somebodys(directory.path / "train" / "events.out.tfevents.1.host")
    inside = (
        somebodys(directory.path / name / "mine")
        if entry_type == "folder"
        else somebodys(directory.path / name)
    )
    with pytest.raises(RunDirectoryError, match=f"{name} is a {entry_type}, which no run writes"):
        directory.check({"a": 1})
    if entry_type == "folder":
        with pytest.raises(RunDirectoryError, match="cannot be written: Is a directory"):
            directory.replace(name, lambda path: path.write_text("new"))
    assert events.exists() and inside.read_text() == "mine"


def test_a_result_that_is_none_is_said(short_config, tmp_path):
    config = short_config(workdir=str(tmp_path / "run"))
    directory = RunDirectory(config.directory)
    directory.begin(config.settings())
    (directory.path / "result.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"result\.json cannot be read: it has no 'status'"):
        directory.admit(config.settings())


def finished(path):
    run = begun(path, seed=1)
    run.write("environment.json", {"keras": "3"})
    run.write_history([{"epoch": 1}])
    run.replace("model.keras", lambda path: path.write_text("a model"))
    run.finish({**RESULT, "test_loss": math.nan})
    return run


def test_a_finished_run_has_the_hash_of_each_of_its_files(tmp_path):
    run = finished(tmp_path)
    assert run.changes() == {}
    assert run.hashes() == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tmp_path.iterdir()
        if path.name != "status.json"
    }
    assert run.read("status.json")["status"] == "finished" and run.read("result.json")["test_loss"] is None
    assert begun(tmp_path / "other", seed=2).hashes() == {}


def test_what_a_run_did_not_leave_so_is_told(tmp_path):
    run = finished(tmp_path)
    (tmp_path / "model.keras").unlink()
    (tmp_path / "config.json").write_text('{"seed":1}')
    (tmp_path / "history.csv").unlink()
    os.mkfifo(tmp_path / "history.csv")
    assert run.changes() == {
        "config.json": "has another SHA-256 than in status.json",
        "history.csv": "cannot be read: it is not a regular file",
        "model.keras": "is missing",
    }


def test_hashes_that_are_not_those_of_a_run_are_told(tmp_path):
    run = finished(tmp_path)
    status = run.read("status.json")
    for hashes in ({**status["sha256"], "../secret": "0"}, {"model.keras": status["sha256"]["model.keras"]}):
        run.write("status.json", {**status, "sha256": hashes})
        assert run.changes() == {"status.json": "is not as the run left it"}
    run.write("status.json", {**status, "error": "none"})
    assert run.changes() == {"status.json": "is not as the run left it"}
    (tmp_path / "status.json").write_text("{")
    assert run.changes()["status.json"].startswith("cannot be read: Expecting property name")


def test_without_hashes_a_missing_model_is_seen(tmp_path):
    run = finished(tmp_path)
    (tmp_path / "status.json").unlink()
    assert run.changes() == {}
    (tmp_path / "model.keras").unlink()
    assert run.changes() == {"model.keras": "is missing"}


@pytest.mark.parametrize("name", ["checkpoints", "units", "census"])
def test_a_folder_that_is_a_link_to_nothing_is_told_before_anything_is_removed(tmp_path, name):
    run = begun(tmp_path, seed=1, head="fc")
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match=rf"{name} is a link to .*nowhere, which does not exist"):
        run.check({"seed": 1, "head": "fc"})
