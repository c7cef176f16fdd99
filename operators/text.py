"""Texts as numbers: the 52-bit code under which a text metric travels in a float64 column."""

from __future__ import annotations

import numpy as np

from operators.batch import Bytes
from operators.jit import kernel


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
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    return int(hash_bytes(data, 0, len(data)))


def warm_up() -> None:
    """Compile the kernel."""
    text_code("warm")
