import pytest

from bnhead.report import tensorboard
from bnhead.studies.directory import read_study
from tests.studies.fake import write_study


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    study = read_study(write_study(tmp_path_factory.mktemp("study"), "learning_rate"))
    directory = tmp_path_factory.mktemp("events")
    tensorboard.write_event_files(study, directory)
    return study, directory


def events(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory), {"tensors": 0}).Reload()


def numbers(directory, tag):
    from tensorboard.util.tensor_util import make_ndarray

    return {event.step: float(make_ndarray(event.tensor_proto)) for event in events(directory).Tensors(tag)}


def hparams(directory, tag):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events(directory).summary_metadata[tag].plugin_data.content
    return HParamsPluginData.FromString(content)


def test_a_run_has_its_history_and_its_settings(written):
    study, directory = written
    run = study.of_cell("bn_fc at learning_rate 0.1")[4]
    place = directory / "runs" / "bn_fc at learning_rate 0.1" / "seed4"
    assert numbers(place, "test_accuracy") == pytest.approx(dict(enumerate(run.history["test_accuracy"], 1)))
    start = hparams(place, "_hparams_/session_start_info").session_start_info
    assert start.group_name == "bn_fc at learning_rate 0.1, seed 4"
    assert start.hparams["learning_rate"].number_value == 0.1
    assert start.hparams["head"].string_value == "bn_fc" and start.hparams["seed"].string_value == "4"
    end = hparams(place, "_hparams_/session_end_info").session_end_info
    assert end.status == 1  # success


def test_a_diverged_run_is_a_failure_without_what_is_not_finite(written):
    _, directory = written
    place = directory / "runs" / "bn_fc at learning_rate 0.3" / "seed2"
    assert hparams(place, "_hparams_/session_end_info").session_end_info.status == 2
    assert list(numbers(place, "test_accuracy")) == [1, 2, 3, 4]


def test_the_experiment_names_what_varied(written):
    experiment = hparams(written[1], "_hparams_/experiment").experiment
    assert [info.name for info in experiment.hparam_infos] == ["head", "learning_rate", "seed"]
    rates = experiment.hparam_infos[1].domain_discrete
    assert [value.number_value for value in rates.values] == [0.01, 0.03, 0.1, 0.3]
    assert [info.name.tag for info in experiment.metric_infos] == [
        "test_accuracy",
        "dead/head_fc/dataset",
        "dead/head_fc/per_input",
    ]


def test_margin_charts_show_bands_that_are_there(written):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
    from tensorboard.util.tensor_util import make_ndarray

    study, directory = written
    (event,) = events(directory).Tensors("custom_scalars__config__")
    layout = Layout.FromString(make_ndarray(event.tensor_proto).item())
    assert [category.title for category in layout.category] == [one.name for one in study.plan.comparisons]
    tags = {
        cell.name: set(events(directory / "bands" / cell.name).Tags()["tensors"]) for cell in study.plan.cells
    }
    for category, comparison in zip(layout.category, study.plan.comparisons, strict=True):
        assert [chart.title.partition(":")[0] for chart in category.chart] == [
            "silent per input, head_fc",
            "dead, head_fc",
            "test accuracy",
        ]
        drawn = set()
        for chart in category.chart:
            (series,) = chart.margin.series
            drawn |= {series.value, series.lower, series.upper}
        for cell, written_tags in tags.items():
            is_compared = cell in (comparison.control, comparison.treatment)
            assert drawn & written_tags == (drawn if is_compared else set())
    place = directory / "bands" / "fc at learning_rate 0.1"
    last = [run.history["test_accuracy"][-1] for run in study.of_cell("fc at learning_rate 0.1")]
    assert numbers(place, "variation/3/test_accuracy/lowest")[15] == pytest.approx(min(last))
    assert numbers(place, "variation/3/test_accuracy/highest")[15] == pytest.approx(max(last))


def test_equal_studies_have_equal_bytes(written, tmp_path):
    study, directory = written
    tensorboard.write_event_files(study, tmp_path)
    files = [path.relative_to(directory) for path in directory.rglob("*") if path.is_file()]
    assert len(files) == 1 + 8 * 10 + 8
    for file in files:
        assert (tmp_path / file).read_bytes() == (directory / file).read_bytes()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../x", "<script>", "grün", "a\\b:c"])
def test_a_name_is_one_folder(name):
    folder = tensorboard.folder_name(name)
    assert "/" not in folder and folder not in (".", "..") and folder.isascii()


def test_the_verdict_is_a_text(written):
    from tensorboard.util.tensor_util import make_ndarray

    study, directory = written
    assert events(directory).summary_metadata["verdict"].plugin_data.plugin_name == "text"
    (event,) = events(directory).Tensors("verdict")
    text = make_ndarray(event.tensor_proto).item().decode()
    assert text.startswith(f"# {study.verdict['word']}\n\n{study.verdict['sentence']}")
    for comparison in study.verdict["comparisons"]:
        assert f"- {comparison['sentence']}" in text
    assert "**dead, head_fc**" in text and "- learning_rate 0.1: fc " in text


def test_a_run_that_goes_on_has_no_end(tmp_path):
    study = read_study(write_study(tmp_path / "study", seeds=2))
    run = study.of_cell("fc")[1]
    run.result.clear()
    tensorboard.write_event_files(study, tmp_path / "events")
    place = tmp_path / "events" / "runs" / "fc"
    assert "_hparams_/session_end_info" not in events(place / "seed1").summary_metadata
    assert "_hparams_/session_end_info" in events(place / "seed0").summary_metadata


def test_the_text_of_one_comparison_has_a_line_for_each_outcome(tmp_path):
    from tensorboard.util.tensor_util import make_ndarray

    study = read_study(write_study(tmp_path / "study", seeds=3))
    tensorboard.write_event_files(study, tmp_path / "events")
    (event,) = events(tmp_path / "events").Tensors("verdict")
    text = make_ndarray(event.tensor_proto).item().decode()
    (comparison,) = study.verdict["comparisons"]
    for row in (comparison, *comparison["secondary"]):
        assert f"\n\n- {row['sentence']}\n\n" in text
    assert text.count(comparison["sentence"]) == 1
