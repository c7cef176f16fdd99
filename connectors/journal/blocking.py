"""Blocking clients of the journal process: one for the command line, the supervisor and tests, and
the watch that the flow waits on."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from connectors.errors import JournalError, JournalFull
from connectors.journal import wire
from connectors.journal.entries import pack_frames, split
from connectors.source import Frame

WATCH_RETRY: Final = 0.1  # seconds between attempts to subscribe again


class BlockingJournalClient:
    """One connection to the journal process; every call waits for its answer.

    Raises JournalError where the journal cannot be reached or ends the connection: whether what
    was asked has been done is then unknown, and a new client is needed.
    """

    def __init__(self, data: Path, source: str = "cli", *, timeout: float = 30.0) -> None:
        """data: the data directory; source: the name that frames appended here come from."""
        path = wire.socket_path(data)
        self.source = source
        self.timeout = timeout
        self._sequence = 0
        self._asked = 0
        try:
            self._socket = wire.connect(path, timeout)
        except OSError as error:
            raise JournalError(f"no journal process answers at {path}: {error}") from error
        hello = {"session": os.urandom(16), "name": source, "watch": False}
        self._say(wire.HELLO, 0, msgspec.msgpack.encode(hello))
        self._expect(wire.WELCOME, 0)

    def __enter__(self) -> BlockingJournalClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, frames: Sequence[Frame], key: str | None = None, *, source: str | None = None) -> int:
        """Durable when it returns: the position of the first frame. Raises JournalFull while the
        journal is at its cap. key: as with `JournalClient.append`."""
        if not frames:
            raise ValueError("no frames to append")
        first = None
        for number, run in enumerate(split(frames)):
            name = f"{key}#{number}".encode() if key is not None else b""
            body = pack_frames(source or self.source, run)
            position, _ = self._numbered(wire.APPEND, wire.KEY_SIZE.pack(len(name)), name, body)
            first = position if first is None else first
        assert first is not None
        return first

    def control(self, kind: str, data: Mapping[str, object]) -> int:
        """A control entry, e.g. `plant` {"sha256": text, "files": {path: bytes}}; durable when it
        returns its entry number."""
        return self._numbered(wire.CONTROL, msgspec.msgpack.encode([kind, dict(data)]))[1]

    def durable(self, entry: int) -> None:
        """Everything up to `entry` is durable elsewhere: it may be trimmed."""
        self._say(wire.DURABLE, entry)

    def status(self) -> dict[str, Any]:
        """What the status file holds, as of now."""
        self._asked += 1
        self._say(wire.STATUS, self._asked)
        return dict(msgspec.json.decode(self._expect(wire.ANSWER, self._asked)))

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def _numbered(self, kind: int, *body: bytes | bytearray) -> tuple[int, int]:
        self._sequence += 1
        self._say(kind, self._sequence, *body)
        try:
            position, entry = wire.ACK_BODY.unpack(self._expect(wire.ACK, self._sequence))
        except JournalFull:
            self._sequence -= 1
            raise
        return position, entry

    def _say(self, kind: int, number: int, *body: bytes | bytearray) -> None:
        try:
            self._socket.sendall(wire.message(kind, number, *body))
        except OSError as error:
            raise JournalError(f"lost the journal process: {error}") from error

    def _expect(self, wanted: int, number: int) -> bytes:
        while True:
            try:
                size, kind, about = wire.HEAD.unpack(self._read(wire.HEAD.size))
                body = self._read(size)
            except TimeoutError as error:
                seconds = self._socket.gettimeout() or 0.0
                raise JournalError(
                    f"the journal has not answered within {seconds:.0f} s (a disk or brokers that are "
                    "away?); what was asked may still be done once it is well, see penstock top"
                ) from error
            except OSError as error:
                raise JournalError(f"lost the journal process: {error}") from error
            if kind == wire.FULL and about == number:
                raise JournalFull("the journal is at its cap; it takes entries again once it was trimmed")
            if kind == wire.REFUSED:
                raise JournalError(f"the journal refused: {body.decode(errors='replace')}")
            if kind == wanted and (about == number or kind == wire.WELCOME):
                return body

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise ConnectionError("the connection ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class JournalWatch:
    """Wakes on commits, and reports what is durable; never blocks but in `wait`.

    While the journal process is away, `wait` only sleeps, and the subscription is made again when
    it is back; the last durable entry is then reported again.
    """

    def __init__(self, data: Path, name: str = "flow") -> None:
        """data: the data directory."""
        self._path = wire.socket_path(data)
        self._name = name
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self._durable = 0
        self._unsent = b""

    def wait(self, seconds: float) -> bool:
        """Until the journal commits, at most `seconds`; whether it did (or may have)."""
        if self._socket is None and not self._connect():
            time.sleep(seconds)
            return True
        assert self._socket is not None
        if not select.select([self._socket], [], [], seconds)[0]:
            return False
        try:
            if not self._socket.recv(65_536):
                self._drop()
        except BlockingIOError:
            return False
        except OSError:
            self._drop()
        return True

    def durable(self, entry: int) -> None:
        """Everything up to `entry` is durable elsewhere."""
        self._durable = max(self._durable, entry)
        if self._socket is not None:
            self._say(wire.message(wire.DURABLE, self._durable))

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()

    def _connect(self) -> bool:
        now = time.monotonic()
        if now < self._retry_at:
            return False
        self._retry_at = now + WATCH_RETRY
        try:
            self._socket = wire.connect(self._path, 1.0)
        except OSError:
            return False
        self._socket.setblocking(False)
        self._unsent = b""
        hello = {"session": os.urandom(16), "name": self._name, "watch": True}
        self._say(wire.message(wire.HELLO, 0, msgspec.msgpack.encode(hello)))
        if self._durable:
            self._say(wire.message(wire.DURABLE, self._durable))
        return self._socket is not None

    def _say(self, packed: bytes) -> None:
        """Send what the socket takes; the rest, at most one report, goes with the next."""
        assert self._socket is not None
        self._unsent += packed
        try:
            taken = self._socket.send(self._unsent)
            self._unsent = self._unsent[taken:]
        except BlockingIOError:
            pass
        except OSError:
            self._drop()
        if len(self._unsent) > 65_536:  # a journal that reads nothing: begin anew
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
