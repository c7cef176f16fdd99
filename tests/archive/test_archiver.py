"""The archive holds the journal's entries, each once, whatever happened; files end where they must."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError, JournalGap
from connectors.journal import archive_store
from connectors.journal.archive_reader import archived_files, check_gaps
from connectors.journal.archive_store import LocalStore, open_store
from connectors.journal.archiver import Archiver
from connectors.source import Frame
from tests.archive.journals import (
    DAY_MS,
    HOUR_MS,
    PLANT,
    START_MS,
    TestJournal,
    archive_files,
    archive_rows,
    journal_rows,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[TestJournal]:
    made = TestJournal(tmp_path)
    yield made
    made.close()


def drain(archiver: Archiver) -> int:
    """Write all files that are whole; how many."""
    count = 0
    while archiver.step():
        count += 1
    return count


def fill(journal: TestJournal, hours: int, seed: int = 1) -> None:
    """Some of everything, over so many hours."""
    chance = random.Random(seed)
    journal.control("started", {"clean": True})
    journal.plant({"plant.yaml": b"plant: p\n", "rules/a.yaml": b"\xff\x00"})
    journal.control("connected", {"source": "line1"})
    for hour in range(hours):
        for part in range(6):
            frames = [
                Frame(
                    f"t/{chance.randrange(4)}",
                    chance.randbytes(chance.randrange(40)),
                    chance.randrange(4),
                    chance.choice((-1, 0, 7)),
                    chance.choice(((), (("a", "1"), ("a", "é")), (("x", ""),))),
                )
                for _ in range(chance.randrange(1, 60))
            ]
            journal.frames(chance.choice(("line1", "ü/2")), frames, chance.randrange(1, HOUR_MS // 6))
            if part == 3:
                journal.control(
                    "action",
                    {
                        "id": "0" * 32,
                        "kind": "param",
                        "device_id": "d",
                        "param": "tempHigh",
                        "value": hour,
                        "by": "x",
                        "why": "",
                    },
                )
        journal.tick(START_MS + (hour + 1) * HOUR_MS - journal.ms)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FRAMES = st.builds(
    Frame,
    NAMES,
    st.binary(max_size=30),
    st.integers(0, 3),
    st.integers(-1, 70_000),
    st.lists(st.tuples(NAMES, NAMES), max_size=2).map(tuple),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("frames"), st.sampled_from(["a", "b"]), st.lists(FRAMES, min_size=1, max_size=5)),
        st.tuples(st.just("tick"), st.sampled_from([1, 999, 1000, 61_000, HOUR_MS, DAY_MS])),
        st.tuples(st.just("control"), st.sampled_from(["connected", "disconnected"])),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_what_is_archived_is_what_was_journaled(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple]
) -> None:  # type: ignore[type-arg]
    journal = TestJournal(tmp_path_factory.mktemp("data"))
    for step in steps:
        if step[0] == "frames":
            journal.frames(step[1], step[2])
        elif step[0] == "tick":
            journal.tick(step[1])
        else:
            journal.control(step[1], {"source": "a"})
    journal.tick(2 * HOUR_MS)
    archiver = journal.archiver()
    drain(archiver)
    rows = journal_rows(journal.reader, 1, journal.reader.last())
    wanted = [row for row in rows if row[1] // HOUR_MS < journal.ms // HOUR_MS]
    assert archive_rows(archive_files(journal.archive)) == wanted
    assert archiver.entry == max((row[0] for row in wanted), default=0)
    journal.close()


def test_a_file_holds_an_hour_and_is_named_after_its_entries_and_day(journal: TestJournal) -> None:
    fill(journal, 26)
    drain(journal.archiver())
    files = archive_files(journal.archive)
    assert len(files) == 26
    of = journal.reader.identity()
    names = [path.relative_to(journal.archive).as_posix() for path in files]
    assert names[0].startswith(f"journal={of}/day=2026-03-01/000000000001-0000000000")
    assert names[25].startswith(f"journal={of}/day=2026-03-02/")
    contents = [file.contents for file in archived_files(str(journal.archive))]
    assert contents[0].first == 1
    assert [one.first for one in contents[1:]] == [one.last + 1 for one in contents[:-1]]
    assert {one.first_ms // HOUR_MS == one.last_ms // HOUR_MS for one in contents} == {True}


def test_a_file_says_what_stood_before_it(journal: TestJournal) -> None:
    fill(journal, 3)
    drain(journal.archiver())
    first, second, third = (file.contents.standing for file in archived_files(str(journal.archive)))
    assert (first.plant, first.connected, first.params) == ("", [], {})
    assert (second.plant, second.connected) == (PLANT, ["line1"])
    assert [one["value"] for one in third.params.values()] == [1]


def test_a_file_is_never_larger_than_an_eighth_of_the_journal(journal: TestJournal) -> None:
    journal.journal_bytes = 800_000
    for _ in range(40):
        journal.frames("line1", [Frame("t", bytes(9_000))], 10)
    journal.tick(HOUR_MS)
    archiver = journal.archiver()
    drain(archiver)
    files = archive_files(journal.archive)
    assert len(files) == 4
    assert archive_rows(files) == journal_rows(journal.reader, 1, archiver.entry)


def test_the_same_entries_give_the_same_file(journal: TestJournal, tmp_path: Path) -> None:
    fill(journal, 3)
    drain(journal.archiver())
    first = {path.name: path.read_bytes() for path in archive_files(journal.archive)}
    shutil.rmtree(journal.archive)
    (tmp_path / "cursors" / "archive.msgpack").unlink()
    drain(journal.archiver())
    assert {path.name: path.read_bytes() for path in archive_files(journal.archive)} == first


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_anywhere_leaves_nothing_out_and_nothing_twice(
    journal: TestJournal, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Every step of writing is a place to crash at: before and after the file, the rename, the cursor."""
    chance = random.Random(seed)

    class Crash(BaseException):
        pass

    def fragile(call):  # type: ignore[no-untyped-def]
        def made(*arguments, **named):  # type: ignore[no-untyped-def]
            if chance.random() < 0.15:
                raise Crash
            result = call(*arguments, **named)
            if chance.random() < 0.15:
                raise Crash
            return result

        return made

    fill(journal, 8, seed)
    monkeypatch.setattr(archive_store.os, "fsync", fragile(archive_store.os.fsync))
    monkeypatch.setattr(Path, "replace", fragile(Path.replace))
    monkeypatch.setattr(Path, "unlink", fragile(Path.unlink))
    crashes = 0
    archiver = journal.archiver()
    while True:
        try:
            if not archiver.step():
                break
        except Crash:
            crashes += 1
            archiver = journal.archiver()
    monkeypatch.undo()
    assert crashes
    assert archive_rows(archive_files(journal.archive)) == journal_rows(journal.reader, 1, archiver.entry)
    assert archiver.entry > 1
    assert not list(journal.archive.rglob("*.partial")) or drain(journal.archiver()) == 0
    journal.archiver().open()
    assert not list(journal.archive.rglob("*.partial"))


