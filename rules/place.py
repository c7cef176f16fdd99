"""One order for everything that happens to alarms in a slice, and the seam between what finds it and
what tells of it.

An evaluator turns the readings and ticks of a slice into transitions, each with its place.
`rules.step` sorts them all and hands them to the lifecycle one by one, with the timers that end in
between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from operators.batch import SEQ_PER_FRAME, Int64, ReadingBatch, Slice
from operators.spec import SECOND
from rules.alarm import AlarmRule, Evidence, Subject
from rules.message import Value
from rules.spec import Severity

GRACE_NS: Final = 1 * SECOND
"""How far a device's clock must have passed a moment before a tick finds it over."""

RAISED: Final = 0
CLEARED: Final = 1
_NONE: Final = np.zeros(0, np.int64)
BY_TICK, BY_ROW, AT_ROW = 0, 1, 2  # found over by a tick, by the next row; a row itself


class Place(NamedTuple):
    """Where in the journal something happens; places sort by their fields, in this order.

    at: `seq` of the row at which it happens, or of the frame that the tick precedes, as its first
    reading's. order: BY_TICK, BY_ROW or AT_ROW. second: of BY_TICK the second in which it is over, so
    that one tick for many finds them in the order of many; else 0. due: when it is over; 0 of AT_ROW.
    slot: of the device; -1 where there is none. rank: of the rule (`rules.suppression`).
    """

    at: int
    order: int
    second: int
    due: int
    slot: int
    rank: int


class Transition(msgspec.Struct, eq=False):
    """A rule's condition became true for a subject (RAISED), or what clears it did (CLEARED).

    time_ns: event time; onset_ns: since when, equal in both transitions of one occurrence. evidence:
    what it rests on. lookup: gives what `metrics`, `param` and `device` names of the message stand
    for. severity: where it is not the rule's own.
    """

    place: Place
    subject: Subject
    kind: int
    time_ns: int
    onset_ns: int
    evidence: Evidence
    lookup: Callable[[str, str], Value] | None = None
    severity: Severity | None = None


class Evaluator(Protocol):
    """Finds the transitions of rules of some kinds; made anew of each plant that is applied."""

    @property
    def own_rules(self) -> Sequence[AlarmRule]:
        """Alarms of its own, of rules that stand in no file."""

    def run(self, item: Slice) -> list[Transition]:
        """What happens in the slice, in any order; each transition once, for every cut of the input
        into slices."""

    def settle(self, item: Slice) -> None:
        """The slice is over: everything in it has been told."""

    def counters(self) -> Mapping[str, int]:
        """ruleId -> evaluations so far."""

    def export(self) -> dict[str, Any]:
        """What a snapshot holds; also what a changed plant goes on from."""

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take over what `export` gave, under these specs or others: rules whose `meaning` is the
        same go on, the others begin anew."""


class BatchPlaces:
    """Where the rows and ticks of one product's batch stand; worked out when it is asked for, since in
    most slices nothing happens. The batch's ticks are the slice's, and stand before the frames that
    those do."""

    def __init__(self, item: Slice | None = None, batch: ReadingBatch | None = None) -> None:
        self._item = item
        self._batch = batch

    @cached_property
    def seq(self) -> Int64:
        """int64[N]: of each row."""
        return _NONE if self._batch is None else self._batch.seq.astype(np.int64)

    @cached_property
    def tick(self) -> Int64:
        """int64[K]: `at` of each tick."""
        if self._batch is None or self._item is None:
            return _NONE
        item, ticks = self._item, self._batch.ticks
        frames = item.frames
        if len(frames.ticks.ns) == len(ticks.ns):
            return np.append(frames.position, item.position)[frames.ticks.row] * SEQ_PER_FRAME
        last = int(self.seq[-1]) + 1 if len(self.seq) else 0
        return np.append(self.seq, max(item.position * SEQ_PER_FRAME, last))[ticks.row]
