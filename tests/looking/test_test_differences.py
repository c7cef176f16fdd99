"""What `penstock test` prints where something else came out than was expected."""

from __future__ import annotations

from typing import Any

from flows.plant_tests import ExpectedAlarm
from flows.test_differences import alarm_differences
from tests.looking.history import START_MS, event


def expected(*rows: tuple[str, str, str, str]) -> list[ExpectedAlarm]:
    return [
        ExpectedAlarm(transition=one, ruleId=rule, device_id=device, at=at)  # type: ignore[arg-type]
        for one, rule, device, at in rows
    ]


def came(*rows: tuple[float, str, str]) -> list[dict[str, Any]]:
    return [dict(event(second, transition, subject)["data"]) for second, transition, subject in rows]


def test_nothing_differs() -> None:
    wanted = expected(("raised", "hot", "p1", "+10s"), ("cleared", "hot", "p1", "+1m"))
    assert (
        alarm_differences(wanted, came((10, "raised", "p1/hot"), (60, "cleared", "p1/hot")), START_MS) == []
    )
    assert alarm_differences([ExpectedAlarm()], came((10, "raised", "p1/hot")), START_MS) == []


def test_a_near_miss() -> None:
    wanted = expected(("raised", "hot", "p1", "+10s"), ("cleared", "hot", "p1", "+60s"))
    found = came((12, "raised", "p1/hot"), (60, "cleared", "p1/hot"))
    assert alarm_differences(wanted, found, START_MS) == [
        "alarms: 1 of 2 as expected, 2 came",
        "  expected               | got",
        "! raised   hot  p1  +10s | raised   hot  p1  +12s | <- raised at +12s instead of +10s",
        "  cleared  hot  p1  +60s | cleared  hot  p1  +60s",
    ]


def test_one_that_is_missing_and_one_too_many() -> None:
    wanted = expected(
        ("raised", "hot", "p1", "+10s"), ("cleared", "hot", "p1", "+60s"), ("raised", "hot", "p1", "+90s")
    )
    found = came((10, "raised", "p1/hot"), (90, "raised", "p1/hot"), (95, "raised", "p2/cold"))
    assert alarm_differences(wanted, found, START_MS) == [
        "alarms: 2 of 3 as expected, 3 came",
        "  expected                | got",
        "  raised   hot   p1  +10s | raised   hot   p1  +10s",
        "! cleared  hot   p1  +60s |                         | <- missing",
        "  raised   hot   p1  +90s | raised   hot   p1  +90s",
        "!                         | raised   cold  p2  +95s | <- too many",
    ]


def test_keys_that_were_not_asked_for() -> None:
    wanted = [ExpectedAlarm(transition="raised", severity="low")]
    assert alarm_differences(wanted, came((1.5, "raised", "p1/hot")), START_MS) == [
        "alarms: 0 of 1 as expected, 1 came",
        "  expected                     | got",
        "! raised  *    *   *      low  | raised  hot  p1  +1.5s  high | <- severity 'high' instead of 'low'",
    ]


def test_absolute_times() -> None:
    wanted = [ExpectedAlarm(at="2026-03-01T09:00:01Z")]
    (_, _, line) = alarm_differences(wanted, came((2, "raised", "p1/hot")), 0)
    assert line.endswith("<- raised at 2026-03-01T09:00:02.000Z instead of 2026-03-01T09:00:01Z")


def test_long_ones_are_cut() -> None:
    wanted = expected(*(("raised", "hot", "p1", f"+{n}s") for n in range(100)))
    found = came(*((n if n != 50 else 50.5, "raised", "p1/hot") for n in range(100)))
    lines = alarm_differences(wanted, found, START_MS)
    assert lines[0] == "alarms: 99 of 100 as expected, 100 came"
    assert lines[2] == lines[-1] == "  ..."
    assert [line[0] for line in lines[3:6]] == [" ", "!", " "]
    many = came(*((n / 10, "raised", "p1/hot") for n in range(1000)))
    assert len(alarm_differences(wanted, many, START_MS)) < 60
