"""The journal's entries: their form on disk and on the socket (runs of them become batches in
`connectors.journal.merging`).

An entry is self-contained: it carries the addresses of its own frames. All integers are little
endian. An entry begins with a header of 24 bytes

    version u8 | kind u8 | 0 u16 | count u32 | ms i64 | position i64

`ms` is the journal's clock (milliseconds since 1970) and `position` the ordinal of the first frame
in it, or, for other kinds, of the next frame after it. Then follows by kind

    frames    payload bytes u64 | table bytes u32 | address count u32 | length u32[count] |
              address u32[count] | flags u8[count] | table | payload
              table = size u32[address count], then each address as MessagePack
              [source, topic, port, [[header, value]...]]
              a frame with the flag FRAME_NUMBERED ends in its line (`operators.batch.with_line`)
    tick      nothing
    control   MessagePack [kind, data]

A client packs frames with zeros for clock and position (`pack_frames`), the journal stamps them
(`stamp`), so that no process touches a frame by itself. Reading makes no object per frame either.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from connectors.errors import JournalError
from connectors.source import Frame, FrameRows
from operators.batch import FRAME_NUMBERED, LINE_BYTES, Address, Control, with_line

VERSION: Final = 1
FRAMES: Final = 1
TICK: Final = 2
CONTROL: Final = 3
CONTROL_KINDS: Final = (
    "plant",
    "connected",
    "disconnected",
    "started",
    "stopped",
    "clock_step",
    "action",
    "quarantine",
    "gap",
)

ENTRY_ROWS: Final = 8192  # frames of one entry at most
ENTRY_BYTES: Final = 1 << 20  # payload of one entry, unless a single frame is larger
FRAME_BYTES: Final = 16 << 20  # one frame at most
TABLE_BYTES: Final = 8 << 20  # the addresses of one entry at most
TABLES_KEPT: Final = 16 << 20  # bytes of tables that were checked and are known again
MILLISECOND: Final = 1_000_000

_HEADER: Final = struct.Struct("<BBHIqq")
FRAMES_HEAD: Final = struct.Struct("<QII")
_STAMP: Final = struct.Struct("<qq")
_STAMP_AT: Final = 8
HEADER_BYTES: Final = _HEADER.size
ARRAYS_AT: Final = HEADER_BYTES + FRAMES_HEAD.size


@dataclass(slots=True, eq=False)
class Entry:
    """One entry as it was read: `data` is the whole of it, `number` its key in the journal."""

    number: int
    kind: int
    count: int
    ms: int
    position: int
    data: bytes

    def control(self) -> Control:
        """The control of an entry of kind CONTROL; a plant's files are not in it (see the reader)."""
        kind, data = msgspec.msgpack.decode(memoryview(self.data)[HEADER_BYTES:])
        return Control(kind, self.ms * MILLISECOND, data)

    @property
    def next_position(self) -> int:
        """Ordinal of the next frame after this entry."""
        return self.position + self.count if self.kind == FRAMES else self.position


def decode_entry(number: int, data: bytes) -> Entry:
    """The entry in `data`; raises JournalError where that is not one of this version."""
    if len(data) < HEADER_BYTES:
        raise JournalError(f"journal entry {number} is cut short ({len(data)} bytes)")
    version, kind, _, count, ms, position = _HEADER.unpack_from(data)
    if version != VERSION or kind not in (FRAMES, TICK, CONTROL):
        raise JournalError(
            f"journal entry {number} has format {version}.{kind}; this version reads {VERSION}.1-{VERSION}.3"
        )
    return Entry(number, kind, count, ms, position, data)


def stamp(body: bytearray | memoryview, ms: int, position: int) -> None:
    """Write the journal's clock and position into a packed entry, in place."""
    _STAMP.pack_into(body, _STAMP_AT, ms, position)


def mark_frame(body: bytearray, position: int, flag: int) -> bool:
    """Set a flag of the frame at a position, in place; False where the entry does not hold it."""
    _, kind, _, count, _, first = _HEADER.unpack_from(body)
    if kind != FRAMES or not first <= position < first + count:
        return False
    body[ARRAYS_AT + 8 * count + position - first] |= flag
    return True


def pack_tick(ms: int, position: int) -> bytes:
    """A tick at `ms`, before the frame at `position`."""
    return _HEADER.pack(VERSION, TICK, 0, 0, ms, position)


def pack_control(kind: str, data: Mapping[str, Any], ms: int = 0, position: int = 0) -> bytearray:
    """A control entry; `data` must be plain (texts, numbers, lists, maps, bytes)."""
    if kind not in CONTROL_KINDS:
        raise ValueError(f"no control of kind {kind!r}; known: {', '.join(CONTROL_KINDS)}")
    head = _HEADER.pack(VERSION, CONTROL, 0, 0, ms, position)
    return bytearray(head + msgspec.msgpack.encode([kind, dict(data)]))


def pack_frames(source: str, frames: Sequence[Frame], ms: int = 0, position: int = 0) -> bytearray:
    """The frames of one source as one entry. Raises ValueError beyond a cap (see `split`)."""
    index: dict[tuple[str, int, tuple[tuple[str, str], ...]], int] = {}
    give = index.setdefault
    where = [give((frame.topic, frame.port, frame.headers), len(index)) for frame in frames]
    addresses = [Address(source, topic, port, headers) for topic, port, headers in index]
    payloads = [with_line(frame.payload, frame.line) if frame.line else frame.payload for frame in frames]
    flags = [f.flags | FRAME_NUMBERED if f.line else f.flags & ~FRAME_NUMBERED for f in frames]
    return pack_rows(payloads, where, flags, addresses, ms, position)


