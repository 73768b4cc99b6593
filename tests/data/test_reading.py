import pytest
import tensorflow as tf

from bnhead.data.reading import named_faults
from bnhead.errors import DataError


def test_faults_become_data_errors_but_full_memory_stays():
    unknown = tf.errors.UnknownError(None, None, "broken")
    for error in (OSError(5, "broken"), ValueError("broken"), ImportError("broken"), unknown):
        with pytest.raises(DataError, match=r"it cannot be read: .*broken"), named_faults("it"):
            raise error
    with pytest.raises(tf.errors.ResourceExhaustedError), named_faults("it"):
        raise tf.errors.ResourceExhaustedError(None, None, "memory")
