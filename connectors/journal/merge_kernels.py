"""Frames entries to the columns of a batch, and their packed addresses to numbers."""

from __future__ import annotations

import numpy as np

from operators.batch import Bytes, Int32, Int64, UInt64
from operators.jit import fused, kernel

# places of `state` in `merge_frames`
KNOWN, ARENA_USED, HERE = 0, 1, 2

_COUNT_AT = 4
_CLOCK_AT = 8
_SIZES_AT = 24  # of an entry: payload bytes u64, table bytes u32, address count u32
_ARRAYS_AT = 40
_MILLISECOND = 1_000_000


@fused
def four(data: Bytes, at: np.uint64) -> np.uint64:
    """The little-endian u32 at `at`, an unsigned number: LLVM makes one load of it then."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[at + np.uint64(3)]) << np.uint64(24)
    )


@fused
def eight(data: Bytes, at: np.uint64) -> np.uint64:
    """The little-endian u64 at `at`."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[at + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[at + np.uint64(7)]) << np.uint64(56)
    )


@fused
def packed_hash(data: Bytes, start: np.int64, size: np.int64, seed: np.uint64) -> np.uint64:
    """64-bit hash of data[start:start + size]: multiply-xor steps over words and the finalizer of
    MurmurHash3 (public domain)."""
    prime = np.uint64(0x9E3779B97F4A7C15)
    state = seed ^ np.uint64(size)
    at = np.uint64(start)
    for _ in range(size >> 3):
        state = (state ^ eight(data, at)) * prime
        state ^= state >> np.uint64(32)
        at += np.uint64(8)
    rest = np.uint64(0)
    for _ in range(size & 7):
        rest = rest << np.uint64(8) | np.uint64(data[at])
        at += np.uint64(1)
    state = (state ^ rest) * prime
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(33)
    return state


@kernel
def merge_frames(
    data: Bytes,
    starts: Int64,
    seed: np.uint64,
    slots: Int32,
    hashes: UInt64,
    ends: Int64,
    arena: Bytes,
    local: Int32,
    scratch: Int32,
    state: Int64,
    offset: Int64,
    length: Int64,
    address: Int32,
    ingest_ns: Int64,
    flags: Bytes,
    numbers: Int64,
) -> int:
    """Frames entries (their form: connectors.journal.entries) as columns.

    data holds E whole entries, entry e begins at starts[e] (int64[E + 1], the last one is the end);
    the caller has checked that the parts of each entry add up to it.
    Known addresses: slots int32[2^k] (-1 free, at least half of them), hashes, ends[1:] and arena
    by number, local int32 of -1 (left so), state[KNOWN] and state[ARENA_USED]; all with room for
    every address in `data`. scratch: int32, room for the addresses of one entry.
    Out: offset, length, address, ingest_ns, flags by frame; numbers[:state[HERE]] the numbers of
    the batch's addresses, in order of their first appearance, which `address` points into.
    Returns the frames, or -1 - e where entry e does not hold: lengths or indexes are out of bounds.
    """
    mask = len(slots) - 1
    known, used = state[KNOWN], state[ARENA_USED]
    row = 0
    here = 0
    bad = -1
    for e in range(len(starts) - 1):
        start = starts[e]
        count = np.int64(four(data, np.uint64(start + _COUNT_AT)))
        clock = np.int64(eight(data, np.uint64(start + _CLOCK_AT))) * _MILLISECOND
        size = np.int64(eight(data, np.uint64(start + _SIZES_AT)))
        table_size = np.int64(four(data, np.uint64(start + _SIZES_AT + 8)))
        addresses = np.int64(four(data, np.uint64(start + _SIZES_AT + 12)))
        lengths_at = start + _ARRAYS_AT
        where_at = lengths_at + 4 * count
        flags_at = where_at + 4 * count
        table = flags_at + count
        payload = table + table_size
        blob = table + 4 * addresses
        for n in range(addresses):
            blob_size = np.int64(four(data, np.uint64(table + 4 * n)))
            if blob + blob_size > payload:
                bad = e
                break
            code = packed_hash(data, blob, blob_size, seed)
            slot = np.int64(code & np.uint64(mask))
            number = np.int64(slots[slot])
            while number >= 0:
                if hashes[number] == code and ends[number + 1] - ends[number] == blob_size:
                    at, to = np.uint64(blob), np.uint64(ends[number])
                    different = np.uint64(0)
                    for _ in range(blob_size >> 3):
                        different |= eight(data, at) ^ eight(arena, to)
                        at += np.uint64(8)
                        to += np.uint64(8)
                    for _ in range(blob_size & 7):
                        different |= np.uint64(data[at] ^ arena[to])
                        at += np.uint64(1)
                        to += np.uint64(1)
                    if different == np.uint64(0):
                        break
                slot = (slot + 1) & mask
                number = np.int64(slots[slot])
            if number < 0:
                number = known
                known += 1
                slots[slot] = number
                hashes[number] = code
                for i in range(blob_size):
                    arena[used + i] = data[blob + i]
                used += blob_size
                ends[number + 1] = used
            if local[number] < 0:
                local[number] = here
                numbers[here] = number
                here += 1
            scratch[n] = local[number]
            blob += blob_size
        if bad >= 0 or blob != payload:
            bad = e
            break
        begin = payload
        for n in range(count):
            frame = np.int64(four(data, np.uint64(lengths_at + 4 * n)))
            where = np.int64(four(data, np.uint64(where_at + 4 * n)))
            if where >= addresses:
                bad = e
                break
            offset[row] = begin
            length[row] = frame
            address[row] = scratch[where]
            ingest_ns[row] = clock
            flags[row] = data[flags_at + n]
            begin += frame
            row += 1
        if bad >= 0 or begin != payload + size:
            bad = e
            break
    for n in range(here):
        local[numbers[n]] = -1
    state[KNOWN], state[ARENA_USED], state[HERE] = known, used, here
    return row if bad < 0 else -1 - bad


@kernel
def rehash(hashes: UInt64, known: int, slots: Int32) -> None:
    """Put the `known` addresses into an emptied table of slots (int32[2^k])."""
    mask = len(slots) - 1
    slots[:] = -1
    for number in range(known):
        slot = np.int64(hashes[number] & np.uint64(mask))
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = number
