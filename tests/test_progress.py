"""``progress=True`` draws a bar in Python as on the command line, and removes it if the work fails."""

import asyncio
import builtins
import sys
import types

import numpy as np
import pytest

import seedbed

SPECS = [seedbed.spec("normal", (300, 400), name=f"layers.{index}") for index in range(3)]
ALL_BYTES = "1.4/1.4 MiB"  # of the three tensors
BYTES_OF_ONE = "468.8/468.8 KiB"


@pytest.fixture(params=["local", "socket"])
def target(request):
    return "local:" if request.param == "local" else request.getfixturevalue("server")


@pytest.fixture
def client(target):
    with seedbed.connect(target) as client:
        yield client


@pytest.fixture
def terminal(monkeypatch):
    """Makes rich treat standard error as a terminal of this width."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


def test_every_call_that_has_progress_draws_a_bar(client, capsys):
    client.init(SPECS[0], progress=True)
    assert "layers.0" in (text := capsys.readouterr().err)
    assert BYTES_OF_ONE in text
    client.normal((300, 400), progress=True)
    assert "normal" in (text := capsys.readouterr().err)
    assert BYTES_OF_ONE in text
    assert [name for name, _ in client.init_model(SPECS, progress=True)] == [spec.name for spec in SPECS]
    captured = capsys.readouterr()
    assert "3 tensors" in captured.err
    assert ALL_BYTES in captured.err
    assert captured.out == ""


def test_coroutines_draw_bars_at_the_same_time(target, capsys):
    async def main():
        async with seedbed.aio.connect(target) as client:
            await asyncio.gather(*(client.init(spec, progress=True) for spec in SPECS))
            return [name async for name, _ in client.init_model(SPECS, progress=True)]

    assert asyncio.run(main()) == [spec.name for spec in SPECS]
    text = capsys.readouterr().err
    assert all(f"{name} " in text for name in ("layers.0", "layers.1", "layers.2", "3 tensors"))
    assert text.count(BYTES_OF_ONE) >= 3


def test_a_bar_disappears_if_the_work_fails(client, terminal, capsys):
    def abandoned():
        for name, _ in client.init_model(SPECS, progress=True):
            if name == "layers.1":
                return

    def failing():
        arrays = client.init_model(SPECS, progress=True)
        next(arrays)
        with pytest.raises(KeyError):
            arrays.throw(KeyError())

    for call in (abandoned, failing):
        call()
        text = capsys.readouterr().err
        assert ALL_BYTES not in text
        assert text.rstrip("\r").endswith("\x1b[2K\x1b[?25h")  # the line is erased, the cursor shown
    client.init(SPECS[0], progress=True)
    text = capsys.readouterr().err
    assert BYTES_OF_ONE in text
    assert text.endswith("\n\x1b[?25h")


def test_an_invalid_progress_is_refused_before_any_work(client, monkeypatch):
    with pytest.raises(seedbed.InvalidRequest, match="progress: is a str; give a function that takes the bytes done"):
        client.init(SPECS[0], progress="yes")
    assert client.init(SPECS[0], progress=False).shape == (300, 400)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    for call in (lambda: client.ones(3, progress=True), lambda: client.init_model(SPECS, progress=True)):
        with pytest.raises(seedbed.InvalidRequest, match=r"not installed; pip install 'seedbed\[cli\]'"):
            call()


class Handle:
    """A display handle of a notebook."""

    def __init__(self, output):
        self.outputs = [self._text(output)]

    def update(self, output):
        self.outputs.append(self._text(output))

    def _text(self, output):
        return output if isinstance(output, str) else output._repr_mimebundle_((), ())["text/html"]


def test_a_bar_in_a_notebook_is_replaced_in_place(client, monkeypatch, capsys):
    handles = []

    def display(output, display_id):
        handles.append(Handle(output))
        return handles[-1]

    shell = type("ZMQInteractiveShell", (), {})()  # rich recognises a notebook by this name
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    ipython = types.SimpleNamespace(display=display, HTML=lambda text: text)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=ipython))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    client.init(SPECS[0], progress=True)
    assert BYTES_OF_ONE in handles[0].outputs[-1]
    for _ in client.init_model(SPECS, progress=True):
        break
    assert "3 tensors" in "".join(handles[1].outputs)
    assert handles[1].outputs[-1] == ""
    assert capsys.readouterr() == ("", "")


def test_a_callback_is_called_until_all_bytes_are_done(client):
    calls = []
    client.init(SPECS[0], out=np.empty((300, 400), np.float32), progress=lambda *call: calls.append(call))
    assert calls[-1] == (480_000, 480_000)
