"""Frames of one receiver gathered into appends, acknowledged in order once they are durable.

One append is under way at a time. What arrives meanwhile is the next one, so a quiet source
waits for nothing and a busy one sends large appends by itself; a source that is busy is given
2 ms more, because a bigger batch costs less a frame.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from connectors.source import Appender, Frame, FrameRows, Leaving

Token = TypeVar("Token")

BATCH_FRAMES: Final = 4096
BATCH_BYTES: Final = 4 << 20
ROWS_AT_ONCE: Final = 16  # appends of columns that go out together, and become one commit
BUSY_FRAMES: Final = 50  # an append of so many frames tells of a busy source, if nothing else is said
BUSY_PAUSE_S: Final = 0.002
ENOUGH_FRAMES: Final = 500  # so many are worth an append at once


class _Control(NamedTuple):
    kind: str
    data: Mapping[str, object]


@dataclass(slots=True, eq=False)
class _Rows(Generic[Token]):
    rows: FrameRows | None
    token: Token
    leaving: Leaving | None


class Gather(Generic[Token]):
    """A bounded queue before an `Appender`; for one event loop's thread.

    durable: called after each append with the tokens of its frames, in order of `put`; only
    then may they be acknowledged. pressure: called with True when `max_frames` or `max_bytes`
    wait (the receiver then stops reading from its peers) and with False when half is gone. busy_frames:
    an append of so many frames is followed by a pause.
    """

    def __init__(
        self,
        appender: Appender,
        durable: Callable[[Sequence[Token]], None],
        pressure: Callable[[bool], None],
        *,
        max_frames: int,
        max_bytes: int,
        busy_frames: int = BUSY_FRAMES,
    ) -> None:
        self._appender = appender
        self._durable = durable
        self._pressure = pressure
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._busy_frames = busy_frames
        self._queue: deque[tuple[Frame, Token] | _Rows[Token] | _Control] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self.under_pressure = False
        self.frames = 0  # not yet durable
        self.bytes = 0

    def put(self, frame: Frame, token: Token) -> None:
        """Queue a frame. Never blocks and never refuses: the bound is kept by the receiver,
        which reads nothing more under pressure."""
        self._queue.append((frame, token))
        self._queued(1, len(frame.payload))

    def put_rows(self, rows: FrameRows | None, token: Token, leaving: Leaving | None = None) -> None:
        """Queue what one journal entry holds, in one order with `put`. None: no frame, only a token
        that is due when all before it is durable. leaving: see `Appender.append_rows`."""
        self._queue.append(_Rows(rows, token, leaving))
        if rows is None:
            self._wake.set()
        else:
            self._queued(len(rows), len(rows.payload))

    def _queued(self, frames: int, size: int) -> None:
        self.frames += frames
        self.bytes += size
        self._wake.set()
        if not self.under_pressure and (self.frames >= self._max_frames or self.bytes >= self._max_bytes):
            self.under_pressure = True
            self._pressure(True)

    def control(self, kind: str, data: Mapping[str, object]) -> None:
        """Queue an entry that is no frame, behind the frames put so far."""
        self._queue.append(_Control(kind, data))
        self._wake.set()

    async def run(self) -> None:
        """Append until `finish`. Raises `JournalError` when the journal is gone for good."""
        busy = False
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            if busy and len(self._queue) < ENOUGH_FRAMES and not self._closing:
                await asyncio.sleep(BUSY_PAUSE_S)
            first = self._queue[0]
            if isinstance(first, _Control):
                await self._appender.control(first.kind, first.data)
                self._queue.popleft()
            elif isinstance(first, _Rows):
                await self._append_rows()
            else:
                busy = await self._append_batch() >= self._busy_frames

    async def _append_batch(self) -> int:
        frames: list[Frame] = []
        tokens: list[Token] = []
        size = 0
        while self._queue and len(frames) < BATCH_FRAMES and size < BATCH_BYTES:
            item = self._queue[0]
            if isinstance(item, (_Control, _Rows)):
                break
            self._queue.popleft()
            frames.append(item[0])
            tokens.append(item[1])
            size += len(item[0].payload)
        await self._appender.append(frames)
        self._settled(len(frames), size, tokens)
        return len(frames)

    async def _append_rows(self) -> None:
        """What waits as columns, each an append, all on their way at once; a source whose batches
        are large by themselves needs no pause."""
        batch: list[_Rows[Token]] = []
        for item in itertools.islice(self._queue, ROWS_AT_ONCE):
            if not isinstance(item, _Rows):
                break
            batch.append(item)
        for _ in batch:
            self._queue.popleft()
        told = [(item.rows, item.leaving) for item in batch]
        await asyncio.gather(
            *(self._appender.append_rows(rows, leaving=leaving) for rows, leaving in told if rows is not None)
        )
        frames = sum(len(rows) for rows, _ in told if rows is not None)
        size = sum(len(rows.payload) for rows, _ in told if rows is not None)
        self._settled(frames, size, [item.token for item in batch])

    def _settled(self, frames: int, size: int, tokens: Sequence[Token]) -> None:
        self.frames -= frames
        self.bytes -= size
        self._durable(tokens)
        if self.under_pressure and self.frames * 2 <= self._max_frames and self.bytes * 2 <= self._max_bytes:
            self.under_pressure = False
            self._pressure(False)

    async def finish(self, task: asyncio.Task[None], seconds: float) -> bool:
        """Append what is queued, for at most `seconds`, and end `task` (which runs `run`).
        False: something was not durable in time, and is not acknowledged."""
        self._closing = True
        self._wake.set()
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return False
        return not task.cancelled() and task.exception() is None
