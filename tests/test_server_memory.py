"""The memory of a server process does not grow with tensors, and little with clients that do not read."""

import grpc
import pytest

from seedbed.v1 import InitModelRequest, InitTensorRequest, Normal, TensorSlice, TensorSpec, Zeros

MIB = 1 << 20
ENDLESS = InitTensorRequest(spec=TensorSpec(shape=[1 << 40], zeros=Zeros()))


def stream(channel, request, method="InitTensor"):
    """The serialised messages of a response stream."""
    call = channel.unary_stream(f"/seedbed.v1.InitService/{method}", request_serializer=type(request).SerializeToString)
    return call(request, timeout=300)


def connect(target):
    return grpc.insecure_channel(
        target, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    )


def drain(channel, request, mib):
    """Reads this much of a response stream, and cancels it."""
    received = 0
    responses = stream(channel, request)
    for message in responses:
        received += len(message)
        if received >= mib * MIB:
            break
    responses.cancel()


def test_clients_that_do_not_read_cost_little_memory(start_server):
    handle = start_server()
    with connect(handle.target) as warm_up:
        drain(warm_up, ENDLESS, 64)
    before = handle.rss()

    channels = [connect(handle.target) for _ in range(64)]
    stalled = [stream(channel, ENDLESS) for channel in channels]
    for responses in stalled:
        next(responses)
    with connect(handle.target) as fast:
        drain(fast, ENDLESS, 128)
    per_client = (handle.rss() - before) / len(stalled)

    for channel in channels:
        channel.close()
    print(f"{per_client / MIB:.2f} MiB per client that does not read")
    assert per_client < 5 * MIB


def test_memory_does_not_grow_with_the_tensors_of_a_model(start_server):
    handle = start_server()
    tensors = [TensorSlice(spec=TensorSpec(name=f"t{i}", shape=[4], zeros=Zeros())) for i in range(5_000)]
    with connect(handle.target) as channel:
        responses = stream(channel, InitModelRequest(tensors=tensors), "InitModel")
        next(responses)
        before = handle.rss()
        assert sum(1 for _ in responses) == len(tensors) - 1
    assert handle.rss() - before < 16 * MIB


@pytest.mark.nightly
@pytest.mark.parametrize("scheme", [{"zeros": Zeros()}, {"normal": Normal()}])
def test_memory_is_constant_over_gigabytes(start_server, scheme):
    handle = start_server(backend="auto")
    request = InitTensorRequest(spec=TensorSpec(shape=[1 << 40], **scheme))
    with connect(handle.target) as channel:
        drain(channel, request, 128)
        before = handle.rss()
        for _ in range(6):
            drain(channel, request, 512)
            assert handle.rss() - before < 24 * MIB


@pytest.mark.nightly
def test_memory_is_constant_over_many_streams(start_server):
    handle = start_server()
    request = InitTensorRequest(spec=TensorSpec(shape=[1 << 20], zeros=Zeros()))
    with connect(handle.target) as channel:
        for _ in range(100):
            drain(channel, request, 4)
        before = handle.rss()
        for _ in range(1000):
            drain(channel, request, 4)
    assert handle.rss() - before < 24 * MIB
