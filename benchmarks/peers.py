"""The peers: servers, each with its client.

``python -m benchmarks.peers NAME --listen ADDRESS --chunk-bytes N`` serves until it is killed. When it is ready, it
prints a line like that of ``seedbed serve``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import click
import grpc
import numpy as np

from seedbed import dtypes
from seedbed.v1 import Chunk, InitTensorRequest, InitTensorResponse, TensorSpec

MIB = 1 << 20
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 17 * MIB),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
THREADS = 300  # more than there are streams


class Ceiling:
    """The limit of gRPC: the server sends one constant message repeatedly, and the client copies it.

    It does not sample, frame or check anything. Our service does all that, so it can only come close.
    """

    STREAM, ECHO = "/benchmarks.Ceiling/Stream", "/benchmarks.Ceiling/Echo"

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)

    def __enter__(self) -> Ceiling:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def fill(self, out: np.ndarray) -> None:
        """Streams into an array until it is full."""
        into, position = memoryview(out.view(np.uint8)), 0
        for message in self._channel.unary_stream(self.STREAM)(out.nbytes.to_bytes(8, "little")):
            into[position : position + len(message)] = message
            position += len(message)

    def messages(self, count: int) -> Iterator[bytes]:
        """Streams ``count`` bytes; closing the iterator ends the call."""
        call = self._channel.unary_stream(self.STREAM)(count.to_bytes(8, "little"))
        try:
            yield from call
        finally:
            call.cancel()

    def echo(self, message: bytes = b"") -> bytes:
        """Sends a message and returns the response."""
        return self._channel.unary_unary(self.ECHO)(message)

    @classmethod
    def serve(cls, listen: list[str], chunk_bytes: int) -> None:
        message = bytes(chunk_bytes)

        def stream(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
            whole, rest = divmod(int.from_bytes(request, "little"), chunk_bytes)
            for _ in range(whole):
                yield message
            if rest:
                yield message[:rest]

        handlers = {
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
            "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        }
        _serve_grpc("benchmarks.Ceiling", handlers, listen)


class Tutorial:
    """Our service as a gRPC tutorial would write it. It uses our engine, so only the transport differs."""

    METHOD = "/benchmarks.Tutorial/InitTensor"

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        self._init_tensor = self._channel.unary_stream(
            self.METHOD,
            request_serializer=InitTensorRequest.SerializeToString,
            response_deserializer=InitTensorResponse.FromString,
        )

    def __enter__(self) -> Tutorial:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def fill(self, spec: TensorSpec, out: np.ndarray) -> None:
        """Streams a tensor into the array."""
        dtype = dtypes.numpy_dtype(spec.dtype)
        for response in self._init_tensor(InitTensorRequest(spec=spec)):
            values = np.frombuffer(response.chunk.payload, dtype)
            out[response.chunk.element_offset : response.chunk.element_offset + len(values)] = values

    @staticmethod
    def serve(listen: list[str], chunk_bytes: int) -> None:
        from seedbed_server import engine  # noqa: PLC0415 - not needed by the client

        backend = engine.open_backend("numba")
        backend.prepare()

        def init_tensor(request: InitTensorRequest, _: grpc.ServicerContext) -> Iterator[InitTensorResponse]:
            description = engine.describe(request.spec)
            dtype = engine.numpy_dtype(description.spec.dtype)
            step = chunk_bytes // dtype.itemsize
            for offset in range(0, description.element_count, step):
                values = np.empty(min(step, description.element_count - offset), dtype)
                backend.fill(description, offset, values)
                yield InitTensorResponse(chunk=Chunk(element_offset=offset, payload=values.tobytes()))

        handler = grpc.unary_stream_rpc_method_handler(
            init_tensor,
            request_deserializer=InitTensorRequest.FromString,
            response_serializer=InitTensorResponse.SerializeToString,
        )
        _serve_grpc("benchmarks.Tutorial", {"InitTensor": handler}, listen)


class Flight:
    """Arrow Flight, which frames without copying, with fresh float32 normals from NumPy."""

    def __init__(self, target: str) -> None:
        from pyarrow import flight  # noqa: PLC0415 - optional

        self._flight = flight
        self._client = flight.connect(f"grpc://{target}")

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def fill(self, out: np.ndarray) -> None:
        """Streams normals into an array until it is full."""
        position = 0
        for batch in self._client.do_get(self._flight.Ticket(str(len(out)))):
            values = batch.data.column(0).to_numpy()
            out[position : position + len(values)] = values
            position += len(values)

    @staticmethod
    def serve(listen: list[str], chunk_bytes: int) -> None:
        import pyarrow as pa  # noqa: PLC0415 - optional
        from pyarrow import flight  # noqa: PLC0415

        schema = pa.schema([("values", pa.float32())])
        generator = np.random.default_rng(0)

        def batches(elements: int) -> Iterator[pa.RecordBatch]:
            step = chunk_bytes // 4
            for offset in range(0, elements, step):
                values = generator.standard_normal(min(step, elements - offset), dtype=np.float32)
                yield pa.record_batch([pa.array(values)], schema)

        class Server(flight.FlightServerBase):
            def do_get(self, _: object, ticket: flight.Ticket) -> flight.GeneratorStream:
                return flight.GeneratorStream(schema, batches(int(ticket.ticket)))

        server = Server(f"grpc://{listen[0]}")
        _announce("Flight", [f"127.0.0.1:{server.port}", listen[1]])
        server.serve()


def serve_jax(_listen: list[str], _chunk_bytes: int) -> None:
    """Samples with JAX in this process: each line of the input is a law, a dtype and a number of elements.

    The process is bound to one core, because not every version of XLA obeys a setting of its number of threads.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = "1"
    import jax  # noqa: PLC0415 - optional

    draws: dict[str, Callable[..., Any]] = {
        "uniform": jax.random.uniform,
        "normal": jax.random.normal,
        "trunc_normal": lambda key, shape, dtype: jax.random.truncated_normal(key, -2, 2, shape, dtype),
    }
    compiled = {law: jax.jit(draw, static_argnums=(1, 2)) for law, draw in draws.items()}
    print("ready", flush=True)
    for number, line in enumerate(sys.stdin):
        law, dtype, elements = line.split()
        compiled[law](jax.random.key(number), (int(elements),), dtype).block_until_ready()
        print("done", flush=True)


