"""What the body of each kind of output record looks like, both ways.

telemetry and windows are columns: a version byte, three unused, the length of a msgpack header as
uint32, the header, zeroes up to a multiple of eight, then the arrays one after the other, widest
items first, little-endian. Bodies are self-contained: devices, metrics and texts stand in the
header, so whoever reads them needs neither the plant nor the flow's slots.

alarms: one CloudEvent as JSON (FORMATS section 5). alarm_batches: such events, one a line, those of rules
in shadow too, with `"shadow": true` (they stand nowhere else).
alarm_intervals: rows as JSON objects, one a line.
rejects: msgpack of a list of rejects.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from operators.batch import (
    HISTORICAL,
    AlarmInterval,
    Bytes,
    Float64,
    Int32,
    Int64,
    ReadingBatch,
    UInt64,
    WindowBatch,
)
from operators.rejects import Reject

VERSION: Final = 1
_PREFIX: Final = struct.Struct("<B3xI")
_ALIGN: Final = 8

Array = npt.NDArray[Any]


class TelemetrySpec(NamedTuple):
    """What is written of one product: its metrics in file order as (name, type), type one of
    number, integer, boolean, string."""

    productId: str
    metrics: tuple[tuple[str, str], ...]


class _TelemetryHead(msgspec.Struct, array_like=True):
    productId: str
    rows: int
    metrics: list[tuple[str, str]]
    devices: list[str]
    texts: dict[int, str]


class _WindowsHead(msgspec.Struct, array_like=True):
    productId: str
    window: str
    rows: int
    metrics: list[str]
    devices: list[str]
    aggregates: list[str]


@dataclass(slots=True, eq=False)
class Telemetry:
    """Rows of one product in journal order. device: int32[N] into `devices`; value and quality:
    [M, N] as in `ReadingBatch`; historical: uint8[N], 0 or 1; texts: code -> text."""

    productId: str
    metrics: list[tuple[str, str]]
    devices: list[str]
    texts: dict[int, str]
    seq: UInt64
    ts_ns: Int64
    ingest_ns: Int64
    value: Float64
    device: Int32
    historical: Bytes
    quality: Bytes

    def __len__(self) -> int:
        return len(self.seq)


@dataclass(slots=True, eq=False)
class Windows:
    """Rows of one window of one product, columns as in `WindowBatch`; device: int32[R] into
    `devices`, metric: int32[R] into `metrics` (names)."""

    productId: str
    window: str
    metrics: list[str]
    devices: list[str]
    start_ns: Int64
    end_ns: Int64
    count: Int64
    good: Int64
    bad: Int64
    revision: Int64
    position: Int64
    aggregates: dict[str, Float64]
    device: Int32
    metric: Int32

    def __len__(self) -> int:
        return len(self.device)


def _body(head: msgspec.Struct, arrays: Sequence[Array]) -> bytes:
    header = msgspec.msgpack.encode(head)
    size = _PREFIX.size + len(header)
    parts: list[bytes | memoryview] = [_PREFIX.pack(VERSION, len(header)), header, bytes(-size % _ALIGN)]
    parts.extend(np.ascontiguousarray(array).data.cast("B") for array in arrays if array.size)
    return b"".join(parts)


def _start(body: bytes) -> tuple[memoryview, int]:
    version, length = _PREFIX.unpack_from(body)
    if version != VERSION:
        raise ValueError(f"an output record of version {version}; this program knows {VERSION}")
    stop = _PREFIX.size + length
    return memoryview(body)[_PREFIX.size : stop], stop + -stop % _ALIGN


class _Arrays:
    """Takes arrays off a body, in the order in which they were written."""

    def __init__(self, body: bytes, at: int) -> None:
        self.body, self.at = body, at

    def take(self, dtype: Any, *shape: int) -> Any:
        count = int(np.prod(shape))
        array = np.frombuffer(self.body, dtype, count, self.at).reshape(shape)
        self.at += array.nbytes
        return array


def local_slots(slots: Int32, names: Sequence[str]) -> tuple[Int32, list[str]]:
    """Slots of a shard as indices into the list of those names that occur, in slot order."""
    used = np.zeros(len(names), np.bool_)
    used[slots] = True
    found = np.flatnonzero(used)
    index = np.zeros(len(names), np.int32)
    index[found] = np.arange(len(found), dtype=np.int32)
    return index[slots], [names[slot] for slot in found.tolist()]


def _joined(arrays: Sequence[Array], axis: int = 0) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)


def encode_telemetry(batches: Sequence[ReadingBatch], spec: TelemetrySpec, names: Sequence[str]) -> bytes:
    """The body for batches of one product, at least one row in all; `names`: devices by slot."""
    slots = _joined([batch.device for batch in batches])
    device, devices = local_slots(slots, names)
    texts: dict[int, str] = {}
    for batch in batches:
        texts.update(batch.texts)
    flags = _joined([batch.flags for batch in batches])
    head = _TelemetryHead(spec.productId, len(device), list(spec.metrics), devices, texts)
    return _body(
        head,
        [
            _joined([batch.seq for batch in batches]),
            _joined([batch.ts_ns for batch in batches]),
            _joined([batch.ingest_ns for batch in batches]),
            _joined([batch.value for batch in batches], axis=1),
            device,
            ((flags & HISTORICAL) != 0).view(np.uint8),
            _joined([batch.quality for batch in batches], axis=1),
        ],
    )


def decode_telemetry(body: bytes) -> Telemetry:
    """Columns of a telemetry record; they share the memory of `body`."""
    header, at = _start(body)
    head = msgspec.msgpack.decode(header, type=_TelemetryHead, strict=False)
    rows, metrics, arrays = head.rows, len(head.metrics), _Arrays(body, at)
    return Telemetry(
        head.productId,
        head.metrics,
        head.devices,
        head.texts,
        arrays.take(np.uint64, rows),
        arrays.take(np.int64, rows),
        arrays.take(np.int64, rows),
        arrays.take(np.float64, metrics, rows),
        arrays.take(np.int32, rows),
        arrays.take(np.uint8, rows),
        arrays.take(np.uint8, metrics, rows),
    )


def encode_windows(batches: Sequence[WindowBatch], metrics: Sequence[str], names: Sequence[str]) -> bytes:
    """The body for batches of one product and window with the same aggregates; names: of what their
    `device` numbers."""
    device, devices = local_slots(_joined([batch.device for batch in batches]), names)
    first = batches[0]
    head = _WindowsHead(
        first.productId, first.window, len(device), list(metrics), devices, list(first.aggregates)
    )
    whole = [
        _joined([getattr(batch, column) for batch in batches]).astype(np.int64, copy=False)
        for column in ("start_ns", "end_ns", "count", "good", "bad", "revision", "position")
    ]
    aggregates = [_joined([batch.aggregates[name] for batch in batches]) for name in first.aggregates]
    metric = _joined([batch.metric for batch in batches]).astype(np.int32, copy=False)
    return _body(head, [*whole, *aggregates, device, metric])


def decode_windows(body: bytes) -> Windows:
    """Columns of a windows record; they share the memory of `body`."""
    header, at = _start(body)
    head = msgspec.msgpack.decode(header, type=_WindowsHead)
    rows, arrays = head.rows, _Arrays(body, at)
    return Windows(
        head.productId,
        head.window,
        head.metrics,
        head.devices,
        arrays.take(np.int64, rows),
        arrays.take(np.int64, rows),
        arrays.take(np.int64, rows),
        arrays.take(np.int64, rows),
        arrays.take(np.int64, rows),
        arrays.take(np.int64, rows),
        arrays.take(np.int64, rows),
        {name: arrays.take(np.float64, rows) for name in head.aggregates},
        arrays.take(np.int32, rows),
        arrays.take(np.int32, rows),
    )


def decode_alarms(body: bytes) -> list[dict[str, Any]]:
    """The events of an alarms or alarm_batches record."""
    return [msgspec.json.decode(line) for line in body.split(b"\n") if line]


def encode_intervals(intervals: Sequence[AlarmInterval]) -> bytes:
    """The body for rows of `alarm_intervals`, in the order in which they were found."""
    return b"\n".join(one.line for one in intervals)


def decode_intervals(body: bytes) -> list[dict[str, Any]]:
    """The rows of an alarm_intervals record."""
    return [msgspec.json.decode(line) for line in body.split(b"\n") if line]


def encode_rejects(rejects: Sequence[Reject]) -> bytes:
    """The body for rejects, in journal order."""
    return msgspec.msgpack.encode(rejects)


def decode_rejects(body: bytes) -> list[Reject]:
    """The rejects of a record."""
    return msgspec.msgpack.decode(body, type=list[Reject])
