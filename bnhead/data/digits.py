"""scikit-learn's hand-written digits as a TFDS data set, for use without any download."""

import numpy as np
import tensorflow_datasets as tfds

TEST_EXAMPLES = 360


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
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        train, test = train_test_split(
            np.arange(len(images)), test_size=TEST_EXAMPLES, random_state=0, stratify=bunch.target
        )
        return {
            "train": self._generate_examples(images, bunch.target, np.sort(train)),
            "test": self._generate_examples(images, bunch.target, np.sort(test)),
        }

    def _generate_examples(self, images, labels, indices):
        for i in indices:
            yield int(i), {"image": images[i], "label": int(labels[i])}
