"""The engine: pure functions from requests to numbers. It knows nothing of gRPC, the service or files.

`describe` validates a ``TensorSpec`` and resolves it to a law; a `Backend` samples elements of the described region.

===========  ===========================================================================================
foundations  ``errors``, ``caching``, ``constants``, ``dtypes``, ``stream`` (names to streams)
arithmetic   ``doubles`` (error-free sums), ``fma``, ``functions`` (exp, log, ...), ``normal_cdf``
indexing     ``regions`` (regions to runs of flat indices), ``views`` (strided boxes)
describing   ``fans``, ``gains``, ``schemes`` (scheme to law), ``delta`` (delta_orthogonal as parts),
             ``recipes`` (parts, literals and expressions to a plan), ``spec`` (the entry)
laws         ``parameters`` (a law's parameters, rounded), ``deterministic`` (constant, eye, dirac),
             ``pairs`` (complex64 as float32), ``expressions`` (elements of an expression)
sampling     ``backends``: numpy (the reference), numba (the fast CPU path), cupy (GPUs)
===========  ===========================================================================================

A module imports only modules of its own row or of rows above it, and there are no cycles.

>>> import numpy as np
>>> from seedbed.v1 import Normal, TensorSpec
>>> description = describe(TensorSpec(name="w", shape=[2, 2], seed=7, normal=Normal()))
>>> out = np.empty(description.element_count, numpy_dtype(description.spec.dtype))
>>> open_backend("numpy").fill(description, 0, out)
"""

from .backends import Backend, Job, Sampler, Watch, gpu_count, open_backend, open_cupy, usable_cores
from .dtypes import numpy_dtype
from .errors import Cancelled, InvalidSpec
from .gains import calculate_gain
from .recipes import literal_bytes
from .schemes import MAX_ORTHOGONAL_ELEMENTS
from .spec import ALGORITHM_VERSIONS, describe, whole_elements
from .views import MAX_DIMENSIONS

__all__ = [
    "ALGORITHM_VERSIONS",
    "MAX_DIMENSIONS",
    "MAX_ORTHOGONAL_ELEMENTS",
    "Backend",
    "Cancelled",
    "InvalidSpec",
    "Job",
    "Sampler",
    "Watch",
    "calculate_gain",
    "describe",
    "gpu_count",
    "literal_bytes",
    "numpy_dtype",
    "open_backend",
    "open_cupy",
    "usable_cores",
    "whole_elements",
]
