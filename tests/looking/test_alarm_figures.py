"""Alarm-system figures of a history made by hand; every number here was worked out on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from flows.alarm_figures import FigureEvent, figures, read_history
from flows.alarms_command import alarms
from flows.views import Views
from tests.looking.history import START_MS, event, iso

HOUR = 3600
DAY = 24 * HOUR


def made(events: list[dict[str, Any]], start: float | None, end: float) -> dict[str, Any]:
    lines = [msgspec.json.encode(one) for one in events]
    history = read_history(msgspec.json.decode(line, type=FigureEvent) for line in lines)
    return figures(
        history, None if start is None else START_MS + round(1000 * start), START_MS + round(1000 * end)
    )


def once(second: float, subject: str, severity: str = "high", lasts: float = 1.0) -> list[dict[str, Any]]:
    """Raised, cleared and closed; nothing to acknowledge."""
    return [
        event(second, "raised", subject, severity),
        event(second + lasts, "cleared", subject, severity, onset=second),
        event(second + lasts, "closed", subject, severity, onset=second),
    ]


def test_rate_and_severities() -> None:
    events = [
        *once(0, "a/hot"),
        *once(599, "b/hot", "medium"),
        *once(600, "c/hot", "low"),  # (0, 600]: the first is out of the ten minutes again
        *once(1300, "a/hot", "critical"),
        *once(1400, "d/told", "info"),  # an event, no alarm
    ]
    found = made(events, 0, HOUR)
    assert found["alarms"] == 4
    assert found["per_10_minutes"] == {"mean": 4 / 6, "peak": 2, "peak_at": iso(599)}
    assert found["severities"] == {
        "critical": {"alarms": 1, "share": 25.0},
        "high": {"alarms": 1, "share": 25.0},
        "medium": {"alarms": 1, "share": 25.0},
        "low": {"alarms": 1, "share": 25.0},
    }
    assert found["standing"] == 0
    assert found["floods"] == {"count": 0, "share": 0.0, "longest_s": 0.0, "list": []}


def test_a_period_of_the_history() -> None:
    events = [*once(0, "a/hot"), *once(700, "a/hot"), *once(1300, "a/hot")]
    found = made(events, 600, 1300)  # the end is not in it
    assert found["alarms"] == 1
    assert found["history_from"] == iso(0)
    assert made(events, None, 1301)["from"] == iso(0)
    assert made([], None, 0)["alarms"] == 0


def test_what_nobody_was_told_is_counted_beside() -> None:
    events = [
        event(0, "raised", "a/hot", suppressed=True),
        event(1, "raised", "b/hot", shelved_until=iso(100)),
        event(2, "raised", "c/hot", out_of_service=True),
        event(3, "raised", "d/hot"),
    ]
    found = made(events, 0, 600)
    assert (found["alarms"], found["not_told"], found["standing"]) == (1, 3, 1)
    assert found["per_10_minutes"]["mean"] == 1.0


def test_floods() -> None:
    # one a minute from 0 s on: the tenth, at 540 s, makes ten within ten minutes
    first = [one for n in range(12) for one in once(60 * n, f"p{n}/hot")]
    # the last is at 660 s; at 420 + 600 s only those of 480, 540, 600 and 660 s are left
    # nine within ten minutes later on: none
    calm = [one for n in range(9) for one in once(5000 + 60 * n, f"q{n}/hot")]
    # ten at once, and it goes on beyond the end
    second = [one for n in range(10) for one in once(7000, f"r{n}/hot")]
    found = made([*first, *calm, *second], 0, 7200)
    assert found["floods"]["list"] == [
        {"start": iso(0), "end": iso(1020), "alarms": 12, "peak": 10},
        {"start": iso(7000), "end": None, "alarms": 10, "peak": 10},
    ]
    assert found["floods"]["share"] == pytest.approx(100 * (1020 + 200) / 7200)
    assert found["floods"]["longest_s"] == 1020
    assert found["per_10_minutes"]["peak"] == 10


def test_a_flood_that_follows_a_flood() -> None:
    # ten at 0 s: over at 600 s. Ten at 650 s: a second one, with alarms of its own
    events = [one for at in (0, 650) for n in range(10) for one in once(at, f"p{n}-{at}/hot")]
    assert made(events, 0, 7200)["floods"]["list"] == [
        {"start": iso(0), "end": iso(600), "alarms": 10, "peak": 10},
        {"start": iso(650), "end": iso(1250), "alarms": 10, "peak": 10},
    ]
    # five stay within the last ten minutes all the time: the first goes on
    events += [one for n in range(5) for one in once(599, f"s{n}/hot")]
    (flood,) = made(sorted(events, key=lambda one: str(one["time"])), 0, 7200)["floods"]["list"]
    assert flood == {"start": iso(0), "end": iso(1250), "alarms": 25, "peak": 15}


def test_chattering() -> None:
    events = [
        *[one for at in (0, 20, 40, 59) for one in once(at, "a/hot")],  # four within a minute
        *[one for at in (0, 30, 60, 90) for one in once(at, "b/hot")],  # never three within (t - 60 s, t]
        *[one for at in (100, 101) for one in once(at, "c/hot")],
        *once(102, "c/cold"),  # another subject
    ]
    assert made(events, 0, HOUR)["chattering"] == [
        {"subject": "a/hot", "ruleId": "hot", "alarms": 4, "most_in_a_minute": 4, "last": iso(59)}
    ]


def test_stale_and_standing() -> None:
    events = [
        event(0, "raised", "a/hot"),  # active for two days, over at the end
        event(10, "raised", "b/hot"),  # still active
        event(2 * DAY, "cleared", "a/hot", onset=0),
        *once(2 * DAY, "c/hot", lasts=DAY),  # 24 h and not longer
        event(3 * DAY, "raised", "d/hot"),
    ]
    found = made(events, 1, 3 * DAY + 3610)
    assert [(one["subject"], one["hours"], one["standing"]) for one in found["stale"]] == [
        ("a/hot", 48.0, False),
        ("b/hot", 73.0, True),
    ]
    assert found["standing"] == 2
    assert found["alarms"] == 3  # a/hot was raised before


def test_most_frequent() -> None:
    events = [
        one for n in range(12) for k in range(n + 1) for one in once(700 * (n * 12 + k), f"p{n:02}/hot")
    ]
    found = made(events, 0, 30 * HOUR)["most_frequent"]  # 1 + 2 + ... + 12 = 78 alarms
    assert [one["alarms"] for one in found["list"]] == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert found["list"][0] == {
        "subject": "p11/hot",
        "ruleId": "hot",
        "alarms": 12,
        "share": pytest.approx(100 * 12 / 78),
    }
    assert found["share"] == pytest.approx(100 * 75 / 78)


def test_time_to_acknowledge() -> None:
    events = []
    for n, seconds in enumerate((10, 20, 30, 40, 100)):
        events.append(event(n, "raised", f"p{n}/hot", acknowledged=False))
        events.append(event(n + seconds, "acknowledged", f"p{n}/hot", onset=n, active=True))
    events.append(event(5, "raised", "q/hot", acknowledged=False))  # nobody has yet
    events += once(6, "r/hot")  # nothing to acknowledge
    found = made(events, 0, HOUR)["acknowledging"]
    assert found == {
        "asked": 6,
        "acknowledged": 5,
        "mean_s": 40.0,
        "median_s": 30.0,
        "p90_s": 100.0,
        "max_s": 100.0,
    }
    assert made(events, 0, 60)["acknowledging"]["acknowledged"] == 4  # what came later does not count


def test_the_command_reads_the_alarms_file(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "data.mdb").touch()
    events = [event(0, "raised", "a/hot"), *once(10, "b/hot", "critical")]
    body = "".join(json.dumps(one) + "\n" for one in events)
    (tmp_path / "alarms.jsonl").write_text(body + '{"cut sho')
    run = CliRunner().invoke(alarms, ["stats", "--data", str(tmp_path), "--json"])
    found = json.loads(run.stdout)
    assert found == Views(tmp_path).alarm_figures(None, None)
    assert (found["from"], found["to"], found["alarms"]) == (iso(0), iso(11.001), 2)
    asked = ["stats", "--data", str(tmp_path), "--from", iso(5), "--to", iso(65)]
    assert CliRunner().invoke(alarms, asked).stdout.splitlines()[:8] == [
        "2026-03-01 09:00:05 to 2026-03-01 09:01:05",
        "alarms           1; 1 standing",
        "per 10 minutes   10.00 on average, 1 at most (2026-03-01 09:00:10)",
        "floods           0, 0.0 % of the time",
        "acknowledged     0 of 0",
        "chattering       0",
        "stale            0",
        "",
    ]
