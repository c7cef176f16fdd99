"""TCP: a device that keeps what is not acknowledged, and sends it again after a lost connection."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from connectors.source import SourceStatus
from connectors.tcp.config import LengthPrefix, TcpConfig
from operators.spec import SECOND
from tests.conformance.proxy import Proxy
from tests.conformance.subject import CAP, FLOOD_PAYLOAD, Subject
from tests.ports import free_port
from tests.waiting import until

FLOODING = 100  # connections of a flood


class TcpSubject(Subject):
    """Frames with a length before them; 06 for each that is durable."""

    def __init__(self, tmp: Path) -> None:
        self.waivers = {
            "secrets": "a tcp source has none",
            "back_off": "the peers connect to a tcp source; their back-off is theirs",
            "a_peer_that_never_answers": "a tcp source asks nothing of its peers",
        }
        self._listens = self._port = free_port()
        self._tcp = TcpConfig(
            listen=f"127.0.0.1:{self._listens}",
            framing=LengthPrefix(size=4, max=CAP),
            acknowledge="06",
            silent_after=SECOND,
            max_frame=CAP,
        )
        self.config = self._tcp
        self._kept: deque[bytes] = deque()
        self._told = 0
        self._socket: socket.socket | None = None

    def send(self, payloads: Sequence[bytes]) -> None:
        self._kept.extend(payloads)
        with suppress(OSError):
            if self._socket is not None:
                self._write(list(payloads))
                self._hear()

    def told_safe(self) -> int:
        self._hear()
        return self._told

    def settle(self) -> None:
        until(self._all_acknowledged, "every acknowledgement", told=lambda: len(self._kept))

    def _all_acknowledged(self) -> bool:
        if self._kept and self._socket is None:
            with suppress(OSError):
                self._socket = socket.create_connection(("127.0.0.1", self._port), 1.0)
                self._socket.settimeout(5.0)
                self._write(list(self._kept))
        self._hear()
        return not self._kept

    def break_peer(self) -> None:
        if self._socket is not None:
            # reset: the peer's power is gone
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop()

    def interpose(self) -> Proxy:
        proxy = Proxy(self._listens)
        self._port = proxy.port
        self._tcp.idle_timeout = SECOND
        return proxy

    def noticed(self, status: SourceStatus) -> bool:
        return status.peers == 0

    def flood(self, over: threading.Event) -> None:
        frame = FLOOD_PAYLOAD.to_bytes(4, "big") + b"x" * FLOOD_PAYLOAD
        peers = [socket.create_connection(("127.0.0.1", self._port), 5.0) for _ in range(FLOODING)]
        left = [b""] * FLOODING
        while not over.is_set():
            for number, peer in enumerate(peers):
                with suppress(OSError):
                    peer.setblocking(False)
                    sent = peer.send(left[number] or frame)
                    left[number] = (left[number] or frame)[sent:]
                with suppress(OSError):
                    peer.recv(65_536)
        for peer in peers:
            peer.close()

    def close(self) -> None:
        self._drop()

    def _write(self, payloads: list[bytes]) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(b"".join(len(p).to_bytes(4, "big") + p for p in payloads))
        except OSError:
            self._drop()

    def _hear(self) -> None:
        if self._socket is None:
            return
        with suppress(BlockingIOError, TimeoutError):
            try:
                self._socket.setblocking(False)
                answer = self._socket.recv(65_536)
                self._socket.settimeout(5.0)
            except BlockingIOError:
                self._socket.settimeout(5.0)
                return
            except OSError:
                self._drop()
                return
            if not answer:
                self._drop()
            for _ in answer:
                self._kept.popleft()
                self._told += 1

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
