import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")


def build(rate, blocks=8):
    model = keras.Sequential([keras.Input((64,))])
    for number in range(blocks):
        model.add(layers.Dense(64, use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9, name=f"norm{number}"))
        model.add(layers.ReLU())
        if rate or number == blocks - 1:
            model.add(layers.Dropout(rate or 0.5))
    model.add(layers.Dense(10, "softmax"))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


between, last = build(rate=0.5), build(rate=0)
print(bnhead.check(between, (x, y), batch_size=128, select=["BN401"])[0])
between.fit(x[:1400], y[:1400], batch_size=128, epochs=30, verbose=0)
shifted = between.evaluate(x[1400:], y[1400:], verbose=0)[1]
bnhead.layers.recompute_batch_stats(between, x[:1400])  # without dropout, as in inference
repaired = between.evaluate(x[1400:], y[1400:], verbose=0)[1]
last.fit(x[:1400], y[:1400], batch_size=128, epochs=30, verbose=0)
after = last.evaluate(x[1400:], y[1400:], verbose=0)[1]
print(f"test accuracy {shifted:.3f} by the moving averages, {repaired:.3f} by the statistics of inference")
print(f"test accuracy {after:.3f} with the dropout after the last batch norm alone")
assert shifted < repaired - 0.1 and shifted < after - 0.2
