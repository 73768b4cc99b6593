import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
target = x.sum(axis=1) + 60  # the amount of ink


def build(*last):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(1), *last])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=[keras.metrics.R2Score()])
    return model


with_norm = build(layers.BatchNormalization(momentum=0.9, name="norm"))
print(bnhead.check(with_norm, (x, target), batch_size=32, select=["BN103"])[0])
for name, model in (("with", with_norm), ("without", build())):
    model.fit(x[:1400], target[:1400, None], batch_size=32, epochs=20, verbose=0)
    score = model.evaluate(x[1400:], target[1400:, None], verbose=0)[1]
    print(f"R^2 {score:.3f} on test images {name} the batch norm")
    assert (score > 0.95) == (name == "without")
