"""The journal's clients, as its process sees them: one connection each, and what it may append."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, Final

import msgspec
import numpy as np

from connectors.journal import entries, wire
from connectors.journal.connection import Connection
from connectors.journal.store import Append

PEER_ANSWERS: Final = 1 << 20  # bytes of answers that a peer has not taken; then it is dropped

log = logging.getLogger("journal")


class Peer:
    """One connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.session = b""
        self.name = "?"
        self.watch = False
        self.shared = -1  # descriptor of its shared memory
        self.expected = 1  # the next sequence to queue
        self.waiting = 0  # bytes queued and not committed
        self.room = asyncio.Event()
        self.replaced = False  # its session has another connection now
        self.connected: set[str] = set()  # sources that it said are connected

    def tell(self, kind: int, number: int, body: bytes = b"") -> None:
        """Queue an answer, never waiting; a peer that takes none is dropped."""
        if self.connection.unsent > PEER_ANSWERS:
            log.warning("dropped %s: it does not take its answers", self.name)
            self.connection.close()
            return
        self.connection.send(wire.message(kind, number, body))


class Refused(Exception):
    """The peer broke the protocol."""


class Hello(msgspec.Struct):
    """A greeting: who it is, and whether it wants to be told of new entries."""

    session: bytes
    name: str
    watch: bool = False


def append_of(
    session: bytes, kind: int, number: int, body: bytearray | memoryview, addresses: entries.Addresses
) -> Append:
    """A client's append, checked; raises ValueError or msgspec.DecodeError for what it should not be."""
    if number < 1:
        raise ValueError("sequence below 1")
    if kind != wire.CONTROL:
        (size,) = wire.KEY_SIZE.unpack_from(body) if len(body) >= wire.KEY_SIZE.size else (0xFFFF,)
        start = wire.KEY_SIZE.size + size
        packed = memoryview(body)[start:]
        entries.check_frames(packed, addresses)
        return Append(session, number, packed, bytes(body[wire.KEY_SIZE.size : start]))
    name, data = msgspec.msgpack.decode(body, type=tuple[str, dict[str, Any]])
    bundle = None
    if name == "plant":
        sha, files = data["sha256"], data["files"]
        if not isinstance(sha, str) or not isinstance(files, dict):
            raise ValueError("a plant needs sha256 and files")
        about: dict[str, Any] = {key: data[key] for key in ("apply_id", "by", "why") if key in data}
        if not all(isinstance(text, str) for text in about.values()):
            raise ValueError("apply_id, by and why of a plant are texts")
        bundle = (sha.encode(), msgspec.msgpack.encode(files))
        data = {"sha256": sha, **about}
    if name == "quarantine":
        places = (data.get("entry"), data.get("position"))
        if not all(isinstance(place, int) and 0 <= place < 1 << 63 for place in places):
            raise ValueError("a quarantine needs entry and position")
    return Append(session, number, entries.pack_control(name, data), b"", bundle)


def from_shared(fd: int, number: int, body: bytearray | memoryview) -> memoryview:
    """The body of the APPEND that a SHARED stands for: a copy, which the peer cannot change."""
    (size,) = wire.SIZE.unpack_from(body) if len(body) >= wire.SIZE.size else (wire.SLOT + 1,)
    if fd < 0 or size > wire.SLOT:
        raise ValueError("no shared memory, or not so much")
    key = memoryview(body)[wire.SIZE.size :]
    whole = np.empty(len(key) + size, np.uint8).data  # not zeroed first, as a bytearray would be
    whole[: len(key)] = key
    if os.preadv(fd, [whole[len(key) :]], number % wire.WINDOW * wire.SLOT) != size:
        raise ValueError("the shared memory is too small")
    return whole


def note_connection(peer: Peer, append: Append) -> None:
    """Which sources the peer says are connected, so that their end is told when it goes."""
    control = entries.decode_entry(0, bytes(append.body)).control()
    source = str(control.data.get("source", ""))
    if control.kind == "connected":
        peer.connected.add(source)
    elif control.kind == "disconnected":
        peer.connected.discard(source)
