"""Typed frames -> columns. The bytes of a frame are described in `connectors.typed`, which writes them;
nothing in a frame is trusted: every offset is checked against the frame's end before it is used."""

# numba's integers are Python's and NumPy's at once
# mypy: disable-error-code="assignment, arg-type, return-value, no-any-return"

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import BAD, TYPE_BREACH, Bytes, Float64, Int32, Int64
from operators.decode.json_kernels import invalid_utf8
from operators.jit import inline, kernel
from operators.text import hash_bytes

HEAD: Final = 16
ROW: Final = 28
NUMBER: Final = 1
BOOLEAN: Final = 2
TEXT: Final = 3

# of a column: what it takes
T_NUMBER: Final = 0
T_BOOLEAN: Final = 1
T_STRING: Final = 2

# what is wrong with a frame
W_GOOD: Final = 0
W_HEAD: Final = 1
W_LENGTH: Final = 2
W_STRINGS: Final = 3
W_UTF8: Final = 4
W_NAME: Final = 5
W_KIND: Final = 6
W_TEXT: Final = 7
W_QUALITY: Final = 8

UNDECLARED: Final = -1


@inline
def _u16(payload: Bytes, at: int) -> int:
    return np.int64(payload[at]) | np.int64(payload[at + 1]) << 8


@inline
def _u32(payload: Bytes, at: int) -> int:
    return _u16(payload, at) | _u16(payload, at + 2) << 16


@inline
def _i64(payload: Bytes, at: int) -> int:
    return _u32(payload, at) | _u32(payload, at + 4) << 32


@inline
def _f64(payload: Bytes, at: int, one: Int64) -> float:
    one[0] = _i64(payload, at)
    return one.view(np.float64)[0]


@kernel
def check_frames(payload: Bytes, offset: Int64, length: Int64, why: Int32, place: Int64, count: Int64) -> int:
    """Whether R frames are what `connectors.typed` describes; returns how many names and texts they
    have together.

    payload uint8[B]; offset, length int64[R]. Out: why int32[R] of W_*, place int64[R] byte of the frame
    that is wrong (-1: none); count int64[R]: its values, 0 of a frame that is wrong.
    """
    strings = 0
    one = np.empty(1, np.int64)
    for row in range(offset.shape[0]):
        start, size = offset[row], length[row]
        count[row], why[row], place[row] = 0, W_HEAD, 0
        if size < HEAD or payload[start] != 80 or payload[start + 1] != 84:
            continue
        if payload[start + 2] != 86 or payload[start + 3] != 49:
            continue
        values, names, texts = _u32(payload, start + 4), _u16(payload, start + 8), _u16(payload, start + 10)
        held = _u32(payload, start + 12)
        body = HEAD + 4 * (names + texts)
        why[row], place[row] = W_LENGTH, 4
        if body + held + ROW * values != size:
            continue
        before = 0
        for k in range(names + texts):
            end = _u32(payload, start + HEAD + 4 * k)
            if end < before or end > held:
                break
            before = end
        why[row], place[row] = W_STRINGS, HEAD
        if before != held or (names + texts > 0 and _u32(payload, start + body - 4) != held):
            continue
        why[row] = W_UTF8
        before = start + body
        wrong = -1
        for k in range(names + texts):
            end = start + body + _u32(payload, start + HEAD + 4 * k)
            wrong = invalid_utf8(payload, before, end)
            if wrong >= 0:
                break
            before = end
        if wrong >= 0:
            place[row] = wrong - start
            continue
        at = start + body + held
        bad = W_GOOD
        for _ in range(values):
            kind = payload[at + 26]
            if _u16(payload, at + 24) >= names:
                bad = W_NAME
            elif kind > TEXT:
                bad = W_KIND
            elif payload[at + 27] > BAD:
                bad = W_QUALITY
            elif kind == TEXT:
                number = _f64(payload, at + 16, one)
                if not (0.0 <= number < texts):
                    bad = W_TEXT
            if bad != W_GOOD:
                break
            at += ROW
        why[row], place[row] = bad, -1 if bad == W_GOOD else at - start
        if bad == W_GOOD:
            count[row] = values
            strings += names + texts
    return strings


@inline
def _find(table: Int64, key: int, stamp: int, a: int, b: int) -> int:
    """The place of a key (a, b) in a table int64[P, 4] of (stamp, a, b, what), P a power of two, or the
    place where it belongs; entries of other stamps are empty."""
    mask = table.shape[0] - 1
    at = key & mask
    while table[at, 0] == stamp and (table[at, 1] != a or table[at, 2] != b):
        at = (at + 1) & mask
    return at


@inline
def _mixed(a: int, b: int) -> int:
    state = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xC4CEB9FE1A85EC53)
    return np.int64((state ^ (state >> np.uint64(32))) >> np.uint64(1))


