"""Names in payloads that were met before: from their bytes to the number of what is known of them."""

from __future__ import annotations

import numpy as np

from operators.batch import Bytes, Int32, Int64, UInt64
from operators.jit import fused, kernel

# places of `state`
KNOWN, ARENA_USED = 0, 1


@fused
def _hash(data: Bytes, start: int, stop: int, seed: np.uint64) -> np.uint64:
    """64-bit hash of data[start:stop]: multiply-xor steps over bytes and the finalizer of MurmurHash3
    (public domain)."""
    state = seed
    for at in range(start, stop):
        state = (state ^ np.uint64(data[np.uint64(at)])) * np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(32)
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(33)
    return state


@kernel
def find_names(
    payload: Bytes,
    span: Int64,
    address: Int64,
    seed: np.uint64,
    slots: Int32,
    hashes: UInt64,
    owner: Int64,
    ends: Int64,
    arena: Bytes,
    out: Int64,
) -> None:
    """The number of each row's name in the table; -1 of one that was never added.

    payload: uint8[B]; span: int64[R, >= 2], first byte of the name (-1: it has none) and the byte behind its
    last; address: int64[R]. The table: slots int32[2^k] (-1 free, at least half of them); by number hashes,
    owner (the address), ends[1:] into arena. out: int64[R].
    """
    mask = len(slots) - 1
    for row in range(len(out)):
        out[row] = -1
        start, stop = span[row, 0], span[row, 1]
        if start < 0:
            continue
        code = _hash(payload, start, stop, seed ^ np.uint64(address[row]))
        slot = np.int64(code & np.uint64(mask))
        number = np.int64(slots[slot])
        while number >= 0:
            first = ends[number]
            if (
                hashes[number] == code
                and owner[number] == address[row]
                and ends[number + 1] - first == stop - start
            ):
                at = 0
                while at < stop - start and arena[first + at] == payload[start + at]:
                    at += 1
                if at == stop - start:
                    out[row] = number
                    break
            slot = (slot + 1) & mask
            number = np.int64(slots[slot])


@kernel
def add_name(
    name: Bytes,
    address: int,
    seed: np.uint64,
    slots: Int32,
    hashes: UInt64,
    owner: Int64,
    ends: Int64,
    arena: Bytes,
    state: Int64,
) -> int:
    """Add a name that is not in the table, which has room for it; returns its number. state: int64[2]."""
    mask = len(slots) - 1
    code = _hash(name, 0, len(name), seed ^ np.uint64(address))
    number, used = state[KNOWN], state[ARENA_USED]
    for at in range(len(name)):
        arena[used + at] = name[at]
    hashes[number], owner[number], ends[number + 1] = code, address, used + len(name)
    slot = np.int64(code & np.uint64(mask))
    while slots[slot] >= 0:
        slot = (slot + 1) & mask
    slots[slot] = number
    state[KNOWN], state[ARENA_USED] = number + 1, used + len(name)
    return int(number)


@kernel
def rehash(hashes: UInt64, known: int, slots: Int32) -> None:
    """Put the `known` names into an emptied table of slots (int32[2^k])."""
    mask = len(slots) - 1
    slots[:] = -1
    for number in range(known):
        slot = np.int64(hashes[number] & np.uint64(mask))
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = number
