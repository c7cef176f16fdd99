"""A journal is opened for reading while its writer goes on."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import lmdb
import pytest

from connectors.journal.entries import pack_frames
from connectors.journal.reader import JournalReader
from connectors.journal.store import Append, JournalStore
from connectors.source import Frame
from tests.waiting import LIMIT_S


def write(path: Path, first: Event, grow: Event, grown: Event) -> None:
    store = JournalStore(path, max_bytes=1 << 30)
    body = pack_frames("line", [Frame("a", b"x" * 1_000_000)])
    store.commit([Append(b"s" * 16, 1, body)])
    first.set()
    grow.wait(LIMIT_S)
    for number in range(2, 32):
        store.commit([Append(b"s" * 16, number, body)])
    grown.set()
    store.close()


def test_a_journal_that_grows_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By more than LMDB's own default between the opening and the first look."""
    context = multiprocessing.get_context("spawn")
    first, grow, grown = context.Event(), context.Event(), context.Event()
    writer = context.Process(target=write, args=(tmp_path / "journal", first, grow, grown))
    writer.start()
    assert first.wait(LIMIT_S)
    opened = lmdb.open

    def slowly(*arguments: Any, **keys: Any) -> Any:
        found = opened(*arguments, **keys)
        grow.set()
        assert grown.wait(LIMIT_S)
        return found

    monkeypatch.setattr(lmdb, "open", slowly)
    with JournalReader(tmp_path / "journal") as reader:
        assert reader.last() - reader.oldest() + 1 >= 31
    writer.join(LIMIT_S)
    assert writer.exitcode == 0
