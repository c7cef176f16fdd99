"""What becomes of alarms, the plain way: one reading, one tick, one operator's action at a time.

Written from FORMATS sections 1, 3 and 5 and docs/alarms.md; imports nothing of ours. Times are
milliseconds; conditions are functions of a dict of values to True, False or None. What a rule does with
its condition (delays, pauses) and what becomes of its alarm (acknowledged, shelved ...) are kept in one
object an alarm and device, which lives for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Truth = Callable[[Mapping[str, Any]], bool | None]
GRAVEST_FIRST = ("critical", "high", "medium", "low", "info")
QUALITIES = ("good", "uncertain", "bad", "absent")


@dataclass
class Step:
    after: int
    unless_acknowledged: bool
    severity: str | None


@dataclass
class Alarm:
    """One alarm of a rule: the rule itself, or one limit of it."""

    ruleId: str
    part: str
    metrics: tuple[str, ...]  # of all its expressions
    shown: tuple[str, ...]  # of the condition
    condition: Truth
    clear: Truth
    where: Truth
    window: Callable[[int], bool]
    severity: str
    on_delay: int = 0
    off_delay: int = 0
    to_acknowledge: bool = True
    latch: bool = False
    max_shelve: int | None = None
    steps: tuple[Step, ...] = ()
    suppressed_by: tuple[str, ...] = ()  # rules, or rule/part
    shadow: bool = False

    @property
    def name(self) -> str:
        return f"{self.ruleId}/{self.part}" if self.part else self.ruleId


@dataclass
class Reading:
    device: str
    time: int
    ingest: int
    position: int
    values: Mapping[str, tuple[Any, str]]
    rebased: bool = False


@dataclass
class Action:
    name: str
    alarm_id: tuple[str, int]  # subject, onset
    by: str
    why: str | None
    until: int | None
    now: int
    position: int  # of the last frame before


@dataclass
class Occurrence:
    onset: int
    severity: str
    base: int
    active: bool = True
    acknowledged: bool = False
    latched: bool = False
    steps_done: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    quality: str = "good"


@dataclass
class One:
    """An alarm of one device."""

    alarm: Alarm
    device: str
    phase: str = "idle"  # idle rising active falling
    since: int = 0
    due: int = 0
    unknown_since: int | None = None
    onset: int = 0
    occurrence: Occurrence | None = None
    shelved_until: int | None = None
    suppressed: bool = False
    overruled: bool = False
    out_of_service: bool = False
    newest: tuple[int, int, int] = (-1, 0, 0)  # position of the newest event, events there, ingest time

    @property
    def subject(self) -> str:
        return f"{self.device}/{self.alarm.name}"

    def state(self) -> dict[str, Any]:
        o = self.occurrence
        assert o is not None
        return {
            "active": o.active,
            "acknowledged": o.acknowledged,
            "latched": o.latched,
            "shelved_until": self.shelved_until,
            "suppressed": self.suppressed or self.overruled,
            "out_of_service": self.out_of_service,
        }


@dataclass
class Device:
    slot: int
    held: dict[str, tuple[Any, str, int]] = field(default_factory=dict)
    last: Reading | None = None


class Engine:
    def __init__(
        self, alarms: list[Alarm], devices: list[str], facts: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.alarms = in_order(alarms)
        self.devices = {name: Device(slot) for slot, name in enumerate(devices)}
        self.facts = facts
        self.ones = {(name, alarm.name): One(alarm, name) for name in devices for alarm in self.alarms}
        self.closed: set[tuple[str, int]] = set()
        self.events: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    def of(self, device: str) -> list[One]:
        return [self.ones[device, alarm.name] for alarm in self.alarms]

    # -- input

    def reading(self, reading: Reading) -> None:
        self.frame = (reading.position, reading.ingest)
        device = self.devices[reading.device]
        ones = self.of(reading.device)
        if reading.rebased:
            for one in ones:
                if one.phase in ("rising", "falling"):
                    one.phase = "idle" if one.phase == "rising" else "active"
                    one.unknown_since = None
                if one.occurrence is not None:
                    one.occurrence.base = reading.time
        else:
            while over := [found for one in ones for found in self.running(one) if found[0] <= reading.time]:
                _, _, _, end = min(over, key=lambda found: found[:3])
                end()
        for metric, (value, quality) in reading.values.items():
            device.held[metric] = (None if quality == "bad" else value, quality, reading.time)
        device.last = reading
        values: dict[str, Any] = dict.fromkeys(metric for alarm in self.alarms for metric in alarm.metrics)
        values |= {metric: value for metric, (value, _, _) in device.held.items()}
        values |= self.facts[reading.device]
        for one in ones:
            if any(metric in reading.values for metric in one.alarm.metrics):
                self.apply(one, reading.time, values)

    def tick(self, now: int) -> None:
        while True:
            over = []
            for name, device in self.devices.items():
                if device.last is None:
                    continue
                for one in self.of(name):
                    for due, rank, kind, end in self.running(one):
                        found_at = due + 1000 - device.last.time + device.last.ingest
                        if found_at <= now:
                            over.append((-(-found_at // 1000), due, device.slot, rank, kind, end))
            if not over:
                return
            min(over, key=lambda found: found[:5])[5]()

    def running(self, one: One) -> list[tuple[int, int, int, Callable[[], None]]]:
        """Delays and timers: when they are over, the alarm's rank, delays before timers, what then."""
        rank = self.alarms.index(one.alarm)
        found: list[tuple[int, int, int, Callable[[], None]]] = []
        if one.phase in ("rising", "falling") and one.unknown_since is None:
            found.append((one.due, rank, 0, lambda: self.delay_over(one)))
        if one.shelved_until is not None:
            found.append((one.shelved_until, rank, 1, lambda: self.shelving_over(one)))
        step = self.next_step(one)
        if step is not None and one.occurrence is not None:
            due = one.occurrence.base + one.alarm.steps[step].after
            found.append((due, rank, 2, lambda: self.escalate(one, step)))
        return found

    # -- the condition

    def apply(self, one: One, now: int, values: Mapping[str, Any]) -> None:
        alarm = one.alarm
        parts = (alarm.condition(values), alarm.where(values), alarm.window(now))
        raises = False if False in parts else None if None in parts else True
        clears = alarm.clear(values)
        if one.phase == "idle":
            if raises and not alarm.on_delay:
                one.onset = now
                self.become_active(one, now)
            elif raises:
                one.phase, one.since, one.due = "rising", now, now + alarm.on_delay
        elif one.phase == "active":
            if clears and not alarm.off_delay:
                self.become_idle(one, now)
            elif clears:
                one.phase, one.due = "falling", now + alarm.off_delay
        else:
            goes_on = raises if one.phase == "rising" else clears
            if goes_on is None:
                if one.unknown_since is None:
                    one.unknown_since = now
            else:
                if goes_on and one.unknown_since is not None:
                    one.due += now - one.unknown_since
                one.unknown_since = None
                if not goes_on:
                    one.phase = "idle" if one.phase == "rising" else "active"

    def delay_over(self, one: One) -> None:
        if one.phase == "rising":
            one.onset = one.since
            self.become_active(one, one.due)
        else:
            self.become_idle(one, one.due)

    def become_active(self, one: One, time: int) -> None:
        one.phase = "active"
        if one.occurrence is not None:
            self.look(one)
            one.occurrence.active = False
            self.tell(one, "closed", time)
            self.over(one)
        alarm = one.alarm
        one.occurrence = Occurrence(one.onset, alarm.severity, time)
        one.occurrence.acknowledged = not alarm.to_acknowledge
        one.occurrence.latched = alarm.latch
        one.overruled = self.is_overruled(one)
        self.look(one)
        self.tell(one, "raised", time)
        self.overrule_others(one, time)

    def become_idle(self, one: One, time: int) -> None:
        one.phase = "idle"
        assert one.occurrence is not None
        one.occurrence.active = False
        self.look(one)
        self.tell(one, "cleared", time)
        self.perhaps_close(one, time)
        self.overrule_others(one, time)

    # -- suppression by others

    def is_overruled(self, one: One) -> bool:
        return any(
            other.phase in ("active", "falling")
            for other in self.of(one.device)
            if other.alarm.ruleId in one.alarm.suppressed_by or other.alarm.name in one.alarm.suppressed_by
            if one.alarm.shadow or not other.alarm.shadow
        )

    def overrule_others(self, cause: One, time: int) -> None:
        for name in dict.fromkeys((cause.alarm.ruleId, cause.alarm.name)):
            for one in self.of(cause.device):
                if name in one.alarm.suppressed_by and one.occurrence is not None:
                    now = self.is_overruled(one)
                    if now != one.overruled:
                        one.overruled = now
                        if not one.suppressed:
                            self.tell(one, "suppressed" if now else "unsuppressed", time)

    # -- timers

    def shelving_over(self, one: One) -> None:
        time = one.shelved_until
        assert time is not None
        one.shelved_until = None
        if one.occurrence is not None:
            self.tell(one, "unshelved", time)
            self.perhaps_close(one, time)

    def next_step(self, one: One) -> int | None:
        o = one.occurrence
        if o is None:
            return None
        for at in range(o.steps_done, len(one.alarm.steps)):
            if not (one.alarm.steps[at].unless_acknowledged and o.acknowledged):
                return at
        return None

    def escalate(self, one: One, step: int) -> None:
        o = one.occurrence
        assert o is not None
        o.steps_done = step + 1
        wanted = one.alarm.steps[step].severity
        if wanted is not None and GRAVEST_FIRST.index(wanted) < GRAVEST_FIRST.index(o.severity):
            o.severity = wanted
        self.tell(one, "escalated", o.base + one.alarm.steps[step].after)

    # -- operators

    def action(self, action: Action) -> None:
        found = [
            one
            for one in self.ones.values()
            if one.occurrence is not None and (one.subject, one.occurrence.onset) == action.alarm_id
        ]
        if not found:
            self.answers.append({"accepted": False, "over": True})
            return
        one = found[0]
        o = one.occurrence
        assert o is not None
        before = one.state()
        until = None
        if action.name == "shelve":
            most = None if one.alarm.max_shelve is None else action.now + one.alarm.max_shelve
            wanted = [time for time in (action.until, most) if time is not None]
            until = min(wanted) if wanted else None
        allowed = {
            "ack": not o.acknowledged,
            "reset": o.latched and not o.active,
            "shelve": until is not None and (action.until is None or action.until > action.now),
            "unshelve": one.shelved_until is not None,
            "suppress": not one.suppressed,
            "unsuppress": one.suppressed,
            "out_of_service": not one.out_of_service,
            "in_service": one.out_of_service,
        }[action.name]
        if not allowed:
            self.answers.append({"accepted": False, "over": False, "state": before})
            return
        if action.name == "ack":
            o.acknowledged = True
        elif action.name == "reset":
            o.latched = False
        elif action.name in ("shelve", "unshelve"):
            one.shelved_until = until
        elif action.name in ("suppress", "unsuppress"):
            one.suppressed = action.name == "suppress"
        else:
            one.out_of_service = action.name == "out_of_service"
        transition = {
            "ack": "acknowledged",
            "shelve": "shelved",
            "unshelve": "unshelved",
            "suppress": "suppressed",
            "unsuppress": "unsuppressed",
        }.get(action.name, action.name)
        self.tell(one, transition, action.now, action)
        self.answers.append({"accepted": True, "over": False, "state": one.state()})
        self.perhaps_close(one, action.now, action)

    # -- occurrences

    def look(self, one: One) -> None:
        """What the device's last reading left, for the evidence."""
        held = self.devices[one.device].held
        o = one.occurrence
        assert o is not None
        known = {metric: held.get(metric, (None, "absent", 0)) for metric in one.alarm.shown}
        o.values = {metric: value for metric, (value, _, _) in known.items()}
        o.quality = max((quality for _, quality, _ in known.values()), key=QUALITIES.index)

    def perhaps_close(self, one: One, time: int, action: Action | None = None) -> None:
        o = one.occurrence
        assert o is not None
        kept = one.shelved_until is not None or one.suppressed or one.out_of_service
        if not (o.active or not o.acknowledged or o.latched or kept):
            self.tell(one, "closed", time, action, quiet=True)
            self.over(one)

    def over(self, one: One) -> None:
        assert one.occurrence is not None
        self.closed.add((one.subject, one.occurrence.onset))
        one.occurrence, one.overruled = None, False

    def tell(
        self, one: One, transition: str, time: int, action: Action | None = None, *, quiet: bool = False
    ) -> None:
        o, last = one.occurrence, self.devices[one.device].last
        assert o is not None
        assert last is not None
        position, ingest = last.position, last.ingest
        if action is not None:
            position = action.position
            ingest = self.frame[1] if self.frame[0] == position else action.now
        n = 0
        if one.newest[0] >= position:
            position, n, ingest = one.newest
        one.newest = (position, n + 1, ingest)
        self.events.append(
            {
                "position": position,
                "subject": one.subject,
                "n": n,
                "transition": transition,
                "severity": o.severity,
                "onset": o.onset,
                "time": time,
                "ingest": ingest,
                "actor": None if action is None or quiet else action.by,
                "comment": None if action is None or quiet else action.why,
                "state": one.state(),
                "values": dict(o.values),
                "quality": o.quality,
                "shadow": one.alarm.shadow,
            }
        )


def in_order(alarms: list[Alarm]) -> list[Alarm]:
    """Rules layer by layer: those that nothing suppresses that is still to come, in file order."""
    waiting, done, found = list(alarms), set[str](), list[Alarm]()
    names = {alarm.ruleId for alarm in alarms}
    while waiting:
        ready = {
            alarm.ruleId
            for alarm in waiting
            if all(
                name.partition("/")[0] in done or name not in names or name == alarm.ruleId
                for name in alarm.suppressed_by
            )
        }
        found += [alarm for alarm in waiting if alarm.ruleId in ready]
        waiting = [alarm for alarm in waiting if alarm.ruleId not in ready]
        done |= ready
    return found
