"""Files picked up once each: put away in every way, in folders below, damaged, replaced, under odd names."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import JournalError
from connectors.fakes import MemoryAppender
from connectors.files import source as files_source
from connectors.files.config import FilesConfig
from connectors.files.finding import matches
from connectors.files.progress import Identity
from connectors.files.putting_away import PuttingAway
from connectors.files.rows import Row
from connectors.files.source import FilesReceiver
from connectors.source import Frame
from operators.spec import MILLISECOND
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S


def receiver(tmp_path: Path, **keys: Any) -> FilesReceiver:
    keys.setdefault("pattern", "*")
    config = FilesConfig(watch="inbox", poll=20 * MILLISECOND, settle=60 * MILLISECOND, **keys)
    return FilesReceiver("drops", config, folder=tmp_path, progress=tmp_path / "data" / "drops.json")


def drop(tmp_path: Path, name: str | bytes, body: bytes) -> Path:
    target = Path(os.fsdecode(os.fsencode(tmp_path / "inbox") + b"/" + os.fsencode(name)))
    target.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "beside").write_bytes(body)
    os.rename(tmp_path / "beside", target)
    return target


def payloads(appender: MemoryAppender) -> list[bytes]:
    return [frame.payload for frame in appender.frames]


def names(tmp_path: Path) -> set[str]:
    inbox = tmp_path / "inbox"
    return {path.relative_to(inbox).as_posix() for path in inbox.rglob("*") if path.is_file()}


AFTER = {
    "move": {"done/x.csv", "failed/bad.csv.gz"},
    "rename": {"x.csv.done", "bad.csv.gz.failed"},
    "mark": {"x.csv", "x.csv.done", "bad.csv.gz", "bad.csv.gz.failed"},
    "delete": {"failed/bad.csv.gz"},
}


@pytest.mark.parametrize("after", AFTER)
def test_what_is_read_is_put_away_and_not_read_again(tmp_path: Path, after: str) -> None:
    async def scene() -> None:
        drop(tmp_path, "x.csv", b"h\n1\n2\n")
        drop(tmp_path, "bad.csv.gz", gzip.compress(b"h\n7\n")[:-6])
        appender = MemoryAppender()
        source = receiver(tmp_path, after=after)
        async with running(source, appender):
            await until(lambda: names(tmp_path) == AFTER[after])
            await until(lambda: source.status.extra.get("files_failed") == 1.0)
            assert source.status.extra["files_read"] == 1.0
            drop(tmp_path, "x.csv", b"h\n3\n")  # the same name comes again tomorrow
            await until(lambda: b"3" in payloads(appender))
        async with running(receiver(tmp_path, after=after), appender):
            await asyncio.sleep(0.4)
        told = [dict(frame.headers)["resync"] for frame in appender.frames if "resync" in dict(frame.headers)]
        assert told == ["its gz stream ends too early"]
        assert sorted(p for p in payloads(appender) if p.isdigit()) == [b"1", b"2", b"3", b"7"]
        if after == "mark":
            mark = json.loads((tmp_path / "inbox" / "bad.csv.gz.failed").read_bytes())
            assert mark["why"] == "its gz stream ends too early"
        if after == "rename":
            assert (tmp_path / "inbox" / "x.csv.done.1").exists()

    asyncio.run(scene())


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("late", [False, True])
def test_an_end_around_the_putting_away_reads_nothing_twice(
    tmp_path: Path, after: str, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends just before the file is moved, or just after and before that is noted."""
    put = PuttingAway.put

    def ends(self: PuttingAway, *arguments: Any) -> str:
        if late:
            put(self, *arguments)
        raise JournalError("ended")

    async def scene() -> None:
        drop(tmp_path, "x.csv", b"h\n1\n2\n")
        appender = MemoryAppender()
        with monkeypatch.context() as patched:
            patched.setattr(PuttingAway, "put", ends)
            with pytest.raises(JournalError, match="ended"):
                await asyncio.wait_for(
                    receiver(tmp_path, after=after).run(appender, asyncio.Event()), LIMIT_S
                )
        async with running(receiver(tmp_path, after=after), appender):
            await asyncio.sleep(0.3)
            drop(tmp_path, "x.csv", b"h\n3\n4\n")  # perhaps with the very inode of the deleted one
            await until(lambda: len(appender.frames) == 4)
            await asyncio.sleep(0.2)
        assert payloads(appender) == [b"1", b"2", b"3", b"4"]

    asyncio.run(scene())


