"""Alarm intervals: of live occurrences by their events, of historical readings on a track of their own."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Control
from rules.alarm import iso_ms
from rules.spec import ThresholdRule
from rules.step import RulesLogic
from tests.rules_kinds.stage import SECOND, START, Frame, Item, logic, slices, spec_of, ticked

LISTED = {"d1": {"productId": "p"}, "d2": {"productId": "p"}}
RULES = [
    ThresholdRule(ruleId="high", productId="p", condition="a > 80", severity="high", version="1"),
    ThresholdRule(
        ruleId="long", productId="p", condition="a > 80", severity="low", on_delay=5 * SECOND, version="2"
    ),
]


def intervals(stage: RulesLogic, items: list[Item], cuts: Any) -> list[dict[str, Any]]:
    rows = []
    for one in slices(items, cuts, stage.devices):
        stage.process(one)
        rows += [dict(interval.row) for interval in one.intervals]
    return rows


def frame(at: int, value: float, *, device: str = "d1", historical: bool = False, lag: int = 0) -> Frame:
    now = START + at * SECOND
    return Frame(device, now - lag * SECOND, now, {"a": (value, "good")}, historical=historical)


def test_a_backlog_raises_nothing_and_leaves_intervals() -> None:
    items: list[Item] = [
        frame(at, value, historical=True, lag=3600) for at, value in ((0, 70), (1, 90), (8, 90), (9, 70))
    ]
    stage = logic(RULES, LISTED)
    rows = intervals(stage, ticked(items), [])
    assert stage.export_active() == []
    then = START - 3600 * SECOND
    assert [
        (row["ruleId"], row["onset_time"], row["raised_time"], row["cleared_time"], row["historical"])
        for row in rows
    ] == [
        ("high", iso_ms(then + SECOND), iso_ms(then + SECOND), None, 1),
        ("long", iso_ms(then + SECOND), iso_ms(then + 6 * SECOND), None, 1),
        ("high", iso_ms(then + SECOND), iso_ms(then + SECOND), iso_ms(then + 9 * SECOND), 1),
        ("long", iso_ms(then + SECOND), iso_ms(then + 6 * SECOND), iso_ms(then + 9 * SECOND), 1),
    ]
    assert {row["subject"] for row in rows} == {"d1/high", "d1/long"}


def test_a_live_occurrence_gives_a_row_at_raise_and_at_clear() -> None:
    rows = intervals(logic(RULES[:1], LISTED), ticked([frame(0, 90), frame(3, 70)]), [])
    assert [(row["raised_time"], row["cleared_time"], row["historical"]) for row in rows] == [
        (iso_ms(START), None, 0),
        (iso_ms(START), iso_ms(START + 3 * SECOND), 0),
    ]
    assert rows[0]["alarm_id"] == rows[1]["alarm_id"]


def test_an_occurrence_that_a_changed_plant_closes_ends_there() -> None:
    stage = logic(RULES[:1], LISTED)
    intervals(stage, ticked([frame(0, 90)]), [])
    stage.apply(spec_of([], LISTED))
    change = Control("plant", START + 4 * SECOND, {"sha256": "", "files": {}})
    rows = intervals(stage, [change], [])
    assert [(row["raised_time"], row["cleared_time"]) for row in rows] == [
        (iso_ms(START), iso_ms(START + 4 * SECOND))
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["d1", "d2"]),
            st.sampled_from([0, 1, 3, 7]),
            st.sampled_from([70.0, 79.0, 81.0, 90.0]),
            st.booleans(),
            st.sampled_from([2000, 3000, 3001]),
        ),
        max_size=25,
    ),
    st.sets(st.integers(0, 60), max_size=5),
)
def test_are_the_same_for_every_cut_and_over_a_snapshot(drawn: list[Any], cuts: set[int]) -> None:
    items: list[Item] = []
    now = 0
    for device, gap, value, historical, lag in drawn:
        now += gap
        items.append(frame(now, value, device=device, historical=historical, lag=lag if historical else 0))
    items = ticked(items, beyond=8)
    key = lambda row: (row["subject"], row["historical"], row["position"], row["cleared_time"] or "")  # noqa: E731
    whole = sorted(intervals(logic(RULES, LISTED), items, []), key=key)
    assert sorted(intervals(logic(RULES, LISTED), items, range(len(items))), key=key) == whole
    rows: list[dict[str, Any]] = []
    stage = logic(RULES, LISTED)
    for one in slices(items, sorted(cuts), stage.devices):
        stage.process(one)
        rows += [dict(interval.row) for interval in one.intervals]
        fresh = logic(RULES, LISTED)
        fresh.restore(stage.snapshot())
        stage = fresh
    assert sorted(rows, key=key) == whole
