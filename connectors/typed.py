"""Typed frames: values with names, times and qualities, for sources that bring types (OPC UA, Sparkplug).

One frame is what one device told at once; its address names the device, as that of any frame. The
bytes, all little-endian (a product's `decode: {format: typed}` reads them):

    4 bytes   b"PTV1"
    u32       N, how many values
    u16       K, how many different metric names; at most 65,535
    u16       X, how many texts
    u32       S, bytes of all names and texts
    u32[K+X]  where each name, then each text, ends in the S bytes; the first begins at 0
    S bytes   the names, then the texts, UTF-8
    N rows of 28 bytes:
      i64     source time, nanoseconds since 1970; 0: none
      i64     server time, which stands in for a missing source time; 0: none
      f64     the value; of a boolean 0 or 1, of a text its number, of a null nothing
      u16     number of its metric's name
      u8      kind: 0 null, 1 number, 2 boolean, 3 text
      u8      quality: 0 good, 1 uncertain, 2 bad

Values of one time stand in the order in which they are to be read; the source sorts by time. That
values are a backlog is said by the frame (`operators.batch.FRAME_HISTORICAL`). A whole number beyond
2^53 becomes the nearest double.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from operators.batch import GOOD

MAGIC: Final = b"PTV1"
NULL: Final = 0
NUMBER: Final = 1
BOOLEAN: Final = 2
TEXT: Final = 3
MOST_NAMES: Final = 65_535  # of metrics, and of texts, in one frame
_HEAD: Final = struct.Struct("<4sIHHI")
_ROW: Final = struct.Struct("<qqdHBB")


class TypedValue(NamedTuple):
    """One value of one metric. time_ns: its source's time, server_ns: that of the server between;
    nanoseconds since 1970, 0: none. quality: good, uncertain or bad of `operators.batch`."""

    metric: str
    value: float | str | bool | None
    time_ns: int = 0
    server_ns: int = 0
    quality: int = GOOD


def pack(values: Iterable[TypedValue]) -> bytes:
    """The frame of one device's values. Raises `ValueError` for more names or texts than one frame
    has room for; the caller then makes two of it."""
    names: dict[str, int] = {}
    texts: dict[str, int] = {}
    rows = []
    for one in values:
        name = names.setdefault(one.metric, len(names))
        value, kind = one.value, NUMBER
        if value.__class__ is not float:  # of most it is
            if value is None:
                value, kind = 0.0, NULL
            elif isinstance(value, bool):
                value, kind = float(value), BOOLEAN
            elif isinstance(value, str):
                value, kind = float(texts.setdefault(value, len(texts))), TEXT
            else:
                value = _double(value)
        rows.append(_ROW.pack(one.time_ns, one.server_ns, value, name, kind, one.quality))
    if max(len(names), len(texts)) > MOST_NAMES:
        raise ValueError(f"more than {MOST_NAMES} names or texts in one frame")
    spoken = [text.encode("utf-8", "replace") for text in (*names, *texts)]
    ends, end = [], 0
    for text in spoken:
        end += len(text)
        ends.append(end)
    head = _HEAD.pack(MAGIC, len(rows), len(names), len(texts), end)
    return b"".join((head, struct.pack(f"<{len(ends)}I", *ends), *spoken, *rows))


def unpack(payload: bytes) -> list[TypedValue]:
    """The values of a frame, in its order: the inverse of `pack`, for a person's eyes and not for a flow.
    Raises `ValueError` for bytes that are no such frame."""
    try:
        magic, rows, names, texts, size = _HEAD.unpack_from(payload)
        if magic != MAGIC:
            raise ValueError("no typed frame")
        ends = struct.unpack_from(f"<{names + texts}I", payload, _HEAD.size)
        start = _HEAD.size + 4 * len(ends)
        spoken = [
            payload[start + first : start + end].decode("utf-8", "replace")
            for first, end in zip((0, *ends), ends, strict=False)
        ]
        found = []
        for row in range(rows):
            time_ns, server_ns, value, name, kind, quality = _ROW.unpack_from(
                payload, start + size + row * _ROW.size
            )
            plain: float | str | bool | None = value
            if kind == BOOLEAN:
                plain = bool(value)
            elif kind != NUMBER:
                plain = None if kind == NULL else spoken[names + int(value)]
            found.append(TypedValue(spoken[name], plain, time_ns, server_ns, quality))
        return found
    except (struct.error, IndexError) as error:
        raise ValueError(f"no typed frame: {error}") from error


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond every double
        return float("inf") if value > 0 else float("-inf")
