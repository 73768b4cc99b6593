import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")


def build(optimizer):
    parts = [layers.Dense(64, use_bias=False), layers.BatchNormalization(momentum=0.9, name="norm")]
    model = keras.Sequential([keras.Input((64,)), *parts, layers.ReLU(), layers.Dense(10, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


decaying = keras.optimizers.AdamW(0.01, weight_decay=0.5)
sparing = keras.optimizers.AdamW(0.01, weight_decay=0.5)
sparing.exclude_from_weight_decay(var_names=["gamma", "beta"])
decayed = build(decaying)
print(bnhead.check(decayed, (x, y), batch_size=128, epochs=20, select=["BN204"])[0])
gammas = {}
for name, model in (("decayed", decayed), ("spared", build(sparing))):
    model.fit(x[:1400], y[:1400], batch_size=128, epochs=20, verbose=0)
    gammas[name] = np.abs(model.get_layer("norm").gamma).mean()
    loss, accuracy = model.evaluate(x[1400:], y[1400:], verbose=0)
    print(f"{name}: gamma {gammas[name]:.2f}, test loss {loss:.2f}, accuracy {accuracy:.3f}")
assert gammas["decayed"] < 0.8 * gammas["spared"]
