import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")


def build():
    parts = [layers.Dense(64, use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    model = keras.Sequential([keras.Input((64,)), *parts, layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


order = np.argsort(y[:1400], kind="stable")  # as in folders, a class after the other
train = x[order], y[order]
print(bnhead.check(build(), train, batch_size=64, shuffle=False, select=["BN206"])[0])
accuracy = {}
for shuffle in (False, True):
    model = build()
    model.fit(*train, batch_size=64, epochs=10, shuffle=shuffle, verbose=0)
    accuracy[shuffle] = model.evaluate(x[1400:], y[1400:], verbose=0)[1]
print(f"test accuracy {accuracy[False]:.3f} in order, {accuracy[True]:.3f} shuffled")
assert accuracy[False] < accuracy[True] - 0.2
