"""Plain transitions become events a batch at a time.

Plain is what most alarms do: a threshold or limit that no other alarm suppresses and that does not
escalate is raised, cleared and closed, while nobody has put it aside. What a batch does to the standings is
what `rules.lifecycle` does to them one by one, and so are the bytes that it writes; what is not plain goes
that way, and both keep the order of places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import SEQ_PER_FRAME, AlarmBrief, AlarmEvent, AlarmInterval, Int64, Slice
from rules import event_kernels as k
from rules import lifecycle_table as t
from rules.alarm import AlarmRule
from rules.event_pieces import BYTES_AT_MOST, Pieces
from rules.historical import AlarmIntervals
from rules.lifecycle import Lifecycle
from rules.plain_columns import PlainColumns, ProductPieces
from rules.product import ProductRules
from rules.standing import STATE_BITS, Standing, Tally, state_of
from rules.transitions import Transitions

FEWEST: Final = 32
"""Transitions that are worth a batch: of fewer, a batch costs as much as one by one or more (measured)."""

AT_ONCE: Final = 4096
_HALF: Final = 2048  # bytes of a line and of an interval that no piece is counted for, amply
_PLAIN: Final = t.OPEN | t.ACTIVE | t.ACKNOWLEDGED | t.LATCHED
_NONE: Final = -1
_NO_STAMP: Final = "\0" * k.STAMP
_NO_ID: Final = "0" * k.ID
_NAMES: Final = ("raised", "cleared", "closed")
_event: Final = partial(tuple.__new__, AlarmEvent)
_brief: Final = partial(tuple.__new__, AlarmBrief)
_interval: Final = partial(tuple.__new__, AlarmInterval)
_Columns = dict[str, npt.NDArray[Any]]


class PlainEvents:
    """Writes them, and the intervals of `intervals` that they begin and end."""

    def __init__(self, alarms: Lifecycle, intervals: AlarmIntervals) -> None:
        self.alarms = alarms
        self.intervals = intervals
        self.pieces = Pieces(alarms.events.plant, alarms.events.shard)
        self.products: dict[str, ProductPieces] = {}

    def takes(self, found: Sequence[Transitions]) -> bool:
        """Whether a slice's transitions are many enough."""
        return sum(map(len, found)) >= FEWEST

    def run(self, item: Slice, found: Sequence[Transitions]) -> None:
        """Append the events of a slice's transitions, which are all of that slice, but for timers that they
        begin."""
        if self.pieces.size > BYTES_AT_MOST:
            self.pieces.begin()
            self.products = {}
        columns = PlainColumns(self.pieces, [(self._known(one.product), one) for one in found])
        names = [subject.name for subject in columns.subjects]
        plain = columns.columns["plain"]
        for start, stop in _stretches(names, plain.tolist()):
            if plain[start] and stop - start >= FEWEST:
                self._stretch(item, columns, names, start, stop)
            else:
                self._one_by_one(columns, start, stop)

    def _one_by_one(self, columns: PlainColumns, start: int, stop: int) -> None:
        for at in range(start, stop):
            self.alarms.take(columns.one(at))

    def _known(self, product: ProductRules) -> ProductPieces:
        """A product's pieces; none of them stays where the rules or the facts of devices are others."""
        name = product.product.productId
        known = self.products.get(name)
        if known is None or known.product is not product or known.looked != product.looked:
            plain = [self._is_plain(part.alarm) for part in product.parts]
            known = self.products[name] = ProductPieces(product, plain)
        return known

    def _is_plain(self, alarm: AlarmRule) -> bool:
        others = self.alarms.suppressed_by
        tied = alarm.escalate or alarm.suppressors or any(name in others for name in alarm.names)
        return not tied and not alarm.tells_later

    def _stretch(
        self, item: Slice, columns: PlainColumns, names: Sequence[str], start: int, stop: int
    ) -> None:
        """Transitions `start` to before `stop`, all plain and of different subjects: those whose subject
        stands so that they are plain indeed in batches."""
        alarms = self.alarms
        standings = list(map(alarms.standings.get, names[start:stop]))
        counted = list(map(alarms.events.counted.get, names[start:stop]))
        before = np.array([_NONE if one is None else _flags(one) for one in standings], np.int64)
        known = np.array([_NONE if one is None else one[0] for one in counted], np.int64)
        there = np.array([0 if one is None else one[1] for one in counted], np.int64)
        position = columns.columns["position"][start:stop]
        active = before & (t.OPEN | t.ACTIVE)
        fits = np.where(
            columns.columns["kind"][start:stop] == k.RAISED,
            (before == _NONE) | (active == t.OPEN),
            (before != _NONE) & (active == t.OPEN | t.ACTIVE),
        )
        fits &= (known <= position) & ((before == _NONE) | (before & ~_PLAIN == 0))
        counts = np.where(known == position, there, 0)
        edges = [0, *(np.flatnonzero(fits[1:] != fits[:-1]) + 1).tolist(), stop - start]
        for first, last in pairwise(edges):
            if fits[first] and last - first >= FEWEST and not alarms.timers.heap:
                chosen = slice(first, last)
                run = _Run(columns, start + first, start + last, names, standings[chosen], before[chosen])
                self._write(item, run, counts[chosen])
            else:
                self._one_by_one(columns, start + first, start + last)

    # -- a batch

    def _write(self, item: Slice, run: _Run, counts: Int64) -> None:
        """counts: how many events each subject has at the position."""
        live = self.intervals.raised_live
        self.intervals.take(item)
        of, kind = run.of, run.kind
        position = run.column("position")
        sequence = position * SEQ_PER_FRAME + counts[of] + run.within
        olds = [_NO_ID if one is None else one.alarm_id for one in run.standings]
        shadow = [subject.rule.shadow for subject in run.subjects]
        pick = of.tolist()
        ids = [olds[at] for at in pick]
        since = [
            live.pop(ids[row], _NO_STAMP) if kind_ == k.CLEARED and not shadow[at] else _NO_STAMP
            for row, (at, kind_) in enumerate(zip(pick, kind.tolist(), strict=True))
        ]
        lines, intervals, new_ids, times = self._lines(run, position, sequence, ids, since)
        digits = _cut("".join(map("{:020d}".format, sequence.tolist())), 20)

        subjects = [run.subjects[at] for at in pick]
        kinds = kind.tolist()
        who = [subject.who for subject in subjects]
        briefs = map(
            _brief,
            zip(
                map(_NAMES.__getitem__, kinds),
                [subject.name for subject in subjects],
                who,
                [subject.productId for subject in subjects],
                map(STATE_BITS.__getitem__, run.flags.tolist()),
                strict=True,
            ),
        )
        positions = position.tolist()
        item.alarms += map(
            _event,
            zip(
                positions,
                who,
                [subject.rule.ruleId for subject in subjects],
                digits,
                lines,
                [shadow[at] for at in pick],
                briefs,
                strict=True,
            ),
        )
        for row, line in enumerate(intervals):
            if line and not shadow[pick[row]]:
                item.intervals.append(_interval((positions[row], line)))
                if kinds[row] == k.RAISED:
                    live[new_ids[row]] = times[row]
        self.intervals.taken = len(item.alarms)
        self._stand(run, lines, new_ids, counts)
        self._count(run)

    def _lines(
        self, run: _Run, position: Int64, sequence: Int64, ids: Sequence[str], since: Sequence[str]
    ) -> tuple[list[bytes], list[bytes], list[str], list[str]]:
        """Lines of events, of intervals (b"": none), ids of occurrences and event times."""
        pieces, columns, rows = self.pieces, run.columns, len(run.of)
        alarm_id = np.frombuffer("".join(ids).encode(), np.uint8).reshape(rows, k.ID).copy()
        raised = np.frombuffer("".join(since).encode(), np.uint8).reshape(rows, k.STAMP)
        stamps = np.empty((rows, k.STAMP), np.uint8)
        longest = pieces.longest_alarm + pieces.longest_who
        room = rows * 2 * (pieces.fixed + 2 * longest + _HALF)
        room += 2 * (len(columns.tokens) + len(columns.messages))
        out, ends = np.empty(room, np.uint8), np.empty(2 * rows, np.int64)
        k.write_events(
            pieces.pool,
            pieces.bounds,
            pieces.transitions,
            pieces.states,
            pieces.qualities,
            run.column("alarm"),
            run.column("values"),
            run.column("who"),
            run.kind,
            run.flags,
            run.column("quality"),
            run.column("time_ns"),
            run.onset_ns,
            run.column("ingest_ns"),
            position,
            sequence,
            run.column("token"),
            columns.tokens,
            columns.token_bounds,
            run.column("message"),
            columns.messages,
            columns.message_bounds,
            raised,
            k.K,
            np.empty(longest + _HALF, np.uint8),
            alarm_id,
            stamps,
            out,
            ends,
        )
        edges = [0, *ends.tolist()]
        text = out[: edges[-1]].tobytes()
        lines = [text[start:stop] for start, stop in zip(edges[:-1:2], edges[1::2], strict=True)]
        intervals = [text[start:stop] for start, stop in zip(edges[1::2], edges[2::2], strict=True)]
        return (
            lines,
            intervals,
            _cut(alarm_id.tobytes().decode(), k.ID),
            _cut(stamps.tobytes().decode(), k.STAMP),
        )

    def _stand(self, run: _Run, lines: Sequence[bytes], ids: Sequence[str], counts: Int64) -> None:
        """What becomes of the standings, of the newest line of each."""
        alarms, names, subjects = self.alarms, run.names, run.subjects
        last = run.last.tolist()
        newest, alarm_ids = [lines[row] for row in last], [ids[row] for row in last]
        flags, ingest = run.flags[run.last].tolist(), run.of_columns("ingest_ns").tolist()
        onset, time = run.onset_ns[run.last].tolist(), run.of_columns("time_ns").tolist()
        new = [
            Standing(
                subjects[at],
                flags[at],
                0,
                alarm_ids[at],
                onset[at],
                subjects[at].rule.severity,
                time[at],
                0,
                newest[at],
                ingest[at],
            )
            for at, one in enumerate(run.standings)
            if one is None
        ]
        alarms.standings.update((one.subject.name, one) for one in new)
        alarms.by_id.update((one.alarm_id, one) for one in new)
        for at, one in enumerate(run.standings):
            if one is None:
                continue
            over = one.flags & ~(t.OPEN | t.ACTIVE)
            ends = run.raised[at] or not flags[at] & t.OPEN
            if ends and alarms.by_id.pop(one.alarm_id, None) is not None:
                alarms.over.append((one.alarm_id, names[at], state_of(over)))
            one.subject, one.flags = subjects[at], flags[at]
            one.take_line(newest[at], ingest[at])
            if run.raised[at]:
                one.alarm_id, one.onset_ns = alarm_ids[at], onset[at]
                one.base_ns, one.steps = time[at], 0
                alarms.by_id[one.alarm_id] = one
            elif not flags[at] & t.OPEN:
                del alarms.standings[names[at]]
        positions = run.of_columns("position").tolist()
        numbers = (counts + run.events).tolist()
        who = [subject.who for subject in subjects]
        alarms.events.counted.update(
            zip(names, zip(positions, numbers, who, ingest, strict=True), strict=True)
        )

    def _count(self, run: _Run) -> None:
        """The rules' tallies."""
        tallies = self.alarms.tallies
        times = run.of_columns("time_ns").tolist()
        for subject, raised, time, base in zip(
            run.subjects, run.raised.tolist(), times, run.bases, strict=True
        ):
            key = (subject.rule.ruleId, subject.productId or "")
            tally = tallies.get(key)
            if tally is None:
                tally = tallies[key] = Tally()
            if raised:
                tally.raised += 1
            else:
                tally.cleared += 1
                tally.active_ns += max(0, time - base)


