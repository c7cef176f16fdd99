"""Texts as numbers: the 52-bit code under which a text metric travels in a float64 column."""

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import Bytes
from operators.jit import kernel

_SHORT: Final = 8192  # as long as an expression can be
_ALL: Final = (1 << 64) - 1


@kernel
def hash_bytes(payload: Bytes, start: int, stop: int) -> int:
    """52-bit code of payload[start:stop]: FNV-1a (64 bit; Fowler, Noll, Vo), its state mixed by
    the finalizer of MurmurHash3 and cut to the upper 52 bits, so that a float64 holds it exactly.
    """
    state = np.uint64(0xCBF29CE484222325)
    for i in range(start, stop):
        state = (state ^ np.uint64(payload[i])) * np.uint64(0x100000001B3)
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xC4CEB9FE1A85EC53)
    state ^= state >> np.uint64(33)
    return int(state >> np.uint64(12))


def text_code(text: str) -> int:
    """The code of a text: equal texts have equal codes, in every process and for ever."""
    encoded = text.encode("utf-8")
    if len(encoded) <= _SHORT:
        return _hash_short(encoded)
    data = np.frombuffer(encoded, np.uint8)
    return int(hash_bytes(data, 0, len(data)))


def _hash_short(data: bytes) -> int:
    """`hash_bytes` without the kernel: whoever only reads rules does not wait until it is loaded."""
    state = 0xCBF29CE484222325
    for byte in data:
        state = ((state ^ byte) * 0x100000001B3) & _ALL
    state ^= state >> 33
    state = (state * 0xFF51AFD7ED558CCD) & _ALL
    state ^= state >> 33
    state = (state * 0xC4CEB9FE1A85EC53) & _ALL
    return (state ^ (state >> 33)) >> 12


def warm_up() -> None:
    """Compile the kernel."""
    hash_bytes(np.frombuffer(b"warm", np.uint8), 0, 4)