@kernel
def join_values(
    payload: Bytes,
    offset: Int64,
    length: Int64,
    ingest_ns: Int64,
    count: Int64,
    codes: Int64,
    column_of: Int64,
    name_column: Int64,
    table: Int64,
    value_column: Int32,
    value_reading: Int32,
    frame: Int32,
    index: Int32,
    ts_ns: Int64,
    time_source: Bytes,
    unknown: Int64,
) -> tuple[int, int]:
    """Which reading and which column each value belongs to; returns how many readings there are, and
    how many undeclared names.

    count int64[R]: values of each frame, 0 for one that is wrong. codes int64[C], rising: codes of the
    names at the source, column_of int64[C] their columns. Scratch: name_column int64 of at least the
    most names of a frame; table int64[P, 4], zeros, P a power of two and at least four times the
    most values of a frame. Out, V values in all, of frames that are good: value_column (UNDECLARED: no
    column), value_reading int32[V]; frame, index, ts_ns, time_source [V] of which the readings are
    the first; unknown int64[U, 4]: (frame, first byte, byte after the last, values).

    Values of one frame and time are one reading; a metric that stands n times at one time makes
    n readings of that time, the first with the first of each metric.
    """
    readings, strangers, v = 0, 0, 0
    for row in range(offset.shape[0]):
        if count[row] == 0:
            continue
        start = offset[row]
        names, texts = _u16(payload, start + 8), _u16(payload, start + 10)
        body = start + HEAD + 4 * (names + texts)
        before = body
        first_stranger = strangers
        for k in range(names):
            end = body + _u32(payload, start + HEAD + 4 * k)
            code = hash_bytes(payload, before, end)
            found = np.searchsorted(codes, code)
            if found < codes.shape[0] and codes[found] == code:
                name_column[k] = column_of[found]
            else:
                name_column[k] = UNDECLARED - (strangers - first_stranger)
                unknown[strangers, 0], unknown[strangers, 1] = row, before
                unknown[strangers, 2], unknown[strangers, 3] = end, 0
                strangers += 1
            before = end
        at = start + length[row] - ROW * count[row]
        begun = readings
        stamp = row + 1
        for _ in range(count[row]):
            column = name_column[_u16(payload, at + 24)]
            if column < 0:
                unknown[first_stranger + UNDECLARED - column, 3] += 1
                value_column[v] = UNDECLARED
                at += ROW
                v += 1
                continue
            ns, source = _i64(payload, at), 0
            if ns == 0:
                ns, source = _i64(payload, at + 8), 1
            if ns == 0:
                ns, source = ingest_ns[row], 2
            # how often this metric stood at this time already
            tag = (column << 3) | (source << 1)
            place = _find(table, _mixed(ns, tag), stamp, ns, tag)
            again = table[place, 3] + 1 if table[place, 0] == stamp else 0
            table[place, 0], table[place, 1], table[place, 2], table[place, 3] = stamp, ns, tag, again
            tag = (again << 3) | (source << 1) | 1
            place = _find(table, _mixed(ns, tag), stamp, ns, tag)
            if table[place, 0] != stamp:
                table[place, 0], table[place, 1], table[place, 2] = stamp, ns, tag
                table[place, 3] = readings
                frame[readings], index[readings] = row, readings - begun
                ts_ns[readings], time_source[readings] = ns, source
                readings += 1
            value_column[v], value_reading[v] = column, table[place, 3]
            at += ROW
            v += 1
    return readings, strangers


@kernel
def fill_columns(
    payload: Bytes,
    offset: Int64,
    length: Int64,
    count: Int64,
    kinds: Bytes,
    value_column: Int32,
    value_reading: Int32,
    value: Float64,
    quality: Bytes,
    spoken: Int64,
) -> int:
    """The values of the frames in their columns; returns how many rows of `spoken` there are.

    kinds uint8[C] of T_*, integers are numbers; value_column, value_reading int32[V] as `join_values` found
    them. Out: value float64[C, N], NaN at first; quality uint8[C, N], ABSENT at first; spoken int64[V, 3]:
    (code, first byte, byte after the last) of each text that is a value.

    A value that is not finite, and a null, is BAD without a value; one of another type TYPE_BREACH.
    """
    v, told = 0, 0
    one = np.empty(1, np.int64)
    for row in range(offset.shape[0]):
        if count[row] == 0:
            continue
        start = offset[row]
        names, texts = _u16(payload, start + 8), _u16(payload, start + 10)
        body = start + HEAD + 4 * (names + texts)
        at = start + length[row] - ROW * count[row]
        for _ in range(count[row]):
            column = value_column[v]
            if column >= 0:
                reading = value_reading[v]
                kind, state = payload[at + 26], payload[at + 27]
                number = _f64(payload, at + 16, one)
                takes = kinds[column]
                if kind == NUMBER and takes == T_NUMBER:
                    if np.isfinite(number):
                        value[column, reading] = number
                    else:
                        state = BAD
                elif kind == BOOLEAN and takes == T_BOOLEAN:
                    value[column, reading] = 1.0 if number != 0.0 else 0.0
                elif kind == TEXT and takes == T_STRING:
                    k = names + np.int64(number)
                    first = body + (_u32(payload, start + HEAD + 4 * (k - 1)) if k > 0 else 0)
                    last = body + _u32(payload, start + HEAD + 4 * k)
                    code = hash_bytes(payload, first, last)
                    value[column, reading] = np.float64(code)
                    spoken[told, 0], spoken[told, 1], spoken[told, 2] = code, first, last
                    told += 1
                elif kind == 0:
                    state = BAD
                else:
                    state = TYPE_BREACH
                quality[column, reading] = state
            at += ROW
            v += 1
    return told


def warm_up() -> None:
    """Compile the kernels with the types of the hot path."""
    payload = np.frombuffer(b"PTV1" + bytes(12), np.uint8).copy()
    whole, small = np.zeros(1, np.int64), np.zeros(1, np.int32)
    table = np.zeros((8, 4), np.int64)
    flags = np.zeros(1, np.uint8)
    check_frames(payload, whole, whole + HEAD, small, whole.copy(), whole.copy())
    join_values(
        payload, whole, whole + HEAD, whole, whole, whole, whole, whole.copy(), table,
        small, small, small, small, whole.copy(), flags, table,
    )  # fmt: skip
    fill_columns(
        payload, whole, whole + HEAD, whole, flags, small, small,
        np.zeros((1, 1)), np.zeros((1, 1), np.uint8), table,
    )  # fmt: skip
