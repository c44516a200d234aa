"""A tensor larger than any machine's memory, through `iter_chunks`: neither process grows."""

import json
import platform
import resource
import subprocess
import sys

import pytest

MIB = 1 << 20

# In a process of its own, whose memory is nothing but the client's.
STREAM = """
import json, re, sys
from pathlib import Path
import seedbed
from seedbed.v1 import TensorSpec

def rss():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

spec = seedbed.spec("normal", (1 << 24, 1 << 20), name="64 TiB", seed=1)
readings, due, checked = [], 128 << 20, 0
with seedbed.connect(sys.argv[1]) as client:
    for offset, values in client.iter_chunks(spec):
        assert offset == checked
        checked += values.size
        if checked * 4 >= due:
            readings.append(rss())
            due += 256 << 20
        if checked * 4 >= 3 << 30:
            break
print(json.dumps({"bytes": checked * 4, "rss": readings}))
"""


@pytest.mark.nightly
def test_a_tensor_larger_than_memory(start_server):
    handle = start_server(backend="auto")
    client = subprocess.Popen([sys.executable, "-c", STREAM, handle.target], stdout=subprocess.PIPE, text=True)
    server_readings = []
    while client.poll() is None:
        server_readings.append(handle.rss())
        try:
            client.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            continue
    report = json.loads(client.stdout.read())
    assert report["bytes"] >= 3 << 30
    assert max(report["rss"]) - report["rss"][0] < 24 * MIB, report["rss"]
    settled = server_readings[len(server_readings) // 4]
    assert max(server_readings) - settled < 24 * MIB, server_readings


MESSAGES = """
import resource
import seedbed

seedbed.connect("localhost:1")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    bytearray(b"x" * (1 << 20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives freed messages back")
def test_a_client_keeps_the_memory_of_its_messages():
    ran = subprocess.run([sys.executable, "-c", MESSAGES], capture_output=True, check=True)
    pages_of_messages = 200 * MIB // resource.getpagesize()
    assert int(ran.stdout) < pages_of_messages / 10
