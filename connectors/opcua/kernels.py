"""Data changes as an OPC UA server sends them -> columns -> typed frames.

The encoding is that of OPC 10000-6 (5.2, OPC UA Binary): `DataChangeNotification` is an array of
(client handle, DataValue), a DataValue a mask and the parts that it announces, a Variant a type and
a value. Every offset is checked before it is used; nothing that a server sends makes a kernel read
beyond the bytes that it was given.
"""

# numba's integers are Python's and NumPy's at once
# mypy: disable-error-code="assignment, arg-type, return-value, no-any-return"

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import BAD, GOOD, UNCERTAIN, Bytes, Float64, Int64
from operators.jit import inline, kernel

# columns of a value, int64
ITEM: Final = 0  # the client handle
SOURCE_NS: Final = 1
SERVER_NS: Final = 2
KIND: Final = 3  # as in connectors.typed
QUALITY: Final = 4
STATUS: Final = 5
FIRST: Final = 6  # of a text: its first byte, and the one behind it
LAST: Final = 7
WIDTH: Final = 8

NULL: Final = 0
NUMBER: Final = 1
BOOLEAN: Final = 2
TEXT: Final = 3
STRANGE: Final = 4  # of a type that is no value of a metric: taken as null

DIMENSIONS: Final = 100  # what is skipped beside built-in types: dimensions of an array, and
BEHIND_VALUE: Final = 1000  # plus its mask: what stands behind the Variant of a DataValue
DEPTH: Final = 64  # of values in values

MALFORMED: Final = -1
OVERFLOW: Final = 0x480  # info type DataValue, bit Overflow (OPC 10000-4, 7.39.1)
EPOCH: Final = 116_444_736_000_000_000  # 1601 to 1970 in 100 ns
LATEST: Final = EPOCH + (1 << 63) // 100
HEAD: Final = 16
ROW: Final = 28


@inline
def _u16(payload: Bytes, at: int) -> int:
    return np.int64(payload[at]) | np.int64(payload[at + 1]) << 8


@inline
def _u32(payload: Bytes, at: int) -> int:
    return _u16(payload, at) | _u16(payload, at + 2) << 16


@inline
def _i32(payload: Bytes, at: int) -> int:
    value = _u32(payload, at)
    return value - (1 << 32) if value >= 1 << 31 else value


@inline
def _i64(payload: Bytes, at: int) -> int:
    return _u32(payload, at) | _u32(payload, at + 4) << 32


@inline
def _string_end(payload: Bytes, at: int, end: int) -> int:
    """The byte behind a String or ByteString; MALFORMED where it does not fit."""
    if at + 4 > end:
        return MALFORMED
    size = max(0, _i32(payload, at))
    return at + 4 + size if at + 4 + size <= end else MALFORMED


@inline
def _node_end(payload: Bytes, at: int, end: int) -> int:
    """The byte behind a NodeId or ExpandedNodeId."""
    if at + 1 > end:
        return MALFORMED
    flags = payload[at]
    form = flags & 0x3F
    at += 1
    if form == 0:
        at += 1
    elif form == 1:
        at += 3
    elif form == 2:
        at += 6
    elif form == 3 or form == 5:
        if at + 2 > end:
            return MALFORMED
        at = _string_end(payload, at + 2, end)
    elif form == 4:
        at += 18
    else:
        return MALFORMED
    if at >= 0 and flags & 0x80:
        at = _string_end(payload, at, end)
    if at >= 0 and flags & 0x40:
        at += 4
    return at if at <= end else MALFORMED


@inline
def _scalar_end(payload: Bytes, at: int, end: int, kind: int) -> int:
    """The byte behind a value of a built-in type; MALFORMED where it does not fit, or is of a type that
    holds others in it (see `_nested_end`)."""
    size = -1
    if kind in (1, 2, 3):
        size = 1
    elif kind in (4, 5):
        size = 2
    elif kind in (6, 7, 10, 19):
        size = 4
    elif kind in (8, 9, 11, 13):
        size = 8
    elif kind == 14:
        size = 16
    if size > 0:
        return at + size if at + size <= end else MALFORMED
    if kind in (12, 15, 16) or 26 <= kind <= 31:  # the last are kept for later versions, as ByteStrings
        return _string_end(payload, at, end)
    if kind in (17, 18):
        return _node_end(payload, at, end)
    if kind == 20:
        return _string_end(payload, at + 2, end)
    if kind == 21:
        if at + 1 > end:
            return MALFORMED
        mask = payload[at]
        at += 1
        if mask & 1:
            at = _string_end(payload, at, end)
        if at >= 0 and mask & 2:
            at = _string_end(payload, at, end)
        return at
    if kind == 22:
        at = _node_end(payload, at, end)
        if at < 0 or at + 1 > end:
            return MALFORMED
        return at + 1 if payload[at] == 0 else _string_end(payload, at + 1, end)
    return MALFORMED


