"""Whatever bytes a client sends, the server answers what it can serve and refuses the rest by the name of its field.

`hostile` says what is checked of each; ``fuzz_requests.py`` goes on for as long as one likes.
"""

import random
import time

import grpc
import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seedbed
from seedbed.v1 import (
    Axes,
    DescribeTensorRequest,
    InitModelRequest,
    Normal,
    Patch,
    Region,
    ResumePoint,
    TensorSlice,
    TensorSpec,
    VarianceScaling,
    Zeros,
)

quickly = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


def picker(seed):
    chosen = random.Random(seed)
    return lambda most: chosen.randint(0, most)


@pytest.mark.parametrize("method", hostile.METHODS)
@quickly
@given(data=st.binary(max_size=200))
def test_bytes_that_may_be_no_request(method, data):
    hostile.answer(method, data)


@pytest.mark.parametrize("method", hostile.METHODS)
@quickly
@given(seed=seeds)
def test_requests_that_were_damaged(method, seed):
    pick = picker(seed)
    for request in hostile.sound_requests(method):
        hostile.answer(method, hostile.damaged(request, pick))


@pytest.mark.parametrize("method", hostile.METHODS)
@quickly
@given(seed=seeds)
def test_requests_of_any_fields_and_lengths(method, seed):
    request_type, _ = (hostile.STREAMS | hostile.UNARY)[method]
    hostile.answer(method, hostile.built(request_type, picker(seed)).SerializeToString())


@pytest.mark.parametrize("method", hostile.METHODS)
def test_sound_requests_are_served(method):
    """Otherwise what is damaged above would prove little."""
    assert {hostile.answer(method, request) for request in hostile.sound_requests(method)} == {"served"}


CELL = Patch(region=Region(start=[0], stop=[1]), val=1)
TINY = TensorSlice(spec=TensorSpec(shape=[1], zeros=Zeros()))
LARGEST = {
    "dimensions": ("DescribeTensor", DescribeTensorRequest(spec=TensorSpec(shape=[1] * 500_000, zeros=Zeros()))),
    "axes": (
        "DescribeTensor",
        DescribeTensorRequest(
            spec=TensorSpec(
                shape=[2, 2],
                variance_scaling=VarianceScaling(
                    scale=1, mode=1, distribution=1, in_axis=Axes(axes=[1] + [0] * 500_000)
                ),
            )
        ),
    ),
    "region": (
        "DescribeTensor",
        DescribeTensorRequest(spec=TINY.spec, region=Region(start=[0] * 250_000, stop=[1] * 250_000)),
    ),
    "patches": (
        "DescribeTensor",
        DescribeTensorRequest(spec=TensorSpec(shape=[9], normal={}, patches=[CELL] * 22_000)),
    ),
    "name": ("DescribeTensor", DescribeTensorRequest(spec=TensorSpec(name="x" * 500_000, shape=[4], normal=Normal()))),
    "unset tensors": ("InitModel", InitModelRequest(tensors=[TensorSlice()] * 250_000)),
    "tensors": ("InitModel", InitModelRequest(tensors=[TINY] * 37_000)),
    "resume": ("InitModel", InitModelRequest(tensors=[TINY], resume=ResumePoint(tensor_index=2**32 - 1))),
}


@pytest.mark.parametrize("name", LARGEST)
def test_requests_of_half_a_mebibyte_take_seconds_at_most(name):
    """An eighth of what a server reads, all in one field; the time grows with the length and no faster."""
    method, request = LARGEST[name]
    begin = time.thread_time()
    assert hostile.answer(method, request.SerializeToString()) in ("refused", "served")
    assert time.thread_time() - begin < 2


def test_a_server_survives_what_comes_over_a_socket(server):
    pick = picker(1)
    with grpc.insecure_channel(server) as channel, seedbed.connect(server) as client:
        before = client.normal((9, 9), name="w")
        for method in hostile.METHODS:
            for _ in range(40):
                assert send(channel, method, hostile.damaged(hostile.sound_requests(method)[0], pick)) in UNDERSTOOD
            assert send(channel, method, bytes(pick(255) for _ in range(99))) in UNDERSTOOD
        assert (client.normal((9, 9), name="w") == before).all()


UNDERSTOOD = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.CANCELLED}


def send(channel, method, request):
    """Reads at most one message of the answer; gives the status."""
    call = channel.unary_stream(f"/seedbed.v1.InitService/{method}")(request, timeout=60)
    try:
        next(call, None)
    except grpc.RpcError as error:
        return error.code()
    call.cancel()
    return grpc.StatusCode.OK
