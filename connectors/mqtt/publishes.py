"""The messages of a broker's connection as columns: the tables around the kernel."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import numpy as np

from connectors.mqtt import publish_kernels as kernels
from connectors.source import FrameRows, Where, is_reserved
from operators.batch import FRAME_RETAINED, Bytes, Int64, UInt64

ROWS: Final = 4096  # of a batch; an entry of the journal holds as many and more
PAYLOAD: Final = 1 << 20  # an entry's
ADDRESSES: Final = 1 << 15  # known at a time; beyond it they are forgotten and learned again
ARENA: Final = 4 << 20
ALIASES: Final = 16  # topic aliases that we allow the broker (protocol 5)
HARD_CAP: Final = 16_000_000  # of a payload: beyond it only the head is kept, and the size told
HEAD: Final = 4096
_CONTENT_TYPE: Final = 0x03

assert FRAME_RETAINED == kernels.FLAG_RETAIN


class Batch(NamedTuple):
    """What was read: rows (None: repeats alone), and what to acknowledge when they are durable:
    packet ids int64[N] with the marks of their content, uint64[N] (the same in every process), and
    the rows that they are, int64[N], -1 for a repeat."""

    rows: FrameRows | None
    mids: Int64
    marks: UInt64
    of_row: Int64

    def of(self, rows: Int64 | None) -> tuple[Int64, UInt64, Int64]:
        """Packet ids, marks and rows of the messages that are some of the rows; None: all rows."""
        chosen = self.of_row >= 0 if rows is None else np.isin(self.of_row, rows)
        return self.mids[chosen], self.marks[chosen], self.of_row[chosen]


class Malformed(ValueError):
    """The broker sent what is no MQTT."""


class Publishes:
    """Splits the PUBLISH packets out of a connection's bytes.

    held: uint64[65536], the content marks by packet id of the messages taken and not acknowledged;
    of the receiver, it outlives a connection. cap: bytes of a payload that are allowed;
    largest: of a packet that is read whole, beyond it only its head is.
    """

    def __init__(self, version5: bool, held: UInt64, cap: int, largest: int) -> None:
        self._version5, self._held = version5, held
        self._cap, self._largest = cap, largest
        self._limit = min(cap, PAYLOAD)
        self._aliases = np.empty(ALIASES << 16, np.uint8)
        self._alias_size = np.full(ALIASES + 1, -1, np.int64)
        self._slots = np.full(2 * ADDRESSES, -1, np.int32)
        self._hashes = np.zeros(ADDRESSES, np.uint64)
        self._ends = np.zeros(ADDRESSES + 1, np.int64)
        self._arena = np.empty(ARENA, np.uint8)
        self._local = np.full(ADDRESSES, -1, np.int32)
        self._numbers = np.zeros(ADDRESSES, np.int64)
        self._scratch = np.empty(1 << 16, np.uint8)
        self._payload = np.empty(PAYLOAD, np.uint8)
        self._lengths = np.empty(ROWS, np.uint32)
        self._where = np.empty(ROWS, np.uint32)
        self._flags = np.empty(ROWS, np.uint8)
        self._mids = np.empty(ROWS, np.int64)
        self._marks = np.empty(ROWS, np.uint64)
        self._of_row = np.empty(ROWS, np.int64)
        self._state = np.zeros(kernels.PLACES, np.int64)
        self._addresses: list[Where] = []

    @property
    def at(self) -> int:
        """Where the first packet begins that was not taken."""
        return int(self._state[kernels.AT])

    @property
    def need(self) -> int:
        """Its bytes, 0 where that is not known yet."""
        return int(self._state[kernels.NEED])

    @property
    def repeats(self) -> int:
        """Messages so far that came again while the first was not acknowledged."""
        return int(self._state[kernels.REPEATS])

    def split(self, data: Bytes, start: int, end: int) -> int:
        """Take what there is from `start` on; returns why it ended (publish_kernels)."""
        self._state[kernels.AT] = start
        return kernels.split_publishes(
            data,
            end,
            self._version5,
            self._limit,
            self._largest,
            self._held,
            self._aliases,
            self._alias_size,
            self._slots,
            self._hashes,
            self._ends,
            self._arena,
            self._local,
            self._numbers,
            self._scratch,
            self._payload,
            self._lengths,
            self._where,
            self._flags,
            self._mids,
            self._marks,
            self._of_row,
            self._state,
        )

    def take(self) -> Batch | None:
        """What was taken since the last call; None for nothing."""
        state = self._state
        rows, acks, here = int(state[kernels.ROWS]), int(state[kernels.ACKS]), int(state[kernels.HERE])
        if not rows and not acks:
            self._forget_if_full()
            return None
        for number in range(len(self._addresses), int(state[kernels.KNOWN])):
            start, end = int(self._ends[number]), int(self._ends[number + 1])
            self._addresses.append(_address(self._arena[start:end].tobytes()))
        numbers = self._numbers[:here]
        taken = FrameRows(
            self._payload[: int(state[kernels.PAYLOAD])].tobytes(),
            self._lengths[:rows].copy(),
            self._where[:rows].copy(),
            self._flags[:rows].copy(),
            [self._addresses[number] for number in numbers.tolist()],
        )
        acked = (self._mids[:acks].copy(), self._marks[:acks].copy(), self._of_row[:acks].copy())
        batch = Batch(taken if rows else None, *acked)
        self._local[numbers] = -1
        for place in (kernels.ROWS, kernels.PAYLOAD, kernels.ACKS, kernels.HERE):
            state[place] = 0
        self._forget_if_full()
        return batch

    def single(self, packet: bytes, total: int) -> Batch:
        """A PUBLISH that the kernel leaves to us: `total` bytes long, of which `packet` is the
        beginning. Raises Malformed."""
        try:
            return self._single(packet, total)
        except IndexError as error:
            raise Malformed("a PUBLISH that ends within its head") from error

    def _single(self, packet: bytes, total: int) -> Batch:
        kind = packet[0]
        _, at = _number(packet, 1)
        topic_end = at + 2 + int.from_bytes(packet[at : at + 2], "big")
        topic, at = packet[at + 2 : topic_end], topic_end
        qos = kind >> 1 & 3
        mid = int.from_bytes(packet[at : at + 2], "big") if qos else 0
        at += 2 if qos else 0
        if qos > 1 or (qos and not mid):
            raise Malformed("a PUBLISH with a QoS or a packet id that is none")
        kept = b""
        if self._version5:
            size, at = _number(packet, at)
            alias, kept = self._properties(packet, at, at + size)
            at += size
            topic = self._aliased(topic, alias)
        if at > len(packet) or not topic:
            raise Malformed("a PUBLISH that ends within its head")
        length, payload = total - at, packet[at:]
        name, port, headers = _address(len(topic).to_bytes(2, "big") + topic + kept)
        if length > self._cap:
            said = f"{length} bytes; max_payload allows {self._cap}"
            if length > HARD_CAP:
                payload, said = payload[:HEAD], f"{said}; the first {HEAD} are kept"
            headers = (*headers, ("too_large", said))
        mids, marks = np.array([mid] if mid else [], np.int64), np.empty(1 if mid else 0, np.uint64)
        if mid:
            marks[0] = _mark(name, headers, payload)
            if kind & 8 and self._held[mid] == marks[0]:
                self._state[kernels.REPEATS] += 1
                return Batch(None, mids, marks, np.full(1, -1, np.int64))
            self._held[mid] = marks[0]
        rows = FrameRows(
            payload,
            np.array([len(payload)], np.uint32),
            np.zeros(1, np.uint32),
            np.array([kind & FRAME_RETAINED], np.uint8),
            [(name, port, headers)],
        )
        return Batch(rows, mids, marks, np.zeros(len(mids), np.int64))

    def _properties(self, packet: bytes, at: int, end: int) -> tuple[int, bytes]:
        data = np.frombuffer(packet, np.uint8).copy()
        alias, kept = 0, b""
        while at < end:
            following = int(kernels.property_end(data, at, min(end, len(data))))
            if following < 0:
                raise Malformed("a property that is none of a PUBLISH")
            if packet[at] == kernels._TOPIC_ALIAS:
                alias = int.from_bytes(packet[at + 1 : at + 3], "big")
            elif packet[at] in (kernels._CONTENT_TYPE, kernels._USER_PROPERTY):
                kept += packet[at:following]
            at = following
        return alias, kept

    def _aliased(self, topic: bytes, alias: int) -> bytes:
        if not alias:
            return topic
        if alias > ALIASES or (not topic and self._alias_size[alias] < 0):
            raise Malformed(f"topic alias {alias}, which was never given")
        base = (alias - 1) << 16
        if topic:
            self._aliases[base : base + len(topic)] = np.frombuffer(topic, np.uint8)
            self._alias_size[alias] = len(topic)
        return self._aliases[base : base + int(self._alias_size[alias])].tobytes()

    def _forget_if_full(self) -> None:
        state = self._state
        if state[kernels.KNOWN] < ADDRESSES and state[kernels.ARENA_USED] + kernels.KEY_BYTES <= ARENA:
            return
        self._slots[:] = -1
        self._addresses.clear()
        state[kernels.KNOWN] = state[kernels.ARENA_USED] = 0


def _mark(name: str, headers: tuple[tuple[str, str], ...], payload: bytes) -> int:
    """Of a message's content; odd, so never 0."""
    digest = hashlib.blake2b(repr((name, headers, len(payload))).encode(), digest_size=8)
    digest.update(payload)
    return int.from_bytes(digest.digest(), "little") | 1