@inline
def _nested_end(payload: Bytes, at: int, end: int, kind: int, count: int, stack: Int64) -> int:
    """The byte behind `count` values of a type that may hold others in it: a DataValue, a Variant, a
    DiagnosticInfo. stack: scratch int64[S, 2]; MALFORMED where they do not fit, or nest deeper than S."""
    stack[0, 0], stack[0, 1] = kind, count
    top = 0
    while top >= 0:
        if stack[top, 1] <= 0:
            top -= 1
            continue
        stack[top, 1] -= 1
        what = stack[top, 0]
        if what >= BEHIND_VALUE:  # the parts of a DataValue behind its Variant
            mask = what - BEHIND_VALUE
            for bit, size in ((2, 4), (4, 8), (16, 2), (8, 8), (32, 2)):
                if mask & bit:
                    at += size
        elif what == DIMENSIONS:
            if at + 4 > end:
                return MALFORMED
            at += 4 + 4 * max(0, _i32(payload, at))
        elif what < 23 or what > 25:
            at = _scalar_end(payload, at, end, what)
            if at < 0:
                return MALFORMED
        else:
            if at + 1 > end or top + 2 >= stack.shape[0]:
                return MALFORMED
            mask = np.int64(payload[at])
            at += 1
            if what == 23:
                top += 1
                stack[top, 0], stack[top, 1] = BEHIND_VALUE + mask, 1
                if mask & 1:
                    top += 1
                    stack[top, 0], stack[top, 1] = 24, 1
            elif what == 24:
                length = 1
                if mask & 0x80:
                    if at + 4 > end:
                        return MALFORMED
                    length = _i32(payload, at)
                    at += 4
                if mask & 0x40:
                    top += 1
                    stack[top, 0], stack[top, 1] = DIMENSIONS, 1
                if mask & 0x3F:
                    top += 1
                    stack[top, 0], stack[top, 1] = mask & 0x3F, length
            else:
                for bit in (1, 2, 4, 8):
                    if mask & bit:
                        at += 4
                if mask & 16:
                    at = _string_end(payload, at, end)
                if at >= 0 and mask & 32:
                    at += 4
                if at >= 0 and mask & 64:
                    top += 1
                    stack[top, 0], stack[top, 1] = 25, 1
        if at < 0 or at > end:
            return MALFORMED
    return at


@inline
def _read_scalar(
    payload: Bytes, at: int, end: int, kind: int, row: Int64, number: Float64, one: Int64
) -> int:
    """A value into its columns; returns the byte behind it."""
    stop = _scalar_end(payload, at, end, kind)
    if stop < 0:
        return stop
    row[KIND] = NUMBER
    if kind == 1:
        row[KIND] = BOOLEAN
        number[0] = 1.0 if payload[at] else 0.0
    elif kind == 2:
        number[0] = np.int64(payload[at]) - (256 if payload[at] > 127 else 0)
    elif kind == 3:
        number[0] = payload[at]
    elif kind == 4:
        value = _u16(payload, at)
        number[0] = value - (1 << 16) if value >= 1 << 15 else value
    elif kind == 5:
        number[0] = _u16(payload, at)
    elif kind == 6:
        number[0] = _i32(payload, at)
    elif kind == 7 or kind == 19:
        number[0] = _u32(payload, at)
    elif kind == 8:
        number[0] = _i64(payload, at)
    elif kind == 9:
        number[0] = np.float64(np.uint64(_i64(payload, at)))
    elif kind == 10:
        one[0] = _u32(payload, at)
        number[0] = one.view(np.float32)[0]
    elif kind == 11:
        one[0] = _i64(payload, at)
        number[0] = one.view(np.float64)[0]
    elif kind == 13:
        number[0] = (_i64(payload, at) - EPOCH) // 10_000
    elif kind == 12 or kind == 16 or kind == 20 or kind == 21:
        first = at
        if kind == 20:
            first = at + 2
        elif kind == 21:
            mask = payload[at]
            first = at + 1
            if mask & 1:
                first = _string_end(payload, first, end)
            if not mask & 2:
                row[KIND] = NULL
                return stop
        if _i32(payload, first) < 0:
            row[KIND] = NULL
        else:
            row[KIND] = TEXT
            row[FIRST], row[LAST] = first + 4, stop
    else:
        row[KIND] = STRANGE
    return stop


