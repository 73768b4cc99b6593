import keras
import numpy as np

from bnhead.census import totals

ops = keras.ops


def vector(inputs, sums, first):
    return ops.convert_to_tensor(np.array([inputs, *sums, *first], "int32"))


def test_the_first_input_that_is_not_finite_is_the_first_of_all_batches():
    total = ops.convert_to_tensor(totals.empty_counts(5, 2, "int64"))
    never = np.iinfo("int64").max
    assert total.numpy().tolist() == [0, 0, 0, never, never]
    for batch in (vector(4, [1, 2], [-1, -1]), vector(4, [1, 0], [2, -1]), vector(3, [0, 5], [0, 1])):
        total = totals.add_counts(total, batch, 2)
    assert total.numpy().tolist() == [11, 2, 7, 6, 9]


def test_a_vector_gives_back_the_arrays_that_went_in():
    layout = totals.Layout()
    arrays = {("", "inputs"): np.array([3]), ("a", "active"): np.arange(4), ("a", "together"): np.eye(2)}
    packed = layout.pack({key: ops.convert_to_tensor(array) for key, array in arrays.items()}, "int32")
    unpacked = layout.unpack(np.asarray(packed))
    assert list(unpacked) == list(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(unpacked[key], array)


def test_batches_add_up_in_64_bits():
    rng = np.random.default_rng(0)
    values = [rng.normal(1000, 1e-3, (size, 3)) for size in (5, 1, 7)]
    add, state = totals.compiled_add(1), None
    for part in values:
        batch = {
            "integers": ops.convert_to_tensor(np.array([len(part), 2**30, -1], "int32")),
            "matrices": {"fc": {"together": ops.convert_to_tensor(np.full((2, 2), 3.0, "float32"))}},
            "reals": ops.convert_to_tensor(np.float32([1.5])),
            "first_active": ops.convert_to_tensor(np.array([-1, len(part) - 2, 0], "int32")),
            "rows": ops.convert_to_tensor(np.full(3, 2**30, "int32")),
            "moments": {
                "fc": {
                    "values": ops.convert_to_tensor(np.float32(len(part))),
                    "mean": ops.convert_to_tensor(part.mean(0)),
                    "squares": ops.convert_to_tensor(((part - part.mean(0)) ** 2).sum(0)),
                }
            },
            "comoments": {
                "fc": {
                    "values": ops.convert_to_tensor(np.float32(len(part))),
                    "mean": ops.convert_to_tensor(part.mean(0)),
                    "squares": ops.convert_to_tensor((part - part.mean(0)).T @ (part - part.mean(0))),
                }
            },
        }
        state = add(state, batch)
    sums = totals.to_host(state)
    assert sums["integers"].tolist()[:2] == [13, 3 * 2**30] and sums["reals"].tolist() == [4.5]
    # -1 is none: the second batch is of one input
    assert sums["first_active"].tolist() == [np.iinfo("int64").max, 3, 0]
    assert sums["rows"].tolist() == [3 * 2**30] * 3
    assert sums["matrices"]["fc"]["together"].tolist() == [[9, 9], [9, 9]]
    every = np.concatenate(values)
    np.testing.assert_allclose(sums["moments"]["fc"]["mean"], every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(sums["moments"]["fc"]["squares"] / 13, every.var(0), rtol=1e-6)
    np.testing.assert_allclose(
        sums["comoments"]["fc"]["squares"] / 13, np.cov(every.T, bias=True), rtol=1e-6, atol=1e-12
    )
