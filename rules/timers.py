"""The timers of alarms: when shelving ends, and when an occurrence escalates.

They run by the clock of the subject's device, or by the journal's where it has none (a group), and
are found over like delays: in the order of places, for every cut of the input. Only devices that
have a timer are looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from operators.batch import SEQ_PER_FRAME, Int32, Int64, ReadingBatch, Slice
from operators.spec import SECOND
from rules import timers_kernels as k
from rules.alarm import Subject
from rules.place import AT_ROW, BY_ROW, BY_TICK, GRACE_NS, BatchPlaces, Place

_BEFORE_ALL: Final = -(1 << 62)


class Timed(Protocol):
    """What has timers: the standing of a subject."""

    subject: Subject

    def next_timer(self) -> int:
        """When its next timer is over; NEVER where none runs."""


class Clocks(Protocol):
    """A product's devices and the readings of the slice at hand (`rules.product.ProductRules`)."""

    batch: ReadingBatch
    batch_local: Int32
    places: BatchPlaces

    def index(self, slot: int) -> int:
        """The device's index in the product; -1 where the product has not heard of it."""

    def last(self, index: int) -> tuple[int, int, int]:
        """Event time, ingest time and position of a device's last reading before the batch; once the
        batch is settled, of its last reading."""


class Found(NamedTuple):
    """A timer that is over. stepped: the device's clock did instead. position, ingest_ns: of the
    device's last reading; time_ns: of the reading that finds it, 0 at a tick."""

    place: Place
    number: int  # no two are equal, so nothing behind it is compared
    board: _Board
    device: int
    stepped: bool
    position: int
    ingest_ns: int
    time_ns: int


class Timers:
    """Keeps the timers of all standings."""

    def __init__(self, products: Mapping[str, Clocks]) -> None:
        self.boards = {name: _DeviceBoard(product) for name, product in products.items()}
        self.journal = _JournalBoard()
        self.heap: list[Found] = []
        self._pending: dict[tuple[_Board, int], Place] = {}  # the first in the heap, of each device
        self._numbers = 0
        self._running = False

    def _board(self, subject: Subject, place: Place | None) -> tuple[_Board, int]:
        """Where a subject's timers stand at a place: by its device, or by the journal's clock where
        that has none or was not heard yet."""
        board = self.boards.get(subject.productId or "")
        if subject.slot >= 0 and board is not None:
            device = board.clocks.index(subject.slot)
            if device >= 0 and board.heard(device, place):
                return board, device
        return self.journal, 0

    def watch(self, standing: Timed, place: Place | None) -> None:
        """Take note of a standing's timers, which may have changed at a place of the slice (None: at
        a control)."""
        board, device = self._board(standing.subject, place)
        if board is not self.journal:  # a device that was not heard has a clock from now on
            self.journal.leave(standing)
        standings = board.standings.get(device)
        if standing.next_timer() == k.NEVER:
            if standings is None or standings.pop(standing.subject.name, None) is None:
                return
            if not standings:
                del board.standings[device]
        elif standings is None:
            board.standings[device] = {standing.subject.name: standing}
        else:
            standings[standing.subject.name] = standing
        board.touched.add(device)
        if self._running and place is not None:
            self._look(board, device, place)
        elif not self._running:
            board.settle()

    def begin(self, item: Slice, lasts_of: Callable[[], Int64]) -> None:
        """Look where timers are over in the slice. lasts_of: gives int64[K, 2] position and ingest time
        of the last frame before each of its ticks."""
        self._running = True
        self.journal.lasts_of = lasts_of
        for board in (*self.boards.values(), self.journal):
            board.begin(item)
            for found in board.scan(self._next_number):
                self._push(found)

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def pop(self, before: Place | None) -> tuple[Found, list[Timed]] | None:
        """The next timer that is over before a place (None: in the slice), with the standings whose
        timer it is; None where there is none. The caller fires them and tells `watch`."""
        while self.heap and (before is None or self.heap[0].place < before):
            found = heapq.heappop(self.heap)
            if self._pending.get((found.board, found.device)) == found.place:
                del self._pending[found.board, found.device]
            standings = [
                one
                for one in found.board.standings.get(found.device, {}).values()
                if found.stepped or one.next_timer() == found.place.due
            ]
            if not standings:
                self._look(found.board, found.device, found.place)
                continue
            standings.sort(key=lambda one: (one.subject.rule.rank, one.subject.name))
            return found, standings
        return None

    def again(self, found: Found) -> None:
        """Look for the next timer of a device one of whose timers was found."""
        place = found.place
        self._look(found.board, found.device, place._replace(order=AT_ROW) if found.stepped else place)

    def _look(self, board: _Board, device: int, place: Place) -> None:
        if device in board.standings:
            found = board.search(device, place, self._next_number)
            if found is not None:
                self._push(found)

    def _push(self, found: Found) -> None:
        key = (found.board, found.device)
        pending = self._pending.get(key)
        if pending is None or found.place < pending:
            self._pending[key] = found.place
            heapq.heappush(self.heap, found)

    def end(self) -> None:
        """The slice is over and its readings are settled."""
        self._running = False
        self._pending.clear()
        for board in (*self.boards.values(), self.journal):
            board.settle()


