import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import bnhead

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 8 - 1).astype("float32")
generator = np.random.default_rng(0)
model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu", name="fc")])
model.add(layers.BatchNormalization(momentum=0.9, name="norm"))
fc, norm = model.get_layer("fc"), model.get_layer("norm")
pre = x @ np.array(fc.kernel)
spread = {}
for share in (0.02, 0.5):
    fc.bias.assign(-np.quantile(pre, 1 - share, axis=0))  # each unit fires on this share of the images
    print(*bnhead.check(model, (x, y), batch_size=64, examples=1797, select=["BN404"]), sep="\n")
    active = np.array(fc(x)) > 0
    image = active.sum(1).argmax()
    outputs = []
    for _ in range(200):  # one image among 63 others
        batch = x[[image, *generator.choice(np.delete(np.arange(len(x)), image), 63, replace=False)]]
        outputs.append(np.array(norm(fc(batch), training=True))[0])
    spread[share] = np.std(outputs, axis=0)[active[image]].mean()
    print(f"share {share}: the active outputs of an image vary by {spread[share]:.2f} from batch to batch")
assert spread[0.02] > 2 * spread[0.5]
