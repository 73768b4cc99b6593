import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
parts = [layers.Dense(32, name="fc"), layers.BatchNormalization(momentum=0.9), layers.ReLU()]
model = keras.Sequential([keras.Input((64,)), *parts, layers.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
print(bnhead.check(model, (x, y), batch_size=128, select=["BN101"])[0])

model.fit(x, y, batch_size=128, epochs=5, verbose=0)
before = model.predict(x, verbose=0)
fc = model.get_layer("fc")
fc.bias.assign(fc.bias + 100)  # any other bias
bnhead.layers.recompute_batch_stats(model, x)
changed = np.abs(model.predict(x, verbose=0) - before).mean()
print(f"a bias of 100 in place of the trained one changes the probabilities by {changed:.3f}")
assert changed < 0.02