class _Board:
    """Timers by one kind of clock."""

    def __init__(self) -> None:
        self.standings: dict[int, dict[str, Timed]] = {}
        self.touched: set[int] = set()

    def begin(self, item: Slice) -> None:
        raise NotImplementedError

    def scan(self, number: Callable[[], int]) -> list[Found]:
        raise NotImplementedError

    def search(self, device: int, place: Place, number: Callable[[], int]) -> Found | None:
        raise NotImplementedError

    def settle(self) -> None:
        self.touched.clear()

    def first(self, device: int) -> Timed:
        """The standing whose timer is over first."""
        return min(
            self.standings[device].values(),
            key=lambda one: (one.next_timer(), one.subject.rule.rank, one.subject.name),
        )


class _DeviceBoard(_Board):
    """Timers of a product's devices."""

    def __init__(self, clocks: Clocks) -> None:
        super().__init__()
        self.clocks = clocks
        self.due: Int64 = np.full(16, k.NEVER, np.int64)
        self.due_tick: Int64 = np.full(16, k.NEVER, np.int64)
        self.last_row: Int32 = np.full(16, -1, np.int32)
        self.armed: Int32 = np.zeros(0, np.int32)

    def begin(self, item: Slice) -> None:
        del item  # the product knows its batch

    def heard(self, device: int, place: Place | None) -> bool:
        """Whether a device had a reading before a place of the slice, or at it."""
        if place is None or self.clocks.last(device)[1]:
            return True
        side: Any = "right" if place.order == AT_ROW else "left"
        row = int(np.searchsorted(self.clocks.places.seq, place.at, side))
        return bool((self.clocks.batch_local[:row] == device).any())

    def scan(self, number: Callable[[], int]) -> list[Found]:
        batch = self.clocks.batch
        if not len(self.armed) or not (len(batch) or len(batch.ticks.ns)):
            return []
        local = self.clocks.batch_local
        if len(local):
            self._room(int(local.max()) + 1)
        out = np.zeros((len(self.armed), k.FOUND_COLUMNS), np.int64)
        count = k.scan(
            local,
            batch.ts_ns,
            batch.ingest_ns,
            batch.flags,
            batch.ticks.row,
            batch.ticks.ns,
            GRACE_NS,
            self.armed,
            self.due,
            self.due_tick,
            self.last_row,
            out,
        )
        self.touched.update(out[:count, k.FOUND_DEVICE].tolist())
        return [self._found(line, None, number) for line in out[:count].tolist()]

    def search(self, device: int, place: Place, number: Callable[[], int]) -> Found | None:
        batch, places = self.clocks.batch, self.clocks.places
        row = int(np.searchsorted(places.seq, place.at, "right" if place.order == AT_ROW else "left"))
        side: Any = "left" if place.order == BY_TICK else "right"
        tick = int(np.searchsorted(places.tick, place.at, side))
        ts, ingest, _ = self.clocks.last(device)
        out = np.zeros(k.FOUND_COLUMNS, np.int64)
        due = self.first(device).next_timer()
        k.search(
            self.clocks.batch_local,
            batch.ts_ns,
            batch.ingest_ns,
            batch.flags,
            batch.ticks.row,
            batch.ticks.ns,
            GRACE_NS,
            device,
            due,
            row,
            tick,
            ts,
            ingest,
            out,
        )
        self.touched.add(device)
        return None if out[k.FOUND_BY] == k.NOT_FOUND else self._found(out.tolist(), place, number)

    def _found(self, line: list[int], after: Place | None, number: Callable[[], int]) -> Found:
        device, by, at, before, due_tick = line
        batch, places = self.clocks.batch, self.clocks.places
        first = self.first(device)
        slot, rank, due = first.subject.slot, first.subject.rule.rank, first.next_timer()
        if by == k.FOUND_BY_TICK:
            place = Place(int(places.tick[at]), BY_TICK, -(-due_tick // SECOND), due, slot, rank)
        elif by == k.FOUND_BY_ROW:
            place = Place(int(places.seq[at]), BY_ROW, 0, due, slot, rank)
        else:  # before the delays that the reading finds over
            place = Place(int(places.seq[at]), BY_ROW, 0, _BEFORE_ALL, slot, -1)
        if after is not None and place < after:
            place = after._replace(due=place.due, slot=slot, rank=rank)
        if before >= 0:
            ingest, position = int(batch.ingest_ns[before]), int(places.seq[before]) // SEQ_PER_FRAME
        else:
            _, ingest, position = self.clocks.last(device)
        time = 0 if by == k.FOUND_BY_TICK else int(batch.ts_ns[at])
        return Found(place, number(), self, device, by == k.REBASED_AT, position, ingest, time)

    def _room(self, least: int) -> None:
        if least > len(self.due):
            for name, fill in (("due", k.NEVER), ("due_tick", k.NEVER), ("last_row", -1)):
                before: npt.NDArray[Any] = getattr(self, name)
                wide = np.full(max(least, 2 * len(before)), fill, before.dtype)
                wide[: len(before)] = before
                setattr(self, name, wide)

    def settle(self) -> None:
        if not self.touched:
            return
        self._room(max(self.touched) + 1)
        for device in self.touched:
            if device in self.standings:
                due = self.first(device).next_timer()
                ts, ingest, _ = self.clocks.last(device)
                self.due[device], self.due_tick[device] = due, due + GRACE_NS - ts + ingest
            else:
                self.due[device] = self.due_tick[device] = k.NEVER
        self.armed = np.array(sorted(self.standings), np.int32)
        self.touched.clear()


class _JournalBoard(_Board):
    """Timers of what has no device: ticks alone end them."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks: Int64 = np.zeros(0, np.int64)
        self.lasts_of: Callable[[], Int64] = lambda: np.zeros((0, 2), np.int64)  # of `Timers.begin`
        self.item: Slice | None = None

    def leave(self, standing: Timed) -> None:
        """Its timers stand elsewhere from now on."""
        standings = self.standings.get(0)
        if standings is not None and standings.pop(standing.subject.name, None) is not None and not standings:
            del self.standings[0]

    def begin(self, item: Slice) -> None:
        self.item, self.ticks = item, item.frames.ticks.ns

    def _positions(self) -> Int64:
        """Of the frame that each tick of the slice precedes; most slices never ask."""
        assert self.item is not None
        frames = self.item.frames
        return np.append(frames.position, self.item.position)[frames.ticks.row]

    def scan(self, number: Callable[[], int]) -> list[Found]:
        found = self.search(0, Place(0, 0, 0, 0, 0, 0), number) if self.standings else None
        return [] if found is None else [found]

    def search(self, device: int, place: Place, number: Callable[[], int]) -> Found | None:
        first = self.first(device)
        due = first.next_timer()
        positions = self._positions()
        side: Any = "left" if place.order == BY_TICK else "right"  # ticks before a row are behind it
        start = int(np.searchsorted(positions * SEQ_PER_FRAME, place.at, side))
        tick = max(start, int(np.searchsorted(self.ticks, due + GRACE_NS)))
        if tick >= len(self.ticks):
            return None
        position = int(positions[tick])
        second = -(-(due + GRACE_NS) // SECOND)
        at = Place(position * SEQ_PER_FRAME, BY_TICK, second, due, -1, first.subject.rule.rank)
        if at < place:
            at = place._replace(due=due, slot=-1, rank=first.subject.rule.rank)
        before, ingest = self.lasts_of()[tick].tolist()
        return Found(at, number(), self, 0, False, before, ingest, 0)
