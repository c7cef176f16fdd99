"""The device-clock alarm through the rules stage."""

from __future__ import annotations

from rules.alarm import iso_ms
from tests.rules_kinds.stage import SECOND, START, Frame, Item, logic, run, slices, ticked

LISTED = {"d1": {"productId": "p", "hub_id": "h1"}}
HOUR = 3600 * SECOND


def frames(count: int, *, gap: int, advance: int, lag: int, first: int = 0) -> list[Frame]:
    return [
        Frame(
            "d1",
            START + (first + at * advance) * SECOND - lag,
            START + (first + at * gap) * SECOND,
            {"a": (1.0, "good")},
            historical=lag > 900 * SECOND,
        )
        for at in range(count)
    ]


def test_a_stepped_clock_is_told_once_and_clears_with_the_next_reading_that_is_live() -> None:
    items: list[Item] = [
        *frames(2, gap=10, advance=10, lag=0),
        Frame("d1", START - 60 * SECOND, START + 20 * SECOND, {"a": (1.0, "uncertain")}, rebased=True),
        Frame("d1", START + 30 * SECOND, START + 30 * SECOND, {"a": (1.0, "good")}),
    ]
    events = run(logic([], LISTED), items, [])
    told = [(one.event["subject"], data["transition"], data["severity"]) for one in events
            if (data := one.event["data"])]  # fmt: skip
    assert told == [
        ("d1/device-clock", "raised", "low"),
        ("d1/device-clock", "cleared", "low"),
        ("d1/device-clock", "closed", "low"),
    ]
    data = events[0].event["data"]
    assert data["onset_time"] == iso_ms(START - 60 * SECOND)
    assert data["evidence"]["values"] == {"lag_ms": 80_000, "stepped": True}
    assert data["evidence"]["position"] == 2
    assert data["message"] == "d1: its clock stepped or is wrong"


def test_a_clock_an_hour_behind_is_told_and_a_backlog_is_not() -> None:
    behind = run(logic([], LISTED), frames(40, gap=10, advance=10, lag=HOUR), [])
    assert [one.event["data"]["transition"] for one in behind] == ["raised"]
    assert behind[0].event["data"]["event_time"] == iso_ms(START + 150 * SECOND - HOUR)
    assert run(logic([], LISTED), frames(300, gap=1, advance=10, lag=HOUR), []) == []


def test_is_the_same_over_snapshots() -> None:
    items = ticked(
        [*frames(30, gap=10, advance=10, lag=HOUR), *frames(40, gap=10, advance=10, lag=0, first=300)]
    )
    whole = run(logic([], LISTED), items, [])
    assert len(whole) == 3
    stage, events = logic([], LISTED), []
    for one in slices(items, range(0, len(items), 7), stage.devices):
        stage.process(one)
        events += one.alarms
        fresh = logic([], LISTED)
        fresh.restore(stage.snapshot())
        stage = fresh
    assert events == whole
