"""The files receiver as a process: SIGKILL at random moments, and files far larger than its memory."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from connectors.files.config import FilesConfig
from connectors.journal.entries import FRAMES
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from operators.spec import MILLISECOND
from tests.conformance.processes import Processes

MEGABYTES = int(os.environ.get("PENSTOCK_FILE_MB", "32"))  # the long form: 500


def processes(tmp_path: Path, **keys: Any) -> Processes:
    config = FilesConfig(
        watch=str(tmp_path / "inbox"), poll=20 * MILLISECOND, settle=20 * MILLISECOND, **keys
    )
    return Processes(config, tmp_path / "data")


def journaled(data: Path) -> list[tuple[str, int, bytes]]:
    """(file, line, row) of every frame in the journal."""
    found = []
    with JournalReader(data / "journal") as reader:
        start = reader.oldest()
        while entries := reader.read(start, 10_000, 64 << 20):
            frames = merge([entry for entry in entries if entry.kind == FRAMES])
            for row in range(len(frames)):
                topic = frames.addresses[int(frames.address[row])].topic
                found.append((topic, frames.line(row), frames.frame(row)))
            start = entries[-1].number + 1
    return found


def goes_on(data: Path, count: int) -> bool:
    return len(journaled(data)) >= count


def drop(inbox: Path, name: str, body: bytes) -> None:
    beside = inbox.parent / "beside"
    beside.write_bytes(body)
    beside.rename(inbox / name)


@pytest.mark.parametrize("after", ["move", "delete"])
def test_each_row_once_and_in_order_over_sigkill(tmp_path: Path, after: str) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    draw = random.Random(after)
    both = processes(tmp_path, after=after, pattern="*.csv*")
    expected: dict[str, list[tuple[int, bytes]]] = {}
    try:
        for number in range(6):
            rows = [b"%d,%d,%s" % (number, row, b"x" * draw.randrange(40)) for row in range(15_000)]
            text = b"file,row,text\n" + b"\n".join(rows) + b"\n" * (number % 2)
            packed = number % 3 == 1
            name = f"{number}.csv"
            drop(inbox, name + ".gz" * packed, gzip.compress(text, 1) if packed else text)
            expected[name] = [(line, row) for line, row in enumerate(rows, 2)]
        total = sum(len(rows) for rows in expected.values())
        for _ in range(5):
            before = len(journaled(both.data))
            both.until(partial(goes_on, both.data, min(before + 1, total)), "a row more")
            time.sleep(draw.uniform(0.0, 0.5))
            both.receiver.send_signal(signal.SIGKILL)
            both.receiver.wait()
            both.start_receiver()
        both.until(partial(goes_on, both.data, total), "the last row")
        both.wait_state("connected")
        time.sleep(0.3)
        found = journaled(both.data)
    finally:
        both.close()
    for name, rows in expected.items():
        mine = [(line, row) for topic, line, row in found if topic == name]
        twice = sorted(line for (line, _), times in Counter(mine).items() if times > 1)
        assert not twice, (
            f"{name}: {len(twice)} lines twice, {twice[0]} to {twice[-1]}; {both.log.read_text()}"
        )
        assert mine == rows, name
    assert len(found) == total


def pieces(size: int) -> Iterator[bytes]:
    for number in itertools.count():
        piece = b"".join(b"%08d,%d.25,running,%s\n" % (number, row, b"y" * 60) for row in range(2_000))
        size -= len(piece)
        yield piece
        if size < 0:
            return


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_far_larger_than_the_receiver_becomes(tmp_path: Path, packed: bool) -> None:
    """A receiver reads many times what it holds, and says how far it is."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    both = processes(tmp_path)
    try:
        both.wait_state("connected")
        small, most, shares = both.resident_bytes(), 0, set()
        beside = tmp_path / "beside"
        with gzip.open(beside, "wb", 1) if packed else beside.open("wb") as file:
            for piece in pieces(MEGABYTES * 1_000_000):
                file.write(piece)
        beside.rename(inbox / ("x.csv.gz" if packed else "x.csv"))
        end = time.monotonic() + 60 + MEGABYTES
        while not (inbox / "done").exists():
            assert time.monotonic() < end, both.log.read_text()
            most = max(most, both.resident_bytes())
            shares.add(both.status()["metrics"].get("receiver_file_offset", 0.0))
            time.sleep(0.05)
    finally:
        both.close()
    assert most - small < 40_000_000
    assert len(shares) > 1
