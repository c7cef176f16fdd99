"""A batch of frames in parts: what stands between two places of it, and frames that are taken in late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from operators.batch import Address, FrameBatch, Ticks, with_line, without_lines
from operators.decode.held import HeldFrame


class Place(NamedTuple):
    """Before a row and before a tick of a batch; the ticks from `tick` on stand at `row` or behind it."""

    row: int
    tick: int


def between(frames: FrameBatch, begin: Place, end: Place) -> FrameBatch:
    """Rows and ticks from one place to another."""
    rows, marks = slice(begin.row, end.row), slice(begin.tick, end.tick)
    return replace(
        frames,
        offset=frames.offset[rows],
        length=frames.length[rows],
        address=frames.address[rows],
        ingest_ns=frames.ingest_ns[rows],
        position=frames.position[rows],
        flags=frames.flags[rows],
        ticks=Ticks(frames.ticks.row[marks] - begin.row, frames.ticks.ns[marks]),
    )


def late_batch(held: Sequence[HeldFrame], now_ns: int) -> FrameBatch:
    """Frames that waited, as if they came now; their positions stay."""
    addresses: dict[Address, int] = {}
    index = [addresses.setdefault(frame.address, len(addresses)) for frame in held]
    stored = [with_line(frame.payload, frame.line) if frame.line else frame.payload for frame in held]
    lengths = np.array([len(payload) for payload in stored], np.int64)
    flags = np.array([frame.flags for frame in held], np.uint8)
    return FrameBatch(
        payload=np.frombuffer(bytearray().join(stored), np.uint8),
        offset=np.cumsum(lengths) - lengths,
        length=without_lines(lengths, flags),
        address=np.array(index, np.int32),
        addresses=tuple(addresses),
        ingest_ns=np.full(len(held), now_ns, np.int64),
        position=np.array([frame.position for frame in held], np.int64),
        flags=flags,
        ticks=Ticks.none(),
    )
