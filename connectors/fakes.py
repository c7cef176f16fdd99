"""Fakes of every protocol in this package, for tests here and in projects that build on it:
an appender without a journal, a scripted source, recording and broken sinks, a clock to set."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from connectors.errors import JournalError
from connectors.shards import hash_shard
from connectors.sink import OutputRecord
from connectors.source import Appender, Frame, FrameRows, Leaving, SourceStatus


@dataclass(slots=True)
class MemoryAppender:
    """An `Appender` that keeps frames in memory.

    frames: what is durable, in order. delay_s: how long an append takes. full: while set, appends
    wait (set it with `fill`, clear it with `drain`). failure: raised by the next append. keys: of
    the appends so far; under one of them nothing is appended again.
    """

    delay_s: float = 0.0
    failure: JournalError | None = None
    frames: list[Frame] = field(default_factory=list)
    controls: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    appends: list[int] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    session: bytes = field(default_factory=lambda: os.urandom(16))
    numbers: dict[bytes, int] = field(default_factory=dict)
    shards: int = 1
    _number: int = 0
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _order: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._room.set()

    def fill(self) -> None:
        """The journal is at its cap from now on."""
        self._room.clear()

    def drain(self) -> None:
        """There is room again."""
        self._room.set()

    def shard_of(self, device_id: str) -> int:
        """See `connectors.source.Appender`."""
        return hash_shard(device_id, self.shards)

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        """See `connectors.source.Appender`."""
        async with self._order:
            await self._room.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
            if key is not None and key in self.keys:
                return self.keys[key]
            position = len(self.frames)
            self.frames.extend(frames)
            self.appends.append(len(frames))
            if key is not None:
                self.keys[key] = position
            return position

    async def append_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Leaving | None = None
    ) -> int:
        """See `connectors.source.Appender`."""
        self._number = number = self._number + 1
        if leaving is not None:
            leaving(self.session, number, None)
        position = await self.append(rows.frames(), key)
        self.numbers[self.session] = number
        return position

    async def appended(self, session: bytes) -> int:
        """See `connectors.source.Appender`."""
        return self.numbers.get(session, 0)

    async def control(self, kind: str, data: Mapping[str, object]) -> None:
        """See `connectors.source.Appender`."""
        async with self._order:
            self.controls.append((kind, dict(data)))


@dataclass(slots=True)
class ScriptedReceiver:
    """A `Receiver` that plays a script: each step is frames to append, or seconds to wait."""

    script: Sequence[Sequence[Frame] | float]
    status: SourceStatus = field(default_factory=SourceStatus)
    acknowledged: list[Frame] = field(default_factory=list)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`; ends with the script."""
        self.status.state = "connected"
        for step in self.script:
            if stop.is_set():
                break
            if isinstance(step, (int, float)):
                await asyncio.sleep(step)
                continue
            await appender.append(step)
            self.acknowledged.extend(step)
            self.status.frames += len(step)
        self.status.state = "stopped"


@dataclass(slots=True)
class RecordingTarget:
    """A `Target` that keeps what it is sent."""

    kinds: tuple[str, ...] = ("telemetry", "windows", "alarms", "rejects")
    records: list[OutputRecord] = field(default_factory=list)
    is_open: bool = False

    def open(self) -> dict[str, int] | None:
        """See `connectors.sink.Target`; knows the last record of each kind."""
        self.is_open = True
        return {record.kind: record.number for record in self.records}

    def send(self, records: Sequence[OutputRecord]) -> None:
        """Keep them."""
        self.records.extend(records)

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_open = False


@dataclass(slots=True)
class BrokenTarget:
    """A `Target` that fails in turn as told: one entry of `failures` a call of `open` or `send`,
    None = that call succeeds; after the last, all do."""

    failures: list[Exception | None]
    kinds: tuple[str, ...] = ("telemetry", "windows", "alarms", "rejects")
    records: list[OutputRecord] = field(default_factory=list)

    def open(self) -> dict[str, int] | None:
        """Fails if it is its turn."""
        self._turn()
        return None

    def send(self, records: Sequence[OutputRecord]) -> None:
        """Fails if it is its turn, and keeps nothing then."""
        self._turn()
        self.records.extend(records)

    def close(self) -> None:
        """Nothing to let go of."""

    def _turn(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


@dataclass(slots=True)
class TestClock:
    """A clock that stands until it is moved; nanoseconds since 1970."""

    __test__ = False  # no test class, in spite of its name

    ns: int = 1_772_355_600_000_000_000  # 2026-03-01T09:00:00Z

    def __call__(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        """Move it on (or back, with a negative number)."""
        self.ns += round(seconds * 1e9)
