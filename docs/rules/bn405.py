import keras
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
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x[:1400], y[:1400], batch_size=128, epochs=10, verbose=0)

unscaled = (x + 1) * 8  # the pixels as they are in the file
print(bnhead.check(model, (unscaled, y), batch_size=128, select=["BN405"])[0])
wrong = model.evaluate(unscaled[1400:], y[1400:], verbose=0)[1]
bnhead.layers.recompute_batch_stats(model, unscaled[:1400])
repaired = model.evaluate(unscaled[1400:], y[1400:], verbose=0)[1]
print(f"test accuracy {wrong:.3f} on these, {repaired:.3f} with their statistics")
assert wrong < repaired - 0.05
