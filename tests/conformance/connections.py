"""Many TCP connections at once: what they cost, that each is served, and what comes beyond the cap.

`python -m tests.conformance.connections --count 20000` prints what it found as JSON; the test suite runs
2,000. Peers come from 127.0.0.1, 127.0.0.2 and so on, a thousand each.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click

from connectors.tcp.config import LengthPrefix, TcpConfig
from connectors.tcp.source import OTHER_FILES
from operators.spec import SECOND
from tests.conformance.processes import Processes
from tests.ports import free_port
from tests.waiting import LIMIT_S

A_HOST = 1000
BEYOND = 50  # connections more than the cap
SLOW = 200  # peers that begin a frame and never end it
FRAME = b"\x00\x05hello"


def many(count: int, folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Open `count` connections, have a frame of each acknowledged, twice; raises AssertionError where one
    is not. Two hundred begin a frame that they never end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + BEYOND + OTHER_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        count, wanted = hard - BEYOND - OTHER_FILES, hard
        say(f"the hard limit of open files is {hard}: {count} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    port = free_port()
    config = TcpConfig(
        listen=f"127.0.0.1:{port}",
        framing=LengthPrefix(),
        acknowledge="06",
        max_connections=count,
        max_connections_per_peer=A_HOST,
        frame_timeout=SECOND,
    )
    processes = Processes(config, folder / "data")
    try:
        processes.wait_state("connected")
        idle = processes.resident_bytes()
        with ExitStack() as stack:
            peers = [stack.enter_context(_connect(port, number)) for number in range(count)]
            processes.until(lambda: processes.status()["metrics"]["receiver_peers"] == count, "every peer")
            open_bytes = processes.resident_bytes()
            say(f"{count} connections: {(open_bytes - idle) / count / 1000:.1f} KB each")
            began = time.monotonic()
            _served(peers)
            round_s = time.monotonic() - began
            busy_bytes = processes.resident_bytes()
            beyond = [stack.enter_context(_connect(port, count + number)) for number in range(BEYOND)]
            processes.until(
                lambda: processes.status()["metrics"]["receiver_refused_total"] == BEYOND, "their refusal"
            )
            assert all(_ended(peer) for peer in beyond)
            _served(peers[:SLOW])
            for peer in peers[:SLOW]:
                peer.sendall(FRAME[:-1])
            processes.until(
                lambda: processes.status()["metrics"]["receiver_peers"] == count - SLOW, "the end of the slow"
            )
            assert all(_ended(peer) for peer in peers[:SLOW])
            _served(peers[SLOW:])
        processes.until(lambda: processes.status()["metrics"]["receiver_peers"] == 0, "the end of all")
        expected = 2 * count
        processes.until(lambda: processes.journaled().count(FRAME[2:]) == expected, "every frame")
        return {
            "connections": count,
            "idle_mb": round(idle / 1e6, 1),
            "open_kb_each": round((open_bytes - idle) / count / 1e3, 2),
            "busy_mb": round(busy_bytes / 1e6, 1),
            "round_s": round(round_s, 2),
            "refused": BEYOND + SLOW,
        }
    finally:
        processes.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connect(port: int, number: int) -> socket.socket:
    """A peer of its thousand's host."""
    peer = socket.socket()
    peer.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: a port is chosen at connect()
    peer.bind((f"127.0.{number // A_HOST // 250}.{number // A_HOST % 250 + 1}", 0))
    peer.settimeout(LIMIT_S)
    peer.connect(("127.0.0.1", port))
    return peer


def _served(peers: list[socket.socket]) -> None:
    """A frame of each, all acknowledged."""
    waiting = selectors.DefaultSelector()
    for peer in peers:
        peer.sendall(FRAME)
        waiting.register(peer, selectors.EVENT_READ)
    until = time.monotonic() + LIMIT_S
    while left := len(waiting.get_map()):
        assert time.monotonic() < until, f"{left} peers got no acknowledgement"
        for key, _ in waiting.select(1.0):
            answering = key.fileobj
            assert isinstance(answering, socket.socket)
            assert answering.recv(10) == b"\x06"
            waiting.unregister(answering)
    waiting.close()


def _ended(peer: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return peer.recv(10) == b""
    return True


@click.command()
@click.option("--count", default=20_000, show_default=True)
def main(count: int) -> None:
    """Open COUNT connections to a TCP source and say what they cost."""
    with tempfile.TemporaryDirectory(prefix="penstock-connections-") as folder:
        click.echo(json.dumps(many(count, Path(folder))))


if __name__ == "__main__":
    main()