@inline
def _nanoseconds(ticks: int) -> int:
    """Of a DateTime, 100 ns since 1601; 0, and what no clock of ours can say, is no time."""
    if ticks <= 0 or ticks >= LATEST:
        return 0
    return (ticks - EPOCH) * 100


@kernel
def read_changes(payload: Bytes, start: int, end: int, columns: Int64, numbers: Float64) -> int:
    """The values of one DataChangeNotification; returns how many, or MALFORMED.

    payload uint8[B], its bytes from `start` to `end`. Out: columns int64[V, WIDTH], numbers float64[V];
    V at least as many as the array announces (5 bytes a value are the least there can be). Of an array the
    first element is the value: the nodes' index ranges leave no other.
    """
    at = start
    if at + 4 > end:
        return MALFORMED
    count = _i32(payload, at)
    at += 4
    if count > columns.shape[0]:
        return MALFORMED
    one, stack = np.zeros(1, np.int64), np.zeros((DEPTH, 2), np.int64)
    for v in range(max(0, count)):
        row = columns[v]
        row[:] = 0
        numbers[v] = 0.0
        if at + 5 > end:
            return MALFORMED
        row[ITEM] = _u32(payload, at)
        mask = payload[at + 4]
        at += 5
        if mask & 1:
            if at + 1 > end:
                return MALFORMED
            form = payload[at]
            kind = np.int64(form & 0x3F)
            at += 1
            length = 1
            if form & 0x80:
                if at + 4 > end:
                    return MALFORMED
                length = _i32(payload, at)
                at += 4
            if kind == 0:
                length = 0
            if 23 <= kind <= 25:
                row[KIND] = STRANGE
                at = _nested_end(payload, at, end, kind, length, stack)
                if at < 0:
                    return MALFORMED
                length = 0
            for k in range(max(0, length)):
                if k == 0:
                    at = _read_scalar(payload, at, end, kind, row, numbers[v : v + 1], one)
                else:
                    at = _scalar_end(payload, at, end, kind)
                if at < 0:
                    return MALFORMED
            if form & 0x40:
                if at + 4 > end:
                    return MALFORMED
                at += 4 + 4 * max(0, _i32(payload, at))
        if mask & 2:
            if at + 4 > end:
                return MALFORMED
            row[STATUS] = _u32(payload, at)
            at += 4
        if mask & 4:
            if at + 8 > end:
                return MALFORMED
            row[SOURCE_NS] = _nanoseconds(_i64(payload, at))
            at += 8
        if mask & 16:
            at += 2
        if mask & 8:
            if at + 8 > end:
                return MALFORMED
            row[SERVER_NS] = _nanoseconds(_i64(payload, at))
            at += 8
        if mask & 32:
            at += 2
        if at > end:
            return MALFORMED
        severity = row[STATUS] >> 30
        row[QUALITY] = GOOD if severity == 0 else UNCERTAIN if severity == 1 else BAD
        if row[STATUS] & OVERFLOW == OVERFLOW and row[QUALITY] == GOOD:
            row[QUALITY] = UNCERTAIN
        if row[KIND] == STRANGE:
            row[KIND] = NULL
    return max(0, count)


@inline
def _put(out: Bytes, at: int, value: int, size: int) -> None:
    for k in range(size):
        out[at + k] = np.uint8((value >> (8 * k)) & 255)


