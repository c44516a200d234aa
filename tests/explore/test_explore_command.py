"""The command ``seedbed explore``, which serves the page."""

import re
import signal
import socket
import sys
import urllib.request

import pytest
from _helpers.command import process
from _helpers.waiting import wait_until


def started(*options, **environment):
    command = process("explore", "--listen", "127.0.0.1:0", *options, **environment)
    line = command.stdout.readline()
    return command, re.fullmatch(r"exploring at (http://127\.0\.0\.1:\d+/) \(press Ctrl-C to stop\)\n", line)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(number):
    command, url = started("--no-browser")
    with urllib.request.urlopen(url, timeout=10) as response:
        assert b"<title>Seedbed explore</title>" in response.read()
    command.send_signal(number)
    out, err = command.communicate(timeout=20)
    assert (command.returncode, out, err) == (0, "", "")


def test_it_opens_the_browser(tmp_path, monkeypatch):
    script = tmp_path / "browser"
    script.write_text(
        f'#!/bin/sh\nexec > /dev/null 2>&1\nprintf %s "$1" > {tmp_path}/opened\nsleep 3\n', encoding="utf-8"
    )
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(script))
    command, url = started()
    assert wait_until(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text() == url)
    with urllib.request.urlopen(url, timeout=10) as response:  # served while the browser's process is running
        assert response.status == 200
    command.terminate()
    command.communicate(timeout=20)


REFUSALS = {
    "all addresses": ("0.0.0.0:8077", "0.0.0.0 is not a loopback address"),
    "another host": ("example.com:80", "ssh -L 80:127.0.0.1:80"),
    "no port": ("127.0.0.1", "'127.0.0.1' is not an address"),
    "a port out of range": ("127.0.0.1:65536", "is not an address; give HOST:PORT"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_other_machines_are_not_served(seedbed_command, name):
    address, message = REFUSALS[name]
    code, out, err = seedbed_command("explore", "--no-browser", "--listen", address)
    assert (code, out) == (2, "")
    assert message in err


def test_a_port_in_use_is_reported(seedbed_command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = seedbed_command("explore", "--no-browser", "--listen", address)
    assert (code, out) == (2, "")
    assert f"{address} is unavailable: " in err
    assert "--listen 127.0.0.1:0" in err


def test_a_missing_extra_is_reported(seedbed_command, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, out, err = seedbed_command("explore", "--no-browser")
    assert (code, out) == (2, "")
    assert "run: pip install 'seedbed[explore]'" in err


def test_an_unavailable_service_is_reported_immediately(seedbed_command):
    unavailable = ("--target", "127.0.0.1:1", "--wait", "0")
    code, out, err = seedbed_command("explore", "--no-browser", "--listen", "127.0.0.1:0", *unavailable)
    assert (code, out) == (3, "")
    assert "no Seedbed server answers at 127.0.0.1:1" in err


def test_another_target_is_used(server):
    command, url = started("--no-browser", "--target", server)
    with urllib.request.urlopen(f"{url}api/tensor?scheme=ones&shape=3", timeout=20) as response:
        assert f"--target {server}" in response.read().decode()
    command.terminate()
    command.communicate(timeout=20)
