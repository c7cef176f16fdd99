"""Frames out of frames: bits, bytes, lengths, pieces of other frames, words of the formats."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

WORDS: Final = (
    *(
        b"\x00",
        b"\xff",
        b"\x7f\xff",
        b"\x80\x00",
        b"\x7f\x80\x00\x00",
        b"\xff\xc0\x00\x00",
        b"\xff\xff\xff\xff",
    ),
    *(
        b"null",
        b"true",
        b"1e400",
        b"-0",
        b"1e-400",
        b"NaN",
        b'"',
        b"\\u0000",
        b"\\ud800",
        b"[",
        b"{",
        b"}",
        b"]",
    ),
    *(
        b",",
        b":",
        b";",
        b'""',
        b"\xc3\xa9",
        b"\xed\xa0\x80",
        b"9" * 40,
        b"0." + b"1" * 30,
        b"\r\n",
        b"[[[[[[[[",
    ),
)
LONGEST: Final = 2_000


def mutated(payload: bytes, corpus: Sequence[bytes], rng: random.Random) -> bytes:
    """One to four changes."""
    data = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 4:
            data[at:at] = rng.choice(WORDS)
        elif kind == 5:
            word = rng.choice(WORDS)
            data[at : at + len(word)] = word
        elif kind == 6:
            other = rng.choice(corpus)
            start = rng.randint(0, len(other))
            data[at:at] = other[start : start + rng.randint(1, 32)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(data[:LONGEST])