class _Run:
    """Transitions that are written together, and R events that come of them.

    Of each transition: subjects, names, standings (None: the subject has none), raised: bool, events: int64,
    how many events it makes, bases: when its occurrence was raised, last: int64, its last event.
    Of each event: of: int64, the transition, within: int64, its place among that one's events, kind:
    uint8, flags: uint8, after it, onset_ns: int64.
    """

    def __init__(
        self,
        columns: PlainColumns,
        start: int,
        stop: int,
        names: Sequence[str],
        standings: Sequence[Standing | None],
        before: Int64,
    ) -> None:
        self.columns = columns
        self.subjects, self.names = columns.subjects[start:stop], names[start:stop]
        self.standings = standings
        self._columns = {name: column[start:stop] for name, column in columns.columns.items()}
        raised = self.raised = self._columns["kind"] == k.RAISED
        left = before & ~(t.OPEN | t.ACTIVE)  # once it has cleared
        # what stands in the table below "then": nothing is left to do with what has cleared
        over = ~raised & (left == t.ACKNOWLEDGED)
        again = raised & (before != _NONE)  # what has cleared is closed, and then raised again
        self.events: Int64 = 1 + over + again
        self.of: Int64 = np.repeat(np.arange(len(raised)), self.events)
        first = np.cumsum(self.events) - self.events
        self.last: Int64 = first + self.events - 1
        self.within: Int64 = np.arange(len(self.of)) - first[self.of]
        is_raised, within = raised[self.of], self.within
        closing = np.where(is_raised, again[self.of] & (within == 0), within == 1)
        self.kind = np.where(closing, k.CLOSED, np.where(is_raised, k.RAISED, k.CLEARED)).astype(np.uint8)
        open_ = np.where(closing, 0, t.OPEN)
        new = self._columns["flags"][self.of]
        self.flags = np.where(self.kind == k.RAISED, new, left[self.of] | open_).astype(np.uint8)
        onsets = np.array([0 if one is None else one.onset_ns for one in standings], np.int64)
        self.onset_ns: Int64 = np.where(
            self.kind == k.RAISED, self._columns["onset_ns"][self.of], onsets[self.of]
        )
        self.bases = [0 if one is None else one.base_ns for one in standings]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of `PlainColumns`, by event."""
        return self._columns[name][self.of]

    def of_columns(self, name: str) -> npt.NDArray[Any]:
        """The same by transition."""
        return self._columns[name]


def _flags(standing: Standing) -> int:
    """Its flags; none that are plain where something else is not."""
    plain = standing.severity == standing.subject.rule.severity and not standing.watched
    return standing.flags if plain else t.SHELVED


def _stretches(names: Sequence[str], plain: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Where transitions lie that are plain and of different subjects, at most AT_ONCE, and those between
    them."""
    start, seen = 0, set[str]()
    for at, (name, is_plain) in enumerate(zip(names, plain, strict=True)):
        if at > start and (is_plain != plain[start] or name in seen or at - start >= AT_ONCE):
            yield start, at
            start = at
            seen.clear()
        seen.add(name)
    if names:
        yield start, len(names)


def _cut(text: str, width: int) -> list[str]:
    """Texts of one width, that stand one behind the other."""
    return [text[at : at + width] for at in range(0, len(text), width)]
