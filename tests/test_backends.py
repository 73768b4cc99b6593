"""The same nets on Keras' other backends: same weights, same outputs, same counts as on TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

NETS = [
    ("resnet8", "bn_fc8"),
    ("preresnet14", "fc8_bn"),
    ("wrn10_1", "catpool_dropout0.5_fc8"),
    ("plain8", "bn_gap_out"),
    ("vgg16_bn", "flatten_bn_dense8"),
    ("allcnn", "gmp_fc8_out_bn"),
    ("resnet18", "bn_out"),
    ("resnet50_v1", "out"),
    ("resnet50_v2", "fc8"),
]
HEADS = [  # on a bare feature map
    *(
        f"{head}_fc8"
        for head in (
            *("gbn2", "brn", "fbn", "center", "scale", "fcenter", "fscale", "noise"),
            *("ln", "rms", "gn4", "l2"),
        )
    ),
    *(f"{head}_gap_fc8" for head in ("gbn2", "brn", "center", "noise")),
    "gem_fc8_leakyrelu",
]


FEW = [NETS[0], NETS[3]]
FITTED = ("head-gbn2_fc8", "head-brn_fc8", "head-noise_gap_fc8")  # whose steps are compiled and trained


def build(name, head):
    """A net with a head, or a head alone, and inputs for it."""
    from bnhead import heads
    from bnhead.models import find

    rng = np.random.default_rng(0)
    if name != "head":
        images = rng.uniform(-1, 1, (6, 32, 32, 3)).astype("float32")
        return find(name)((32, 32, 3), head, 5, seed=0), images
    inputs = keras.Input((4, 4, 8))
    features = rng.normal(size=(6, 4, 4, 8)).astype("float32")
    return heads.attach(head, inputs, inputs, 5, name="head", seed=0, renorm_steps=2), features


def outputs(weights, nets):
    """Per net: logits in evaluation and training mode, the moving statistics after it, the census."""
    from bnhead.census import count
    from bnhead.layers import recompute_batch_stats

    found = {}
    for name, head in [*(NETS if nets == "all" else FEW), *(("head", head) for head in HEADS)]:
        model, x = build(name, head)
        key, rng = f"{name}-{head}", np.random.default_rng(1)
        if weights is None:
            model.set_weights([w * rng.uniform(0.8, 1.2, w.shape) for w in model.get_weights()])
        else:
            model.set_weights([weights[f"{key}/{i}"] for i in range(len(model.weights))])
        found |= {f"{key}/{i}": w for i, w in enumerate(model.get_weights())}
        found[f"{key}/evaluation"] = keras.ops.convert_to_numpy(model(x, training=False))
        if name != "head":
            found[f"{key}/census"] = np.array(list(count(model, x).figures().values()))
            found |= {f"{key}/{part}": array for part, array in optional_counts(model, x).items()}
        # in training fifty norms over the six values of a 1 x 1 map amplify rounding beyond comparison
        if "dropout" not in head and "resnet50" not in name:
            for step in range(3 if name == "head" else 1):
                found[f"{key}/training{step}"] = keras.ops.convert_to_numpy(model(x, training=True))
            means = [w for w, v in zip(model.get_weights(), model.weights, strict=True) if "moving" in v.path]
            found |= {f"{key}/after/{i}": w for i, w in enumerate(means)}
        if key in FITTED:
            model.compile(keras.optimizers.SGD(0.01), "mse")
            target = np.linspace(-1, 1, 30, dtype="float32").reshape(6, 5)
            fitted = model.fit(x, target, batch_size=3, shuffle=False, verbose=0)
            found[f"{key}/fitted"] = np.array(fitted.history["loss"])
            recompute_batch_stats(model, x, batch_size=4)
            found[f"{key}/recomputed"] = keras.ops.convert_to_numpy(model(x))
    return found | routed_outputs(weights)


def routed_outputs(weights):
    """The same of a head with routes, and the losses of a compiled training on mixed batches."""
    from bnhead.layers import with_routes

    model, x = build("head", "bn_gap_bn_fc8")
    model, found = with_routes(model, 3, routed_affine=True), {}
    if weights is not None:
        model.set_weights([weights[f"routed/{i}"] for i in range(len(model.weights))])
    found |= {f"routed/{i}": w for i, w in enumerate(model.get_weights())}
    batches = [(x, np.array(route, "int32")) for route in ([0, 1, 1, 0, 1, 1], [2, 2, 0, 2, 0, 0])]
    for i, batch in enumerate(batches):
        found[f"routed/training{i}"] = keras.ops.convert_to_numpy(model(batch, training=True))
        found[f"routed/evaluation{i}"] = keras.ops.convert_to_numpy(model(batch, training=False))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    losses = [model.train_on_batch(batch, np.ones((6, 5), "float32")) for batch in batches * 3]
    return found | {"routed/fitted": np.array(losses)}


def optional_counts(model, x):
    """Gradients, correlations and ablation of the last activation; a third of its units are called dead."""
    from bnhead.census import ablate, count

    y = np.arange(len(x)) % 5
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    census = count(model, (x, y), batch_size=4, gradients=True, clones=True)
    (counts,) = census.layers.values()
    counts.active = np.where(np.arange(counts.units) % 3, counts.active, 0)
    (ablated,) = ablate(model, (x, y), census, batch_size=4).layers.values()
    return {
        "gradient": counts.gradient,
        "scores": counts.gradient_scores,
        "correlations": counts.correlations,
        "ablation": np.stack([ablated.ablated_loss, ablated.ablated_metric]),
    }


@pytest.mark.parametrize(
    ("backend", "nets"),
    [
        pytest.param(b, n, marks=pytest.mark.slow)
        for b, n in (("jax", "few"), ("jax", "all"), ("torch", "all"))
    ],
)
def test_the_same_outputs_on_another_backend(backend, nets, tmp_path):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    on_tensorflow = tmp_path / "tensorflow.npz"
    np.savez(on_tensorflow, **outputs(None, nets))
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [sys.executable, __file__, on_tensorflow, tmp_path / "out.npz", nets]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = np.load(on_tensorflow), np.load(tmp_path / "out.npz")
    assert set(ours) == set(theirs)
    for key in ours:
        scale = max(1, np.nanmax(np.abs(ours[key])))
        # a correlation divides by a unit's deviation over six images, which amplifies the rounding of both
        tolerance = 1e-3 if key.endswith("correlations") else 1e-4
        np.testing.assert_allclose(theirs[key], ours[key], tolerance, tolerance * scale, err_msg=key)


TRAINED_AFTER_INSERTION = """
import keras
import numpy as np
from bnhead import heads
from bnhead.models import resnet8