def test_folders_below_and_the_names_of_rows(tmp_path: Path) -> None:
    async def scene() -> None:
        drop(tmp_path, "top.csv", b"h\n1\n")
        drop(tmp_path, "line 1/press.csv.gz", gzip.compress(b"h\n2\n"))
        drop(tmp_path, "line 1/deep/er/x.csv", b"h\n3\n")
        drop(tmp_path, "done/old.csv", b"h\n8\n")
        drop(tmp_path, ".hidden/x.csv", b"h\n9\n")
        appender = MemoryAppender()
        async with running(receiver(tmp_path, pattern="**/*.csv*"), appender):
            await until(lambda: len(appender.frames) >= 3)
            await asyncio.sleep(0.2)
        assert {(frame.topic, frame.payload) for frame in appender.frames} == {
            ("top.csv", b"1"),
            ("line 1/press.csv", b"2"),
            ("line 1/deep/er/x.csv", b"3"),
        }
        assert {"done/line 1/press.csv.gz", "done/line 1/deep/er/x.csv", "done/top.csv"} <= names(tmp_path)

    asyncio.run(scene())


def test_patterns() -> None:
    assert matches("a.csv", "*.csv")
    assert not matches("b/a.csv", "*.csv")
    assert matches("b/a.csv", "*/*.csv")
    assert matches("a.csv", "**/*.csv")
    assert matches("x/y/a.csv", "**/*.csv")
    assert matches("x/y/a.csv", "x/**")
    assert not matches("x/y/a.csv", "x/*")
    assert not matches("x/A.csv", "x/a.csv")


ODD = ["a b.csv", "ünï.csv", "*?[x].csv", "'\";$(rm).csv", "\n.csv", b"\xff\xfe.csv", "%s{0}.csv", "#+.csv"]


def test_odd_names(tmp_path: Path) -> None:
    async def scene() -> None:
        for number, name in enumerate(ODD):
            drop(tmp_path, name, b"h\n%d\n" % number)
        appender = MemoryAppender()
        async with running(receiver(tmp_path), appender):
            await until(lambda: len(appender.frames) == len(ODD))
            await until(lambda: len(list((tmp_path / "inbox" / "done").iterdir())) == len(ODD))
        topics = {frame.payload: frame.topic for frame in appender.frames}
        assert topics == {
            b"%d" % number: name if isinstance(name, str) else "\\xff\\xfe.csv"
            for number, name in enumerate(ODD)
        }
        assert json.dumps(sorted(topics.values())).isascii()

    asyncio.run(scene())


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a row at its end is not taken for a row, and what is written later is read on."""
    monkeypatch.setattr(files_source, "BATCH_ROWS", 10)

    async def scene() -> None:
        path = drop(
            tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(100, 160)) + b"16"
        )
        appender = MemoryAppender(delay_s=0.03)
        source = receiver(tmp_path)
        async with running(source, appender):
            await until(lambda: len(appender.frames) >= 10)
            with path.open("ab") as file:
                file.write(b"0\n161\n")
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
        assert payloads(appender) == [b"%d" % number for number in range(100, 162)]
        assert [frame.line for frame in appender.frames] == list(range(2, 64))

    asyncio.run(scene())


@pytest.mark.parametrize("after", ["move", "delete"])
def test_a_writer_that_pauses_with_its_file_open(tmp_path: Path, after: str) -> None:
    """What it has written is read, half a row and the putting away wait until it lets go."""

    async def scene() -> None:
        path = drop(tmp_path, "x.csv", b"h\n1\n2\n")
        appender = MemoryAppender()
        source = receiver(tmp_path, after=after)
        with path.open("ab", buffering=0) as file:
            async with running(source, appender):
                await until(
                    lambda: source.status.detail.endswith("x.csv is read to its end, and open for writing")
                )
                assert payloads(appender) == [b"1", b"2"]
                file.write(b"3\n4")
                await until(lambda: len(appender.frames) == 3)
                await until(lambda: source.status.detail.endswith("open for writing"))
                drop(tmp_path, "y.csv", b"h\n9\n")  # it holds up no other
                await until(lambda: payloads(appender)[3:] == [b"9"])
                assert path.exists()
                file.write(b"4\n")
                file.close()
                await until(
                    lambda: names(tmp_path) == ({"done/x.csv", "done/y.csv"} if after == "move" else set())
                )
        assert payloads(appender) == [b"1", b"2", b"3", b"9", b"44"]
        assert {frame.topic for frame in appender.frames} == {"x.csv", "y.csv"}

    asyncio.run(scene())


@pytest.mark.parametrize("moment", ["before the rename", "after the rename", "set aside", "before the end"])
def test_what_is_written_in_the_last_moment_before_a_file_is_deleted(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer has opened the file just before it got its hidden name, writes then, and the process ends."""

    def ends(*_: Any) -> None:
        raise JournalError("ended")

    where = {
        "before the rename": (Path, "rename"),
        "after the rename": (files_source, "sync_folder"),
        "set aside": (FilesReceiver, "_has_changed"),
        "before the end": (PuttingAway, "put"),
    }[moment]
    changed = FilesReceiver._has_changed

    def ends_aside(self: FilesReceiver, identity: Identity) -> bool:
        return ends() if identity.name.startswith(".") else changed(self, identity)  # type: ignore[func-returns-value]

    async def scene() -> None:
        drop(tmp_path, "x.csv.gz", gzip.compress(b"h\n1\n2\n"))
        appender = MemoryAppender()
        with monkeypatch.context() as patched:
            patched.setattr(*where, ends_aside if moment == "set aside" else ends)
            source = receiver(tmp_path, after="delete")
            with pytest.raises(JournalError, match="ended"):
                await asyncio.wait_for(source.run(appender, asyncio.Event()), LIMIT_S)
        (left,) = (tmp_path / "inbox").iterdir()
        assert left.name.startswith(".") == (moment != "before the rename")
        with left.open("ab") as file:
            file.write(gzip.compress(b"3\n"))
        if left.name.startswith("."):
            drop(tmp_path, "x.csv.gz", gzip.compress(b"h\n4\n"))  # the next of this name
        async with running(receiver(tmp_path, after="delete"), appender):
            await until(lambda: names(tmp_path) == set())
        assert sorted(payloads(appender)) == [b"1", b"2", b"3", b"4"][: len(appender.frames)]
        assert len(appender.frames) == 3 + left.name.startswith(".")
        assert {frame.topic for frame in appender.frames} == {"x.csv"}

    asyncio.run(scene())


