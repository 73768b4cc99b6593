import dataclasses
import pickle

import pytest

from bnhead.training import TrainConfig
from bnhead.training.config import LOCATION_FIELDS

pytestmark = pytest.mark.quick


def test_a_seed_may_have_any_length():
    assert TrainConfig(seed=10**400).seed == 10**400


def test_values_are_made_canonical():
    config = TrainConfig(head="gap_bn_fc_out", learning_rate=1)
    assert config.head == "bn_fc"
    assert config.learning_rate == 1.0 and isinstance(config.learning_rate, float)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3


def test_default_directory():
    assert TrainConfig(head="bn_fc", seed=4).directory == "runs/digits/resnet20/bn_fc/seed4"
    assert TrainConfig(dataset="cifar10:3.0.2").directory == "runs/cifar10-3.0.2/resnet20/fc/seed0"
    assert TrainConfig(workdir="elsewhere").directory == "elsewhere"


def test_a_backbones_file_does_not_lead_out_of_runs(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "net.keras").write_text("")
    monkeypatch.chdir(tmp_path / "here")
    assert TrainConfig(backbone="../net.keras").directory == "runs/digits/..-net.keras/fc/seed0"


def test_what_was_changed():
    assert TrainConfig().changed() == {}
    assert TrainConfig(head="gap_bn_fc", seed=3, learning_rate=0.1).changed() == {"head": "bn_fc", "seed": 3}
    assert TrainConfig(task="regression").changed() == {"task": "regression"}
    assert TrainConfig(task="regression", learning_rate=0.1).changed()["learning_rate"] == 0.1


def test_settings_leave_out_places_only():
    fields = {spec.name for spec in dataclasses.fields(TrainConfig)}
    assert set(TrainConfig().settings()) == fields - set(LOCATION_FIELDS)
    assert set(LOCATION_FIELDS) == {
        "workdir", "data_dir", "checkpoint_seconds", "overwrite", "dry_run", "verbose"
    }  # fmt: skip


def test_the_learning_rates_default_is_the_tasks():
    assert TrainConfig().learning_rate == TrainConfig(task="multilabel").learning_rate == 0.1
    assert TrainConfig(task="regression").learning_rate == 0.01
    assert TrainConfig(task="regression", learning_rate=0.2).learning_rate == 0.2


def test_a_heads_name_is_the_head_of_its_text():
    assert TrainConfig(head="bnneck").head == "bn-beta_out-bias"


def test_the_head_is_parsed_once():
    config = TrainConfig(head="gap_bn_fc")
    assert config.head == "bn_fc" and config.parsed_head.placement == ("P1",)
    assert config.parsed_head is config.parsed_head
    changed = dataclasses.replace(config, head="fc")
    assert changed.parsed_head.text == "fc" and changed != config
    again = pickle.loads(pickle.dumps(config))
    assert again == config and again.parsed_head == config.parsed_head


FROZEN = {"freeze_backbone": True, "augment": "none"}


def test_the_pooling_belongs_to_the_features_if_it_has_no_weights():
    texts = "fc", "catpool_bn_fc", "flatten_fc", "gem_fc", "bn_gap_fc", "gmp"
    configs = {text: TrainConfig(**FROZEN, head=text) for text in texts}
    assert {text: (c.features_pooling, c.trained_head.text) for text, c in configs.items()} == {
        "fc": ("gap", "fc"),
        "catpool_bn_fc": ("catpool", "bn_fc"),
        "flatten_fc": ("flatten", "fc"),
        "gem_fc": ("", "gem_fc"),
        "bn_gap_fc": ("", "bn_gap_fc"),
        "gmp": ("gmp", "out"),
    }
    trained = TrainConfig(head="catpool_fc")
    assert trained.features_pooling == "" and trained.trained_head is trained.parsed_head


def test_features_depend_on_the_seed_only_if_it_draws_the_backbone():
    drawn = [TrainConfig(**FROZEN, seed=seed).feature_settings() for seed in (0, 1)]
    given = [TrainConfig(**FROZEN, seed=seed, weights="a.keras").feature_settings() for seed in (0, 1)]
    assert drawn[0] != drawn[1] and given[0] == given[1]
    settings = [
        TrainConfig(**FROZEN, pretrain_on="digits", weights_control=control, seed=seed).feature_settings()
        for control, seed in (("none", 0), ("none", 1), ("random", 0), ("random", 1))
    ]
    assert settings[0] == settings[1] != settings[2] == settings[3]


def test_how_the_backbone_is_trained():
    assert TrainConfig().describe_backbone() == ""
    assert TrainConfig(**FROZEN).describe_backbone() == "frozen"
    two = TrainConfig(
        unfreeze_at=1, insert_bn=True, head="bn_fc", backbone_rate=0.1, backbone_bn="frozen"
    ).describe_backbone()
    assert two == (
        "frozen for 1 epoch, then trained, batch norms of the head put in then, at 0.1 of the head's "
        "learning rate, batch norms in inference mode"
    )
