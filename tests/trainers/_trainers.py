"""What is asked of Seedbed while a trainer runs, and what a module then holds."""

import contextlib
import hashlib
import os
from unittest import mock

import fsdp2
import torch.distributed as dist

import seedbed
import seedbed.torch
from seedbed import _regions


def join_as_from_torchrun():
    """Sets what torchrun sets, so that a trainer starts no processes, and takes those that are there."""
    rank, size = str(dist.get_rank()), str(dist.get_world_size())
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": "0"}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = "1"  # where nobody goes: the ranks know each other already


@contextlib.contextmanager
def counted():
    """The bytes of each tensor that any client of `seedbed.connect` is asked for meanwhile."""
    asked = []
    connect = seedbed.connect

    def connect_counting(*args, **options):
        client = connect(*args, **options)
        init_model = client.init_model

        def counting(wanted, **rest):
            asked.extend(map(_regions.byte_count, wanted))
            return init_model(wanted, **rest)

        client.init_model = counting
        return client

    with mock.patch.object(seedbed, "connect", connect_counting):
        yield asked


def local_bytes(module):
    """The bytes of a module's parameters on this rank."""
    tensors = [getattr(parameter, "to_local", lambda whole=parameter: whole)() for parameter in module.parameters()]
    return sum(tensor.nbytes for tensor in tensors)


def digest(module):
    """As the examples print it, of a module that is whole."""
    hashed = hashlib.sha256()
    for parameter in module.parameters():
        hashed.update(parameter.detach().numpy().tobytes())
    return hashed.hexdigest()[:16]


def alone():
    """The digest of the examples' model, filled in one process and without any trainer."""
    with seedbed.connect("local:") as client:
        return digest(seedbed.torch.build(fsdp2.build, client, seed=7))
