"""What `penstock alarms` and the demo show of alarms on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from flows.alarm_filters import state_words
from flows.look_tables import Row, clock, table

COLOURS: Final = {
    "critical": "bold white on red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
    "raised": "red",
    "escalated": "bold red",
    "cleared": "green",
    "closed": "dim",
}
ID_SHOWN: Final = 12  # of an alarm_id, enough to act on it


def coloured(word: str) -> Text:
    """A severity or a transition in its colour."""
    return Text(word, COLOURS.get(word, ""))


def age(since: str, now: float | None = None) -> str:
    """`3d 4h`, `2h 5m`, `5m 10s`, `10s` since a time such as `2026-03-01T09:00:00.000Z`."""
    seconds = (time.time() if now is None else now) - datetime.fromisoformat(since).timestamp()
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")) if n]
    return " ".join(parts[:2]) or "0s"


def alarms_table(rows: Iterable[Row]) -> Table:
    """Open alarms."""
    return table(
        ["severity", "subject", "since", "age", "state", "message", "alarm_id"],
        (
            (
                coloured(row["severity"]),
                row["subject"],
                clock(row["since"]),
                age(row["since"]),
                state_text(row),
                row["message"] or "",
                Text(row["alarm_id"][:ID_SHOWN], "dim"),
            )
            for row in rows
        ),
        right=["age"],
    )


def state_text(state: Row) -> Text:
    """`active, unacknowledged, shelved until 10:00`"""
    words = state_words(state)
    if state["shelved_until"] is not None:
        words[words.index("shelved")] = f"shelved until {clock(state['shelved_until'])}"
    return Text(", ".join(words), "bold" if state["active"] else "")


def events_table(events: Iterable[Row]) -> Table:
    """Alarm events (CloudEvents, FORMATS section 5)."""
    return table(
        ["time", "transition", "severity", "subject", "by", "message", "alarm_id"],
        (
            (
                clock(event["time"]),
                coloured(event["data"]["transition"]),
                coloured(event["data"]["severity"]),
                event["subject"],
                told_by(event["data"]),
                event["data"]["message"] or "",
                Text(event["data"]["alarm_id"][:ID_SHOWN], "dim"),
            )
            for event in events
        ),
    )


def told_by(data: Mapping[str, Any]) -> str:
    """Who acted, and why."""
    return ": ".join(str(part) for part in (data["actor"], data["comment"]) if part)


def event_line(event: Row) -> str:
    """One alarm event as a line."""
    data = event["data"]
    head = f"{clock(event['time'])}  {data['transition']:<8} {data['severity']:<8}"
    by = told_by(data)
    return f"{head} {event['subject']}  {data['message'] or ''}{f'  ({by})' if by else ''}"


def count_line(rows: Sequence[Row]) -> Text:
    """`3 open: 1 critical, 2 high; 2 active, 1 unacknowledged`"""
    line = Text(f"{len(rows)} open")
    for number, word in enumerate(dict.fromkeys(row["severity"] for row in rows)):
        line.append(": " if number == 0 else ", ")
        line.append(f"{sum(row['severity'] == word for row in rows)} ")
        line.append_text(coloured(word))
    active = sum(bool(row["active"]) for row in rows)
    waiting = sum(not row["acknowledged"] for row in rows)
    line.append(f"; {active} active, {waiting} unacknowledged")
    return line
