import keras
import numpy as np
from keras import ops

from bnhead.census.gradients import sensitivities


def test_gradients_by_every_tap_go_through_the_later_ones():
    x = ops.convert_to_tensor(np.array([[1.0, -2.0, 3.0]], "float32"))

    def forward(watch):
        first = watch("first", 2 * x)
        second = watch("second", ops.relu(first) * 3)
        unread = watch("unread", first + 1)
        return {"first": first, "second": second, "unread": unread}, ops.sum(second * second)

    gradients = {name: ops.convert_to_numpy(g).tolist() for name, g in sensitivities(forward).items()}
    # second = 3 relu(2x) = 6, 0, 18; dL/dsecond = 2 second; dL/dfirst = that times 3 where 2x > 0
    assert gradients == {"first": [[36, 0, 108]], "second": [[12, 0, 36]], "unread": [[0, 0, 0]]}


def test_layers_with_weights_that_are_frozen():
    layer = keras.layers.Dense(2, kernel_initializer="ones")
    layer.trainable = False
    x = ops.convert_to_tensor(np.ones((1, 3), "float32"))

    def forward(watch):
        z = watch("z", layer(x))
        return {"z": z}, ops.sum(z * ops.convert_to_tensor([[1.0, -5.0]]))

    assert ops.convert_to_numpy(sensitivities(forward)["z"]).tolist() == [[1, -5]]
