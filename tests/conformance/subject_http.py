"""HTTP: a program that keeps what is not answered with 200, and posts it again under the same key."""

from __future__ import annotations

import hashlib
import http.client
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from connectors.http.config import HttpConfig
from connectors.source import SourceStatus
from operators.spec import SECOND
from tests.conformance.proxy import Proxy
from tests.conformance.subject import CAP, FLOOD_PAYLOAD, Subject
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

FLOODING = 8  # connections of a flood


class HttpSubject(Subject):
    """Ten frames a post, each post under a key."""

    secret = "s3cret-of-ingest"
    exactly_once = True

    def __init__(self, tmp: Path) -> None:
        self.waivers = {
            "back_off": "programs connect to an http source; their back-off is theirs",
            "a_peer_that_never_answers": "an http source asks nothing of its peers",
        }
        self._listens = self._port = free_port()
        self._http = HttpConfig(
            listen=f"127.0.0.1:{self._listens}",
            api_keys=[self.secret],
            max_frame=CAP,
            silent_after=SECOND,
        )
        self.config = self._http
        self._patience_s = 20.0
        self._kept: deque[list[bytes]] = deque()
        self._told = 0
        self._closed = threading.Event()
        self._more = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._post_all, daemon=True)
        self._thread.start()

    def send(self, payloads: Sequence[bytes]) -> None:
        self._kept.extend(list(payloads[at : at + 10]) for at in range(0, len(payloads), 10))
        self._more.set()

    def told_safe(self) -> int:
        return self._told

    def settle(self) -> None:
        until(lambda: not self._kept, "an answer with 200 to every post", told=lambda: len(self._kept))

    def break_peer(self) -> None:
        if self._connection is not None and self._connection.sock is not None:
            with suppress(OSError):
                self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connection.close()

    def interpose(self) -> Proxy:
        proxy = Proxy(self._listens)
        self._port = proxy.port
        self._patience_s = 2.0
        self._http.body_timeout = SECOND
        return proxy

    def noticed(self, status: SourceStatus) -> bool:
        return status.extra.get("requests") == 0.0

    def flood(self, over: threading.Event) -> None:
        body = b"\n".join([b"x" * FLOOD_PAYLOAD] * 20)
        head = (
            f"POST /ingest/flood HTTP/1.1\r\nHost: a\r\nX-API-Key: {self.secret}\r\n"
            f"Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        threads = [
            threading.Thread(target=self._flood, args=(head.encode(), body, over)) for _ in range(FLOODING)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        self._closed.set()
        self._more.set()
        self._thread.join(LIMIT_S)

    def _flood(self, head: bytes, body: bytes, over: threading.Event) -> None:
        while not over.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.5) as peer:
                peer.sendall(head)
                peer.sendall(body)
                peer.recv(65_536)

    def _post_all(self) -> None:
        while not self._closed.is_set():
            self._more.wait()
            self._more.clear()
            while self._kept and not self._closed.is_set():
                posted = self._kept[0]
                try:
                    good = self._post(posted)
                except (OSError, http.client.HTTPException):
                    good = False
                    self._connection = None
                if good:
                    self._told += len(posted)
                    self._kept.popleft()
                else:
                    time.sleep(0.05)

    def _post(self, payloads: list[bytes]) -> bool:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._patience_s)
        body = b"\n".join(payloads)
        headers = {
            "X-API-Key": self.secret,
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": hashlib.sha256(body).hexdigest(),
        }
        self._connection.request("POST", "/ingest/line", body, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == 200
