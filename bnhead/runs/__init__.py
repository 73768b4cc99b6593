"""The files of runs and studies on disk. Needs no TensorFlow."""