def fill_plainly(targets: list[str], _chunk_bytes: int) -> None:
    """The ceiling's client in its own process: reads a number of bytes per line, and prints the seconds.

    Importing torch, or connecting with our client, has the side effect that the C library keeps freed memory
    (`seedbed._wire.transport.keep_freed_memory`). This client measures gRPC without that.
    """
    out = np.zeros(0, np.uint8)
    with Ceiling(targets[0]) as client:
        print("ready", flush=True)
        for line in sys.stdin:
            if len(out) != int(line):
                out = np.zeros(int(line), np.uint8)
            begin = time.perf_counter()
            client.fill(out)
            print(time.perf_counter() - begin, flush=True)


PEERS = {
    "plain-client": fill_plainly,
    "ceiling": Ceiling.serve,
    "tutorial": Tutorial.serve,
    "flight": Flight.serve,
    "jax": serve_jax,
}


def _serve_grpc(service: str, handlers: dict[str, Any], listen: list[str]) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    ports = [server.add_insecure_port(address) for address in listen]
    server.start()
    _announce(service, [listen[0].replace(":0", f":{ports[0]}"), *listen[1:]])
    server.wait_for_termination()


def _announce(name: str, addresses: list[str]) -> None:
    print(f"{name} serving on {', '.join(addresses)};", flush=True)


@click.command()
@click.argument("name", type=click.Choice(list(PEERS)))
@click.option("--listen", multiple=True)
@click.option("--chunk-bytes", type=int, default=MIB)
def main(name: str, listen: tuple[str, ...], chunk_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the benchmark ends its servers
    PEERS[name](list(listen), chunk_bytes)


if __name__ == "__main__":
    main()
