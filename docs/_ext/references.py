"""Resolves names in single backticks in docstrings, and shows types in signatures as the source does."""

import inspect
import re
from typing import Any

import contract
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import stringify_signature

from seedbed.v1 import init_pb2

_MESSAGES = {*init_pb2.DESCRIPTOR.message_types_by_name, *init_pb2.DESCRIPTOR.enum_types_by_name}


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Node | None:
    """Resolves a name; None, which Sphinx reports as a warning, if it is unknown.

    * a command such as `seedbed verify`: no link, but no warning
    * a message of the contract: its place on the page of the contract
    * a public name of `seedbed`, from another module: its documentation
    """
    if node.get("refdomain") != "py":
        return None
    target, page = str(node["reftarget"]), str(node["refdoc"])
    name = target.rpartition(".")[2]
    if " " in target:
        return nodes.literal("", target)
    if name in _MESSAGES and target in (name, f"seedbed.v1.{name}", f"seedbed.v1.init_pb2.{name}"):
        uri = f"{app.builder.get_relative_uri(page, contract.PAGE)}#{name.lower()}"
        return nodes.reference("", "", content, internal=True, refuri=uri, reftitle=f"{name} in the contract")
    python: Any = env.domains["py"]
    if target == name and f"seedbed.{name}" in python.objects:
        return python.resolve_xref(env, page, app.builder, "obj", f"seedbed.{name}", node, content)
    return None


def signature(_app: Sphinx, what: str, _name: str, thing: Any, *_: object) -> tuple[str, str] | None:  # noqa: ANN401
    """Returns arguments and result as written in the source; autodoc would expand aliases."""
    if what not in ("function", "method"):
        return None
    written = inspect.signature(thing)
    parameters = [parameter for name, parameter in written.parameters.items() if name != "self"]
    arguments = stringify_signature(written.replace(parameters=parameters), show_return_annotation=False)
    return arguments.replace("= Ellipsis", "= ..."), str(written.return_annotation)


def escape(_app: Sphinx, _context: Any, lines: list[str]) -> None:  # noqa: ANN401
    """Escapes an asterisk in the help of an option, which sphinx-click passes on as markup."""
    lines[:] = [re.sub(r"(?<!\*)\*(?!\*)", r"\*", line) for line in lines]


def examples(_app: Sphinx, _context: Any, lines: list[str]) -> None:  # noqa: ANN401
    """Formats as code the paragraphs that click must not wrap."""
    out: list[str] = []
    block = False
    for line in lines:
        is_code = line.startswith("| ") and (line.startswith("|  ") or not line.endswith(":"))
        if is_code and not block:
            out += ["", ".. code-block:: text", ""]
        out.append(f"  {line[2:]}" if is_code else line.removeprefix("| "))
        block = is_code
    lines[:] = out


def dashes(_app: Sphinx, tree: nodes.document) -> None:
    """Replaces the dashes between a parameter and its meaning, because Sphinx's typography is off."""
    for text in list(tree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> dict[str, Any]:
    """Sets up the extension, for Sphinx."""
    app.connect("autodoc-process-signature", signature)
    app.connect("missing-reference", resolve)
    app.connect("doctree-read", dashes)
    app.connect("sphinx-click-process-options", escape)
    app.connect("sphinx-click-process-description", examples)
    app.connect("sphinx-click-process-epilog", examples)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
