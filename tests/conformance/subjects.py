"""The connectors that the conformance suite runs over, each with the peer that proves it.

A subject knows how to configure its receiver, how its peer sends, and what the peer was told is
safe. A waiver names a test that a subject cannot pass, and why.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.mqtt.config import MqttConfig
from connectors.tcp.config import LengthPrefix, TcpConfig
from flows.broker import Broker, BrokerKind, free_port, start_broker
from flows.plant_file import SourceConfig
from operators.spec import MILLISECOND, SECOND
from tests.receivers.brokers import Publisher, need_mosquitto

CAP = 100_000  # of a frame, as configured


class Subject(Protocol):
    """One connector with its peer; everything it does blocks."""

    waivers: dict[str, str]
    config: SourceConfig
    secret: str | None

    def send(self, payloads: Sequence[bytes]) -> None:
        """Give these to the source; return without waiting for its acknowledgement."""

    def told_safe(self) -> int:
        """How many payloads the source (or the broker between) has said are safe."""

    def settle(self) -> None:
        """Wait until everything sent has been told safe."""

    def break_peer(self) -> None:
        """The peer dies and comes back."""

    def close(self) -> None: ...


class MqttSubject:
    """A broker between: what it has acknowledged to the device is the source's to lose."""

    secret: str | None = "s3cret-of-line"

    def __init__(self, tmp: Path, kind: BrokerKind) -> None:
        if kind == "mosquitto":
            need_mosquitto()
        self.waivers = {"what_is_not_durable_comes_again": "", "sigkill": "", "peer_returns": ""}
        why = "amqtt neither sends again what was in flight nor outlives its own end; for the demo"
        self.waivers = dict.fromkeys(self.waivers, why) if kind == "amqtt" else {}
        self._data = tmp / f"broker-{kind}"
        self._broker: Broker = start_broker(self._data, kind=kind)
        self.config: SourceConfig = MqttConfig(
            host="127.0.0.1",
            port=self._broker.address[1],
            subscribe=["plant/#"],
            username="line",
            password=self.secret,
            silent_after=SECOND,
            max_payload=CAP,
        )
        self._publisher = Publisher(self._broker)

    def send(self, payloads: Sequence[bytes]) -> None:
        self._publisher.send(payloads)

    def told_safe(self) -> int:
        return len(self._publisher.acknowledged)

    def settle(self) -> None:
        self._publisher.wait()

    def break_peer(self) -> None:
        port = self._broker.address[1]
        time.sleep(1.5)  # it saves once a second what it has acknowledged
        self._broker.kill()
        self._broker = start_broker(self._data, port, self._broker.kind)

    def close(self) -> None:
        self._publisher.close()
        self._broker.stop()


class TcpSubject:
    """A device that keeps what is not acknowledged, and sends it again after a lost connection."""

    secret: str | None = None

    def __init__(self, tmp: Path) -> None:
        self.waivers = {"secrets": "a tcp source has none"}
        self._port = free_port()
        self.config: SourceConfig = TcpConfig(
            listen=f"127.0.0.1:{self._port}",
            framing=LengthPrefix(size=4, max=CAP),
            acknowledge="06",
            silent_after=SECOND,
        )
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
        until = time.monotonic() + 60
        while self._kept:
            assert time.monotonic() < until, f"{len(self._kept)} frames never acknowledged"
            if self._socket is None:
                with suppress(OSError):
                    self._socket = socket.create_connection(("127.0.0.1", self._port), 1.0)
                    self._socket.settimeout(5.0)
                    self._write(list(self._kept))
            self._hear()
            time.sleep(0.01)

    def break_peer(self) -> None:
        if self._socket is not None:
            # reset: the peer's power is gone
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop()

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


class FilesSubject:
    """Files dropped by rename; safe = moved to done/."""

    secret: str | None = None

    def __init__(self, tmp: Path) -> None:
        self.waivers = {
            "secrets": "a files source has none",
            "silence": "a folder without files is what it is most of the time",
        }
        self._inbox = tmp / "inbox"
        self._count = 0
        self._sizes: dict[str, int] = {}
        self.config: SourceConfig = FilesConfig(
            watch=str(self._inbox),
            pattern="*.csv",
            header=False,
            poll=20 * MILLISECOND,
            settle=40 * MILLISECOND,
            max_frame=CAP,
        )

    def send(self, payloads: Sequence[bytes]) -> None:
        self._inbox.mkdir(exist_ok=True)
        self._count += 1
        name = f"{self._count:05d}.csv"
        beside = self._inbox / f".{name}"
        beside.write_bytes(b"".join(payload + b"\n" for payload in payloads))
        os.utime(beside, (self._count, self._count))
        beside.rename(self._inbox / name)
        self._sizes[name] = len(payloads)

    def told_safe(self) -> int:
        done = self._inbox / "done"
        return sum(self._sizes[path.name] for path in done.iterdir()) if done.is_dir() else 0

    def settle(self) -> None:
        until = time.monotonic() + 60
        while self.told_safe() < sum(self._sizes.values()):
            assert time.monotonic() < until, "files never moved to done/"
            time.sleep(0.02)

    def break_peer(self) -> None:
        """The folder's file system goes away and comes back empty."""
        gone = self._inbox.with_name("gone")
        self._inbox.rename(gone)
        time.sleep(0.3)
        shutil.rmtree(gone)
        self._sizes.clear()

    def close(self) -> None:
        """Nothing to let go of."""


class HttpSubject:
    """A program that keeps what is not answered with 200, and posts it again under the same key."""

    secret: str | None = "s3cret-of-ingest"

    def __init__(self, tmp: Path) -> None:
        self.waivers: dict[str, str] = {}
        self._port = free_port()
        self.config: SourceConfig = HttpConfig(
            listen=f"127.0.0.1:{self._port}",
            api_keys=[str(self.secret)],
            max_frame=CAP,
            silent_after=SECOND,
        )
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
        until = time.monotonic() + 60
        while self._kept:
            assert time.monotonic() < until, f"{len(self._kept)} posts never answered with 200"
            time.sleep(0.01)

    def break_peer(self) -> None:
        if self._connection is not None and self._connection.sock is not None:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connection.close()

    def close(self) -> None:
        self._closed.set()
        self._more.set()
        self._thread.join(30)

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
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        body = b"\n".join(payloads)
        headers = {
            "X-API-Key": str(self.secret),
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": hashlib.sha256(body).hexdigest(),
        }
        self._connection.request("POST", "/ingest/line", body, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == 200


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "mqtt-mosquitto": lambda tmp: MqttSubject(tmp, "mosquitto"),
    "mqtt-amqtt": lambda tmp: MqttSubject(tmp, "amqtt"),
    "tcp": TcpSubject,
    "http": HttpSubject,
    "files": FilesSubject,
}


def in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Blocking work of a subject beside a receiver in this event loop."""
    return asyncio.ensure_future(asyncio.to_thread(work))


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code of a process that must end within so many seconds."""
    return process.wait(seconds)
