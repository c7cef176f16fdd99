"""Frames that come as columns: the same entries, told by what names their append for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from journal_process import RunningJournal

from connectors.errors import JournalError
from connectors.journal.client import JournalClient
from connectors.journal.entries import ENTRY_ROWS, pack_frames, pack_rows
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.source import Frame, FrameRows
from operators.batch import Address

ADDRESSES = [("plant/a", -1, ()), ("plant/ä", 3, (("peer", "x"),))]
FRAMES = [
    Frame("plant/a", b"1"),
    Frame("plant/ä", b"", 1, 3, (("peer", "x"),)),
    Frame("plant/a", b"three"),
]


def rows(count: int = 1) -> FrameRows:
    return FrameRows(
        b"1three" * count,
        np.array([1, 0, 5] * count, np.uint32),
        np.array([0, 1, 0] * count, np.uint32),
        np.array([0, 1, 0] * count, np.uint8),
        ADDRESSES,
    )


def test_columns_are_the_entry_that_frames_are() -> None:
    assert rows().frames() == FRAMES
    addresses = [Address("line", *where) for where in ADDRESSES]
    packed = pack_rows([frame.payload for frame in FRAMES], [0, 1, 0], [0, 1, 0], addresses)
    assert packed == pack_frames("line", FRAMES)


def test_rows_are_appended_in_one_order_with_frames(tmp_path: Path) -> None:
    told: list[tuple[bytes, int]] = []

    async def scene() -> None:
        async with JournalClient(tmp_path, "line") as client, JournalClient(tmp_path, "line") as other:
            positions = await asyncio.gather(
                client.append(FRAMES[:1]),
                client.append_rows(rows(), leaving=lambda session, number, _: told.append((session, number))),
                client.append(FRAMES[:1]),
                client.append_rows(rows(1000), key="again"),
            )
            assert positions == [0, 1, 4, 5]
            assert await client.append_rows(rows(1000), key="again") == 5
            assert [session for session, _ in told] == [client.session]
            assert await other.appended(b"x" * 16) == 0
            with pytest.raises(ValueError, match=f"an entry holds 1 to {ENTRY_ROWS} frames, not 9000"):
                await client.append_rows(rows(3000))
        async with JournalClient(tmp_path, "line") as again:
            assert await again.appended(client.session) == 5
        with pytest.raises(JournalError, match="closed"):
            await again.appended(client.session)

    with RunningJournal(tmp_path):
        asyncio.run(scene())
    assert told[0][1] == 2
    with JournalReader(tmp_path / "journal") as reader:
        entries = [entry for entry in reader.read(reader.oldest(), 9000, 4 << 20) if entry.kind == 1]
        batch = merge(entries)
    assert [batch.frame(row) for row in range(8)] == [b"1", b"1", b"", b"three", b"1", b"1", b"", b"three"]
    assert batch.addresses[batch.address[2]] == Address("line", "plant/ä", 3, (("peer", "x"),))
    assert len(batch) == 3005
