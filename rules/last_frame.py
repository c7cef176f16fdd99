"""The last frame that was journaled before a moment: what events without a reading of their own rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from operators.batch import SEQ_PER_FRAME, Int64, Slice


class LastFrame:
    """Remembers the last frame of the slices so far, and the journal's clock."""

    def __init__(self) -> None:
        self.position = 0
        self.ingest_ns = 0
        self.clock_ns = 0  # of the newest entry that was seen; 0: none
        self.first_ns = 0  # of the first one

    def ticks(self, item: Slice) -> Int64:
        """int64[K, 2]: position and ingest time of the last frame before each tick of the slice."""
        frames = item.frames
        ticks = frames.ticks
        found = np.empty((len(ticks.ns), 2), np.int64)
        positions = np.append(frames.position, item.position)
        found[:, 0] = np.maximum(positions[ticks.row] - 1, 0)
        found[:, 1] = np.where(ticks.row > 0, np.append(0, frames.ingest_ns)[ticks.row], self.ingest_ns)
        found[:, 1] = np.where(found[:, 1] > 0, found[:, 1], self.begin(item))
        return found

    def ingest_at(self, item: Slice, position: int, otherwise: int) -> int:
        """The ingest time of a frame of the slice or of the last one before it."""
        frames = item.frames
        if item.released:
            at = int(np.searchsorted(frames.position, position))
            if at < len(frames) and frames.position[at] == position:
                return int(frames.ingest_ns[at])
        elif len(frames) and position >= frames.position[0]:
            return int(frames.ingest_ns[position - int(frames.position[0])])
        return self.ingest_of(position, otherwise)

    def ingest_of(self, position: int, otherwise: int) -> int:
        """The ingest time of the last frame so far, where that is the one at `position`."""
        return self.ingest_ns if self.ingest_ns and position == self.position else otherwise

    @staticmethod
    def places(item: Slice) -> Int64:
        """int64[K]: `Place.at` of each tick of the slice."""
        positions = np.append(item.frames.position, item.position)
        return positions[item.frames.ticks.row] * SEQ_PER_FRAME

    def begin(self, item: Slice) -> int:
        """The journal's clock at the first entry that was ever seen and is no tick (of which a slice
        keeps the last alone); 0 while there is none."""
        if not self.first_ns:
            self.first_ns = _first(item)
        return self.first_ns

    def settle(self, item: Slice) -> None:
        """The slice is over."""
        frames = item.frames
        if item.released:  # these were journaled before
            self.clock_ns = max(self.clock_ns, int(frames.ingest_ns[-1]))
        elif len(frames):
            self.position, self.ingest_ns = int(frames.position[-1]), int(frames.ingest_ns[-1])
            self.clock_ns = max(self.clock_ns, self.ingest_ns)
        if len(frames.ticks.ns):
            self.clock_ns = max(self.clock_ns, int(frames.ticks.ns[-1]))
        if item.control is not None:
            self.clock_ns = max(self.clock_ns, item.control.at_ns)
        if item.master is not None:
            self.clock_ns = max(self.clock_ns, item.master.at_ns)

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        return {
            "position": self.position,
            "ingest_ns": self.ingest_ns,
            "clock_ns": self.clock_ns,
            "first_ns": self.first_ns,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take over what `export` gave."""
        self.position, self.ingest_ns = kept["position"], kept["ingest_ns"]
        self.clock_ns, self.first_ns = kept["clock_ns"], kept["first_ns"]


def _first(item: Slice) -> int:
    if item.control is not None:
        return item.control.at_ns
    return int(item.frames.ingest_ns[0]) if len(item.frames) else 0
