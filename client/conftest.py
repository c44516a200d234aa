"""For the examples in docstrings."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras's own default is not installed
