"""Alarm-system figures after ANSI/ISA-18.2-2016 (clause 16, monitoring and assessment; IEC 62682 has the
same) and EEMUA 191, from the events of alarms.jsonl. docs/operations.md says what each one is.

An **alarm** here is one `raised` that an operator was told of: rules of severity `info` are events, shadow
rules tell nobody, and what is raised while shelved, suppressed or out of service is counted beside. Times
are event times. A window of length w that ends at t holds what came in (t - w, t].
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from rich.table import Table

from flows.alarm_tables import coloured
from flows.look_tables import clock, table

PERIOD_MS: Final = 600_000  # ISA-18.2 and EEMUA 191 count per ten minutes and operator
FLOOD_BEGINS: Final = 10  # alarms within ten minutes
FLOOD_ENDS: Final = 5  # fewer than this
CHATTER_MS: Final = 60_000
CHATTER: Final = 3  # times within it
STALE_MS: Final = 86_400_000
MOST_FREQUENT: Final = 10
TARGETS: Final = {"critical": "< 1", "high": "~ 5", "medium": "~ 15", "low": "~ 80"}
"""ISA-18.2-2016, clause 16: the share in per cent of each of four priorities."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _State(msgspec.Struct):
    acknowledged: bool
    shelved_until: str | None
    suppressed: bool
    out_of_service: bool


class _Data(msgspec.Struct):
    alarm_id: str
    ruleId: str
    transition: str
    severity: str
    event_time: str
    state: _State


class FigureEvent(msgspec.Struct):
    """What the figures need of an event."""

    subject: str
    data: _Data


@dataclass(slots=True)
class _Occurrence:
    """One alarm, from its raise on."""

    subject: str
    ruleId: str
    severity: str
    alarm_id: str
    raised: int
    told: bool  # an operator was told
    by_hand: bool  # it is to be acknowledged
    over: int | None = None  # no longer active
    acknowledged: int | None = None
    closed: bool = False


@dataclass(slots=True)
class History:
    """The occurrences of a history, from its first event to its last (both None without events)."""

    occurrences: list[_Occurrence] = field(default_factory=list)
    first: int | None = None
    last: int | None = None


