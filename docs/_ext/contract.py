"""Renders proto/seedbed/v1/init.proto: replaces `{{ contract }}` on a page by its services, messages and enumerations.

Buf reads the file with its comments, so nothing is written twice.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = "reference/contract"
MARK = "{{ contract }}"

# Field numbers of descriptor.proto. The path of a comment consists of these numbers and of indices.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _VALUES, _METHODS = 2, 2, 2

_SCALARS = {
    getattr(FieldDescriptorProto, name): name.removeprefix("TYPE_").lower()
    for name in FieldDescriptorProto.Type.keys()  # noqa: SIM118 - an enumeration of protobuf is not a mapping
}

Comments = dict[tuple[int, ...], str]
Path_ = tuple[int, ...]


def read_contract() -> FileDescriptorProto:
    """The contract's descriptor, with its comments.

    Raises:
        RuntimeError: If Buf is not installed with this Python.
        subprocess.CalledProcessError: If Buf refuses the file.
    """
    buf = Path(sys.executable).with_name("buf")
    if not buf.exists():
        raise RuntimeError(f"{buf} is missing; run: pip install buf-bin")
    command = [buf, "build", "proto", "--as-file-descriptor-set", "-o", "-"]
    image = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    [file] = [file for file in FileDescriptorSet.FromString(image).file if file.name.endswith("/init.proto")]
    return file


def render(file: FileDescriptorProto) -> str:
    """The contract as Markdown."""
    comments = {
        tuple(location.path): _paragraphs(location.leading_comments)
        for location in file.source_code_info.location
        if location.leading_comments
    }
    blocks: list[str] = []
    for index, service in enumerate(file.service):
        blocks += _service(service, comments, (_SERVICES, index))
    blocks.append("## Messages")
    for index, message in enumerate(file.message_type):
        blocks += _message(message, comments, (_MESSAGES, index))
    blocks.append("## Enumerations")
    for index, enum in enumerate(file.enum_type):
        blocks += _enum(enum, comments, (_ENUMS, index))
    return "\n\n".join(blocks) + "\n"


def _service(service: ServiceDescriptorProto, comments: Comments, path: Path_) -> Iterator[str]:
    yield f"## {service.name}"
    yield _text(comments[path])
    rows = [
        (
            f"`{method.name}`",
            _link(method.input_type),
            f"{'a stream of ' if method.server_streaming else ''}{_link(method.output_type)}",
            _text(comments[*path, _METHODS, index]),
        )
        for index, method in enumerate(service.method)
    ]
    yield _table(("call", "request", "response", ""), rows)


def _message(message: DescriptorProto, comments: Comments, path: Path_) -> Iterator[str]:
    yield f"### {message.name}"
    yield _text(comments[path])
    if not message.field:
        return
    rows = [
        (f"`{field.name}`", str(field.number), _type(field, message), _text(comments[*path, _FIELDS, index]))
        for index, field in enumerate(message.field)
    ]
    yield _table(("field", "no.", "type", ""), rows)


def _enum(enum: EnumDescriptorProto, comments: Comments, path: Path_) -> Iterator[str]:
    yield f"### {enum.name}"
    yield _text(comments[path])
    rows = [
        (f"`{value.name}`", str(value.number), _text(comments[*path, _VALUES, index]))
        for index, value in enumerate(enum.value)
    ]
    yield _table(("value", "no.", ""), rows)


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    name = _link(field.type_name) if field.type_name else f"`{_SCALARS[field.type]}`"
    if field.proto3_optional:
        return f"optional {name}"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.HasField("oneof_index"):
        return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return name


def _link(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _text(comment: str) -> str:
    """Escapes a comment, so that Markdown shows it as it was written."""
    return re.sub(r"([\\*_<>\[\]`#])", r"\\\1", comment)


def _paragraphs(comment: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in comment.split("\n\n"))


def _insert(app: Sphinx, page: str, source: list[str]) -> None:
    if page == PAGE:
        app.env.note_dependency(ROOT / "proto/seedbed/v1/init.proto")
        source[0] = source[0].replace(MARK, render(read_contract()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Sets up the extension, for Sphinx."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