class LostAnswer(MemoryAppender):
    """The third append is durable, and nobody hears of it."""

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        position = await super().append(frames, key)
        if len(self.appends) == 3:
            self.appends.append(0)
            raise JournalError("ended")
        return position


def test_a_file_that_grows_while_nobody_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The append whose answer was lost is made of the same rows again, though there are more by then."""
    monkeypatch.setattr(files_source, "BATCH_ROWS", 10)

    async def scene() -> None:
        path = drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(100, 125)))
        appender = LostAnswer()
        with pytest.raises(JournalError, match="ended"):
            await asyncio.wait_for(receiver(tmp_path).run(appender, asyncio.Event()), LIMIT_S)
        assert len(appender.frames) == 25
        with path.open("ab") as file:
            file.write(b"".join(b"%d\n" % number for number in range(125, 160)))
        async with running(receiver(tmp_path), appender):
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
        assert payloads(appender) == [b"%d" % number for number in range(100, 160)]

    asyncio.run(scene())


def test_a_file_that_cannot_be_read_for_a_while_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other files are read meanwhile, and over a restart too nothing of it comes twice."""
    monkeypatch.setattr(files_source, "BATCH_ROWS", 10)
    broken, rows_of = True, files_source.file_rows

    def failing(path: Path, *arguments: Any, **keys: Any) -> Iterator[Row]:
        for number, row in enumerate(rows_of(path, *arguments, **keys)):
            if broken and path.name == "x.csv" and number == 25:
                raise OSError(5, "Input/output error")
            yield row

    monkeypatch.setattr(files_source, "file_rows", failing)

    async def scene() -> None:
        nonlocal broken
        path = drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(100, 170)))
        os.utime(path, (1000, 1000))
        drop(tmp_path, "y.csv", b"h\n1\n2\n")
        appender = MemoryAppender()
        source = receiver(tmp_path)
        async with running(source, appender):
            await until(lambda: (tmp_path / "inbox" / "done" / "y.csv").exists())
            await until(lambda: "x.csv: Input/output error" in source.status.detail)
        assert not (tmp_path / "inbox" / "done" / "x.csv").exists()
        broken = False
        async with running(receiver(tmp_path), appender):
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
        assert sorted(payloads(appender)) == sorted([b"1", b"2", *(b"%d" % n for n in range(100, 170))])

    asyncio.run(scene())


