"""A server that plays scripted failures over a real socket."""

import threading
from concurrent.futures import ThreadPoolExecutor

import crc32c
import grpc

from _helpers.messages import messages
from seedbed.v1 import InitModelRequest, InitModelResponse, InitTensorRequest, InitTensorResponse

CHUNK = 64  # bytes; small, so that small tensors have many chunks


class Stream:
    """One attempt of a client, as seen by the script."""

    def __init__(self, method, request, context):
        self.request = request
        self.context = context
        self._parse = {"InitTensor": InitTensorResponse, "InitModel": InitModelResponse}[method].FromString  # type: ignore[attr-defined]
        self.right = list(messages(method, request, CHUNK))

    def message(self, index):
        return self._parse(self.right[index])

    def fail(self, code):
        self.context.abort(grpc.StatusCode[code], "ipv4:127.0.0.1 says: recvmsg: Connection reset by peer")


class ScriptedServer:
    """Plays one script for each attempt, and repeats the last one; None stands for the correct response."""

    def __init__(self):
        self.requests = []
        self.ended = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        handlers = {"InitTensor": InitTensorRequest, "InitModel": InitModelRequest}
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "seedbed.v1.InitService",
                    {
                        name: grpc.unary_stream_rpc_method_handler(self._handler(name), kind.FromString, None)  # type: ignore[attr-defined]
                        for name, kind in handlers.items()
                    },
                )
            ]
        )
        self._server.start()
        self.target = f"127.0.0.1:{self.port}"

    def play(self, *scripts):
        self._scripts = scripts

    def stop(self):
        self._server.stop(0).wait()

    def _handler(self, method):
        def handle(request, context):
            script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
            self.requests.append(request)
            context.add_callback(self.ended.set)
            stream = Stream(method, request, context)
            yield from script(stream) if script else stream.right

        return handle


def fails_with(code, after):
    def script(stream):
        yield from stream.right[:after]
        stream.fail(code)

    return script


def replaces(index, change):
    """Sends all messages, but replaces one."""

    def script(stream):
        for position in range(len(stream.right)):
            if position == index:
                message = stream.message(index)
                changed = change(message)
                yield changed if isinstance(changed, bytes) else message.SerializeToString()
            else:
                yield stream.right[position]

    return script


def sends(*order):
    def script(stream):
        yield from (stream.right[index] for index in order)

    return script


def set_chunk(**fields):
    def change(message):
        for name, value in fields.items():
            setattr(message.chunk, name, value)

    return change


def sealed(payload):
    return {"payload": payload, "crc32c": crc32c.crc32c(payload)}
