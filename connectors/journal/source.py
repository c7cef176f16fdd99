"""The journal as a Bytewax source: slices in the order of the journal, resumed at an entry.

One partition, `journal`; its state is the number of the next entry, so after a crash everything
behind the last committed epoch is emitted again. How the journal is cut into slices carries no
meaning, with two exceptions: a control is a slice of its own, and no slice reaches across an entry
up to which an output store says that it is applied, so that the store can ignore whole slices.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from bytewax.inputs import AbortExecution, FixedPartitionedSource, StatefulSourcePartition

from connectors.journal.blocking import JournalWatch
from connectors.journal.entries import CONTROL, Entry
from connectors.journal.merging import Merger, control_slice, frames_slice
from connectors.journal.reader import JournalReader
from operators.batch import Slice
from operators.stage import SHARD_KEY

SLICE_ROWS: Final = 16_384
SLICE_BYTES: Final = 8 << 20
WAIT: Final = 0.005  # seconds in `next_batch`; longer would delay the epoch's end
PARTITION: Final = "journal"  # part of the stored state: a rename would lose it
_PAST: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Stop(Protocol):
    """What tells a source to end: `threading.Event`, or anything like it."""

    def is_set(self) -> bool: ...


class Never:
    """No stop."""

    def is_set(self) -> bool:
        return False


def slices(reader: JournalReader, entries: Sequence[Entry], merger: Merger) -> list[Slice]:
    """Consecutive entries as slices: each control one, what stands between them one."""
    made: list[Slice] = []
    run: list[Entry] = []
    for entry in entries:
        if entry.kind != CONTROL:
            run.append(entry)
            continue
        if run:
            made.append(frames_slice(run, merger))
            run = []
        made.append(control_slice(entry, reader.control(entry)))
    if run:
        made.append(frames_slice(run, merger))
    return made


def until_control(entries: list[Entry]) -> list[Entry]:
    """What stands before the first control, or that control alone. A batch of one slice has been
    through every stage before the next is read, so what a control changes in the tables that stages
    share (`operators.devices`) is not seen by a stage that has yet to do what stands before it."""
    for at, entry in enumerate(entries):
        if entry.kind == CONTROL:
            return entries[: max(at, 1)]
    return entries


class _Partition(StatefulSourcePartition[tuple[str, Slice], int]):
    def __init__(self, source: JournalSource, start: int) -> None:
        self._source = source
        self._reader = JournalReader(source.data / "journal")
        self._watch = JournalWatch(source.data)
        self._merger = Merger()
        self._boundaries = sorted({entry for entry in source.boundaries() if entry >= start})
        self._next = start
        self._durable = start  # everything before it is in a committed epoch
        self._snapshot: int | None = None  # the state of a snapshot not known to be committed
        self._in_flight: deque[tuple[int, int]] = deque()  # last entry and bytes of what was emitted
        self._in_flight_bytes = 0

    def next_batch(self) -> Iterable[tuple[str, Slice]]:
        if self._snapshot is not None:
            self._committed(self._snapshot)
        source = self._source
        if source.stop.is_set():
            if source.stop_ends_input:
                raise StopIteration
            if self._durable == self._next:
                raise AbortExecution
            time.sleep(0.001)
            return []
        if source.hold() or self._is_too_much():
            time.sleep(0.001)
            return []
        entries = self._read()
        if not entries and self._watch.wait(WAIT):
            entries = self._read()
        if not entries:
            return []
        entries = until_control(entries)
        size = sum(len(entry.data) for entry in entries)
        self._next = entries[-1].number + 1
        self._in_flight.append((entries[-1].number, size))
        self._in_flight_bytes += size
        return [(SHARD_KEY, made) for made in slices(self._reader, entries, self._merger)]

    def next_awake(self) -> datetime:
        # in the past: polled again at once, `next_batch` itself does the waiting
        return _PAST

    def snapshot(self) -> int:
        self._snapshot = self._next
        return self._next

    def describe(self) -> dict[str, int]:
        """Numbers for health and metrics."""
        last = self._reader.last()
        return {
            "next_entry": self._next,
            "durable_entry": self._durable - 1,
            "last_entry": last,
            "lag_entries": last + 1 - self._next,
            "in_flight_bytes": self._in_flight_bytes,
        }

    def close(self) -> None:
        self._source.left()
        self._watch.close()
        self._reader.close()

    def _committed(self, state: int) -> None:
        """The first `next_batch` after a snapshot: its epoch is durable."""
        self._snapshot = None
        if state != self._durable:
            self._durable = state
            self._watch.durable(state - 1)
            self._source.on_durable(state - 1)
        if self._source.reached is None:
            self._landed(state - 1)

    def _read(self) -> list[Entry]:
        while self._boundaries and self._boundaries[0] < self._next:
            self._boundaries.pop(0)
        stop_at = self._boundaries[0] if self._boundaries else None
        return self._reader.read(self._next, SLICE_ROWS, SLICE_BYTES, stop_at)

    def _landed(self, entry: int) -> None:
        while self._in_flight and self._in_flight[0][0] <= entry:
            self._in_flight_bytes -= self._in_flight.popleft()[1]

    def _is_too_much(self) -> bool:
        if self._source.reached is not None:
            self._landed(self._source.reached())
        cap = self._source.in_flight_bytes
        return cap is not None and self._in_flight_bytes >= cap


class JournalSource(FixedPartitionedSource[tuple[str, Slice], int]):
    """Items are `("shard", Slice)`, ready for keyed steps.

    data: the data directory. Its journal process wakes the source and is told what is durable;
    while it is away, what is on disk is read all the same.
    boundaries: asked once, at the start: entries up to which output stores are applied.
    stop: once set, nothing more is emitted, and the dataflow ends (exit code 0) with everything that was
    emitted in a committed epoch: after the one that runs, with no `on_eof` of a step (`AbortExecution`);
    or at once where stop_ends_input, as an end of the input, which closes the epoch and is told to the
    steps: for those that do nothing then. hold: while true, nothing is read (a backlog is full).
    in_flight_bytes: emit no more than this beyond `reached`, the last entry that the end of the
    dataflow has dealt with, or without that, beyond the last committed epoch. One worker has dealt
    with a batch before it asks for the next (measured), so it needs neither; several workers do.
    on_durable: told the last entry of each committed epoch that moved on.
    start: the first entry of a dataflow without state. Raises JournalGap where it was trimmed.
    """

    def __init__(
        self,
        data: Path,
        *,
        boundaries: Callable[[], Iterable[int]] = tuple,
        stop: Stop | None = None,
        stop_ends_input: bool = False,
        hold: Callable[[], object] = lambda: None,
        reached: Callable[[], int] | None = None,
        on_durable: Callable[[int], object] = lambda entry: None,
        in_flight_bytes: int | None = None,
        start: int = 1,
    ) -> None:
        self.data = data
        self.boundaries = boundaries
        self.stop: Stop = stop or Never()
        self.stop_ends_input = stop_ends_input
        self.hold = hold
        self.reached = reached
        self.on_durable = on_durable
        self.in_flight_bytes = in_flight_bytes
        self.start = start
        self._partition: _Partition | None = None
        self._describing = threading.Lock()

    def describe(self) -> dict[str, int]:
        """Where the source stands: next_entry, durable_entry, last_entry (of the journal),
        lag_entries, in_flight_bytes; {} while it does not run. From any thread."""
        with self._describing:
            return {} if self._partition is None else self._partition.describe()

    def list_parts(self) -> list[str]:
        return [PARTITION]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        self._partition = _Partition(self, self.start if resume_state is None else resume_state)
        return self._partition

    def left(self) -> None:
        """The partition is about to close its reader."""
        with self._describing:
            self._partition = None
