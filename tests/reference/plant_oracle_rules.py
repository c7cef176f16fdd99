"""Rules the plain way: what becomes of a raise and a clear, operators' actions, timers, and one reading
after another on every rule. Part of `plant_oracle`; written from FORMATS and docs alone.

A subject is one alarm of one device (or group): `press-01/temp-high`, `press-01/limits/HH`,
`hub:h1/line-hot`. An evaluator says when it raises and clears; the book makes the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.reference.plant_oracle_decode import MS, SECOND

GRACE = SECOND
GRAVITY = ("info", "low", "medium", "high", "critical")


class Unsaid:
    """Stands where the text leaves a value open."""

    def __repr__(self) -> str:
        return "(left open)"


UNSAID = Unsaid()


def time_text(ns: int) -> str:
    """`2026-03-01T09:00:00.000Z`, cut down to the millisecond."""
    stamp = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ns // MS)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"


class Place(NamedTuple):
    """Where an event stands: a frame's position, and its ingest time."""

    position: int
    ingest: int


class Evidence(NamedTuple):
    """What an event rests on. said: the holes of a message with what they read."""

    values: Any
    quality: Any
    said: dict[str, Any]


class Subject:
    """One alarm with its eight dimensions."""

    def __init__(self, rule: dict[str, Any], name: str, device: Any, row: dict[str, Any], severity: str):
        self.rule, self.name, self.device, self.row = rule, name, device, row
        self.first_severity = self.severity = severity
        wanted = "required" if severity in ("critical", "high", "medium") else "none"
        self.required = severity != "info" and rule.get("acknowledge", wanted) == "required"
        self.open = self.active = self.latched = self.suppressed = self.out_of_service = False
        self.overruled = False
        self.acknowledged = True
        self.shelved: int | None = None
        self.onset = 0
        self.occurrence = 0
        self.evidence = Evidence({}, "absent", {})
        self.steps: list[tuple[int, dict[str, Any]]] = []  # escalation: due and step
        self.newest = Place(-1, 0)
        self.at_position: Counter[int] = Counter()
        self.suppressors: list[Subject] = []
        self.dependents: list[Subject] = []


