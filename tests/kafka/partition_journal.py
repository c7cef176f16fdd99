"""A journal process over a partition, for the tests of this folder."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from connectors.journal.entries import CONTROL, FRAMES, TICK, Entry
from connectors.journal.kafka_config import JournalConfig, PartitionConfig
from connectors.journal.merging import Merger, frames_slice
from connectors.journal.reader import JournalReader
from tests.journal.journal_process import RunningJournal


class PartitionProcess(RunningJournal):
    """The journal process of one partition, its copy in `data`."""

    def __init__(
        self, data: Path, address: str, topic: str, partition: int = 0, partitions: int = 1, **more: Any
    ) -> None:
        data.mkdir(parents=True, exist_ok=True)
        path = data / "partition.json"
        journal = JournalConfig(kind="kafka", bootstrap=address, topic=topic, **more)
        config = PartitionConfig(journal=journal, partition=partition, partitions=partitions)
        path.write_bytes(msgspec.json.encode(config))
        super().__init__(data, config=path)

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
