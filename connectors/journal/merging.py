"""Runs of journal entries as batches and slices, without an object per frame.

What is read of a run stays one buffer, into which the frames point; the addresses of all entries
that one reader merges are numbered in one book, so that only a new one is looked at in Python.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt

from connectors.errors import JournalError
from connectors.journal import merge_kernels as kernels
from connectors.journal.entries import (
    ARRAYS_AT,
    FRAMES,
    FRAMES_HEAD,
    HEADER_BYTES,
    MILLISECOND,
    TICK,
    Entry,
    decode_address,
    decode_entry,
    pack_frames,
)
from connectors.source import Frame
from operators.batch import (
    AddressBook,
    BookedAddresses,
    Control,
    FrameBatch,
    Int64,
    Slice,
    Ticks,
    without_lines,
)

_Array = TypeVar("_Array", bound=npt.NDArray[Any])

ADDRESSES_KEPT: Final = 200_000  # then the book is begun anew
_FIRST: Final = 1024


class Merger:
    """Consecutive entries to batches. Keeps the addresses that it met; of one reader."""

    def __init__(self, kept: int = ADDRESSES_KEPT) -> None:
        self._kept = kept
        # people choose topics: with a seed that they do not know, they cannot choose hashes as well
        self._seed = np.uint64(int.from_bytes(os.urandom(8), "little"))
        self._forget()

    def _forget(self) -> None:
        self.book = AddressBook(decode_address)
        self._state = np.zeros(3, np.int64)
        self._slots = np.full(2 * _FIRST, -1, np.int32)
        self._hashes = np.zeros(_FIRST, np.uint64)
        self._ends = np.zeros(_FIRST + 1, np.int64)
        self._local = np.full(_FIRST, -1, np.int32)
        self._arena = np.zeros(64 * _FIRST, np.uint8)
        self._last = BookedAddresses(self.book, np.empty(0, np.int64))

    def merge(self, entries: Sequence[Entry]) -> FrameBatch:
        """Consecutive entries (frames and ticks, no control) as one batch.

        Of ticks with no frame between them only the last is kept: it stands for those before it.
        Raises JournalError where the positions do not follow each other, or an entry is damaged.
        """
        run: list[Entry] = []
        ticks: list[tuple[int, int]] = []
        rows = addresses = most = table_bytes = 0
        first = -1
        for entry in entries:
            if entry.kind == TICK:
                if ticks and ticks[-1][0] == rows:
                    ticks.pop()
                ticks.append((rows, entry.ms * MILLISECOND))
                continue
            if entry.kind != FRAMES:
                raise JournalError(f"journal entry {entry.number} holds no frames")
            if first < 0:
                first = entry.position
            elif entry.position != first + rows:
                raise JournalError(
                    f"journal entry {entry.number} begins at position {entry.position}, not {first + rows}"
                )
            size, table_size, count = FRAMES_HEAD.unpack_from(entry.data, HEADER_BYTES)
            whole = ARRAYS_AT + 9 * entry.count + table_size + size
            if whole != len(entry.data) or 4 * count > table_size:
                raise JournalError(f"journal entry {entry.number} is cut short ({len(entry.data)} bytes)")
            run.append(entry)
            rows += entry.count
            addresses += count
            most = max(most, count)
            table_bytes += table_size
        marks = Ticks(
            np.fromiter((row for row, _ in ticks), np.int64, len(ticks)),
            np.fromiter((ns for _, ns in ticks), np.int64, len(ticks)),
        )
        if not rows:
            return empty_batch(marks)
        if len(self.book) > self._kept:
            self._forget()
        self._make_room(addresses, table_bytes)
        return self._columns(run, rows, first, addresses, most, marks)

    def _columns(
        self, run: list[Entry], rows: int, first: int, addresses: int, most: int, marks: Ticks
    ) -> FrameBatch:
        payload = np.frombuffer(bytearray().join([entry.data for entry in run]), np.uint8)
        starts = np.zeros(len(run) + 1, np.int64)
        np.cumsum([len(entry.data) for entry in run], out=starts[1:])
        offset, length, ingest_ns = (
            np.empty(rows, np.int64),
            np.empty(rows, np.int64),
            np.empty(rows, np.int64),
        )
        address, flags = np.empty(rows, np.int32), np.empty(rows, np.uint8)
        numbers = np.empty(addresses, np.int64)
        done = kernels.merge_frames(
            payload, starts, self._seed, self._slots, self._hashes, self._ends, self._arena, self._local,
            np.empty(most, np.int32), self._state, offset, length, address, ingest_ns, flags, numbers,
        )  # fmt: skip
        if done < 0:
            self._forget()
            raise JournalError(f"journal entry {run[-1 - done].number} is damaged: its lengths do not add up")
        self._read_new(run[-1].number)
        return FrameBatch(
            payload=payload,
            offset=offset,
            length=without_lines(length, flags),
            address=address,
            addresses=self._booked(numbers[: self._state[kernels.HERE]]),
            ingest_ns=ingest_ns,
            position=np.arange(first, first + rows, dtype=np.int64),
            flags=flags,
            ticks=marks,
        )

    def _booked(self, numbers: Int64) -> BookedAddresses:
        """The addresses of a batch; the very object of the batch before where they are the same."""
        if not np.array_equal(numbers, self._last.numbers):
            self._last = BookedAddresses(self.book, numbers.copy())
        return self._last

    def _read_new(self, entry: int) -> None:
        """Put the addresses that the kernel met for the first time into the book; they are read once, to
        see that they can be."""
        known = int(self._state[kernels.KNOWN])
        ends = self._ends[len(self.book) : known + 1].tolist()
        try:
            for start, end in pairwise(ends):
                decode_address(self._arena[start:end].tobytes())
        except ValueError as error:
            self._forget()
            raise JournalError(f"journal entry {entry}, or one before it, is damaged: {error}") from error
        self.book.hold(known, self._arena, self._ends)

    def _make_room(self, addresses: int, table_bytes: int) -> None:
        """For so many addresses that may all be new."""
        known = len(self.book)
        if (need := known + addresses) > len(self._hashes):
            size = 1 << (need - 1).bit_length()
            self._hashes = _longer(self._hashes, size)
            self._ends = _longer(self._ends, size + 1)
            self._local = np.full(size, -1, np.int32)
            self._slots = np.empty(2 * size, np.int32)
            kernels.rehash(self._hashes, known, self._slots)
        if (need := int(self._state[kernels.ARENA_USED]) + table_bytes) > len(self._arena):
            self._arena = _longer(self._arena, 1 << (need - 1).bit_length())


def _longer(array: _Array, size: int) -> _Array:
    longer = np.zeros(size, array.dtype)
    longer[: len(array)] = array
    return cast(_Array, longer)


def empty_batch(ticks: Ticks | None = None) -> FrameBatch:
    """A batch without frames."""
    none = np.empty(0, np.int64)
    return FrameBatch(
        np.empty(0, np.uint8),
        none,
        none,
        np.empty(0, np.int32),
        (),
        none,
        none,
        np.empty(0, np.uint8),
        ticks or Ticks.none(),
    )


def merge(entries: Sequence[Entry]) -> FrameBatch:
    """Consecutive entries as one batch (see `Merger.merge`)."""
    return Merger().merge(entries)


def control_slice(entry: Entry, control: Control) -> Slice:
    """A control as the slice of its own that it travels in."""
    return Slice(entry.number, entry.position, empty_batch(), control)


def frames_slice(entries: Sequence[Entry], merger: Merger) -> Slice:
    """Consecutive frames and ticks as one slice."""
    last = entries[-1]
    return Slice(last.number, last.next_position, merger.merge(entries))


def warm_up() -> None:
    """Compile the kernels."""
    merger = Merger()
    merger._make_room(2 * _FIRST, 0)
    merger.merge([decode_entry(1, bytes(pack_frames("warm", [Frame("up", b"1")])))])