def test_a_newest_file_that_is_not_whole_is_written_again(journal: TestJournal, tmp_path: Path) -> None:
    fill(journal, 4)
    drain(journal.archiver())
    newest = archive_files(journal.archive)[-1]
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cursors" / "archive.msgpack").unlink()  # it was not written yet
    assert drain(journal.archiver()) == 1
    assert newest.read_bytes() == whole


def test_files_moved_away_are_not_written_again(journal: TestJournal) -> None:
    fill(journal, 3)
    drain(journal.archiver())
    shutil.rmtree(journal.archive)
    fill_more = 2
    for _ in range(fill_more):
        journal.frames("line1", [Frame("t", b"x")], HOUR_MS)
    archiver = journal.archiver()
    assert drain(archiver) == fill_more - 1 + 1
    assert archived_files(str(journal.archive))[0].contents.standing.plant == PLANT


def test_keep_deletes_whole_files_by_the_journals_clock_and_never_the_newest(tmp_path: Path) -> None:
    journal = TestJournal(tmp_path, keep_ms=3 * HOUR_MS)
    fill(journal, 8)
    archiver = journal.archiver()
    drain(archiver)
    kept = [file.contents for file in archived_files(str(journal.archive))]
    assert kept[0].last_ms >= kept[-1].last_ms - 3 * HOUR_MS
    assert (archiver.files, archiver.deleted) == (len(kept), 8 - len(kept))
    assert 3 <= len(kept) <= 4
    journal.tick(30 * DAY_MS)  # nobody was there for a month
    drain(archiver)
    journal.tick(HOUR_MS)
    drain(archiver)
    left = [file.contents for file in archived_files(str(journal.archive))]
    assert [one.last for one in left][-1] == archiver.entry
    assert len(left) == 1
    journal.close()


def test_entries_that_were_trimmed_before_are_told_and_are_a_gap(journal: TestJournal) -> None:
    fill(journal, 2)
    drain(journal.archiver())
    for _ in range(3):
        journal.frames("line1", [Frame("t", b"x")], HOUR_MS)
    entry = journal.archiver()
    entry.open()
    while journal.store.trim(entry.entry + 3):
        pass
    archiver = journal.archiver()
    archiver.open()
    assert archiver.missing == (entry.entry + 1, entry.entry + 3)
    for _ in range(2):
        journal.frames("line1", [Frame("t", b"x")], HOUR_MS)
    drain(archiver)
    files = archived_files(str(journal.archive))
    with pytest.raises(ConfigError) as error:
        check_gaps(files)
    assert str(error.value) == (
        f"entries {entry.entry + 1} to {entry.entry + 3} are missing before {files[2].path}; "
        "what they led to is missing, too. --gaps goes on without them"
    )
    said: list[str] = []
    check_gaps(files, said.append)
    assert said == [str(error.value).removesuffix(". --gaps goes on without them")]
    assert files[2].contents.standing.plant == PLANT