class Book:
    """All subjects; makes the events."""

    def __init__(self) -> None:
        self.subjects: dict[str, Subject] = {}
        self.events: list[dict[str, Any]] = []
        self.shadow: list[dict[str, Any]] = []

    def suppress_by(self, subject: Subject, by: Subject) -> None:
        """`by` suppresses `subject` while it is active. One in shadow suppresses only others in shadow."""
        if by.rule.get("mode") == "shadow" and subject.rule.get("mode") != "shadow":
            return
        subject.suppressors.append(by)
        by.dependents.append(subject)
        subject.overruled = any(one.active for one in subject.suppressors)

    # -- what a rule finds ----

    def raise_(self, subject: Subject, place: Place, time: int, onset: int, evidence: Evidence) -> None:
        subject.evidence = evidence
        if subject.open:
            subject.open = subject.active = False
            self.event(subject, "closed", place, time)
        subject.open = subject.active = True
        subject.acknowledged, subject.latched = not subject.required, bool(subject.rule.get("latch"))
        subject.onset, subject.severity = onset, subject.first_severity
        subject.occurrence += 1
        subject.steps = [(time + step["after"], step) for step in subject.rule.get("escalate", ())]
        self.event(subject, "raised", place, time)
        for other in subject.dependents:
            if not other.overruled and other.open and not other.suppressed:
                other.overruled = True
                self.event(other, "suppressed", place, time)
            other.overruled = True

    def clear(self, subject: Subject, place: Place, time: int, evidence: Evidence) -> None:
        subject.evidence = evidence
        subject.active = False
        self.event(subject, "cleared", place, time)
        self.close_if_done(subject, place, time)
        for other in subject.dependents:
            if not any(one.active for one in other.suppressors):
                other.overruled = False
                if other.open and not other.suppressed:
                    self.event(other, "unsuppressed", place, time)

    def close_if_done(self, subject: Subject, place: Place, time: int) -> None:
        stands = subject.shelved is not None or subject.suppressed or subject.out_of_service
        if subject.open and not (subject.active or subject.latched or stands) and subject.acknowledged:
            subject.open = False
            self.event(subject, "closed", place, time)

    # -- timers ----

    def timers(self, subject: Subject) -> Iterator[tuple[int, int, Callable[[Place], None]]]:
        """(due, order, what to do) of shelving and escalation."""
        if subject.shelved is not None:
            yield subject.shelved, 1, lambda place: self.shelving_over(subject, place)
        if subject.open and subject.steps:
            due = min(subject.steps, key=lambda each: each[0])
            yield due[0], 2, lambda place: self.escalate(subject, due, place)

    def shelving_over(self, subject: Subject, place: Place) -> None:
        due, subject.shelved = subject.shelved, None
        assert due is not None
        self.event(subject, "unshelved", place, due)
        self.close_if_done(subject, place, due)

    def escalate(self, subject: Subject, due: tuple[int, dict[str, Any]], place: Place) -> None:
        subject.steps.remove(due)
        severity = due[1]["severity"]
        if due[1].get("unless") == "acknowledged" and subject.acknowledged:
            return
        subject.severity = max(subject.severity, severity, key=GRAVITY.index)
        self.event(subject, "escalated", place, due[0])

    # -- operators ----

    def act(self, data: dict[str, Any], now: int, place: Place, known: dict[str, tuple[str, str]]) -> None:
        """An operator's action; what is refused leaves no event."""
        name, onset = known.get(data["alarm_id"], ("", ""))
        subject = self.subjects.get(name)
        if subject is None or not subject.open or time_text(subject.onset) != onset:
            return
        action = data["action"]
        done = {
            "ack": "acknowledged", "reset": "reset", "shelve": "shelved", "unshelve": "unshelved",
            "suppress": "suppressed", "unsuppress": "unsuppressed",
            "out_of_service": "out_of_service", "in_service": "in_service",
        }[action]  # fmt: skip
        if action == "ack" and not subject.acknowledged:
            subject.acknowledged = True
        elif action == "reset" and subject.latched and not subject.active:
            subject.latched = False
        elif action == "shelve":
            most = subject.rule.get("max_shelve")
            ends = [] if most is None else [now + most]
            if data.get("until_ms") is not None:
                ends.append(data["until_ms"] * MS)
            if not ends or min(ends) <= now:
                return
            subject.shelved = min(ends)
        elif action == "unshelve" and subject.shelved is not None:
            subject.shelved = None
        elif action == "suppress" and not subject.suppressed:
            subject.suppressed = True
        elif action == "unsuppress" and subject.suppressed:
            subject.suppressed = False
        elif action == "out_of_service" and not subject.out_of_service:
            subject.out_of_service = True
        elif action == "in_service" and subject.out_of_service:
            subject.out_of_service = False
        else:
            return
        self.event(subject, done, place, now, data["by"], data["why"] or None)
        self.close_if_done(subject, place, now)

    # -- events ----

    def event(
        self,
        subject: Subject,
        transition: str,
        place: Place,
        time: int,
        actor: str | None = None,
        comment: str | None = None,
    ) -> None:
        rule, row, evidence = subject.rule, subject.row, subject.evidence
        place = subject.newest = max(place, subject.newest, key=lambda one: one.position)
        number = subject.at_position[place.position]
        subject.at_position[place.position] += 1
        until = subject.shelved
        template = rule.get("message", "{ruleId}: {condition}")
        message = filled(template, evidence.said | {"transition": transition, "severity": subject.severity})
        events = self.shadow if rule.get("mode") == "shadow" else self.events
        events.append(
            {
                "subject": subject.name,
                "position": place.position,
                "sequence": f"{place.position * 65536 + number:020d}",
                "alarm": subject.occurrence,
                "ruleId": rule["ruleId"],
                "productId": row["productId"],
                "device_id": row.get("device_id"),
                "hub_id": row.get("hub_id") or None,
                "site_id": row.get("site_id") or None,
                "customer_id": row.get("customer_id") or None,
                "transition": transition,
                "severity": subject.severity,
                "onset_time": time_text(subject.onset),
                "event_time": time_text(time),
                "ingest_time": time_text(place.ingest),
                "actor": actor,
                "comment": comment,
                "state": {
                    "active": subject.active,
                    "acknowledged": subject.acknowledged,
                    "latched": subject.latched,
                    "shelved_until": None if until is None else time_text(until),
                    "suppressed": subject.suppressed or subject.overruled,
                    "out_of_service": subject.out_of_service,
                },
                "evidence": {
                    "expression": evidence.said.get("condition", UNSAID),
                    "values": evidence.values,
                    "quality": evidence.quality,
                    "position": place.position,
                },
                "message": message,
            }
        )


def filled(template: str, said: dict[str, Any]) -> Any:
    """A message with its holes filled; left open where one of them is."""
    text = template
    for hole, value in said.items():
        if value is UNSAID:
            if "{" + hole + "}" in text:
                return UNSAID
            continue
        text = text.replace("{{{" + hole + "}}}", "{" + str(value) + "}").replace(
            "{" + hole + "}", str(value)
        )
    return text


# -- schedules ----


def in_schedule(schedule: Any, now: int) -> bool:
    """Whether a window that cron began holds `now`; cron here: minutes and hours alone, then weekdays."""
    if schedule is None:
        return True
    return any(_in_window(one, now) for one in (schedule if isinstance(schedule, list) else [schedule]))


def _in_window(one: dict[str, Any], now: int) -> bool:
    minute, hour, day, month, weekday = one["cron"].split()
    assert day == month == "*"
    zone = ZoneInfo(one.get("timezone", "UTC"))
    start = now // (60 * SECOND) * (60 * SECOND)
    while start + one["for"] > now:
        local = datetime.fromtimestamp(start // SECOND, zone)
        if _fits(minute, local.minute) and _fits(hour, local.hour) and _fits(weekday, local.isoweekday() % 7):
            return True
        start -= 60 * SECOND
    return False


def _fits(field: str, value: int) -> bool:
    for part in field.split(","):
        span, _, every = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            low, high = "0", "59"
        elif not high:
            high = low
        if int(low) <= value <= int(high) and (value - int(low)) % int(every or 1) == 0:
            return True
    return False
