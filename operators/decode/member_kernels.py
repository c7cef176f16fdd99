"""Finds a member by its name in JSON frames, without reading them: most frames have none."""

from __future__ import annotations

import numpy as np

from operators.batch import Bytes, Int64, UInt64
from operators.jit import inline, kernel

_FNV_BASIS = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
U = np.uint64


@inline
def _value_hash(payload: Bytes, at: int, stop: int, state: np.uint64) -> np.uint64:
    """FNV-1a, 64 bits, of the array or object that begins at `at`, up to its closing bracket."""
    depth = 0
    quoted = False
    p = at
    while p < stop:
        c = payload[p]
        state = (state ^ np.uint64(c)) * _FNV_PRIME
        if quoted:
            if c == 92 and p + 1 < stop:  # backslash: the next byte is no end
                p += 1
                state = (state ^ np.uint64(payload[p])) * _FNV_PRIME
            elif c == 34:
                quoted = False
        elif c == 34:
            quoted = True
        elif c == 91 or c == 123:
            depth += 1
        elif c == 93 or c == 125:
            depth -= 1
            if depth == 0:
                break
        p += 1
    return state


@inline
def _after_blanks(payload: Bytes, at: int, stop: int) -> int:
    while at < stop and (payload[at] == 32 or (payload[at] >= 9 and payload[at] <= 13)):
        at += 1
    return at


@inline
def _anywhere(payload: Bytes, offset: Int64, length: Int64, name: Bytes) -> bool:
    """Whether the first letters of the name stand anywhere among the frames: in one pass over all of
    their bytes, as a frame is shorter than what a vectorised loop takes at once."""
    low, high = len(payload), 0
    for row in range(len(offset)):
        low, high = min(low, int(offset[row])), max(high, int(offset[row] + length[row]))
    last = min(len(name) - 2, 3)
    first, second, third = name[1], name[2], name[last]
    for block in range(low, high - last, 16_384):
        end = min(block + 16_384, high - last)
        here, next_, later = payload[block:end], payload[block + 1 : end + 1], payload[block + last - 1 :]
        least = np.uint8(255)  # a minimum over differences is what the compiler vectorises best
        for at in range(end - block):
            least = min(least, (here[at] ^ first) | (next_[at] ^ second) | (later[at] ^ third))
        if least == 0:
            return True
    return False


@kernel
def member_hashes(
    payload: Bytes, offset: Int64, length: Int64, asked: Bytes, name: Bytes, found: UInt64
) -> int:
    """A hash of the arrays that stand under a name, at any depth, of each frame.

    payload: uint8[B]; offset, length: int64[N]; asked: uint8[N], 1 where a frame is to be looked at;
    name: uint8[K] with its quotes, K >= 3. found: uint64[N], 0 where there is none. Returns how many there
    are. A name that is written with escapes is not found.
    """
    size = len(name)
    count = 0
    if not _anywhere(payload, offset, length, name):
        found[:] = np.uint64(0)
        return count
    for row in range(len(offset)):
        found[row] = np.uint64(0)
        if asked[row] == 0:
            continue
        start = offset[row]
        stop = start + length[row]
        state, there = _FNV_BASIS, False
        at = start
        while at < stop - size:
            same = True
            for k in range(size):
                if payload[at + k] != name[k]:
                    same = False
                    break
            if not same:
                at += 1
                continue
            at = _after_blanks(payload, at + size, stop)
            if at >= stop or payload[at] != 58:
                continue
            at = _after_blanks(payload, at + 1, stop)
            if at < stop and payload[at] == 91:
                state, there = _value_hash(payload, at, stop, state), True
        if there:
            found[row] = state | np.uint64(1)
            count += 1
    return count


def warm_up() -> None:
    """Compile (or load from disk) with the types of the hot path."""
    payload = np.frombuffer(b'{"nodes":[{"device_id":"a"}]}', np.uint8).copy()
    one = np.full(1, len(payload), np.int64)
    name = np.frombuffer(b'"nodes"', np.uint8).copy()
    member_hashes(payload, np.zeros(1, np.int64), one, np.ones(1, np.uint8), name, np.zeros(1, np.uint64))
