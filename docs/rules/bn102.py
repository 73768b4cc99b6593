import keras
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
dark, bright = x, 2 * x + 3  # one digit as two cameras see it


def build(shared):
    images = keras.Input((64,)), keras.Input((64,))
    norms = [layers.BatchNormalization(momentum=0.9, name="norm")] * 2
    if not shared:
        norms = [layers.BatchNormalization(momentum=0.9) for _ in range(2)]
    features = [layers.Dense(32, "relu")(norm(image)) for norm, image in zip(norms, images, strict=True)]
    model = keras.Model(images, layers.Dense(10, "softmax")(layers.Concatenate()(features)))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


print(bnhead.check(build(shared=True), ([dark, bright], y), 64, select=["BN102"])[0])
scores = {}
for shared in (True, False):
    model = build(shared)
    model.fit([dark[:1400], bright[:1400]], y[:1400], batch_size=64, epochs=10, verbose=0)
    scores[shared] = model.evaluate([dark[1400:], bright[1400:]], y[1400:], verbose=0)[1]
print(f"test accuracy {scores[True]:.3f} with one batch norm for both, {scores[False]:.3f} with one for each")
assert scores[True] < scores[False] - 0.2
