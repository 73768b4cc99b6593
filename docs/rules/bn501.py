import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")


def build(rate):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu", name="fc")])
    model.add(layers.Dense(64, "relu", name="fc2"))
    model.add(layers.Dense(10, "softmax"))
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:1400], y[:1400], batch_size=128, epochs=5, verbose=0)
    return model


accuracy = {}
for rate in (3.0, 0.1):
    model = build(rate)
    print(*bnhead.check(model, (x, y), batch_size=128, select=["BN501"]), sep="\n")
    accuracy[rate] = model.evaluate(x[1400:], y[1400:], verbose=0)[1]
    print(f"test accuracy {accuracy[rate]:.3f} after training at a rate of {rate}")
assert accuracy[3.0] < accuracy[0.1]
