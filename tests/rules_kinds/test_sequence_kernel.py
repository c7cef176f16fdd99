"""Sequence rules against the plain reference, for every cut, with ticks one by one and compressed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import sequence_kernels as k
from tests.reference import sequence as plain

SECOND = 1_000_000_000
GRACE = SECOND
START = 1_772_355_600 * SECOND
TRITS = {None: 0, True: 1, False: 2}

truth = st.sampled_from([True, True, False, False, None])


@st.composite
def rules(draw: Any) -> plain.Rule:
    steps: list[plain.Step] = []
    for at in range(draw(st.integers(1, 4))):
        absent = bool(steps) and not steps[-1].absent and draw(st.booleans())
        within = draw(st.sampled_from([None, 2, 5])) if at and not absent else None
        if absent:
            within = draw(st.sampled_from([1, 3, 6]))
        steps.append(plain.Step(draw(st.integers(0, 2)), absent, None if within is None else within * SECOND))
    return plain.Rule(steps, draw(st.none() | st.integers(0, 2)))


readings = st.lists(
    st.tuples(
        st.integers(0, 1),  # device
        st.sampled_from([0, 300, 1000, 1500, 4000]),  # ms since the reading before
        st.sampled_from([0, 0, 0, 400]),  # its clock runs on by so much, ms
        st.tuples(truth, truth, truth),
        st.sampled_from([True, True, True, False]),  # it carries a metric of the rule
        st.sampled_from([False] * 9 + [True]),  # its clock stepped
    ),
    max_size=30,
)

Item = tuple[str, Any]


def stream(drawn: list[Any]) -> list[Item]:
    """Readings and a tick at every whole second."""
    items: list[Item] = []
    now = START + 200_000_000
    newest: dict[int, int] = {}
    for device, gap, ahead, truths, carried, rebased in drawn:
        later = now + gap * 1_000_000
        items += [("tick", s * SECOND) for s in range(now // SECOND + 1, later // SECOND + 1)]
        now = later
        time = max(now + ahead * 1_000_000, newest.get(device, 0) + 1)
        if rebased:
            time = newest.get(device, now) - 2 * SECOND
        newest[device] = time
        items.append(("reading", (device, time, now, truths, carried, rebased)))
    items += [("tick", (now // SECOND + s) * SECOND) for s in range(1, 9)]
    return items


class Run:
    """The kernel over one rule, its state kept between batches."""

    def __init__(self, rule: plain.Rule, room: int = 64) -> None:
        steps, last = rule.steps, rule.steps[-1]
        self.room = room
        own = rule.clear is not None
        self.tables = (
            np.array([0, len(steps)], np.int32),
            np.array([step.condition for step in steps], np.int32),
            np.array([step.absent for step in steps], np.uint8),
            np.array([-1 if step.within is None else step.within for step in steps], np.int64),
            np.array([rule.clear if own else last.condition], np.int32),
            np.array([1 if own or last.absent else 2], np.uint8),
        )
        wide = (2, len(steps))
        self.state: tuple[Any, ...] = (
            np.full(wide, k.NEVER, np.int64), np.zeros(wide, np.int64), np.zeros(wide, np.int64),
            np.full(wide, k.NEVER, np.int64), np.full(wide, k.NEVER, np.int64), np.zeros(wide, np.int64),
            np.zeros((2, 1), np.uint8), np.zeros((2, 1), np.int64), np.full(1, k.NEVER, np.int64),
        )  # fmt: skip

    def batch(self, items: list[Item]) -> list[plain.Event]:
        rows = [what for kind, what in items if kind == "reading"]
        ticks, row = [], 0
        for kind, what in items:
            if kind == "tick":
                ticks.append((row, what))
            row += kind == "reading"
        results = np.zeros((3, len(rows)), np.uint8)
        for at, (_, _, _, truths, _, _) in enumerate(rows):
            results[:, at] = [TRITS[one] for one in truths]
        events = np.zeros((self.room, k.EVENT_COLUMNS), np.int64)
        resume = np.zeros(2, np.int64)
        found: list[plain.Event] = []
        rest: tuple[Any, ...] = (
            True,
            np.array([[0x80 if one[4] else 0 for one in rows]], np.uint8).reshape(1, -1),
            np.array([0, 1], np.int32), np.zeros(1, np.int32), GRACE,
            np.array([one[0] for one in rows], np.int32),
            np.array([one[1] for one in rows], np.int64),
            np.array([one[2] for one in rows], np.int64),
            np.array([12 if one[5] else 4 for one in rows], np.uint8),
            np.array([row for row, _ in ticks], np.int64),
            np.array([ns for _, ns in ticks], np.int64),
            2, *self.state, events, resume,
        )  # fmt: skip
        while resume[0] >= 0:
            count = k.walk_sequences(results, *self.tables, *rest)
            for line in events[:count].tolist():
                found.append(
                    (
                        f"d{line[k.EVENT_DEVICE]}",
                        ("raised", "cleared")[line[k.EVENT_KIND]],
                        line[k.EVENT_TIME],
                        line[k.EVENT_ONSET],
                        "tick" if line[k.EVENT_BY] == k.BY_TICK else "row",
                    )
                )
        return found


def reference(rule: plain.Rule, items: list[Item]) -> list[plain.Event]:
    engine = plain.Engine(rule, GRACE)
    for kind, what in items:
        if kind == "tick":
            engine.tick(what)
        else:
            device, time, ingest, truths, carried, rebased = what
            engine.reading(f"d{device}", time, ingest, list(truths), carried, rebased)
    return engine.events


def compressed(items: list[Item]) -> list[Item]:
    after = [*items[1:], None]
    return [
        item
        for item, following in zip(items, after, strict=True)
        if item[0] == "reading" or following is None or following[0] == "reading"
    ]


def by_device(events: list[plain.Event]) -> list[list[plain.Event]]:
    return [[event for event in events if event[0] == name] for name in ("d0", "d1")]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(rules(), readings, st.integers(1, 7), st.booleans())
def test_equals_the_reference_for_every_cut(
    rule: plain.Rule, drawn: list[Any], cut: int, compress: bool
) -> None:
    items = stream(drawn)
    wanted = by_device(reference(rule, items))
    given_items = compressed(items) if compress else items
    for size in (1, cut, len(given_items)):
        run = Run(rule)
        found: list[plain.Event] = []
        for at in range(0, len(given_items), size):
            found += run.batch(given_items[at : at + size])
        assert by_device(found) == wanted
    tight = Run(rule, room=3)
    assert by_device(tight.batch(given_items)) == wanted
