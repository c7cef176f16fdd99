"""Typed frames, read the plain way, after the table in connectors/typed.py."""

from __future__ import annotations

import struct


def read(frame):
    """[(metric, value, time in ms, quality)]; a null and its kind is None."""
    magic, count, names, texts, size = struct.unpack_from("<4sIHHI", frame)
    assert magic == b"PTV1"
    ends = struct.unpack_from(f"<{names + texts}I", frame, 16)
    at = 16 + 4 * (names + texts)
    spoken = [frame[at + first : at + last].decode() for first, last in zip((0, *ends), ends, strict=False)]
    found = []
    for row in range(count):
        time, _, value, name, kind, quality = struct.unpack_from("<qqdHBB", frame, at + size + 28 * row)
        read = {0: None, 1: value, 2: bool(value), 3: spoken[names + int(value)] if kind == 3 else ""}[kind]
        found.append((spoken[name], read, time // 10**6, ("good", "uncertain", "bad")[quality]))
    return found
