import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
parts = [layers.Dense(64, use_bias=False), layers.BatchNormalization(name="norm"), layers.ReLU()]
model = keras.Sequential([keras.Input((64,)), *parts, layers.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
print(bnhead.check(model, (x[:1400], y[:1400]), batch_size=128, epochs=5, select=["BN201"])[0])

model.fit(x[:1400], y[:1400], batch_size=128, epochs=5, verbose=0)
loss, accuracy = model.evaluate(x[1400:], y[1400:], verbose=0)
print(f"test loss {loss:.2f}, accuracy {accuracy:.3f} by the moving averages")
bnhead.layers.recompute_batch_stats(model, x[:1400])
better, accuracy = model.evaluate(x[1400:], y[1400:], verbose=0)
print(f"test loss {better:.2f}, accuracy {accuracy:.3f} by the statistics of the training images")
assert loss > 1.2 * better
