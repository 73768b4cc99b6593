import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")


def build(epsilon):
    norm = layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name="norm")
    model = keras.Sequential([keras.Input((64,)), norm, layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


faint = x / 100  # a variance of a few 1e-5
print(bnhead.check(build(1e-3), (faint, y), batch_size=128, select=["BN402"])[0])
accuracy = {}
for epsilon in (1e-3, 1e-6):
    model = build(epsilon)
    model.fit(faint[:1400], y[:1400], batch_size=128, epochs=5, verbose=0)
    accuracy[epsilon] = model.evaluate(faint[1400:], y[1400:], verbose=0)[1]
    print(f"test accuracy {accuracy[epsilon]:.3f} after 5 epochs with epsilon {epsilon:g}")
assert accuracy[1e-6] > accuracy[1e-3] + 0.05
