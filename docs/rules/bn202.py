import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")


def build(momentum):
    norm = layers.BatchNormalization(momentum=momentum, name="norm")
    parts = [layers.Dense(64, use_bias=False), norm, layers.ReLU(), layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((64,)), *parts])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


print(bnhead.check(build(0.1), select=["BN202"])[0])
loss = {}
for momentum in (0.1, 0.9):
    model = build(momentum)
    model.fit(x[:1400], y[:1400], batch_size=8, epochs=5, verbose=0)
    loss[momentum], accuracy = model.evaluate(x[1400:], y[1400:], verbose=0)
    print(f"test loss {loss[momentum]:.2f}, accuracy {accuracy:.3f} with momentum {momentum}")
assert loss[0.1] > 1.1 * loss[0.9]