def milliseconds(text: str) -> int:
    """Of `2026-03-01T09:00:00.000Z`, since 1970."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def iso(ms: int) -> str:
    """`2026-03-01T09:00:00.000Z`"""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_history(events: Iterable[FigureEvent]) -> History:
    """The occurrences of events in the order of their finding."""
    found = History()
    newest: dict[str, _Occurrence] = {}  # alarm_id -> its occurrence
    for event in events:
        data = event.data
        at = milliseconds(data.event_time)
        found.first = at if found.first is None else min(found.first, at)
        found.last = at if found.last is None else max(found.last, at)
        if data.severity == "info":
            continue
        if data.transition == "raised":
            state = data.state
            told = state.shelved_until is None and not state.suppressed and not state.out_of_service
            one = _Occurrence(
                event.subject,
                data.ruleId,
                data.severity,
                data.alarm_id,
                at,
                told,
                not state.acknowledged,
            )
            newest[data.alarm_id] = one
            found.occurrences.append(one)
        elif (known := newest.get(data.alarm_id)) is not None:
            _follow(known, data.transition, at)
            if known.closed:
                del newest[data.alarm_id]
    found.occurrences.sort(key=lambda one: (one.raised, one.subject))
    return found


def _follow(known: _Occurrence, transition: str, at: int) -> None:
    if transition == "acknowledged" and known.acknowledged is None:
        known.acknowledged = at
    elif transition in ("cleared", "closed"):
        known.over = at if known.over is None else known.over
        known.closed = transition == "closed"


def figures(history: History, start: int | None, end: int) -> dict[str, Any]:
    """The figures of [start, end), milliseconds since 1970; start None: from the first event on."""
    begin = start if start is not None else (end if history.first is None else min(history.first, end))
    before = [one for one in history.occurrences if one.told and one.raised < end]
    alarms = [one for one in before if one.raised >= begin]
    raised = [one.raised for one in alarms]
    span = max(1, end - begin)
    peak, peak_at = _peak(raised)
    floods = _floods(raised, end)
    inside = sum((flood["end_ms"] or end) - flood["start_ms"] for flood in floods)
    frequent = Counter((one.subject, one.ruleId) for one in alarms)
    ten = sorted(frequent.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_FREQUENT]
    severities = Counter(one.severity for one in alarms)
    return {
        "from": iso(begin),
        "to": iso(end),
        "history_from": None if history.first is None else iso(history.first),
        "alarms": len(alarms),
        "not_told": sum(not one.told and begin <= one.raised < end for one in history.occurrences),
        "standing": sum(one.over is None or one.over >= end for one in before),
        "per_10_minutes": {
            "mean": len(alarms) * PERIOD_MS / span,
            "peak": peak,
            "peak_at": None if peak_at is None else iso(peak_at),
        },
        "floods": {
            "count": len(floods),
            "share": 100.0 * inside / span,
            "longest_s": max(((f["end_ms"] or end) - f["start_ms"] for f in floods), default=0) / 1000,
            "list": [
                {
                    "start": iso(flood["start_ms"]),
                    "end": None if flood["end_ms"] is None else iso(flood["end_ms"]),
                    "alarms": flood["alarms"],
                    "peak": flood["peak"],
                }
                for flood in floods
            ],
        },
        "chattering": _chattering(alarms),
        "stale": _stale(before, begin, end),
        "most_frequent": {
            "share": _share(sum(count for _, count in ten), len(alarms)),
            "list": [
                {"subject": subject, "ruleId": rule, "alarms": count, "share": _share(count, len(alarms))}
                for (subject, rule), count in ten
            ],
        },
        "severities": {
            name: {"alarms": severities[name], "share": _share(severities[name], len(alarms))}
            for name in TARGETS
        },
        "acknowledging": _acknowledging(alarms, end),
    }


def _share(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def within(times: Sequence[int], end: int, length: int) -> int:
    """How many of the rising times lie in (end - length, end]."""
    return bisect_right(times, end) - bisect_right(times, end - length)


def _peak(raised: Sequence[int]) -> tuple[int, int | None]:
    """The most alarms in any ten minutes, and when they were first reached."""
    most, when = 0, None
    for at in raised:
        count = within(raised, at, PERIOD_MS)
        if count > most:
            most, when = count, at
    return most, when


def _floods(raised: Sequence[int], end: int) -> list[dict[str, Any]]:
    """Floods that began before `end`: with ten alarms within ten minutes one begins, at the first of
    the ten, and ends as soon as fewer than five came in the last ten minutes."""
    found: list[dict[str, Any]] = []
    at = after = 0  # after: the first alarm that no flood before holds
    while at < len(raised):
        if within(raised, raised[at], PERIOD_MS) < FLOOD_BEGINS:
            at += 1
            continue
        first = max(after, bisect_right(raised, raised[at] - PERIOD_MS))
        last = bisect_right(raised, raised[at]) - 1
        while last + 1 < len(raised) and raised[last + 1] < raised[last + 1 - FLOOD_ENDS] + PERIOD_MS:
            last = bisect_right(raised, raised[last + 1]) - 1
        over = raised[last + 1 - FLOOD_ENDS] + PERIOD_MS  # then only four are left
        found.append(
            {
                "start_ms": raised[first],
                "end_ms": over if over < end else None,
                "alarms": last + 1 - first,
                "peak": max(within(raised, one, PERIOD_MS) for one in raised[at : last + 1]),
            }
        )
        at = after = last + 1
    return found


def _chattering(alarms: Sequence[_Occurrence]) -> list[dict[str, Any]]:
    """Subjects raised three times or more within a minute, the worst first."""
    by_subject: dict[tuple[str, str], list[int]] = {}
    for one in alarms:
        by_subject.setdefault((one.subject, one.ruleId), []).append(one.raised)
    found = []
    for (subject, rule), times in by_subject.items():
        counts = [within(times, at, CHATTER_MS) for at in times]
        if max(counts) >= CHATTER:
            last = max(at for at, count in zip(times, counts, strict=True) if count >= CHATTER)
            found.append(
                {
                    "subject": subject,
                    "ruleId": rule,
                    "alarms": len(times),
                    "most_in_a_minute": max(counts),
                    "last": iso(last),
                }
            )
    return sorted(found, key=lambda one: (-int(one["most_in_a_minute"]), str(one["subject"])))


def _stale(before: Sequence[_Occurrence], begin: int, end: int) -> list[dict[str, Any]]:
    """Alarms that were active for more than 24 hours at a time within the period, the oldest first."""
    found = []
    for one in before:
        over = end if one.over is None else min(one.over, end)
        if over - one.raised > STALE_MS and over > begin:
            found.append(
                {
                    "subject": one.subject,
                    "ruleId": one.ruleId,
                    "severity": one.severity,
                    "alarm_id": one.alarm_id,
                    "raised": iso(one.raised),
                    "hours": (over - one.raised) / 3_600_000,
                    "standing": one.over is None or one.over >= end,
                }
            )
    return found


def _acknowledging(alarms: Sequence[_Occurrence], end: int) -> dict[str, Any]:
    """From raised to acknowledged, in seconds: of the alarms that are to be acknowledged."""
    asked = [one for one in alarms if one.by_hand]
    times = sorted(
        (one.acknowledged - one.raised) / 1000
        for one in asked
        if one.acknowledged is not None and one.acknowledged < end
    )
    return {
        "asked": len(asked),
        "acknowledged": len(times),
        "mean_s": statistics.fmean(times) if times else None,
        "median_s": statistics.median(times) if times else None,
        "p90_s": times[math.ceil(0.9 * len(times)) - 1] if times else None,
        "max_s": times[-1] if times else None,
    }


def report(found: dict[str, Any]) -> list[Any]:
    """The figures on a terminal."""
    rate, floods, asked = found["per_10_minutes"], found["floods"], found["acknowledging"]
    beside = f", {found['not_told']} more while shelved, suppressed or out of service"
    beside = (beside if found["not_told"] else "") + f"; {found['standing']} standing"
    parts: list[Any] = [
        f"{clock(found['from'])} to {clock(found['to'])}",
        f"alarms           {found['alarms']}{beside}",
        f"per 10 minutes   {rate['mean']:.2f} on average, {rate['peak']} at most"
        f"{' (' + clock(rate['peak_at']) + ')' if rate['peak_at'] else ''}",
        f"floods           {floods['count']}, {floods['share']:.1f} % of the time"
        + (f", the longest {floods['longest_s'] / 60:.1f} min" if floods["count"] else ""),
        f"acknowledged     {asked['acknowledged']} of {asked['asked']}"
        + (
            f", after {asked['median_s']:.0f} s (median), {asked['p90_s']:.0f} s (90 %)"
            if asked["acknowledged"]
            else ""
        ),
        f"chattering       {len(found['chattering'])}",
        f"stale            {len(found['stale'])}",
        "",
        _severities(found["severities"]),
    ]
    if found["most_frequent"]["list"]:
        parts += ["", f"most frequent: {found['most_frequent']['share']:.1f} % of all", _frequent(found)]
    if found["chattering"]:
        parts += ["", "chattering (three or more in a minute)", _chatter_table(found["chattering"])]
    if found["stale"]:
        parts += ["", "stale (active for more than 24 h)", _stale_table(found["stale"])]
    if floods["list"]:
        parts += ["", "floods (ten in ten minutes begin one, fewer than five end it)", _flood_table(floods)]
    return parts


def _severities(rows: dict[str, Any]) -> Table:
    return table(
        ["severity", "alarms", "share %", "ISA-18.2 %"],
        (
            (coloured(name), str(one["alarms"]), f"{one['share']:.1f}", TARGETS[name])
            for name, one in rows.items()
        ),
        right=["alarms", "share %", "ISA-18.2 %"],
    )


def _frequent(found: dict[str, Any]) -> Table:
    return table(
        ["subject", "alarms", "share %"],
        (
            (one["subject"], str(one["alarms"]), f"{one['share']:.1f}")
            for one in found["most_frequent"]["list"]
        ),
        right=["alarms", "share %"],
    )


def _chatter_table(rows: Sequence[dict[str, Any]]) -> Table:
    return table(
        ["subject", "most in a minute", "alarms", "last"],
        (
            (one["subject"], str(one["most_in_a_minute"]), str(one["alarms"]), clock(one["last"]))
            for one in rows
        ),
        right=["most in a minute", "alarms"],
    )


def _stale_table(rows: Sequence[dict[str, Any]]) -> Table:
    return table(
        ["severity", "subject", "raised", "hours", ""],
        (
            (
                coloured(one["severity"]),
                one["subject"],
                clock(one["raised"]),
                f"{one['hours']:.1f}",
                "standing" if one["standing"] else "over",
            )
            for one in rows
        ),
        right=["hours"],
    )


def _flood_table(floods: dict[str, Any]) -> Table:
    return table(
        ["start", "end", "alarms", "most in 10 min"],
        (
            (clock(one["start"]), clock(one["end"]) or "goes on", str(one["alarms"]), str(one["peak"]))
            for one in floods["list"]
        ),
        right=["alarms", "most in 10 min"],
    )
