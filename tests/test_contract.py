"""The contract, and that the committed messages are generated from it."""

import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2

from seedbed.v1 import init_pb2

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).parent / "buf"


def buf(*arguments: str) -> bytes:
    return subprocess.run([BUF, *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def test_the_contract_passes_buf_lint() -> None:
    assert buf("lint") == b""


def test_the_messages_are_the_contracts() -> None:
    """``make proto`` has been run since the contract changed."""
    [contract] = descriptor_pb2.FileDescriptorSet.FromString(buf("build", "--as-file-descriptor-set", "-o", "-")).file
    messages = descriptor_pb2.FileDescriptorProto.FromString(init_pb2.DESCRIPTOR.serialized_pb)
    contract.ClearField("source_code_info")
    for message in (contract, messages):  # names in JSON, which buf leaves out where they can be derived
        strip_json_names(message.message_type)
    assert contract == messages


def strip_json_names(messages) -> None:
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        strip_json_names(message.nested_type)


def test_the_types_name_every_field() -> None:
    stub = Path(init_pb2.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    for name, message in init_pb2.DESCRIPTOR.message_types_by_name.items():
        body = stub.partition(f"class {name}(")[2].partition("\nclass ")[0]
        for field in message.fields:
            assert f"\n    {field.name}: " in body, f"{name}.{field.name}"


def test_the_payload_is_the_last_field() -> None:
    """So that it can be framed and parsed without copying."""
    chunk = init_pb2.Chunk.DESCRIPTOR
    assert max(chunk.fields, key=lambda field: field.number).name == "payload"  # type: ignore[attr-defined]
    for response in (init_pb2.InitTensorResponse, init_pb2.InitModelResponse):
        assert max(response.DESCRIPTOR.fields, key=lambda field: field.number).name == "chunk"  # type: ignore[attr-defined]