def test_a_journal_made_anew_gets_a_folder_of_its_own(journal: TestJournal, tmp_path: Path) -> None:
    fill(journal, 2)
    drain(journal.archiver())
    other = TestJournal(tmp_path / "other")
    other.archive = journal.archive
    fill(other, 2, seed=2)
    assert drain(other.archiver()) == 2
    assert len(list(journal.archive.glob("journal=*"))) == 2
    with pytest.raises(ConfigError, match="holds 2 journals"):
        archived_files(str(journal.archive))
    one = archived_files(str(journal.archive / f"journal={other.reader.identity()}"))
    assert one[0].contents.first == 1
    other.close()


def test_a_journal_that_was_put_back_goes_on_in_a_branch(journal: TestJournal, tmp_path: Path) -> None:
    fill(journal, 2)
    journal.close()
    shutil.copytree(tmp_path / "journal", tmp_path / "backup")
    after = TestJournal(tmp_path)
    after.ms, after.sequence = journal.ms, journal.sequence
    for _ in range(3):
        after.frames("line1", [Frame("t", b"before")], HOUR_MS)
    drain(after.archiver())
    after.close()
    shutil.rmtree(tmp_path / "journal")
    shutil.copytree(tmp_path / "backup", tmp_path / "journal")
    again = TestJournal(tmp_path)
    again.ms, again.sequence = journal.ms + 500, journal.sequence
    for _ in range(3):
        again.frames("line1", [Frame("t", b"after")], HOUR_MS)
    archiver = again.archiver()
    drain(archiver)
    identity = again.reader.identity()
    assert {path.name for path in again.archive.iterdir()} == {f"journal={identity}", f"journal={identity}.1"}
    branch = archive_files_of(again.archive / f"journal={identity}.1")
    assert archive_rows(branch) == journal_rows(again.reader, 1, archiver.entry)
    again.close()


def archive_files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("day=*/*") if path.is_file())


def test_an_archive_that_is_away_is_tried_again_and_nothing_is_lost(journal: TestJournal) -> None:
    fill(journal, 3)
    journal.archive.write_text("in the way")
    archiver = journal.archiver()
    with pytest.raises(OSError, match="is a file, not a folder"):
        archiver.step()
    archiver.close()
    journal.archive.unlink()
    drain(archiver)
    assert archive_rows(archive_files(journal.archive)) == journal_rows(journal.reader, 1, archiver.entry)


def test_a_full_disk_leaves_no_file_and_no_rubbish(
    journal: TestJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(journal, 2)
    archiver = journal.archiver()
    archiver.step()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(archive_store.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            archiver.step()
    assert (
        len([path for path in journal.archive.rglob("*") if path.is_file() and "plants" not in path.parts])
        == 1
    )
    drain(archiver)
    assert archive_rows(archive_files(journal.archive)) == journal_rows(journal.reader, 1, archiver.entry)


def test_a_bucket_is_written_and_read_like_a_folder(journal: TestJournal, tmp_path: Path) -> None:
    from pyarrow import fs

    bucket = tmp_path / "bucket"
    bucket.mkdir()
    fill(journal, 3)
    system = fs.SubTreeFileSystem(str(bucket), fs.LocalFileSystem())
    remote = archive_store.RemoteStore(system, "prefix", "s3://bucket/prefix")
    archiver = Archiver(
        journal.reader, remote, tmp_path / "cursor", keep_ms=400 * DAY_MS, journal_bytes=1 << 30
    )
    drain(archiver)
    assert archive_rows(archive_files(bucket / "prefix")) == journal_rows(journal.reader, 1, archiver.entry)
    again = Archiver(journal.reader, remote, tmp_path / "none", keep_ms=400 * DAY_MS, journal_bytes=1 << 30)
    again.open()
    assert (again.entry, again.files) == (archiver.entry, 3)
    remote.delete(next(iter(again._names)))
    assert len(remote.names()) == 2 + 1  # and the plant


def test_a_relative_path_lies_in_the_data_directory(tmp_path: Path) -> None:
    assert open_store("archive/", tmp_path).where == str(tmp_path / "archive")
    assert open_store("/mnt/x", tmp_path).where == "/mnt/x"
    assert isinstance(open_store("a", tmp_path), LocalStore)


def test_a_gap_of_the_journal_is_no_reason_to_wait(journal: TestJournal) -> None:
    archiver = journal.archiver()
    archiver.open()
    fill(journal, 2)
    while journal.store.trim(5):
        pass
    with pytest.raises(JournalGap):
        archiver.step()
