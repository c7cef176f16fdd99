"""Journals with a clock that the test moves, and what is in a journal or an archive, told plainly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from connectors.journal.archive_store import LocalStore
from connectors.journal.archiver import Archiver
from connectors.journal.clock import JournalClock
from connectors.journal.entries import CONTROL, FRAMES, pack_control, pack_frames
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.journal.store import Append, JournalStore
from connectors.source import Frame

MAP = 64 << 20
START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PLANT = "ab" * 32


class TestJournal:
    """A journal that the test writes, and an archiver over it."""

    __test__ = False

    def __init__(self, data: Path, *, keep_ms: int = 400 * DAY_MS, journal_bytes: int = MAP) -> None:
        self.data = data
        self.ms = START_MS
        self.sequence = 0
        self.store = JournalStore(
            data / "journal", MAP, JournalClock(0, lambda: self.ms * 1_000_000, lambda: self.ms * 1_000_000)
        )
        self.reader = JournalReader(data / "journal")
        self.keep_ms, self.journal_bytes = keep_ms, journal_bytes
        self.archive = data / "archive"

    def frames(self, source: str, frames: Sequence[Frame], after_ms: int = 0) -> None:
        self.ms += after_ms
        self._commit(pack_frames(source, frames))

    def control(self, kind: str, data: dict[str, Any], after_ms: int = 0) -> None:
        self.ms += after_ms
        self._commit(pack_control(kind, data))

    def plant(self, files: dict[str, bytes], sha256: str = PLANT) -> None:
        body = pack_control("plant", {"sha256": sha256})
        bundle = (sha256.encode(), msgspec.msgpack.encode(files))
        self._commit(body, bundle)

    def tick(self, after_ms: int) -> None:
        self.ms += after_ms
        self.store.commit([])

    def archiver(self) -> Archiver:
        return Archiver(
            self.reader,
            LocalStore(self.archive),
            self.data / "cursors" / "archive.msgpack",
            keep_ms=self.keep_ms,
            journal_bytes=self.journal_bytes,
        )

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    def _commit(self, body: bytearray, bundle: tuple[bytes, bytes] | None = None) -> None:
        self.sequence += 1
        (place,) = self.store.commit([Append(b"s" * 16, self.sequence, body, b"", bundle)])
        assert place is not None


def journal_rows(reader: JournalReader, first: int, last: int) -> list[tuple[Any, ...]]:
    """(entry, kind, ms, position, source, topic, port, headers, flags, payload, control) of every
    frame and every other entry of a journal."""
    rows: list[tuple[Any, ...]] = []
    following = first
    while following <= last:
        entries = reader.read(following, 1 << 20, 32 << 20, last)
        following = entries[-1].number + 1
        for entry in entries:
            head = (entry.number, entry.ms)
            if entry.kind == CONTROL:
                control = reader.control(entry)
                rows.append((*head, control.kind, entry.position, *[None] * 6, dict(control.data)))
            elif entry.kind == FRAMES:
                batch = merge([entry])
                for row in range(len(batch)):
                    address = batch.addresses[batch.address[row]]
                    where = (address.source, address.topic, address.port, address.headers)
                    frame = (int(batch.position[row]), *where, int(batch.flags[row]), batch.frame(row))
                    rows.append((*head, "frame", *frame, None))
            else:
                rows.append((*head, "tick", entry.position, *[None] * 7))
    return rows


def archive_files(folder: Path) -> list[Path]:
    """The files of an archive with one journal, in order."""
    return sorted(path for path in folder.glob("journal=*/day=*/*") if path.is_file())


def archive_rows(files: Sequence[Path]) -> list[tuple[Any, ...]]:
    """The same of archive files, read by pyarrow alone."""
    rows = []
    for path in files:
        for row in pq.ParquetFile(path).read().to_pylist():  # type: ignore[no-untyped-call]
            packed = row["control"]
            is_frame = row["kind"] == "frame"
            headers = tuple((name, value) for name, value in json.loads(row["headers"] or "[]"))
            port = -1 if row["port"] is None else row["port"]
            rows.append(
                (
                    row["entry"],
                    row["ms"],
                    row["kind"],
                    row["position"],
                    row["source"],
                    row["topic"],
                    port if is_frame else None,
                    headers if is_frame else None,
                    row["flags"],
                    row["payload"],
                    msgspec.msgpack.decode(packed) if packed is not None else None,
                )
            )
    return rows
