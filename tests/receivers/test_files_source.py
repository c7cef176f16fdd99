"""The files receiver: once each, in order, through growth, stops and crashes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ConfigError, JournalError
from connectors.fakes import MemoryAppender
from connectors.files import source as files_source
from connectors.files.config import FilesConfig
from connectors.files.source import FilesReceiver
from connectors.source import Frame
from operators.spec import MILLISECOND
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S


def receiver(tmp_path: Path, **keys: Any) -> FilesReceiver:
    keys.setdefault("pattern", "*.csv")
    keys.setdefault("settle", 60 * MILLISECOND)
    config = FilesConfig(watch="inbox", poll=20 * MILLISECOND, **keys)
    return FilesReceiver("drops", config, folder=tmp_path, progress=tmp_path / "data" / "drops.json")


def drop(tmp_path: Path, name: str, body: bytes, mtime: int | None = None) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(body)
    if mtime is not None:
        os.utime(tmp_path / name, (mtime, mtime))
    os.rename(tmp_path / name, inbox / name)
    return inbox / name


def payloads(appender: MemoryAppender) -> list[bytes]:
    return [frame.payload for frame in appender.frames]


def test_files_are_read_once_in_order_and_moved_away(tmp_path: Path) -> None:
    async def scene() -> None:
        drop(tmp_path, "b.csv", b"h\n3\n4\n", mtime=1000)
        drop(tmp_path, "a.csv", b"h\n5\n", mtime=2000)
        drop(tmp_path, "c.csv", b"h\n1\n2\n", mtime=500)
        drop(tmp_path, "ignored.txt", b"h\n9\n")
        source, appender = receiver(tmp_path), MemoryAppender()
        done = tmp_path / "inbox" / "done"
        async with running(source, appender):
            await until(lambda: done.is_dir() and len(list(done.iterdir())) == 3)
            drop(tmp_path, "a.csv", b"h\n6\n")  # the same name comes again tomorrow
            await until(lambda: (done / "a.csv.1").exists())
        assert payloads(appender) == [b"1", b"2", b"3", b"4", b"5", b"6"]
        assert (tmp_path / "inbox" / "ignored.txt").exists()
        assert appender.controls == [
            ("connected", {"source": "drops"}),
            ("disconnected", {"source": "drops"}),
        ]
        async with running(receiver(tmp_path), appender):
            await asyncio.sleep(0.3)
        assert len(appender.frames) == 6

    asyncio.run(scene())


def test_a_file_that_is_still_written_waits(tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(tmp_path, settle=500 * MILLISECOND), MemoryAppender()
        async with running(source, appender):
            await until((tmp_path / "inbox").is_dir)
            with (tmp_path / "inbox" / "slow.csv").open("wb") as file:
                for number in range(20):
                    file.write(b"h\n" if number == 0 else b"%d\n" % number)
                    file.flush()
                    await asyncio.sleep(0.02)
            await until(lambda: (tmp_path / "inbox" / "done" / "slow.csv").exists())
        assert payloads(appender) == [b"%d" % number for number in range(1, 20)]

    asyncio.run(scene())


class CrashingAppender(MemoryAppender):
    """Appends, then fails before it can say so, or before it appends."""

    __slots__ = ("after", "crash_at")

    def __init__(self, crash_at: int, after: bool) -> None:
        super().__init__()
        self.crash_at, self.after = crash_at, after

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        self.crash_at -= 1
        if self.crash_at == 0 and not self.after:
            raise JournalError("crash before")
        position = await super().append(frames, key)
        if self.crash_at == 0:
            raise JournalError("crash after")
        return position


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("crash_at", [1, 2, 5])
def test_each_row_exactly_once_over_crashes(
    tmp_path: Path, crash_at: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_source, "BATCH_ROWS", 10)
    drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(75)))

    async def scene() -> None:
        appender = CrashingAppender(crash_at, after)
        with pytest.raises(JournalError, match="crash"):
            await asyncio.wait_for(receiver(tmp_path).run(appender, asyncio.Event()), LIMIT_S)
        async with running(receiver(tmp_path), appender):
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
        assert payloads(appender) == [b"%d" % number for number in range(75)]

    asyncio.run(scene())


def test_a_stop_in_the_middle_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_source, "BATCH_ROWS", 10)
    drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(500)))

    async def scene() -> None:
        appender = MemoryAppender(delay_s=0.02)
        async with running(receiver(tmp_path), appender):
            await until(lambda: len(appender.frames) >= 50)
        assert len(appender.frames) < 500
        appender.delay_s = 0.0
        async with running(receiver(tmp_path), appender):
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
        assert payloads(appender) == [b"%d" % number for number in range(500)]

    asyncio.run(scene())


def test_a_file_that_cannot_be_moved_is_not_read_twice(tmp_path: Path) -> None:
    async def scene() -> None:
        drop(tmp_path, "x.csv", b"h\n1\n")
        (tmp_path / "inbox" / "done").write_bytes(b"in the way")
        source, appender = receiver(tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: "cannot be put away" in source.status.detail)
        async with running(receiver(tmp_path), appender):
            await asyncio.sleep(0.3)
        assert payloads(appender) == [b"1"]

    asyncio.run(scene())


def test_a_folder_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    async def scene() -> None:
        source, appender = receiver(tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            (tmp_path / "inbox").rmdir()
            await until(lambda: source.status.state == "disconnected")
            drop(tmp_path, "x.csv", b"h\n1\n")
            await until(lambda: appender.frames)
            assert source.status.state == "connected"
        assert [kind for kind, _ in appender.controls] == ["connected", "disconnected"] * 2

    asyncio.run(scene())


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_bytes(b"a file")
    with pytest.raises(ConfigError, match=r"source drops: .*inbox: File exists"):
        asyncio.run(receiver(tmp_path).run(MemoryAppender(), asyncio.Event()))
