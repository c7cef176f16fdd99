"""JSON arrays -> their elements: from the bytes of valid values to those of what stands in them.

Everything given to these kernels was walked by `json_kernels.walk` before, so it is known to be
valid JSON; they still never read beyond the value that they were given.
"""

# numba's integers are Python's and NumPy's at once
# mypy: disable-error-code="assignment, arg-type, return-value, no-any-return"

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import Bytes, Int64
from operators.jit import inline, kernel

EACH: Final = -1  # every element of an array
NAMED: Final = -2  # the member of this name


@inline
def _past_blanks(payload: Bytes, at: int, end: int) -> int:
    while at < end and (payload[at] == 32 or payload[at] == 10 or payload[at] == 13 or payload[at] == 9):
        at += 1
    return at


@inline
def _text_end(payload: Bytes, at: int, end: int) -> int:
    """Of a text whose first byte behind the quote is `at`: its closing quote."""
    while at < end and payload[at] != 34:
        at += 2 if payload[at] == 92 else 1
    return min(at, end)


@inline
def _value_end(payload: Bytes, at: int, end: int) -> int:
    """The byte behind the value that begins at `at`."""
    depth = 0
    while at < end:
        c = payload[at]
        if c == 34:
            at = _text_end(payload, at + 1, end) + 1
            if depth == 0:
                return min(at, end)
            continue
        if c == 123 or c == 91:
            depth += 1
        elif c == 125 or c == 93:
            if depth == 0:
                return at
            depth -= 1
            if depth == 0:
                return at + 1
        elif depth == 0 and (c == 44 or c == 32 or c == 10 or c == 13 or c == 9):
            return at
        at += 1
    return end


@inline
def _hex(payload: Bytes, at: int, end: int) -> int:
    code = 0
    for k in range(at, min(at + 4, end)):
        c = np.int64(payload[k])
        code = code * 16 + (c - 48 if c <= 57 else (c | 32) - 87)
    return code


@inline
def _is_name(payload: Bytes, at: int, stop: int, name: Bytes) -> bool:
    """Whether a text, escapes resolved, is `name` (UTF-8)."""
    n = 0
    out = np.empty(4, np.uint8)
    while at < stop:
        size = 1
        out[0] = payload[at]
        if payload[at] == 92 and at + 1 < stop:
            c = np.int64(payload[at + 1])
            at += 2
            if c == 117:
                c = _hex(payload, at, stop)
                at += 4
                if 0xD800 <= c <= 0xDBFF:
                    c = 0x10000 + ((c - 0xD800) << 10) + _hex(payload, at + 2, stop) - 0xDC00
                    at += 6
            elif c == 98:
                c = 8
            elif c == 102:
                c = 12
            elif c == 110:
                c = 10
            elif c == 114:
                c = 13
            elif c == 116:
                c = 9
            if c < 0x80:
                out[0] = c
            else:
                size = 2 if c < 0x800 else 3 if c < 0x10000 else 4
                out[0] = (0xC0 if size == 2 else 0xE0 if size == 3 else 0xF0) | (c >> (6 * (size - 1)))
                for k in range(1, size):
                    out[k] = 0x80 | ((c >> (6 * (size - 1 - k))) & 63)
        else:
            at += 1
        if n + size > name.shape[0]:
            return False
        for k in range(size):
            if out[k] != name[n + k]:
                return False
        n += size
    return n == name.shape[0]


@kernel
def descend(
    payload: Bytes,
    first: Int64,
    last: Int64,
    part: int,
    name: Bytes,
    parent: Int64,
    child_first: Int64,
    child_last: Int64,
    place: Int64,
    opening: Bytes,
) -> int:
    """One step of a path from N values to the values in them; returns how many were found, or -1
    where the outputs are too small.

    payload uint8[B]; first, last int64[N]: first byte and the one behind the last, blanks allowed
    around. part: a place of an array from 0, EACH, or NAMED with `name` uint8[L] (of a member that
    stands twice, the last). Out, in the order of the N: parent int64[K] 0..N, child_first,
    child_last int64[K], place int64[K] the place in its array (-1: a member); opening uint8[N]: the
    value's first byte, 0 where there is none.
    """
    found = 0
    for i in range(first.shape[0]):
        end = last[i]
        at = _past_blanks(payload, first[i], end)
        opening[i] = payload[at] if at < end else 0
        if opening[i] != (123 if part == NAMED else 91):
            continue
        at = _past_blanks(payload, at + 1, end)
        index = 0
        mine = -1
        while at < end and payload[at] != 93 and payload[at] != 125:
            wanted = part in (EACH, index)
            if part == NAMED:
                stop = _text_end(payload, at + 1, end)
                wanted = _is_name(payload, at + 1, stop, name)
                at = _past_blanks(payload, stop + 1, end)
                at = _past_blanks(payload, at + 1, end)
            stop = _value_end(payload, at, end)
            if stop <= at:  # no value: not the valid JSON that was promised
                break
            if wanted:
                k = found
                if mine >= 0:
                    k = mine
                else:
                    if found == parent.shape[0]:
                        return -1
                    found += 1
                parent[k], child_first[k], child_last[k] = i, at, stop
                place[k] = -1 if part == NAMED else index
                if part == NAMED:
                    mine = k
            at = _past_blanks(payload, stop, end)
            if at < end and payload[at] == 44:
                at = _past_blanks(payload, at + 1, end)
            index += 1
    return found


def warm_up() -> None:
    """Compile the kernel with the types of the hot path."""
    payload = np.frombuffer(b"[1]", np.uint8).copy()
    whole = np.zeros(1, np.int64)
    descend(
        payload, whole, whole + 3, EACH, np.zeros(1, np.uint8),
        whole.copy(), whole.copy(), whole.copy(), whole.copy(), np.zeros(1, np.uint8),
    )  # fmt: skip
