"""What security and monitoring cost: the same server with TLS, tokens, metrics or a log, and a plain one.

A second plain server shows how much of a difference is noise.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import trustme

import seedbed
from benchmarks import servers
from benchmarks.measuring import Part, Row, Say, Sizes, compare, gigabytes, rate
from benchmarks.peers import MIB

LAWS = ("uniform", "normal")
TOKEN = "seedbed_benchmark"
SMALL = (16, 16)  # 1 KiB


def measure(sizes: Sizes, say: Say) -> Part:
    part = Part(notes=["client and server share this machine's cores, also for encryption and decryption"])
    with contextlib.ExitStack() as stack:
        clients = _clients(stack)
        for law in LAWS:
            say(f"{law} over TLS, with tokens, ...")
            part.rows += _large(clients, law, sizes)
        say("small tensors over TLS, with tokens, ...")
        part.rows += _small(clients, sizes)
    return part


def _large(clients: dict[str, seedbed.Client], law: str, sizes: Sizes) -> list[Row]:
    out = np.zeros(sizes.transport_mib * MIB // 4, np.float32)
    spec = seedbed.spec(law, out.shape)
    competitors = {name: partial(client.init, spec, out=out) for name, client in clients.items()}
    return compare("operation", f"{law} float32", gigabytes(out.nbytes), sizes.transport_runs, competitors)


def _small(clients: dict[str, seedbed.Client], sizes: Sizes) -> list[Row]:
    spec = seedbed.spec("normal", SMALL)

    def repeat(client: seedbed.Client) -> None:
        for _ in range(sizes.latency_runs):
            client.init(spec)

    competitors = {name: partial(repeat, client) for name, client in clients.items()}
    unit = rate("tensors/s", sizes.latency_runs)
    return compare("operation, small tensors", "1 KiB, one after the other", unit, sizes.transport_runs, competitors)


def _clients(stack: contextlib.ExitStack) -> dict[str, seedbed.Client]:
    """Starts the servers, each in its own process, and connects a client to each."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    pem = _certificates(folder)
    tokens = folder / "tokens"
    tokens.write_text(f"benchmark:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n", encoding="ascii")
    tls = ["--tls-cert", pem["server.pem"], "--tls-key", pem["server.key"]]
    ca = {"ca": pem["ca.pem"]}
    certificate = {"cert": pem["client.pem"], "key": pem["client.key"]}
    setups: dict[str, tuple[list[str], dict[str, Any]]] = {
        "plain": ([], {}),
        "plain again": ([], {}),
        "tokens": (["--tokens", str(tokens)], {"token": TOKEN}),
        "metrics": (["--metrics", "0"], {}),
        "log": (["--log-level", "info", "--log-format", "json"], {}),
        "TLS": (tls, ca),
        "mutual TLS": ([*tls, "--tls-client-ca", pem["ca.pem"]], ca | certificate),
    }
    log = stack.enter_context((folder / "log").open("w"))
    return {name: _client(stack, arguments, options, log) for name, (arguments, options) in setups.items()}


def _client(stack: contextlib.ExitStack, arguments: list[str], options: dict[str, Any], log: Any) -> seedbed.Client:
    command = partial(_with, arguments)
    server = stack.enter_context(servers.serving(command, stderr=log))
    return stack.enter_context(seedbed.connect(server.tcp, **options))


def _with(further: list[str], arguments: list[str]) -> list[str]:
    return servers.seedbed([*arguments, *further])


def _certificates(folder: Path) -> dict[str, str]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("server", "client"):
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return {path.name: str(path) for path in folder.iterdir()}