def test_files_that_come_while_another_one_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows between its last row and the putting away, again and again; the others are read between."""
    look, grown = files_source.identity_of, 0

    def grows(watch: Path, name: str) -> Identity:
        nonlocal grown
        if name == "x.csv" and grown < 4:
            with (watch / name).open("ab") as file:
                file.write(b"%d\n" % (200 + grown))
            grown += 1
        return look(watch, name)

    monkeypatch.setattr(files_source, "identity_of", grows)

    async def scene() -> None:
        path = drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(100, 150)))
        os.utime(path, (1000, 1000))
        for number in range(3):
            drop(tmp_path, f"{number}.csv", b"h\n%d\n" % number)
        appender = MemoryAppender()
        async with running(receiver(tmp_path), appender):
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
            await until(lambda: len(list((tmp_path / "inbox" / "done").iterdir())) == 4)
        numbers = [*range(3), *range(100, 150), *range(200, 204)]
        assert sorted(int(payload) for payload in payloads(appender)) == numbers

    asyncio.run(scene())


def test_a_file_that_is_written_anew_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known by its beginning: it is read from there, whatever its size."""
    monkeypatch.setattr(files_source, "BATCH_ROWS", 10)

    async def scene() -> None:
        path = drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(100, 200)))
        appender = MemoryAppender(delay_s=0.03)
        async with running(receiver(tmp_path), appender):
            await until(lambda: len(appender.frames) >= 10)
        seen = len(appender.frames)
        inode = path.stat().st_ino
        path.write_bytes(b"h\n" + b"".join(b"%d\n" % number for number in range(300, 500)))
        assert path.stat().st_ino == inode
        appender.delay_s = 0.0
        async with running(receiver(tmp_path), appender):
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
        assert payloads(appender)[seen:] == [b"%d" % number for number in range(300, 500)]

    asyncio.run(scene())


def test_a_file_of_the_same_name_that_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed over the one that is being read: that one is read to its end, then the new one."""
    monkeypatch.setattr(files_source, "BATCH_ROWS", 10)

    async def scene() -> None:
        drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(100, 200)))
        appender = MemoryAppender(delay_s=0.02)
        async with running(receiver(tmp_path), appender):
            await until(lambda: len(appender.frames) >= 10)
            drop(tmp_path, "x.csv", b"h\n" + b"".join(b"%d\n" % number for number in range(300, 350)))
            await until(lambda: (tmp_path / "inbox" / "done" / "x.csv").exists())
        assert payloads(appender) == [b"%d" % number for number in (*range(100, 200), *range(300, 350))]

    asyncio.run(scene())


BROKEN_HEADS = [
    (
        b"time,value\n1,2\n",
        {"columns": {"t": "zeit"}},
        "the header line has no column 'zeit'; it names 'time', 'value'",
    ),
    (b"time,value\n1,2\n", {"columns": {"t": 3}}, "there is no column 3: rows have 2"),
    (b"1,2\n", {"header": False, "join": ["zeit"]}, "no header line names column 'zeit'"),
    (
        b'"time,value\n1,2\n',
        {},
        "line 1, which names the columns: a quote that is not closed within 1000000 bytes",
    ),
    (b"x" * 70_000 + b"\n1\n", {}, "line 1, which names the columns: more than 65536 bytes"),
    (b"no parquet", {"format": "parquet"}, "is no Parquet file, or damaged: "),
]


@pytest.mark.parametrize(("body", "keys", "why"), BROKEN_HEADS)
def test_a_file_without_what_is_asked_for_has_failed(
    tmp_path: Path, body: bytes, keys: dict[str, Any], why: str
) -> None:
    async def scene() -> None:
        drop(tmp_path, "x.csv", body)
        drop(tmp_path, "y.jsonl", b'{"a": 1}\n')
        source, appender = receiver(tmp_path, **keys), MemoryAppender()
        async with running(source, appender):
            await until(lambda: (tmp_path / "inbox" / "failed" / "x.csv").exists())
        (refused,) = [frame for frame in appender.frames if frame.topic == "x.csv"]
        assert dict(refused.headers)["resync"].startswith(why)
        assert refused.payload == b"x.csv"

    asyncio.run(scene())
