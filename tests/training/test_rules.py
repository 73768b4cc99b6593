import pytest

from bnhead.errors import UsageError
from bnhead.training import TrainConfig
from bnhead.training.config import LEARNING_RATES
from bnhead.training.rules import CHOICES

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 1, got -1"),
        ({"epochs": 2.0}, "epochs must be of type int, got 2.0"),
        ({"epochs": True}, "epochs must be of type int, got True"),
        (
            {"batch_size": 1},
            "batch_size must be at least 2, since a batch norm has nothing to learn from one, got 1",
        ),
        ({"learning_rate": -0.1}, "learning_rate must be a finite number of at least 0, got -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number of at least 0, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number of at least 0, got inf"),
        ({"task": "regresion"}, "task 'regresion' is not known; did you mean 'regression'?"),
        ({"recompute_batch_stats": "heads"}, "recompute_batch_stats 'heads' is not known"),
        (
            {"task": "regression", "head": "cdropout0.5_fc"},
            "head 'cdropout0.5_fc' reads classes, and task regression has none",
        ),
        ({"learning_rate": "0.1"}, "learning_rate must be of type float, got '0.1'"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a finite number of at least 0, got -1.0"),
        ({"pixels": "sined"}, "pixels 'sined' is not known; did you mean 'signed'"),
        ({"workdir": "run\udcff"}, r"workdir must be a path in UTF-8, got 'run\\udcff'"),
        ({"data_dir": "sets\udcff"}, r"data_dir must be a path in UTF-8, got 'sets\\udcff'"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be a finite number of at least 0, got -0.0001"),
        ({"fc_units": 0}, "fc_units must be at least 1, got 0"),
        ({"probe_examples": 0}, "probe_examples must be at least 1, got 0"),
        ({"image_size": -8}, "image_size must be a finite number of at least 0, got -8"),
        ({"seed": -1}, "seed must be a finite number of at least 0, got -1"),
        (
            {"augment": "crop_flop"},
            "augment 'crop_flop' is not known; did you mean 'crop_flip'.*none, crop, crop_flip, imagenet",
        ),
        ({"fc_activation": "rleu"}, "fc_activation 'rleu' is not known; did you mean 'relu'"),
        (
            {"distribution": "miror"},
            "distribution 'miror' is not known; did you mean 'mirrored'.*data_parallel",
        ),
        (
            {"distribution": "multi_worker"},
            "'multi_worker': TensorFlow's does not work with Keras 3; one model on several machines is KERAS",
        ),
        (
            {"sync_bn": False},
            "sync_bn can be left out with distribution mirrored only: on one device there is",
        ),
        ({"sync_bn": False, "distribution": "data_parallel"}, "mirrored only: on JAX a batch norm sees the"),
        (
            {"freeze_backbone": True},
            "augment must be none and cutout 0, got crop and 0; or feature_passes at",
        ),
        ({"freeze_backbone": True, "augment": "none", "cutout": 4}, "cutout 0, got none and 4"),
        (
            {"freeze_backbone": True, "augment": "imagenet"},
            "and augment imagenet changes them in every epoch",
        ),
        ({"freeze_backbone": True, "augment": "none", "mixup": 0.2}, "and mixup changes them in every epoch"),
        (
            {"freeze_backbone": True, "augment": "none", "feature_passes": 2},
            "feature_passes must be 1 without",
        ),
        (
            {"freeze_backbone": True, "augment": "none", "distribution": "mirrored"},
            "distribution none, got mirr",
        ),
        ({"feature_passes": 2}, "feature_passes is for a frozen backbone"),
        ({"unfreeze_at": 15}, "must leave epochs in which the backbone is trained, got 15 of 15 epochs"),
        (
            {"unfreeze_at": 2, "freeze_backbone": True},
            "got 2 of 15 epochs and freeze_backbone, which has no end",
        ),
        ({"unfreeze_at": 2, "distribution": "mirrored"}, "unfreeze_at needs distribution none, got mirrored"),
        (
            {"freeze_backbone": True, "augment": "none", "backbone_rate": 0.1},
            "backbone_rate is for a backbone that is trained",
        ),
        ({"weights_control": "random"}, "weights_control random is a control of pre-trained weights"),
        ({"weights_control": "shufled"}, "weights_control 'shufled' is not known; did you mean 'shuffled'"),
        ({"weights": "a.keras", "pretrain_on": "digits"}, "pretrain_on makes weights, and a.keras has some"),
        ({"pretrain_on": "digit"}, "data set 'digit' is not known; did you mean 'digits'"),
        (
            {"insert_bn": True, "head": "bn_fc"},
            "insert_bn needs two stages .--unfreeze_at. and a head with a bn",
        ),
        ({"insert_bn": True, "unfreeze_at": 1}, "got unfreeze_at 1 and head 'fc'"),
        ({"insert_bn": True, "unfreeze_at": 1, "head": "bn-beta_fc"}, "gain and offset, got unfreeze_at 1"),
        ({"backbone_bn": "trian"}, "backbone_bn 'trian' is not known; did you mean 'trained'"),
        ({"cutout": -1}, "cutout must be a finite number of at least 0, got -1"),
        ({"mixup": float("inf")}, "mixup must be a finite number of at least 0, got inf"),
        (
            {"mixup": 0.2, "head": "cdropout0.5_fc"},
            "head 'cdropout0.5_fc' reads classes, and mixup mixes them",
        ),
        ({"validation": 1}, r"validation must be a share in \[0, 1\), got 1.0"),
        ({"label_noise": 1.5}, r"label_noise must be a share in \[0, 1\], got 1.5"),
        ({"imbalance": "longtail"}, "imbalance must have a ratio of at least 1, as in longtail:100"),
        ({"head_bn_epsilon": 0}, "head_bn_epsilon must be a finite number above 0, got 0.0"),
        ({"head_bn_momentum": 1}, r"head_bn_momentum must be in \[0, 1\), got 1.0"),
        (
            {"neutral_init": True, "task": "regression"},
            "neutral_init is for classes, and task regression has",
        ),
        ({"fc_decay": "feature"}, "fc_decay 'feature' is not known; did you mean 'features'"),
        ({"fc_decay": "features", "distribution": "mirrored"}, "features needs distribution none, got mirr"),
        (
            {"population_stats": True, "recompute_batch_stats": "all"},
            "population_stats compares with moving averages, which recompute_batch_stats all replaces",
        ),
        ({"imbalance": "step:2", "task": "regression"}, "imbalance and label_noise are for classes"),
        ({"test_corruption": "bluur:2"}, "test_corruption 'bluur:2' is not known; did you mean 'blur'"),
        ({"head": "bn_fx"}, "head 'bn_>>fx<<'"),
        ({"backbone": "resnet21"}, "backbone 'resnet21' is not known"),
        ({"dataset": "digts"}, "data set 'digts' is not known; did you mean 'digits'"),
        ({"dataset": "domains:digits,mnist", "task": "regression"}, "domains are of the same classes"),
    ],
)
def test_bad_values_are_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        TrainConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_a_value_and_another_is_not(name):
    default = getattr(TrainConfig(), name)
    assert default in CHOICES[name]
    with pytest.raises(UsageError, match=f"{name} 'xyzzy' is not known"):
        TrainConfig(**{name: "xyzzy"})


def test_every_activation_is_kerass():
    import keras

    assert all(callable(keras.activations.get(name)) for name in CHOICES["fc_activation"])


def test_every_task_has_a_definition_and_a_learning_rate():
    from bnhead.training.tasks import TASKS

    assert set(TASKS) == set(CHOICES["task"]) == set(LEARNING_RATES)
