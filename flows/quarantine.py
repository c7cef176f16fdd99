"""The frame on which the flow ends: found in a trial beside the plant, and set aside by the journal.

A frame that ends the flow (a fault of the engine, and no input should find one) would end it again at
every start, and nothing behind it would ever be worked on. After the flow has ended twice in a row
without getting on, the supervisor runs `python -m flows.quarantine DATA FOLDER` while the flow is
down: the same dataflow over a copy of its state and into nowhere, which notes before each slice where
it is. Where it ends too, a second trial takes the slice frame by frame. The frame found is named in a
journal entry, `quarantine`, with which the journal marks it; the flow then rejects it as `engine_error`.

A trial changes nothing but its own folder, so it may be killed at any moment; one that does not end
leads to nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import cluster_main

from connectors.journal.merging import Merger
from connectors.journal.output import CountingSink
from connectors.journal.reader import JournalReader
from connectors.journal.source import PARTITION, SLICE_BYTES, SLICE_ROWS, slices, until_control
from operators.batch import FrameBatch, Slice, Ticks
from operators.stage import SHARD_KEY

MARK: Final = struct.Struct("<qqq")  # last entry, position of the first frame, frames
CRASHES: Final = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
ENVIRONMENT: Final = 3  # exit code of a process whose environment failed
ROOM: Final = 64 << 20  # bytes that must be free on the disk, or it is what ends the flow
TRIAL: Final = "flows.quarantine"  # the module that is run


class Place(NamedTuple):
    """Where a trial ended: the journal entry, and the position of a frame in it."""

    entry: int
    position: int


def is_crash(code: int | None) -> bool:
    """Whether a process ended by a fault of its own: not cleanly, not killed by somebody, and not for
    its environment."""
    if code is None or code in (0, ENVIRONMENT):
        return False
    return code > 0 or -code in CRASHES


def has_room(data: Path) -> bool:
    """Whether the disk has room: a full one ends the flow and its trials at any frame."""
    return shutil.disk_usage(data).free >= ROOM


def single_frames(made: Slice) -> Iterator[Slice]:
    """The slice cut into one a frame, ticks where they stood."""
    frames = made.frames
    for row in range(len(frames)):
        cut = slice(row, row + 1)
        last = row + 1 == len(frames)
        mine = (frames.ticks.row == row) | (last & (frames.ticks.row > row))
        ticks = Ticks((frames.ticks.row[mine] > row).astype(np.int64), frames.ticks.ns[mine])
        one = FrameBatch(
            payload=frames.payload,
            offset=frames.offset[cut],
            length=frames.length[cut],
            address=frames.address[cut],
            addresses=frames.addresses,
            ingest_ns=frames.ingest_ns[cut],
            position=frames.position[cut],
            flags=frames.flags[cut],
            ticks=ticks,
        )
        yield Slice(made.last_entry, int(frames.position[row]) + 1, one)


class _Partition(StatefulSourcePartition[tuple[str, Slice], int]):
    def __init__(self, source: TrialSource, start: int) -> None:
        self._source = source
        self._next = start
        self._made = self._slices()

    def next_batch(self) -> list[tuple[str, Slice]]:
        return [(SHARD_KEY, next(self._made))]

    def _slices(self) -> Iterator[Slice]:
        source, merger = self._source, Merger()
        with closing(JournalReader(source.journal)) as reader:
            # up to the same entry as the first trial, so that the slices are cut as they were there
            end = reader.last() if source.entry is None else source.entry
            while self._next <= end:
                entries = until_control(reader.read(self._next, SLICE_ROWS, SLICE_BYTES, end))
                self._next = entries[-1].number + 1
                for made in slices(reader, entries, merger):
                    fine = source.entry is not None and made.last_entry == source.entry and len(made.frames)
                    for part in single_frames(made) if fine else (made,):
                        source.note(part)
                        yield part

    def snapshot(self) -> int:
        return self._next


class TrialSource(FixedPartitionedSource[tuple[str, Slice], int]):
    """The journal up to its end, noting in `mark` where it is; or up to `entry`, frame by frame in the
    slice that ends with it. It reports nothing to the journal's process."""

    def __init__(self, journal: Path, mark: Path, start: int, entry: int | None) -> None:
        self.journal = journal
        self.start = start
        self.entry = entry
        self._mark = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def note(self, made: Slice) -> None:
        """What follows is about this slice."""
        first = int(made.frames.position[0]) if len(made.frames) else made.position
        os.pwrite(self._mark, MARK.pack(made.last_entry, first, len(made.frames)), 0)

    def list_parts(self) -> list[str]:
        return [PARTITION]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        return _Partition(self, self.start if resume_state is None else resume_state)


