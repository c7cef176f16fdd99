"""The journal as a Bytewax source: cuts, resume, stop, and what is reported durable."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import AbortExecution
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from journal_process import RunningJournal

from connectors.journal.entries import pack_control, pack_frames
from connectors.journal.source import JournalSource
from connectors.journal.store import Append, JournalStore
from connectors.source import Frame
from operators.batch import Slice
from tests.waiting import until

SESSION = b"s" * 16


class _Collecting(StatelessSinkPartition[Any]):
    def __init__(self, found: list[Slice]) -> None:
        self.found = found

    def write_batch(self, items: list[tuple[str, Slice]]) -> None:
        assert {key for key, _ in items} == {"shard"}
        self.found += [item for _, item in items]


class Collecting(DynamicSink[Any]):
    def __init__(self) -> None:
        self.found: list[Slice] = []

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Collecting:
        return _Collecting(self.found)


class _Counting(StatefulBatchLogic[Slice, Slice, int]):
    """Frames seen so far, by all runs."""

    frames = 0

    def __init__(self, state: int | None) -> None:
        type(self).frames = state or 0

    def on_batch(self, values: list[Slice]) -> tuple[list[Slice], bool]:
        type(self).frames += sum(len(item.frames) for item in values)
        return values, StatefulBatchLogic.RETAIN

    def snapshot(self) -> int:
        return self.frames


def journal(data: Path, *steps: int | str) -> JournalStore:
    """A journal, its process away: an int is an entry of so many frames, a text a control."""
    store = JournalStore(data / "journal", 64 << 20)
    store.last_tick_ms = 1 << 60  # no ticks
    for sequence, step in enumerate(steps, 1):
        body = (
            pack_frames("a", [Frame("t", b"x" * 100)] * step)
            if isinstance(step, int)
            else pack_control(step, {"source": "a"})
        )
        assert store.commit([Append(SESSION, sequence, body)]) != [None]
    return store


def shapes(found: list[Slice]) -> list[tuple[int, int | str]]:
    return [(s.last_entry, s.control.kind if s.control else len(s.frames)) for s in found]


def drain(source: JournalSource, state: int | None = None) -> list[Slice]:
    part = source.build_part("journal", "journal", state)
    found: list[Slice] = []
    while batch := list(part.next_batch()):
        found += [item for _, item in batch]
    part.close()
    return found


def test_a_control_is_a_slice_and_no_slice_reaches_across_a_boundary(tmp_path: Path) -> None:
    store = journal(tmp_path, 3, 4, "connected", "disconnected", 5, 6, 7)
    source = JournalSource(tmp_path)
    found = drain(source)
    assert shapes(found) == [(2, 7), (3, "connected"), (4, "disconnected"), (7, 18)]
    assert [item.position for item in found] == [7, 7, 7, 25]
    cut = JournalSource(tmp_path, boundaries=lambda: [5, 1, 5, 0, 99])
    assert shapes(drain(cut)) == [(1, 3), (2, 4), (3, "connected"), (4, "disconnected"), (5, 5), (7, 13)]
    assert shapes(drain(cut, 5)) == [(5, 5), (7, 13)]
    assert drain(cut, 8) == []
    store.close()


def test_slices_are_bounded(tmp_path: Path) -> None:
    store = journal(tmp_path, *[8000] * 5)
    assert shapes(drain(JournalSource(tmp_path))) == [(2, 16_000), (4, 16_000), (5, 8000)]
    store.close()


def test_what_is_in_flight_is_bounded_until_it_is_durable_or_has_arrived(tmp_path: Path) -> None:
    store = journal(tmp_path, *[8000] * 6)
    durable: list[int] = []
    source = JournalSource(tmp_path, in_flight_bytes=1_500_000, on_durable=durable.append)
    part = source.build_part("journal", "journal", None)
    assert [shapes([s for _, s in part.next_batch()]) for _ in range(3)] == [[(2, 16_000)], [], []]
    assert part.snapshot() == 3
    assert shapes([s for _, s in part.next_batch()]) == [(4, 16_000)]
    assert durable == [2]
    assert source.describe() == {
        "next_entry": 5,
        "durable_entry": 2,
        "last_entry": 6,
        "lag_entries": 2,
        "in_flight_bytes": part._in_flight_bytes,
    }
    part.close()
    assert source.describe() == {}  # its status may be asked for until the process ends

    arrived = [0]
    source = JournalSource(tmp_path, in_flight_bytes=1_500_000, reached=lambda: arrived[0])
    part = source.build_part("journal", "journal", None)
    part.next_batch()
    part.snapshot()
    assert part.next_batch() == []
    arrived[0] = 2
    assert shapes([s for _, s in part.next_batch()]) == [(4, 16_000)]
    part.close()
    store.close()


def test_it_stops_after_the_epoch_that_holds_all_it_emitted(tmp_path: Path) -> None:
    store = journal(tmp_path, 3, 4)
    stop, held = threading.Event(), [True]
    source = JournalSource(tmp_path, stop=stop, hold=lambda: held[0])
    part = source.build_part("journal", "journal", None)
    assert part.next_batch() == []  # held
    held[0] = False
    assert len(list(part.next_batch())) == 1
    stop.set()
    assert part.next_batch() == []
    part.snapshot()
    with pytest.raises(AbortExecution):
        part.next_batch()
    part.close()
    store.close()


@pytest.mark.parametrize(("epoch_s", "ends_input"), [(0.1, False), (3600, True)])
def test_a_dataflow_goes_on_where_its_last_epoch_ended(
    tmp_path: Path, epoch_s: float, ends_input: bool
) -> None:
    """A stop waits for the end of the epoch, or ends it."""
    recovery = tmp_path / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 1)

    def run(until_entry: int, *, is_stopped: bool = False) -> list[Slice]:
        """Runs until an entry has arrived, then stops cleanly; is_stopped: before it begins."""
        stop, sink = threading.Event(), Collecting()
        source = JournalSource(tmp_path, stop=stop, stop_ends_input=ends_input)
        flow = Dataflow("flow")
        slices = op.stateful_batch("count", op.input("journal", flow, source), _Counting)
        op.output("out", slices, sink)

        def watch() -> None:
            try:
                until(
                    lambda: stop.is_set() or (sink.found and sink.found[-1].last_entry >= until_entry),
                    "the entry",
                )
            finally:
                stop.set()

        if is_stopped:
            stop.set()
        watcher = threading.Thread(target=watch)
        watcher.start()
        epoch = timedelta(seconds=epoch_s)
        run_main(flow, epoch_interval=epoch, recovery_config=RecoveryConfig(recovery))
        watcher.join()
        return sink.found

    with RunningJournal(tmp_path) as process, process.client("a") as client:
        for n in range(50):
            client.append([Frame("t", b"%d" % n)])
        found = run(client.control("connected", {"source": "a"}))
        for n in range(50, 80):
            client.append([Frame("t", b"%d" % n)])
        last = client.control("disconnected", {"source": "a"})
        if ends_input:
            assert run(last, is_stopped=True) == []
        again = run(last)
        assert _Counting.frames == 80
        payloads = [s.frames.frame(row) for s in (*found, *again) for row in range(len(s.frames))]
        assert payloads == [b"%d" % n for n in range(80)]
        assert again[0].last_entry > found[-1].last_entry
        assert [s.control.kind for s in (*found, *again) if s.control] == [
            "started",
            "connected",
            "disconnected",
        ]
        if not ends_input:  # else the next epoch says so
            until(
                lambda: client.status()["metrics"]["journal_oldest_entry"] > again[-1].last_entry,
                "what the epoch held to be trimmed",
            )
