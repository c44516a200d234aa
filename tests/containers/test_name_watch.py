"""What the watch makes of the lines that its container prints."""

from __future__ import annotations

from name_watch import NameWatch

LINES = """\
0.0 0.1 10.89.0.2 10.89.0.3
0.6 0.7 10.89.0.2 10.89.0.3
1.2 21.2 ! Temporary failure in name resolution
21.7 41.7 ! Temporary failure in name resolution
42.2 42.3 10.89.0.3
"""
REPORT = """\
the name `server`, as another container resolved it (1 failure, up to 40 s):
  00:00:00     2 lookups  2 addresses: 10.89.0.2 10.89.0.3
  00:00:01     2 lookups  Temporary failure in name resolution
  00:00:42     1 lookups  1 addresses: 10.89.0.3"""


def watch(lines: str) -> NameWatch:
    return NameWatch(lambda *_, **__: lines, "watch")


def test_report_joins_equal_lookups():
    assert watch(LINES).report() == REPORT


def test_latest_lookup_counts():
    assert watch(LINES).lists({"10.89.0.3"})
    assert not watch(LINES).lists({"10.89.0.2"})
    assert not watch("").lists({"10.89.0.2"})
