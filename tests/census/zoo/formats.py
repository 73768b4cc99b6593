"""Rows, masks, dtypes and data formats."""

import tempfile
import warnings

import keras
import numpy as np
from keras import layers, ops

from tests.census.zoo.table import INPUTS, case, images, on, policy, relu, tokens, vectors


@case("window", "after")
def windows_folded_into_the_batch():
    x = np.random.default_rng(0).normal(size=(INPUTS, 4, 6)).astype("float32")
    window = relu(5, "window")

    def folded(h):
        return ops.reshape(window(ops.reshape(h, (-1, 6))), (-1, 20))

    return on(x, folded, relu(7, "after"))


@case("each", "fc", masks={"each": tokens() > 0})
def masked():
    return on(
        tokens(),
        layers.Embedding(9, 6, mask_zero=True),
        relu(5, "each"),
        layers.GlobalAveragePooling1D(),
        relu(),
        dtype="int32",
    )


@case("fc", "second")
def half_precision():
    return on(vectors(), relu(dtype="mixed_float16"), relu(name="second", dtype="mixed_bfloat16"))


@case("fc", backends=("tensorflow", "torch"))
def double_precision():
    with policy("float64"):
        return on(vectors().astype("float64"), relu(), dtype="float64")


@case("fc", trains=False)
def quantised():
    model, x = on(vectors(), relu(16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of every layer that it leaves as it is
        model.quantize("int8")
    return model, x


@case("conv", "fc", axes={"conv": 1})
def channels_first():
    x = np.random.default_rng(0).normal(size=(INPUTS, 3, 8, 6)).astype("float32")
    conv = layers.Conv2D(4, 3, activation="relu", data_format="channels_first", name="conv")
    return on(x, conv, layers.Flatten(), relu())


@case("pool_relu", "fc", axes={"pool_relu": 1})
def channels_first_without_a_convolution():
    x = np.random.default_rng(0).normal(size=(INPUTS, 4, 8, 6)).astype("float32")
    pool = layers.AveragePooling2D(2, data_format="channels_first")
    norm = layers.BatchNormalization(axis=1)
    return on(x, pool, norm, layers.ReLU(name="pool_relu"), layers.Flatten(), relu())


@case("fc", "second", trains=False)
def quantised_layers():
    """Layers that are built in 8 bits, with a policy each."""
    return on(vectors(), relu(16, dtype="int8_from_float32"), relu(9, "second", dtype="int8_from_bfloat16"))


@case("conv", "fc", trains=False)
def loaded_and_quantised():
    """Saved, loaded, quantised, which leaves the convolution in float."""
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    model, x = on(images(), conv, layers.Flatten(), relu(16))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(f"{folder}/model.keras")
        model = keras.saving.load_model(f"{folder}/model.keras")
        model.quantize("int8")
    return model, x


@case("conv", "fc")
def low_rank_adaptation():
    """A net whose layers have adapters; the kernels themselves are frozen."""
    model, x = on(images(), layers.Conv2D(4, 3, activation="relu", name="conv"), layers.Flatten(), relu(8))
    for name in ("conv", "fc"):
        model.get_layer(name).enable_lora(2)
    return model, x


@case("conv", "fc")
def half_precision_throughout():
    """Weights in bfloat16 too, and a batch norm."""
    with policy("bfloat16"):
        conv = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(name="conv")]
        return on(images(), *conv, layers.GlobalAveragePooling2D(), relu(), dtype="bfloat16")


@case("wrapped", "fc", backends=("torch",))
def a_module_of_pytorch():
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU())
    return on(vectors(), layers.TorchModuleWrapper(module, name="wrapped", output_shape=(None, 5)), relu())


@case("wrapped", "fc", backends=("jax",))
def a_function_of_jax():
    import jax

    def run(params, inputs):
        return jax.nn.relu(inputs @ params["kernel"])

    def initial(rng, inputs):
        return {"kernel": jax.random.normal(rng, (inputs.shape[-1], 5))}

    return on(vectors(), layers.JaxLayer(run, initial, name="wrapped"), relu())
