"""Messages of Kafka as columns for the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from confluent_kafka import Message

from connectors.kafka.config import KafkaConfig, is_reserved_here
from connectors.kafka.progress import Range
from connectors.source import FrameRows, Where

ENTRY_ROWS: Final = 8192  # what one entry of the journal holds
ENTRY_BYTES: Final = 1 << 20
HARD_CAP: Final = 16 << 20  # of one frame in the journal
HEAD: Final = 4096  # bytes kept of a larger message
MAX_HEADERS: Final = 32
MAX_TEXT: Final = 1024  # characters of a key or of a header's value
TABLE_BYTES: Final = 4 << 20  # of the addresses of one entry; the journal takes twice as much
ADDRESSES_KEPT: Final = 100_000
_Told = tuple[str, bytes | None, tuple[tuple[str, bytes | None], ...]]  # topic, key, headers
Rows = tuple[FrameRows, list[Range]]


class Addressing:
    """What a frame's address says of its message. cut: headers and keys that were left out or cut."""

    def __init__(self, config: KafkaConfig) -> None:
        self._key = config.key or config.device == "key"
        self._headers = None if config.headers is None else frozenset(h.lower() for h in config.headers)
        where, _, name = config.address.partition(":")
        self._by = where
        kind, _, header = config.device.partition(":")
        # what names address and device is looked at, whatever `headers` says
        self._wanted = {name.lower() for name in (name, header if kind == "header" else "") if name}
        self._name = name.lower()
        self._keyless = not self._key and where != "key"
        self._headerless = self._headers == frozenset() and not self._wanted
        self._known: dict[_Told, Where] = {}
        self.max_frame = min(config.max_frame, HARD_CAP)
        self.cut = 0

    def told(self, messages: Sequence[Message]) -> list[_Told]:
        """Of each message what tells its address apart."""
        topics: list[Any] = list(map(Message.topic, messages))
        keys: list[Any] = [None] * len(messages) if self._keyless else list(map(Message.key, messages))
        heads: list[Any] = (
            [None] * len(messages) if self._headerless else list(map(Message.headers, messages))
        )
        if any(heads):
            heads = [tuple(head) if head else () for head in heads]
            return list(zip(topics, keys, heads, strict=True))
        return [(topic, key, ()) for topic, key in zip(topics, keys, strict=True)]

    def where(self, told: _Told) -> Where:
        """The address of a message."""
        found = self._known.get(told)
        if found is None:
            if len(self._known) > ADDRESSES_KEPT:
                self._known.clear()
            found = self._known[told] = self._where(told)
        return found

    def _where(self, told: _Told) -> Where:
        topic, key, headers = told
        name = self._text(key) if key is not None else ""
        kept: list[tuple[str, str]] = [("key", name)] if self._key and key is not None else []
        address = topic
        if self._by == "key":
            address = name
        for header, value in headers:
            low = header.lower()
            if self._by == "header" and low == self._name:
                address = self._text(value or b"")
            if self._headers is not None and low not in self._headers and low not in self._wanted:
                continue
            if is_reserved_here(header) or len(kept) >= MAX_HEADERS or len(header) > MAX_TEXT:
                self.cut += 1
                continue
            kept.append((header, self._text(value or b"")))
        return address, -1, tuple(kept)

    def _text(self, data: bytes) -> str:
        """Bytes that are text as such, others in hex; what is beyond the cap is cut off."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.hex()
        if len(text) > MAX_TEXT:
            self.cut += 1
            return text[:MAX_TEXT]
        return text


def rows_of(
    messages: Sequence[Message], expected: Callable[[str, int], int], addressing: Addressing
) -> list[Rows]:
    """The messages, in their order, as columns of which each fits one entry, with the offsets that they
    end at. expected: the next offset of a partition, before these. A tombstone (no value) is a frame of
    no bytes."""
    count = len(messages)
    values: list[Any] = [value or b"" for value in map(Message.value, messages)]
    sizes = np.fromiter(map(len, values), np.int64, count)
    told = addressing.told(messages)
    marks: dict[int, str] = {}
    cap = addressing.max_frame
    if int(sizes.max(initial=0)) > cap:
        for row in np.flatnonzero(sizes > cap).tolist():
            marks[row] = f"{sizes[row]} bytes; max_frame allows {cap}"
            if sizes[row] > HARD_CAP:
                marks[row] += f"; the first {HEAD} are kept"
                values[row], sizes[row] = values[row][:HEAD], HEAD
    parts: list[Any] = list(map(Message.partition, messages))
    offsets: list[Any] = list(map(Message.offset, messages))
    following: dict[tuple[str, int], int] = {}
    found: list[Rows] = []
    ends = np.cumsum(sizes)
    start = 0
    while start < count:
        base = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, base + ENTRY_BYTES, "right"))
        stop = min(max(stop, start + 1), start + ENTRY_ROWS, count)
        columns, stop = _columns(values, sizes, told, marks, start, stop, addressing)
        topics = [one[0] for one in told[start:stop]]
        last = dict(zip(zip(topics, parts[start:stop], strict=True), offsets[start:stop], strict=True))
        ranges = []
        for (topic, partition), offset in last.items():
            first = following.get((topic, partition))
            ranges.append(
                Range(topic, partition, expected(topic, partition) if first is None else first, offset + 1)
            )
            following[topic, partition] = offset + 1
        found.append((columns, ranges))
        start = stop
    return found


def _columns(
    values: list[bytes],
    sizes: Any,
    told: list[_Told],
    marks: dict[int, str],
    start: int,
    stop: int,
    addressing: Addressing,
) -> tuple[FrameRows, int]:
    """Rows `start` to before `stop` as columns, or fewer where their addresses fill an entry."""
    index: dict[Any, int] = {}
    give = index.setdefault
    if marks and any(start <= row < stop for row in marks):
        where = [give((one, marks.get(start + at)), len(index)) for at, one in enumerate(told[start:stop])]
        addresses = [
            (topic, port, headers if mark is None else (*headers, ("too_large", mark)))
            for (topic, port, headers), mark in ((addressing.where(one), mark) for one, mark in index)
        ]
    else:
        where = [give(one, len(index)) for one in told[start:stop]]
        addresses = list(map(addressing.where, index))
    if len(addresses) > 64:  # each of 34 headers at most
        table = 0
        for number, (topic, _, headers) in enumerate(addresses):
            table += 4 * (len(topic) + sum(len(name) + len(text) for name, text in headers)) + 64
            if table > TABLE_BYTES and number:
                stop = start + where.index(number)
                where, addresses = where[: stop - start], addresses[:number]
                break
    taken = sizes[start:stop].astype(np.uint32)
    rows = FrameRows(
        b"".join(values[start:stop]),
        taken,
        np.array(where, np.uint32),
        np.zeros(stop - start, np.uint8),
        addresses,
    )
    return rows, stop
