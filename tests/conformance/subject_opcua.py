"""OPC UA: a server of another maker with a text that changes; safe is what the source has acknowledged.

A payload is a value of the text, its bytes as the characters of these numbers.
"""

from __future__ import annotations

import atexit
import functools
import os
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from connectors.opcua.config import OpcuaConfig
from operators.spec import MILLISECOND, SECOND
from tests.conformance.proxy import Proxy
from tests.conformance.subject import FLOOD_PAYLOAD, Subject
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OpcuaServer
from tests.waiting import until

PASSWORD = "s3cret-of-scada"


@functools.cache
def shared_server() -> OpcuaServer:
    """One for all tests of a process: a start takes seconds."""
    lacking = why_not()
    if lacking:
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(f"waived: {lacking}")
    folder = tempfile.TemporaryDirectory(prefix="opcua-", ignore_cleanup_errors=True)
    made = OpcuaServer(Path(folder.name), [], user="line", password=PASSWORD)
    atexit.register(folder.cleanup)
    atexit.register(made.close)
    return made


class OpcuaSubject(Subject):
    """Each has a node of its own at the server."""

    secret = PASSWORD
    connects = True
    exactly_once = True
    piece = 20
    cut = (5_000, 20_000)

    def __init__(self, tmp: Path) -> None:
        self.waivers: dict[str, str] = {}
        self._server = shared_server()
        self._name = f"text{time.monotonic_ns()}"
        node = ("line", self._name, "String", "")
        self._server.nodes = [node]
        self._server.tell(add=node)
        (tmp / "nodes.csv").write_text(
            f"node_id,device_id,metric,sampling_ms\nnsu={NAMESPACE};s=line.{self._name},line,{self._name},0\n"
        )
        self.config = self._opcua = OpcuaConfig(
            endpoint=self._server.endpoint,
            nodes="nodes.csv",
            publishing=20 * MILLISECOND,
            queue=5000,
            username="line",
            password=PASSWORD,
            silent_after=SECOND,
        )
        self._sent = self._safe = 0
        self._before = self._server.counts()["texts"]
        self._speaking = threading.Lock()

    def send(self, payloads: Sequence[bytes]) -> None:
        with self._speaking:
            self._server.tell(
                send=f"line.{self._name}", texts=[payload.decode("latin-1") for payload in payloads]
            )
            self._sent += len(payloads)

    def told_safe(self) -> int:
        with self._speaking:
            return self._safe + self._server.counts()["texts"] - self._before

    def settle(self) -> None:
        until(lambda: self.told_safe() >= self._sent, f"{self._sent} acknowledgements", told=self.told_safe)

    def break_peer(self) -> None:
        self._safe, self._before = self.told_safe(), 0
        self._server.kill()
        self._server.start()

    def interpose(self) -> Proxy:
        proxy = Proxy(self._server.port)
        self.config = msgspec.structs.replace(
            self._opcua, endpoint=f"opc.tcp://127.0.0.1:{proxy.port}", timeout=SECOND
        )
        return proxy

    def read(self, frame: bytes) -> list[bytes]:
        """The texts of a typed frame, in the order of its values; nothing is told of an empty one."""
        _, rows, names, texts, size = struct.unpack_from("<4sIHHI", frame)
        ends = struct.unpack_from(f"<{names + texts}I", frame, 16)
        first = 16 + 4 * (names + texts)
        found = []
        for row in range(rows):
            at = first + size + 28 * row
            (value,), (kind,) = (
                struct.unpack_from("<d", frame, at + 16),
                struct.unpack_from("<B", frame, at + 26),
            )
            assert kind == 3
            which = names + int(value)
            start = ends[which - 1]
            found.append(frame[first + start : first + ends[which]].decode().encode("latin-1"))
        return [text for text in found if text]

    def flood(self, over: threading.Event) -> None:
        """Some 10 MB a second, each another: what stays the same is no change. The server keeps in its
        queue what nobody asks for."""
        number = 0
        while not over.is_set():
            self.send([b"%08d" % (number + more) + b"x" * FLOOD_PAYLOAD for more in range(5)])
            number += 5
            over.wait(0.02)