def pack_rows(
    payloads: Sequence[bytes],
    where: Sequence[int],
    flags: Sequence[int],
    addresses: Iterable[Address],
    ms: int = 0,
    position: int = 0,
) -> bytearray:
    """Frames as columns, `where` pointing into `addresses`, as one entry."""
    lengths = np.fromiter(map(len, payloads), np.uint32, len(payloads))
    columns = FrameRows(
        b"".join(payloads), lengths, np.array(where, np.uint32), np.array(flags, np.uint8), ()
    )
    return pack_columns(columns, [pack_address(address) for address in addresses], ms, position)


def pack_address(address: Address) -> bytes:
    """An address as a table holds it."""
    return msgspec.msgpack.encode(tuple(address))


def pack_columns(rows: FrameRows, blobs: Sequence[bytes], ms: int = 0, position: int = 0) -> bytearray:
    """Columns as one entry; `blobs` are the packed addresses that `rows.where` points into, in the
    place of the addresses of the rows themselves."""
    count, payload = len(rows), rows.payload
    if not 0 < count <= ENTRY_ROWS:
        raise ValueError(f"an entry holds 1 to {ENTRY_ROWS} frames, not {count}")
    if len(payload) > max(ENTRY_BYTES, FRAME_BYTES) + LINE_BYTES:
        raise ValueError(f"an entry holds {FRAME_BYTES} bytes at most, not {len(payload)}")
    table = np.fromiter(map(len, blobs), "<u4", len(blobs)).tobytes() + b"".join(blobs)
    if len(table) > TABLE_BYTES:
        raise ValueError(f"the addresses of an entry hold {TABLE_BYTES} bytes at most, not {len(table)}")
    body = bytearray(_HEADER.pack(VERSION, FRAMES, 0, count, ms, position))
    body += FRAMES_HEAD.pack(len(payload), len(table), len(blobs))
    body += rows.lengths.astype("<u4", copy=False).tobytes()
    body += rows.where.astype("<u4", copy=False).tobytes()
    body += rows.flags.tobytes()
    body += table
    body += payload
    return body


def split(frames: Sequence[Frame]) -> list[Sequence[Frame]]:
    """Frames in runs that each fit an entry. Deterministic. Raises ValueError for a frame that
    is larger than FRAME_BYTES."""
    sizes = np.fromiter((len(frame.payload) for frame in frames), np.int64, len(frames))
    if len(sizes) and int(sizes.max()) > FRAME_BYTES:
        raise ValueError(f"a frame holds {FRAME_BYTES} bytes at most, not {int(sizes.max())}")
    ends = np.cumsum(sizes)
    runs: list[Sequence[Frame]] = []
    start = 0
    while start < len(frames):
        base = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, base + ENTRY_BYTES, "right"))
        stop = min(max(stop, start + 1), start + ENTRY_ROWS, len(frames))
        runs.append(frames[start:stop])
        start = stop
    return runs


def check_frames(body: bytes | bytearray | memoryview, known: Addresses) -> int:
    """The number of frames of a packed entry that came over a socket; raises ValueError where any
    size, index or address in it does not hold: what this lets pass, `merge` takes."""
    if len(body) < ARRAYS_AT:
        raise ValueError("cut short")
    version, kind, _, count, _, _ = _HEADER.unpack_from(body)
    payload, table, addresses = FRAMES_HEAD.unpack_from(body, HEADER_BYTES)
    if version != VERSION or kind != FRAMES or not 0 < count <= ENTRY_ROWS:
        raise ValueError("not a frames entry of this version")
    if ARRAYS_AT + 9 * count + table + payload != len(body) or 4 * addresses > table > TABLE_BYTES:
        raise ValueError("sizes do not add up")
    lengths = np.frombuffer(body, "<u4", count, ARRAYS_AT)
    where = np.frombuffer(body, "<u4", count, ARRAYS_AT + 4 * count)
    sizes = np.frombuffer(body, "<u4", addresses, ARRAYS_AT + 9 * count)
    if (
        int(lengths.sum(dtype=np.uint64)) != payload
        or int(sizes.sum(dtype=np.uint64)) + 4 * addresses != table
    ):
        raise ValueError("lengths do not add up")
    if int(where.max()) >= addresses:
        raise ValueError("an address is missing")
    start = ARRAYS_AT + 9 * count
    known.check(bytes(body[start : start + table]), addresses)
    return int(count)


_Packed = tuple[str, str, int, tuple[tuple[str, str], ...]]


class Addresses:
    """The packed addresses that were found to be such, and the tables of whole entries.

    Bounded: forgotten altogether beyond `cap` addresses, or TABLES_KEPT bytes of tables.
    """

    def __init__(self, cap: int = 200_000) -> None:
        self._known: set[bytes] = set()
        self._tables: set[bytes] = set()
        self._tables_bytes = 0
        self._cap = cap

    def check(self, packed: bytes, count: int) -> None:
        """Raises ValueError where an address of a table of `count` is none."""
        if packed in self._tables:
            return
        ends = (np.cumsum(np.frombuffer(packed, "<u4", count), dtype=np.int64) + 4 * count).tolist()
        starts = [4 * count, *ends[:-1]]
        blobs = {packed[start:end] for start, end in zip(starts, ends, strict=True)}
        new = blobs - self._known
        for blob in new:
            decode_address(blob)
        if len(self._known) + len(new) > self._cap:
            self._known.clear()
        self._known |= new
        if self._tables_bytes + len(packed) > TABLES_KEPT:
            self._tables.clear()
            self._tables_bytes = 0
        self._tables.add(packed)
        self._tables_bytes += len(packed)


def decode_address(packed: bytes) -> Address:
    """A packed address. Raises ValueError for what is none."""
    try:
        source, topic, port, headers = msgspec.msgpack.decode(packed, type=_Packed)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not an address: {error}") from error
    return Address(source, topic, port, headers)
