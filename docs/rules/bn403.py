import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
train, test = x[:1400].copy(), x[1400:].copy()
train[:, ::8] = train[:, 7::8] = -1  # the margin is empty in all training images
model = keras.Sequential([keras.Input((64,)), layers.BatchNormalization(momentum=0.9, name="norm")])
model.add(layers.Dense(10, "softmax"))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
print(bnhead.check(model, (train, y[:1400]), batch_size=128, select=["BN403"])[0])

model.fit(train, y[:1400], batch_size=128, epochs=30, verbose=0)
test[:, ::8] = test[:, 7::8] = -1
clean = model.evaluate(test, y[1400:], verbose=0)[1]
test[:, 7] = 1  # a speck of dust in the corner
dusty = model.evaluate(test, y[1400:], verbose=0)[1]
print(f"test accuracy {clean:.3f}; {dusty:.3f} with one bright pixel in the margin")
assert dusty < clean - 0.1
