"""A journal process over a partition, for the tests of this folder."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from connectors.errors import JournalError
from connectors.journal.client import JournalClient
from connectors.journal.entries import CONTROL, FRAMES, TICK, Entry
from connectors.journal.kafka_config import JournalConfig, PartitionConfig
from connectors.journal.merging import Merger, frames_slice
from connectors.journal.reader import JournalReader
from connectors.source import Frame
from tests.journal.journal_process import RunningJournal
from tests.waiting import LIMIT_S


class PartitionProcess(RunningJournal):
    """The journal process of one partition, its copy in `data`. runs: whether its shard runs here."""

    def __init__(
        self,
        data: Path,
        address: str,
        topic: str,
        partition: int = 0,
        partitions: int = 1,
        *,
        runs: bool = True,
        max_bytes: int = 1 << 30,
        **more: Any,
    ) -> None:
        data.mkdir(parents=True, exist_ok=True)
        path = data / "partition.json"
        journal = JournalConfig(kind="kafka", bootstrap=address, topic=topic, **more)
        config = PartitionConfig(journal=journal, partition=partition, partitions=partitions, runs=runs)
        path.write_bytes(msgspec.json.encode(config))
        super().__init__(data, max_bytes, keep_seconds=60.0, config=path)

    def start(self) -> None:
        """Until it answers, or has ended, as one does that is refused."""
        try:
            super().start()
        except JournalError:
            if self.process.poll() is None:
                raise

    def status(self) -> dict[str, Any]:
        """What it says of itself now."""
        with closing(self.client()) as client:
            return client.status()


def entries_of(data: Path) -> list[Entry]:
    """Every entry that the copy holds."""
    with closing(JournalReader(data / "journal")) as reader:
        return reader.read(reader.oldest(), 1 << 40, 1 << 40)


def payloads(data: Path) -> list[bytes]:
    """Every frame of the copy, in order; positions rise by one."""
    frames = [entry for entry in entries_of(data) if entry.kind == FRAMES]
    if not frames:
        return []
    assert [e.position for e in frames[1:]] == [e.next_position for e in frames[:-1]]
    return [payload for _, payload in frames_slice(frames, Merger()).frames.frames()]


def told(data: Path) -> list[str]:
    """Entries in words: ticks, controls, numbers of frames."""
    words = []
    for entry in entries_of(data):
        if entry.kind == TICK:
            words.append("tick")
        elif entry.kind == CONTROL:
            control = entry.control()
            words.append(f"{control.kind} {json.dumps(control.data, default=str)}")
        else:
            words.append(f"{entry.count} frames")
    return words


def content(data: Path) -> list[tuple[int, int, int, bytes]]:
    """What another copy of the same partition must hold as well, to the byte."""
    return [(entry.number, entry.ms, entry.position, bytes(entry.data)) for entry in entries_of(data)]


class Appending(threading.Thread):
    """A receiver that appends numbered frames, some at a time, until it is told to stop; `sent` were
    appended, of which `answered` are acknowledged, in order."""

    def __init__(self, data: Path, source: str, pause: float = 0.002) -> None:
        super().__init__(daemon=True)
        self.data, self.source, self.pause = data, source, pause
        self.sent = self.answered = 0
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        asyncio.run(self._run())

    def finish(self) -> int:
        """How many frames there are, all acknowledged."""
        self.ended.set()
        self.join(LIMIT_S)
        assert not self.is_alive(), f"{self.answered} of {self.sent} are acknowledged"
        assert self.answered == self.sent
        return self.sent

    async def _run(self) -> None:
        async with JournalClient(self.data, self.source) as client:
            running: set[asyncio.Task[None]] = set()
            while not self.ended.is_set():
                count = 1 + self.sent % 7
                frames = [Frame("t", f"{self.source} {self.sent + n}".encode()) for n in range(count)]
                self.sent += count
                task = asyncio.create_task(self._append(client, frames))
                running.add(task)
                task.add_done_callback(running.discard)
                await asyncio.sleep(self.pause if len(running) < 60 else 0.05)
            await asyncio.gather(*running)

    async def _append(self, client: JournalClient, frames: list[Frame]) -> None:
        await client.append(frames)
        self.answered += len(frames)
