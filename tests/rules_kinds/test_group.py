"""Group rules: who is counted, schedules, and what a group suppresses."""

from __future__ import annotations

from typing import Any

from rules.spec import GroupRule, Rule, Schedule, ThresholdRule
from tests.rules_kinds.stage import SECOND, START, Frame, Item, logic, run

LISTED = {
    "d1": {"productId": "p", "hub_id": "h1", "site_id": "ulsan"},
    "d2": {"productId": "p", "hub_id": "h1", "site_id": "busan"},
}


def group(**keys: Any) -> GroupRule:
    base = {"ruleId": "g", "productId": ["p"], "over": "hub_id", "condition": "a > 5", "severity": "low"}
    return GroupRule(**(base | {"when": "count >= 1", "version": "1"} | keys))


def readings(*rows: tuple[str, int, float]) -> list[Item]:
    return [
        Frame(name, START + second * SECOND, START + second * SECOND, {"a": (value, "good")})
        for name, second, value in rows
    ]


def happened(rules: list[Rule], items: list[Item]) -> list[tuple[str, str, int, bool]]:
    """Subject, transition, position, suppressed."""
    return [
        (event.event["subject"], data["transition"], event.position, data["state"]["suppressed"])
        for event in run(logic(rules, LISTED), items, [])
        for data in [event.event["data"]]
    ]


def test_where_narrows_the_members_that_are_counted() -> None:
    rules: list[Rule] = [group(where="device.site_id == 'ulsan'", when="total >= 1")]
    events = run(logic(rules, LISTED), readings(("d2", 0, 9), ("d1", 1, 9), ("d2", 2, 1)), [])
    assert [event.position for event in events] == [1]
    assert events[0].event["data"]["evidence"]["values"] == {"count": 1, "total": 1, "share": 1.0}


def test_a_schedule_keeps_a_group_from_raising_while_its_window_is_not_there() -> None:
    # START is 09:00: the window begins a minute later, and `when` holds all the time
    rules: list[Rule] = [group(schedule=Schedule(cron="1 9 * * *", for_=60 * SECOND))]
    items = readings(("d1", 0, 9), ("d1", 59, 9), ("d1", 60, 9), ("d1", 125, 9), ("d1", 126, 1))
    assert happened(rules, items) == [
        ("hub:h1/g", "raised", 2, False),
        ("hub:h1/g", "cleared", 4, False),
        ("hub:h1/g", "closed", 4, False),
    ]


def test_the_end_of_a_window_ends_a_running_delay_of_a_group() -> None:
    rules: list[Rule] = [group(on_delay=10 * SECOND, schedule=Schedule(cron="0 9 * * *", for_=60 * SECOND))]
    assert happened(rules, readings(("d1", 55, 9), ("d1", 61, 9), ("d1", 70, 9))) == []


def test_a_group_suppresses_from_the_very_reading_on_that_raises_both() -> None:
    hot = ThresholdRule(
        ruleId="hot", productId="p", condition="a > 5", severity="low", suppressed_by="g", version="2"
    )
    items = readings(("d1", 0, 9), ("d1", 1, 1))
    wanted = [
        ("hub:h1/g", "raised", 0, False),
        ("d1/hot", "raised", 0, True),
        ("hub:h1/g", "cleared", 1, False),
        ("hub:h1/g", "closed", 1, False),
        ("d1/hot", "unsuppressed", 1, False),
        ("d1/hot", "cleared", 1, False),
        ("d1/hot", "closed", 1, False),
    ]
    assert sorted(happened([group(), hot], items)) == sorted(wanted)
