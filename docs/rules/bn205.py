import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
is_rare = ((y == 0) & (np.arange(len(y)) % 3 == 0)).astype("int64")  # 3 % of the images


def build(**bias):
    norm = layers.BatchNormalization(momentum=0.9)
    model = keras.Sequential([keras.Input((64,)), norm, layers.Dense(2, "softmax", name="out", **bias)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


print(bnhead.check(build(), (x, is_rare), batch_size=128, select=["BN205"])[0])
shares = np.bincount(is_rare) / len(is_rare)


def prior(shape, dtype):
    return keras.ops.cast(np.log(shares), dtype)


loss = {}
for name, bias in (("0", {}), ("the log of the shares", {"bias_initializer": prior})):
    model = build(**bias)
    loss[name] = model.fit(x, is_rare, batch_size=128, epochs=1, verbose=0).history["loss"][0]
    print(f"loss {loss[name]:.2f} in the first epoch if the bias starts at {name}")
assert loss["0"] > 1.5 * loss["the log of the shares"]
