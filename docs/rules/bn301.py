import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
parts = [
    layers.Dense(64, use_bias=False),
    layers.BatchNormalization(momentum=0.9, name="norm"),
    layers.ReLU(),
]
model = keras.Sequential([keras.Input((64,)), *parts, layers.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, batch_size=128, epochs=2, verbose=0)

norm = model.get_layer("norm")
norm.trainable = False
print(bnhead.check(model, (x, y), batch_size=128, select=["BN301"])[0])
moved = {}
for when in ("after the change", "after another compile"):
    before = np.array(norm.moving_mean)
    model.fit(x + 1, y, batch_size=128, epochs=1, verbose=0)
    moved[when] = np.abs(norm.moving_mean - before).max()
    print(f"{when} the frozen moving mean moves by {moved[when]:.2f} in an epoch")
    model.compile("adam", "sparse_categorical_crossentropy")
assert moved["after the change"] > 0.1 and moved["after another compile"] == 0
