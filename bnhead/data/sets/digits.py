"""scikit-learn's hand-written digits as TFDS data sets, for use without a download."""

import numpy as np
import tensorflow_datasets as tfds

TEST_EXAMPLES = 360
MOST_DEGREES = 45.0


def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns all images, `(1797, 8, 8, 1)` uint8, their labels, and the indices of train and test split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    train, test = train_test_split(
        np.arange(len(images)), test_size=TEST_EXAMPLES, random_state=0, stratify=bunch.target
    )
    return images, bunch.target, np.sort(train), np.sort(test)


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 digits of 8 x 8 pixels from 43 people: the test part of the UCI set "Optical Recognition of
    Handwritten Digits" (Alpaydin & Kaynak 1998), as scikit-learn ships it.

    The original pixels count 0 to 16; here they are scaled to 0 to 255, rounded. The split, 1,437 for
    training and 360 for testing, is stratified by class and always the same.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS' own convention

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        images, labels, train, test = _digits()
        return {
            "train": self._generate_examples(images, labels, train),
            "test": self._generate_examples(images, labels, test),
        }

    def _generate_examples(self, images, labels, indices):
        for i in indices:
            yield int(i), {"image": images[i], "label": int(labels[i])}


class DigitsRotation(tfds.core.GeneratorBasedBuilder):
    """The digits of `Digits`, each rotated by a random angle, which is to be predicted.

    Angles are uniform between -45 and 45 degrees, counter-clockwise, drawn with a fixed seed. The images are
    rotated about their centre and enlarged to 16 x 16 pixels in one step, with linear interpolation and a
    black background. The split is that of `Digits`. Mirroring would change the sign of the angle.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS' own convention

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(16, 16, 1)),
                    "angle": tfds.features.Scalar(np.float32, doc="degrees, counter-clockwise"),
                }
            ),
            supervised_keys=("image", "angle"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        images, _, train, test = _digits()
        angles = np.random.default_rng(0).uniform(-MOST_DEGREES, MOST_DEGREES, len(images)).astype(np.float32)
        return {
            "train": self._generate_examples(images, angles, train),
            "test": self._generate_examples(images, angles, test),
        }

    def _generate_examples(self, images, angles, indices):
        for i in indices:
            yield (
                int(i),
                {"image": rotate_digit(images[i, ..., 0], angles[i])[..., np.newaxis], "angle": angles[i]},
            )


def rotate_digit(image: np.ndarray, degrees: float) -> np.ndarray:
    """Returns an image enlarged by 2 and rotated counter-clockwise.

    Args:
        image: `(size, size)` uint8.
        degrees: the angle.

    Returns:
        `(2 size, 2 size)` uint8.
    """
    from scipy.ndimage import affine_transform

    angle, size = np.deg2rad(degrees), len(image)
    # affine_transform maps output to input: (row, column) from the centre, rotated back and halved
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / 2
    offset = np.full(2, (size - 1) / 2) - back @ np.full(2, (2 * size - 1) / 2)
    pixels = affine_transform(image.astype(np.float32), back, offset, (2 * size, 2 * size), order=1)
    return np.rint(pixels).astype(np.uint8)