@kernel
def pack_devices(
    payload: Bytes,
    columns: Int64,
    numbers: Float64,
    order: Int64,
    device: Int64,
    name_first: Int64,
    names: Bytes,
    worse: int,
    most: int,
    most_bytes: int,
    seen: Int64,
    out: Bytes,
    length: Int64,
    owner: Int64,
) -> int:
    """Values as typed frames (see `connectors.typed`), one of each device; returns how many frames.

    columns int64[V, WIDTH], numbers float64[V] as `read_changes` gives them, their items below I;
    order int64[W]: which of them, the values of one device behind each other in the order of their times.
    device int64[I] of each item; name_first int64[I + 1] into names uint8[..]: its metric's name. worse: the
    least quality. most, most_bytes: values and bytes of one frame, which has one value at least. seen:
    scratch int64[I, 2], zeros. Out: out uint8[..], length and owner int64[W]: bytes and device of each
    frame. `out` needs 16 + 4 + name a value and what its text holds.
    """
    frames, to = 0, 0
    w = 0
    while w < order.shape[0]:
        whose = device[columns[order[w], ITEM]]
        stop = w
        names_n, names_size, texts_n, texts_size, size = 0, 0, 0, 0, HEAD
        while stop < order.shape[0] and stop - w < most and device[columns[order[stop], ITEM]] == whose:
            v = order[stop]
            item = columns[v, ITEM]
            more = ROW
            if seen[item, 0] != frames + 1:
                more += 4 + name_first[item + 1] - name_first[item]
            if columns[v, KIND] == TEXT:
                more += 4 + columns[v, LAST] - columns[v, FIRST]
            if stop > w and size + more > most_bytes:
                break
            size += more
            if seen[item, 0] != frames + 1:
                seen[item, 0], seen[item, 1] = frames + 1, names_n
                names_n += 1
                names_size += name_first[item + 1] - name_first[item]
            if columns[v, KIND] == TEXT:
                texts_n += 1
                texts_size += columns[v, LAST] - columns[v, FIRST]
            stop += 1
        begin = to
        out[to], out[to + 1], out[to + 2], out[to + 3] = 80, 84, 86, 49
        _put(out, to + 4, stop - w, 4)
        _put(out, to + 8, names_n, 2)
        _put(out, to + 10, texts_n, 2)
        _put(out, to + 12, names_size + texts_size, 4)
        ends = to + HEAD
        to = ends + 4 * (names_n + texts_n)
        first = to
        told = 0
        for k in range(w, stop):  # names in the order in which they were met
            item = columns[order[k], ITEM]
            if seen[item, 1] != told:
                continue
            for at in range(name_first[item], name_first[item + 1]):
                out[to] = names[at]
                to += 1
            _put(out, ends, to - first, 4)
            ends += 4
            told += 1
        for k in range(w, stop):
            v = order[k]
            if columns[v, KIND] == TEXT:
                for at in range(columns[v, FIRST], columns[v, LAST]):
                    out[to] = payload[at]
                    to += 1
                _put(out, ends, to - first, 4)
                ends += 4
        text = 0
        one = np.empty(1, np.float64)
        for k in range(w, stop):
            v = order[k]
            _put(out, to, columns[v, SOURCE_NS], 8)
            _put(out, to + 8, columns[v, SERVER_NS], 8)
            one[0] = numbers[v]
            if columns[v, KIND] == TEXT:
                one[0] = text
                text += 1
            _put(out, to + 16, one.view(np.int64)[0], 8)
            _put(out, to + 24, seen[columns[v, ITEM], 1], 2)
            out[to + 26] = columns[v, KIND]
            out[to + 27] = max(columns[v, QUALITY], worse)
            to += ROW
        length[frames], owner[frames] = to - begin, whose
        frames += 1
        w = stop
    return frames


def warm_up() -> None:
    """Compile the kernels with the types of the hot path."""
    payload = np.zeros(4, np.uint8)
    columns, numbers, whole = np.zeros((1, WIDTH), np.int64), np.zeros(1), np.zeros(2, np.int64)
    read_changes(payload, 0, 4, columns, numbers)
    pack_devices(
        payload, columns, numbers, np.zeros(1, np.int64), whole, whole, payload, 0, 1, 64,
        np.zeros((2, 2), np.int64), np.zeros(64, np.uint8), whole.copy(), whole.copy(),
    )  # fmt: skip
