"""Frames and ticks of recorded input gathered into the slices that the flow reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from connectors.files.recorded_lines import RecordedLine
from operators.batch import (
    FRAME_HISTORICAL,
    FRAME_NUMBERED,
    FRAME_QUARANTINED,
    FRAME_RETAINED,
    Address,
    Control,
    FrameBatch,
    Slice,
    Ticks,
    with_line,
    without_lines,
)

SLICE_BYTES: Final = 16 << 20
MILLISECOND: Final = 1_000_000
_NO_HEADERS: Final[tuple[tuple[str, str], ...]] = ()


class SliceBuilder:
    """Gathers frames and ticks into slices; the clock and the positions run through all of them."""

    def __init__(self, entry_frames: int, generate: bool) -> None:
        self.entry_frames = entry_frames
        self.quarantined: set[int] = set()  # positions of frames that a later line sets aside
        self._generate = generate
        self._entry = 0
        self._position = 0
        self._clock_ms = 0
        self._tick_ms = 0  # newest tick
        self._next_second = -(1 << 62)
        self._clear()

    def _clear(self) -> None:
        self._payloads: list[bytes] = []
        self._where: list[int] = []
        self._flags: list[int] = []
        self._clocks: list[int] = []
        self._ticks: list[tuple[int, int]] = []
        self._index: dict[tuple[str, str, int, tuple[tuple[str, str], ...]], int] = {}
        self._bytes = 0
        self.is_full = False

    def add_line(self, line: RecordedLine) -> None:
        """A recorded frame; raises ValueError where it is none."""
        if line.source is None:
            raise ValueError("a frame needs source, the name of the source that it came through")
        if line.payload is not None:
            if line.payload_hex is not None:
                raise ValueError("a frame has payload or payload_hex, not both")
            payload = line.payload.encode()
        elif line.payload_hex is not None:
            try:
                payload = bytes.fromhex(line.payload_hex)
            except ValueError as error:
                raise ValueError(f"payload_hex: not hexadecimal: {error}") from error
        else:
            raise ValueError("a frame needs payload (text) or payload_hex")
        headers = _NO_HEADERS
        if line.headers:
            pairs = line.headers.items() if isinstance(line.headers, dict) else line.headers
            headers = tuple((name, value) for name, value in pairs)
        flags = FRAME_RETAINED * line.retained | FRAME_HISTORICAL * line.historical
        named = bool(self.quarantined) and self._position + len(self._payloads) in self.quarantined
        flags |= FRAME_QUARANTINED * (line.quarantined or named)
        assert line.ingest_ts is not None
        self.add(payload, (line.source, line.topic, line.port, headers), flags, line.ingest_ts, line.line)

    def add(
        self,
        payload: bytes,
        address: tuple[str, str, int, tuple[tuple[str, str], ...]],
        flags: int,
        ms: int,
        line: int = 0,
    ) -> None:
        """A frame, read at `ms`, of a line of a file or of none (0)."""
        if line > 0:
            payload, flags = with_line(payload, line), flags | FRAME_NUMBERED
        clock = self._clock_ms = max(self._clock_ms, ms)
        if clock >= self._next_second and self._generate:
            second = clock // 1000 * 1000
            self.tick(second)
            self._next_second = second + 1000
        index = self._index
        self._where.append(index.setdefault(address, len(index)))
        self._payloads.append(payload)
        self._flags.append(flags)
        self._clocks.append(clock)
        self._bytes += len(payload)
        self.is_full = len(self._payloads) >= self.entry_frames or self._bytes >= SLICE_BYTES

    def tick(self, ms: int) -> None:
        """The clock passed `ms`; stands for the ticks before it with no frame between."""
        self._tick_ms = max(self._tick_ms, ms)
        row = len(self._payloads)
        if self._ticks and self._ticks[-1][0] == row:
            self._ticks.pop()
        self._ticks.append((row, self._tick_ms))

    def begin(self, position: int) -> Iterator[Slice]:
        """The head of a capture: its first frame's ordinal (positions never go back)."""
        yield from self.flush()
        self._position = max(self._position, position)

    def passed(self, position: int, found: FrameBatch | Control) -> Slice:
        """What a journal's archive holds, as it is. position: of the next frame after it."""
        self._entry += 1
        self._position = position
        if isinstance(found, Control):
            return Slice(self._entry, position, self._batch(), found)
        newest = [*found.ingest_ns[-1:].tolist(), *found.ticks.ns[-1:].tolist()]
        self._clock_ms = max(self._clock_ms, *(ns // MILLISECOND for ns in newest))
        return Slice(self._entry, position, found)

    def control(self, kind: str, data: dict[str, Any], at_ms: int | None) -> Iterator[Slice]:
        """A control, in a slice of its own."""
        yield from self.flush()
        self._entry += 1
        at = max(self._clock_ms, self._tick_ms) if at_ms is None else at_ms
        yield Slice(self._entry, self._position, self._batch(), Control(kind, at * MILLISECOND, data))

    def flush(self) -> Iterator[Slice]:
        """What has been gathered, if anything."""
        if self._payloads or self._ticks:
            batch = self._batch()
            self._entry += 1
            self._position += len(batch)
            self._clear()
            yield Slice(self._entry, self._position, batch)

    def _batch(self) -> FrameBatch:
        count = len(self._payloads)
        stored = np.fromiter(map(len, self._payloads), np.int64, count)
        flags = np.array(self._flags, np.uint8)
        ticks = np.array(self._ticks, np.int64).reshape(-1, 2)
        return FrameBatch(
            payload=np.frombuffer(b"".join(self._payloads), np.uint8),
            offset=np.cumsum(stored) - stored,
            length=without_lines(stored, flags),
            address=np.array(self._where, np.int32),
            addresses=tuple(Address(*address) for address in self._index),
            ingest_ns=np.array(self._clocks, np.int64) * MILLISECOND,
            position=np.arange(self._position, self._position + count, dtype=np.int64),
            flags=flags,
            ticks=Ticks(np.ascontiguousarray(ticks[:, 0]), ticks[:, 1] * MILLISECOND),
        )
