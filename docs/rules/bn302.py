import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
parts = [layers.Dense(64, use_bias=False, name="fc"), layers.BatchNormalization(momentum=0.9, name="norm")]
backbone = keras.Sequential([keras.Input((64,)), *parts, layers.ReLU()], name="backbone")
bnhead.layers.recompute_batch_stats(backbone, x)  # in place of a pre-training

model = keras.Sequential([keras.Input((64,)), backbone, layers.Dense(10, "softmax")])
backbone.get_layer("fc").trainable = False
model.compile("adam", "sparse_categorical_crossentropy")
faint = x / 3  # the new task has other images
print(bnhead.check(model, (faint, y), batch_size=128, select=["BN302"])[0])

before = backbone.predict(faint, verbose=0)
model.fit(faint, y, batch_size=128, epochs=3, verbose=0)
change = np.abs(backbone.predict(faint, verbose=0) - before).mean() / before.mean()
print(f"the features of the frozen backbone change by {change:.0%}")
assert change > 0.1
