"""Group rules against the plain reference, for every cut, with ticks one by one and compressed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import group_kernels as k
from tests.reference import group as plain

SECOND = 1_000_000_000
GRACE = SECOND
START = 1_772_355_600 * SECOND
TRITS = {None: 0, True: 1, False: 2}

Item = tuple[str, Any]


def at_least_two_and_most(count: int, total: int, share: float | None) -> bool | None:
    """`share > 0.5 and count >= 2`, three-valued."""
    enough = count >= 2
    if share is None:
        return None if enough else False
    return share > 0.5 and enough


def share_alone(count: int, total: int, share: float | None) -> bool | None:
    """`share >= 0.5`"""
    return None if share is None else share >= 0.5


readings = st.lists(
    st.tuples(
        st.integers(0, 5),  # device; the group is its number modulo 2
        st.sampled_from([0, 300, 1000, 1500, 4000]),
        st.sampled_from([0, 0, -700, 400]),  # its clock, ms
        st.sampled_from([True, True, False, False, None]),
    ),
    max_size=40,
)


def stream(drawn: list[Any]) -> list[Item]:
    items: list[Item] = []
    now = START + 200_000_000
    for position, (device, gap, ahead, truth) in enumerate(drawn):
        later = now + gap * 1_000_000
        items += [("tick", s * SECOND) for s in range(now // SECOND + 1, later // SECOND + 1)]
        now = later
        items.append(("reading", (device, now + ahead * 1_000_000, now, position, truth)))
    return items + [("tick", (now // SECOND + s) * SECOND) for s in range(1, 9)]


class Run:
    def __init__(self, when: plain.When, on_delay: int, off_delay: int, room: int = 64) -> None:
        self.when, self.delays, self.room = when, (on_delay, off_delay), room
        self.member = np.zeros(6, np.uint8)
        self.counts = np.zeros((2, 2), np.int64)
        self.state = (
            np.zeros((2, 6), np.int64),
            np.zeros((2, 3), np.int64),
            np.zeros((2, 2), np.int64),
            np.full(1, k.NEVER, np.int64),
        )

    def batch(self, items: list[Item]) -> list[plain.Event]:
        rows = [what for kind, what in items if kind == "reading"]
        ticks, row = [], 0
        for kind, what in items:
            if kind == "tick":
                ticks.append((row, what))
            row += kind == "reading"
        device = np.array([one[0] for one in rows], np.int32)
        out = np.zeros((3, len(rows)))
        truth = np.array([TRITS[one[4]] for one in rows], np.uint8)
        k.count_members(device % 2, device, truth, self.member, self.counts, out)
        when = [
            TRITS[self.when(int(out[0, at]), int(out[1, at]), float(out[2, at]) if out[1, at] else None)]
            for at in range(len(rows))
        ]
        events = np.zeros((self.room, k.EVENT_COLUMNS), np.int64)
        resume = np.zeros(2, np.int64)
        found: list[plain.Event] = []
        while resume[0] >= 0:
            count = k.walk_groups(
                np.array(when, np.uint8), np.ones(len(rows), np.uint8), out, device % 2,
                np.array([one[1] for one in rows], np.int64),
                np.array([one[2] for one in rows], np.int64),
                np.array([one[3] for one in rows], np.int64),
                np.array([row for row, _ in ticks], np.int64),
                np.array([ns for _, ns in ticks], np.int64),
                np.zeros((len(ticks), 2), np.int64), *self.delays, GRACE, 2, *self.state, events, resume,
            )  # fmt: skip
            for line in events[:count].tolist():
                found.append(
                    (
                        f"g{line[k.EVENT_GROUP]}",
                        ("raised", "cleared")[line[k.EVENT_KIND]],
                        line[k.EVENT_TIME],
                        line[k.EVENT_ONSET],
                        line[k.EVENT_TRUE],
                        line[k.EVENT_KNOWN],
                    )
                )
        return found


def by_group(events: list[plain.Event]) -> list[list[plain.Event]]:
    return [[event for event in events if event[0] == name] for name in ("g0", "g1")]


def compressed(items: list[Item]) -> list[Item]:
    after = [*items[1:], None]
    return [
        item
        for item, following in zip(items, after, strict=True)
        if item[0] == "reading" or following is None or following[0] == "reading"
    ]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    readings,
    st.sampled_from([at_least_two_and_most, share_alone]),
    st.sampled_from([0, 0, 2 * SECOND, 5 * SECOND]),
    st.sampled_from([0, 0, 3 * SECOND]),
    st.integers(1, 9),
    st.booleans(),
)
def test_equals_the_reference_for_every_cut(
    drawn: list[Any], when: plain.When, on_delay: int, off_delay: int, cut: int, compress: bool
) -> None:
    items = stream(drawn)
    engine = plain.Engine(when, on_delay, off_delay, GRACE)
    for kind, what in items:
        if kind == "tick":
            engine.tick(what)
        else:
            engine.reading(f"g{what[0] % 2}", f"d{what[0]}", what[1], what[2], what[4])
    wanted = by_group(engine.events)
    given_items = compressed(items) if compress else items
    for size, room in ((1, 64), (cut, 64), (len(given_items), 64), (len(given_items), 2)):
        run = Run(when, on_delay, off_delay, room)
        found: list[plain.Event] = []
        for at in range(0, len(given_items), size):
            found += run.batch(given_items[at : at + size])
        assert by_group(found) == wanted
