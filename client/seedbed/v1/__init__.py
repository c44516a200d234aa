"""The messages of the contract ``seedbed.v1``, which are the vocabulary of client and server alike.

>>> from seedbed.v1 import Normal, TensorSpec
>>> TensorSpec(name="wte.weight", shape=[50257, 768], normal=Normal(std=0.02)).normal.std
0.02
"""

from seedbed.v1.init_pb2 import *  # noqa: F403
