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
train = x[:1409], y[:1409]  # 1,409 = 11 x 128 + 1
print(bnhead.check(model, train, batch_size=128, select=["BN203"])[0])

model.fit(*train, batch_size=128, epochs=5, verbose=0)
norm = model.get_layer("norm")
mean, variance = np.array(norm.moving_mean), np.array(norm.moving_variance)
bnhead.layers.recompute_batch_stats(model, train)
ratio = np.median(variance / np.array(norm.moving_variance))
distance = np.median(np.abs(mean - norm.moving_mean) / np.sqrt(norm.moving_variance))
print(f"after the last step the moving variance is {ratio:.2f} of what it should be")
print(f"and the moving mean {distance:.2f} deviations away")
assert ratio < 0.97
