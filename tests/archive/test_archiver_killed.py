"""The journal's and the archiver's processes, killed at any moment: every frame is in the archive or
still in the journal, each once, and trimming waits for the archive and for nothing else."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from connectors.errors import JournalError, JournalFull
from connectors.journal.reader import JournalReader
from connectors.source import Frame
from tests.archive.journals import archive_files, archive_rows, journal_rows
from tests.journal.journal_process import ROOT, RunningJournal
from tests.waiting import LIMIT_S, until

JOURNAL_BYTES = 4 << 20  # files of half a MiB


class RunningArchiver:
    """An archiver process over a data directory."""

    def __init__(self, data: Path, path: str = "archive/") -> None:
        self.data = data
        self.config = data / "run" / "archive.json"
        self.config.parent.mkdir(parents=True, exist_ok=True)
        body = {"path": path, "keep": 400 * 86_400 * 10**9, "journal_bytes": JOURNAL_BYTES}
        self.config.write_text(json.dumps(body))
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "flows.archiver", str(self.data), "--config", str(self.config)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT_S)

    def status(self) -> dict[str, Any]:
        """What it last said; {} as long as this process has said nothing."""
        try:
            said = dict(json.loads((self.data / "run" / "archiver.json").read_bytes()))
        except FileNotFoundError:
            return {}
        return said if said["pid"] == self.process.pid else {}

    def __enter__(self) -> RunningArchiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        assert self.process.wait(LIMIT_S) == 0 or kind is not None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


def append(running: RunningJournal, sent: list[bytes], count: int = 40) -> None:
    """Frames that a device holds until they are acknowledged, sent under a key until they are."""
    frames = [
        Frame(f"t/{number % 3}", b"%09d" % (len(sent) + number) + bytes(3000)) for number in range(count)
    ]
    key = f"k{len(sent)}"
    while True:
        try:
            with closing(running.client("line1")) as client:
                client.append(frames, key)
            break
        except JournalFull:
            report_durable(running)  # as the flow does again to a journal that was killed
            time.sleep(0.1)
        except JournalError:
            if running.process.poll() is not None:
                running.start()
    sent += [frame.payload for frame in frames]


def report_durable(running: RunningJournal) -> None:
    """What the flow would: all of it is durable elsewhere."""
    with closing(JournalReader(running.data / "journal")) as reader:
        last = reader.last()
    with closing(running.client("flow")) as client:
        client.durable(last)


@pytest.mark.parametrize("seed", [3, 4])
def test_every_entry_is_archived_once_whatever_is_killed(data: Path, seed: int) -> None:
    chance = random.Random(seed)
    sent: list[bytes] = []
    with RunningJournal(data, JOURNAL_BYTES, archived=True) as journal, RunningArchiver(data) as archiver:
        for _ in range(30):
            append(journal, sent)
            report_durable(journal)
            time.sleep(chance.random() * 0.05)
            what = chance.random()
            if what < 0.15:
                archiver.kill()
                archiver.start()
            elif what < 0.25:
                journal.kill()
                journal.start()
        until(lambda: archiver.status().get("archived_entry", 0) > 0, "a last file")
        until(lambda: _oldest(data) > 1, "the journal to be trimmed")
        archiver.process.terminate()
        assert archiver.process.wait(LIMIT_S) == 0
        journal.stop()
    files = archive_files(data / "archive")
    rows = archive_rows(files)
    with closing(JournalReader(data / "journal")) as reader:
        archived, oldest = rows[-1][0], reader.oldest()
        assert oldest <= archived + 1, "the journal was trimmed before the archive had it"
        rest = journal_rows(reader, archived + 1, reader.last())
        # what both hold is the same
        assert [row for row in rows if row[0] >= oldest] == journal_rows(reader, oldest, archived)
    rows += rest
    assert sorted({row[0] for row in rows}) == list(range(1, rows[-1][0] + 1))
    frames = [row for row in rows if row[2] == "frame"]
    assert [row[3] for row in frames] == list(range(len(sent)))
    assert [row[9] for row in frames] == sent
    assert len(sent) * 3009 > 0.8 * JOURNAL_BYTES, "the journal never had to be trimmed"


def _oldest(data: Path) -> int:
    with closing(JournalReader(data / "journal")) as reader:
        return reader.oldest()


def test_an_archive_that_is_away_holds_trimming_back_until_it_is_there(data: Path) -> None:
    """Sources go on until the journal is at its cap; the journal then says for whom it waits."""
    (data / "archive").write_text("in the way")
    sent: list[bytes] = []
    with RunningJournal(data, JOURNAL_BYTES, archived=True) as journal, RunningArchiver(data) as archiver:
        until(lambda: archiver.status().get("state") == "retrying", "the archiver to say what is wrong")
        where = data / "archive"
        assert archiver.status()["detail"] == f"cannot write the archive {where}: is a file, not a folder"
        full = False
        while not full:
            try:
                with closing(journal.client("line1")) as client:
                    frames = [
                        Frame("t", b"%09d" % (len(sent) + number) + bytes(9000)) for number in range(20)
                    ]
                    client.append(frames)
                    sent += [frame.payload for frame in frames]
            except JournalFull:
                full = True
            report_durable(journal)
        assert len(sent) * 9009 > 0.5 * JOURNAL_BYTES
        assert _oldest(data) == 1
        with closing(journal.client()) as client:
            status = client.status()
        assert status["state"] == "full"
        assert status["detail"] == "at its cap, sources wait; it is trimmed once the archive has it"
        where.unlink()
        until(lambda: archiver.status().get("archived_entry", 0) > 1, "the archive to be written")
        until(lambda: _oldest(data) > 1, "the journal to be trimmed")
        append(journal, sent, 1)
        with closing(journal.client()) as client:
            assert client.status()["state"] == "running"
        journal.stop()
    archived = archive_rows(archive_files(data / "archive"))
    with closing(JournalReader(data / "journal")) as reader:
        rest = journal_rows(reader, archived[-1][0] + 1, reader.last())
    assert [row[9] for row in archived + rest if row[2] == "frame"] == sent


def test_a_journal_without_an_archive_waits_for_none(data: Path) -> None:
    sent: list[bytes] = []
    with RunningJournal(data, JOURNAL_BYTES) as journal:
        append(journal, sent)
        report_durable(journal)
        until(lambda: _oldest(data) > 1, "the journal to be trimmed")
