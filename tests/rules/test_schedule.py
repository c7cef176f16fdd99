"""Schedules: windows by cron in a time zone, over changes to and from daylight saving time, against a
walk through the minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.convert import parse_duration
from operators.spec import HOUR, MINUTE, SECOND
from rules.schedule import Windows, schedule_problem, zone_of
from rules.spec import Schedule


def duration(text: str) -> int:
    found = parse_duration(text)
    assert isinstance(found, int)
    return found


def ns(text: str) -> int:
    """Of an ISO time with an offset, or in UTC."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * SECOND


def covered(schedules: list[Schedule], zone: str, *times: str) -> list[bool]:
    found = Windows(schedules, zone).covers(np.array([ns(time) for time in times], np.int64))
    return [bool(one) for one in found]


def test_a_window_holds_its_start_and_not_its_end() -> None:
    early = Schedule(cron="0 6 * * 1-5", for_=8 * HOUR)
    # 2 March 2026 is a Monday; Seoul is nine hours ahead
    assert covered(
        [early],
        "Asia/Seoul",
        "2026-03-01T20:59:59",
        "2026-03-01T21:00:00",
        "2026-03-02T04:59:59",
        "2026-03-02T05:00:00",
        "2026-03-06T21:00:00",  # Saturday morning
    ) == [False, True, True, False, False]


def test_a_zone_of_its_own_goes_before_the_plants() -> None:
    early = Schedule(cron="0 6 * * *", for_=HOUR, timezone="UTC")
    assert covered([early], "Asia/Seoul", "2026-03-02T06:30:00", "2026-03-01T21:30:00") == [True, False]


def test_windows_that_overlap_or_touch_are_one() -> None:
    shifts = [Schedule(cron="0 6 * * *", for_=8 * HOUR), Schedule(cron="0 13 * * *", for_=9 * HOUR)]
    times = [f"2026-03-02T{hour:02d}:00:00" for hour in (5, 6, 13, 14, 21, 22)]
    assert covered(shifts, "UTC", *times) == [False, True, True, True, True, False]
    hours = [Schedule(cron="0 * * * *", for_=HOUR)]
    assert all(covered(hours, "UTC", *times))


def test_spring_forward_a_window_lasts_as_long_as_ever() -> None:
    """Berlin, 29 March 2026: 02:00 CET is 03:00 CEST."""
    night = Schedule(cron="0 1 * * *", for_=4 * HOUR)
    assert covered(
        [night],
        "Europe/Berlin",
        "2026-03-29T00:59:59+01:00",
        "2026-03-29T01:00:00+01:00",
        "2026-03-29T05:59:59+02:00",  # 01:00 CET and four hours
        "2026-03-29T06:00:00+02:00",
        "2026-03-30T04:59:59+02:00",
        "2026-03-30T05:00:00+02:00",
    ) == [False, True, True, False, True, False]
    skipped = Schedule(cron="30 2 * * *", for_=10 * MINUTE)  # 02:30 is not there: it comes at 03:00
    assert covered([skipped], "Europe/Berlin", "2026-03-29T03:05:00+02:00", "2026-03-29T03:35:00+02:00") == [
        True,
        False,
    ]


def test_fall_back_a_window_begins_once() -> None:
    """Berlin, 25 October 2026: 03:00 CEST is 02:00 CET, so 02:30 comes twice."""
    at_half_past = Schedule(cron="30 2 * * *", for_=10 * MINUTE)
    assert covered(
        [at_half_past], "Europe/Berlin", "2026-10-25T02:35:00+02:00", "2026-10-25T02:35:00+01:00"
    ) == [True, False]
    night = Schedule(cron="0 1 * * *", for_=4 * HOUR)
    assert covered([night], "Europe/Berlin", "2026-10-25T03:59:59+01:00", "2026-10-25T04:00:00+01:00") == [
        True,
        False,
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Seoul", "UTC"]),
    st.integers(0, 59),
    st.integers(4, 23),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(1, 3000),
    st.lists(st.integers(0, 366 * 24 * 60), min_size=1, max_size=20),
)
def test_windows_equal_a_walk_through_the_days(
    zone: str, minute: int, hour: int, days: set[int], minutes: int, moments: list[int]
) -> None:
    """Hours that are never skipped and never come twice; weekdays of cron begin with Sunday."""
    listed = ",".join(str(day) for day in sorted(days))
    windows = Windows([Schedule(cron=f"{minute} {hour} * * {listed}", for_=minutes * MINUTE)], zone)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ts = np.array([int((begin + timedelta(minutes=at)).timestamp()) * SECOND for at in moments], np.int64)
    wanted = []
    for at in moments:
        now = begin + timedelta(minutes=at)
        inside = False
        for back in range(5):
            day = (now.astimezone(ZoneInfo(zone)) - timedelta(days=back)).date()
            start = datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(zone)).astimezone(
                UTC
            )
            open_ = start <= now < start + timedelta(minutes=minutes)
            inside |= open_ and (day.weekday() + 1) % 7 in days
        wanted.append(inside)
    assert windows.covers(ts).tolist() == wanted
    shuffled = np.argsort(ts * 7919 % 104_729)
    assert windows.covers(ts[shuffled]).tolist() == [wanted[at] for at in shuffled]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, None),
        ({"cron": "*/15 6-18 1,15 JAN-MAR MON-FRI"}, None),
        ({"cron": ""}, ("cron", "five fields are expected: minute hour day month weekday, e.g. 0 6 * * 1-5")),
        (
            {"cron": "0 0 6 * * 1-5"},
            ("cron", "five fields are expected: minute hour day month weekday, e.g. 0 6 * * 1-5"),
        ),
        (
            {"cron": "0 6 * * 1-9"},
            ("cron", "'0 6 * * 1-9' is no cron expression: bad day-of-week; e.g. 0 6 * * 1-5"),
        ),
        ({"for_": 0}, ("for", "a window lasts more than 0s and at most 366d")),
        (
            {"timezone": "Mars/Olympus"},
            ("timezone", "no time zone 'Mars/Olympus'; write for example Asia/Seoul"),
        ),
        (
            {"timezone": "../etc/passwd"},
            ("timezone", "no time zone '../etc/passwd'; write for example Asia/Seoul"),
        ),
    ],
)
def test_what_is_wrong_with_a_schedule(keys: dict[str, Any], problem: tuple[str, str] | None) -> None:
    given_keys: dict[str, Any] = {"cron": "0 6 * * *", "for_": duration("8h")} | keys
    assert schedule_problem(Schedule(**given_keys)) == problem


def test_zones_are_those_of_the_tzdata_package() -> None:
    found = zone_of("America/Argentina/Buenos_Aires")
    assert found is not None
    assert found.key == "America/Argentina/Buenos_Aires"
    assert zone_of("") is None
    assert zone_of("__init__") is None
