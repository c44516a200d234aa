"""The pages of the documentation, as the tests read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(?P<head>[^`\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        language: such as python or console.
        text: the code, without the lines that are MyST's options.
        caption: the name of the file that it is, if it is one.
        line: where the code begins, for messages.
    """

    language: str
    text: str
    caption: str
    line: int


def blocks(path: Path) -> list[Block]:
    """The blocks of code of a page, in their order."""
    source = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(source):
        line = source.count("\n", 0, match.start("text")) + 1
        words = match["head"].split()
        if not words or (words[0].startswith("{") and words[0] != "{code-block}"):
            continue
        text, caption = match["text"], ""
        while option := re.match(r":(\w+): *(.*)\n+", text):
            caption = option[2] if option[1] == "caption" else caption
            line += option[0].count("\n")
            text = text[option.end() :]
        found.append(Block(words[-1], text, caption, line))
    return found


def tables(source: str) -> dict[str, list[tuple[str, ...]]]:
    """The rows of each table of a page by the head of its first column; code is without its backticks."""
    found: dict[str, list[tuple[str, ...]]] = {}
    rows: list[tuple[str, ...]] | None = None
    for line in source.splitlines():
        if not line.startswith("|"):
            rows = None
            continue
        cells = tuple(cell.strip().strip("`") for cell in line.strip("|").split(" | "))
        cells = tuple(cell.strip().strip("`") for cell in cells)
        if rows is None:
            rows = found.setdefault(cells[0], [])
        elif set("".join(cells)) - set("-: "):
            rows.append(cells)
    return found