x, y = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32"), np.arange(16) % 5
model = heads.insert_bn(resnet8((8, 8, 1), "fc8", 5, seed=0), x)
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_model_trains_after_a_norm_was_inserted(backend):
    """JAX refuses a step whose variables share a buffer."""
    pytest.importorskip(backend)
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TRAINED_AFTER_INSERTION]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ASKED_OF_JAX = """
import sys
import jax
import numpy as np

class Struct(jax.ShapeDtypeStruct):
    def __init__(self, shape, dtype, *arguments, **options):
        assert np.dtype(dtype).name not in ("int64", "float64"), shape
        super().__init__(shape, dtype, *arguments, **options)

jax.ShapeDtypeStruct = Struct
from bnhead import census
from bnhead.models import resnet8
from bnhead.training import TrainConfig, train
train(TrainConfig(workdir=sys.argv[1], backbone="resnet8", epochs=1))
census.count(resnet8((8, 8, 1), "fc8", 5), (np.zeros((6, 8, 8, 1)), np.zeros(6, "int64")))
"""


@pytest.mark.slow
def test_nothing_asks_jax_for_64_bit_numbers(tmp_path):
    """JAX 0.11 warns of them; a quiet run stays quiet."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ASKED_OF_JAX, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
    np.savez(sys.argv[2], **outputs(np.load(sys.argv[1]), sys.argv[3]))
