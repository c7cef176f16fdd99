"""Frames of one source into the journals of several shards: each to its own, in order, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.journal.client import JournalClient
from connectors.journal.merging import merge
from connectors.journal.process import serve_journal
from connectors.journal.reader import JournalReader
from connectors.journal.server import JournalOptions
from connectors.journal.sharded import ShardedClient
from connectors.shards import hash_shard
from connectors.source import Frame, FrameRows
from operators.batch import Address, Int64

SHARDS = 3
DEVICES = [f"press-{number:02}" for number in range(9)]


def client_of(folders: Sequence[Path]) -> ShardedClient:
    return ShardedClient(
        [JournalClient(folder, "line1") for folder in folders],
        lambda address: hash_shard(address.topic, SHARDS),
        lambda device: hash_shard(device, SHARDS),
    )


@asynccontextmanager
async def journals(folders: Sequence[Path]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    ready = [asyncio.Event() for _ in folders]
    served = [
        asyncio.create_task(serve_journal(JournalOptions(folder, 1 << 26), stop, one))
        for folder, one in zip(folders, ready, strict=True)
    ]
    await asyncio.gather(*(one.wait() for one in ready))
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*served)


def as_rows(frames: Sequence[Frame]) -> FrameRows:
    index: dict[str, int] = {}
    where = [index.setdefault(frame.topic, len(index)) for frame in frames]
    return FrameRows(
        b"".join(frame.payload for frame in frames),
        np.array([len(frame.payload) for frame in frames], np.uint32),
        np.array(where, np.uint32),
        np.array([frame.flags for frame in frames], np.uint8),
        [(topic, -1, ()) for topic in index],
    )


def journaled(folder: Path) -> list[tuple[str, bytes, int]]:
    with closing(JournalReader(folder / "journal")) as reader:
        last = reader.last()
        found: list[tuple[str, bytes, int]] = []
        for entry in reader.read(1, 1 << 20, 1 << 30) if last else []:
            if entry.kind != 1:
                continue
            batch = merge([entry])
            for row in range(len(batch)):
                address: Address = batch.addresses[int(batch.address[row])]
                found.append((address.topic, batch.frame(row), int(batch.flags[row])))
        return found


frame = st.builds(
    Frame,
    st.sampled_from(DEVICES),
    st.binary(max_size=9) | st.binary(min_size=90, max_size=99),
    st.integers(0, 1),
)
calls = st.lists(st.tuples(st.booleans(), st.lists(frame, min_size=1, max_size=20)), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls)
def test_each_shard_has_its_devices_frames_in_order(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[bool, list[Frame]]]
) -> None:
    folders = [tmp_path_factory.mktemp("shard") for _ in range(SHARDS)]
    parts: dict[int, list[tuple[int, list[int]]]] = {}  # call -> what left: shard's session, rows

    async def scene() -> None:
        async with journals(folders), client_of(folders) as client:

            def leaving(call: int, session: bytes, number: int, rows: Int64 | None) -> None:
                shard = [one.session for one in client.clients].index(session)
                every = list(range(len(calls[call][1])))
                parts.setdefault(call, []).append((shard, every if rows is None else rows.tolist()))

            def one(call: int, as_columns: bool, frames: list[Frame]) -> asyncio.Task[int]:
                if as_columns:
                    told = lambda session, number, rows: leaving(call, session, number, rows)  # noqa: E731
                    return asyncio.create_task(client.append_rows(as_rows(frames), leaving=told))
                return asyncio.create_task(client.append(frames))

            await asyncio.gather(*(one(number, *call) for number, call in enumerate(calls)))

    asyncio.run(scene())
    everything = [one for _, frames in calls for one in frames]
    for shard, folder in enumerate(folders):
        mine = [(f.topic, f.payload, f.flags) for f in everything if hash_shard(f.topic, SHARDS) == shard]
        assert journaled(folder) == mine
    for call, (as_columns, frames) in enumerate(calls):
        if as_columns:
            assert sorted(row for _, rows in parts[call] for row in rows) == list(range(len(frames)))
            for shard, rows in parts[call]:
                assert {hash_shard(frames[row].topic, SHARDS) for row in rows} == {shard}


def test_a_key_a_session_and_a_control(tmp_path: Path) -> None:
    folders = [tmp_path / str(shard) for shard in range(SHARDS)]
    frames = [Frame(device, device.encode()) for device in DEVICES]
    told: list[tuple[bytes, int]] = []

    async def scene() -> None:
        async with journals(folders):
            await talks()

    async def talks() -> None:
        async with client_of(folders) as client:
            first = await client.append(frames, key="drop-1")
            assert await client.append(frames, key="drop-1") == first
            await client.append_rows(as_rows(frames), key="drop-2")
            rows = as_rows(frames)
            await client.append_rows(rows, leaving=lambda session, number, _: told.append((session, number)))
            await client.control("connected", {"source": "line1"})
            with pytest.raises(ValueError, match="no frames"):
                await client.append([])
        async with client_of(folders) as again:
            await again.append_rows(as_rows(frames), key="drop-2")
            assert [await again.appended(session) >= number for session, number in told] == [True] * SHARDS
            assert await again.appended(b"x" * 16) == 0

    asyncio.run(scene())
    assert len({session for session, _ in told}) == SHARDS
    for shard, folder in enumerate(folders):
        mine = [(device, device.encode(), 0) for device in DEVICES if hash_shard(device, SHARDS) == shard]
        assert mine
        assert journaled(folder) == mine * 3
        with closing(JournalReader(folder / "journal")) as reader:
            kinds = [one.control().kind for one in reader.read(1, 1 << 20, 1 << 30) if one.kind == 3]
        assert kinds.count("connected") == 1


def test_master_data_go_to_every_shard(tmp_path: Path) -> None:
    folders = [tmp_path / str(shard) for shard in range(SHARDS)]
    frames = [Frame("devices", b"upsert"), Frame("devices", b"delete")]

    async def scene() -> None:
        clients = [JournalClient(folder, "registry") for folder in folders]
        everywhere = ShardedClient(clients, None, lambda device: hash_shard(device, SHARDS))
        async with journals(folders), everywhere as client:
            await client.append(frames)
            await client.append_rows(as_rows(frames))

    asyncio.run(scene())
    for folder in folders:
        assert journaled(folder) == [("devices", b"upsert", 0), ("devices", b"delete", 0)] * 2