class Trials:
    """The two trials, one after the other, each a process; `step` never blocks. Raises `OSError` where the
    copy that they work on cannot be made."""

    def __init__(self, data: Path, environment: dict[str, str], log: Path) -> None:
        self.data = data
        self.folder = data / "trial"
        self.found: Place | None = None
        self._environment = environment
        self._log = log
        self._is_fine = False  # the second trial, frame by frame
        self._process = self._start(None)

    def step(self) -> bool:
        """Go on; True once it is over, with `found` or without."""
        code = self._process.poll()
        if code is None:
            return False
        mark = read_mark(self.folder)
        if not is_crash(code) or mark is None or not mark[2] or not has_room(self.data):
            return self._end()
        if mark[2] > 1 and not self._is_fine:
            self._is_fine = True
            try:
                self._process = self._start(mark[0])
            except OSError:  # no copy of the state can be made any more
                return self._end()
            return False
        if mark[2] > 1:
            return self._end()
        with closing(JournalReader(self.data / "journal")) as reader:
            self.found = place_of(reader, mark[0], mark[1])
        return self._end()

    def close(self) -> None:
        """End what still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._end()

    def _end(self) -> bool:
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _start(self, entry: int | None) -> subprocess.Popen[bytes]:
        shutil.rmtree(self.folder, ignore_errors=True)
        recovery = self.data / "recovery"
        if recovery.exists():
            try:
                shutil.copytree(recovery, self.folder / "recovery")
            except OSError:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = [str(self.data), str(self.folder), *([str(entry)] if entry is not None else [])]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", TRIAL, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )


def read_mark(folder: Path) -> tuple[int, int, int] | None:
    """Where a trial was when it ended; None where it had not begun."""
    try:
        last, first, frames = MARK.unpack((folder / "mark").read_bytes())
    except (OSError, struct.error):
        return None
    return last, first, frames


def place_of(reader: JournalReader, last: int, position: int) -> Place | None:
    """The entry that holds a frame, looked for backwards from `last`."""
    number, oldest = last, reader.oldest()
    while number >= oldest:
        entry = reader.read(number, 1, 1, number)[0]
        if entry.position <= position < entry.next_position:
            return Place(number, position)
        number -= 1
    return None


def main() -> int:
    """`python -m flows.quarantine DATA FOLDER [ENTRY]`: one trial."""
    from flows.flow import live_shard
    from flows.plant import plant_flow
    from flows.recovery import prepare_recovery

    data, folder = Path(sys.argv[1]), Path(sys.argv[2])
    entry = int(sys.argv[3]) if len(sys.argv) > 3 else None
    shard = live_shard(data, folder / "recovery" / "pages")
    with closing(JournalReader(data / "journal")) as reader:
        oldest = reader.oldest()
    source = TrialSource(data / "journal", folder / "mark", oldest, entry)
    recovery, _ = prepare_recovery(folder / "recovery")
    flow = plant_flow(shard, source, CountingSink())
    cluster_main(flow, [], 0, epoch_interval=timedelta(hours=1), recovery_config=recovery)
    return 0


if __name__ == "__main__":
    sys.exit(main())