def _number(packet: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends."""
    value = shift = 0
    while True:
        byte = packet[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift == 28:
            raise Malformed("a length of more than four bytes")


def _address(key: bytes) -> Where:
    """An address as the kernel keys it: topic, then the properties that are headers."""
    at = 2 + int.from_bytes(key[:2], "big")
    topic = key[2:at]
    headers = []
    while at < len(key):
        code, texts = key[at], []
        at += 1
        for _ in range(1 if code == _CONTENT_TYPE else 2):
            size = int.from_bytes(key[at : at + 2], "big")
            texts.append(_text(key[at + 2 : at + 2 + size]))
            at += 2 + size
        if code == _CONTENT_TYPE:
            headers.append(("content-type", texts[0]))
        elif not is_reserved(texts[0]):  # or a device could pass its frame off as garbage
            headers.append((texts[0], texts[1]))
    return _text(topic), -1, tuple(headers)


def _text(data: bytes) -> str:
    # the protocol forbids what is no UTF-8; told as it came
    return data.decode("utf-8", "backslashreplace")


def warm_up() -> None:
    """Compile the kernels."""
    one = Publishes(True, np.zeros(65_536, np.uint64), 1000, 1000)
    packet = np.frombuffer(b"\x32\x07\x00\x01t\x00\x01\x00x", np.uint8).copy()
    one.split(packet, 0, len(packet))
    kernels.property_end(packet, 0, 1)
