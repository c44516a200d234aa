"""Does what a page of the documentation tells its reader to do, and compares what is printed with what the page says.

    python tests/docs/runner.py docs/tutorial.md        in an empty folder

A block of ``python`` is run, and one of ``pycon`` is a doctest, all in one namespace; one with a caption is the file of
that name; ``console`` is typed into a shell, in which servers may run. The ports of the pages stand for free ones.
"""

import contextlib
import doctest
import re
import socket
import sys
import textwrap
from pathlib import Path

from pages import ROOT, blocks
from terminal import Terminal, environment

TIMEOUT = 300.0

# What differs from run to run.
VARIABLE = [
    (r"\b\d+\.\d+ s\b", "0.0 s"),
    (r"seedbed \d[\w.]* serving on", "seedbed 0 serving on"),
    (r"; backend .*", "; backend"),
    (r"(?m)[ \t]+$", ""),
]


# A page installs the release; what runs is this tree.
INSTALL = re.compile(r"(pip install .*)'seedbed(\[.*?\])'")


class PageError(Exception):
    """A page that is not right; the message says where."""


def run(page):
    """Does what a page says, in the current folder, which is empty."""
    Path("examples").symlink_to(ROOT / "examples")
    ports, namespace = Ports(), {"__name__": "page"}
    with Terminal(Path.cwd(), environment()) as terminal:
        for block in blocks(page):
            where = f"{page.name}:{block.line}"
            text = ports.free(block.text)
            if block.caption:
                Path(block.caption).write_text(text, encoding="utf-8")
            elif block.language == "python":
                exec(compile("\n" * (block.line - 1) + text, str(page), "exec"), namespace)
            elif block.language == "pycon":
                check_session(text, namespace, where, block.line)
            elif block.language == "console":
                type_in(terminal, text, ports, where)


def check_session(text, namespace, where, line):
    test = doctest.DocTestParser().get_doctest(text, namespace, where, where, line)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append, clear_globs=False)
    namespace.update(test.globs)
    if runner.failures:
        raise PageError("".join(report))


def type_in(terminal, text, ports, where):
    for command, expected in commands(text):
        code, output = terminal.run(command, TIMEOUT)
        expected, output = ports.as_shown(expected), ports.as_shown(output)
        if code:
            raise PageError(f"{where}: {command}\nexits with {code}:\n{output}")
        if expected and not matches(expected, output):
            difference = f"{where}: {command}\nshould print\n{textwrap.indent(expected, '    ')}"
            raise PageError(f"{difference}but prints\n{textwrap.indent(output, '    ')}")


def commands(text):
    """The commands of a console, each with what it prints according to the page."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif line.startswith("> "):
            found[-1][0] += f"\n{line[2:]}"
        else:
            found[-1][1] += f"{line}\n"
    return found


def matches(expected, output):
    for pattern, text in VARIABLE:
        expected, output = re.sub(pattern, text, expected), re.sub(pattern, text, output)
    return doctest.OutputChecker().check_output(expected, output, doctest.ELLIPSIS)


class Ports:
    """Free ports in the place of those on the pages, 50051 to 50053."""

    def __init__(self):
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            self._ports = {str(50051 + i): str(each.getsockname()[1]) for i, each in enumerate(sockets)}

    def free(self, text):
        text = INSTALL.sub(rf"\1'{ROOT}\2' '{ROOT}/server'", text)
        return re.sub(r"\b5005[123]\b", lambda match: self._ports[match[0]], text)

    def as_shown(self, text):
        for shown, free in self._ports.items():
            text = re.sub(rf"\b{free}\b", shown, text)
        return text


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve())
