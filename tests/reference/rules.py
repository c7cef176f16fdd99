"""Threshold rules the plain way: one reading, one rule, one second at a time.

Written from FORMATS section 3 and DESIGN sections 5 and 6; imports nothing of ours. Times are
whole numbers of any unit; a condition is a function of a dict of values to True, False or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Condition = Callable[[Mapping[str, Any]], bool | None]


@dataclass
class Rule:
    ruleId: str
    metrics: tuple[str, ...]  # of condition and clear condition
    shown: tuple[str, ...]  # of the condition
    condition: Condition
    clear: Condition
    on_delay: int = 0
    off_delay: int = 0
    to_be_acknowledged: bool = True


@dataclass
class Reading:
    device: str
    time: int
    ingest: int
    position: int
    values: Mapping[str, tuple[Any, str]]  # what it carries: value and quality good|uncertain|bad
    in_order: bool = True
    historical: bool = False
    rebased: bool = False


@dataclass
class Event:
    position: int
    subject: str
    n: int
    transition: str
    onset: int
    time: int
    ingest: int
    values: dict[str, Any]
    quality: str


@dataclass
class _Device:
    held: dict[str, tuple[Any, str, int]] = field(default_factory=dict)
    last: Reading | None = None


@dataclass
class _Alarm:
    state: str = "idle"  # idle rising active falling
    rising_since: int = 0
    delay_end: int = 0
    unknown_since: int | None = None
    onset: int | None = None  # of the occurrence that is active, or open
    counted: tuple[int, int] = (-1, 0)


QUALITIES = ("good", "uncertain", "bad", "absent")


class Engine:
    def __init__(self, rules: list[Rule], stale_after: int | None, grace: int) -> None:
        self.rules = rules
        self.stale_after = stale_after
        self.grace = grace
        self.devices: dict[str, _Device] = {}
        self.alarms: dict[tuple[str, str], _Alarm] = {}
        self.events: list[Event] = []

    # -- input

    def reading(self, reading: Reading) -> None:
        if not reading.in_order or reading.historical:
            return
        device = self.devices.setdefault(reading.device, _Device())
        for rule in self.rules:
            alarm = self.alarms.setdefault((reading.device, rule.ruleId), _Alarm())
            if reading.rebased:
                if alarm.state == "rising":
                    alarm.state, alarm.unknown_since = "idle", None
                elif alarm.state == "falling":
                    alarm.state, alarm.unknown_since = "active", None
            elif self.running(alarm) and alarm.delay_end <= reading.time:
                self.end_delay(reading.device, rule, alarm)
        for metric, (value, quality) in reading.values.items():
            device.held[metric] = (None if quality == "bad" else value, quality, reading.time)
        if reading.rebased:
            for metric, (value, quality, since) in device.held.items():
                device.held[metric] = (value, quality, min(since, reading.time))
        device.last = reading
        values = {metric: value for metric, (value, _) in self.now(device).items()}
        for rule in self.rules:
            if any(metric in reading.values for metric in rule.metrics):
                alarm = self.alarms[reading.device, rule.ruleId]
                self.apply(reading, rule, alarm, rule.condition(values), rule.clear(values))

    def tick(self, now: int) -> None:
        due = []
        for (name, rule_id), alarm in self.alarms.items():
            last = self.devices[name].last
            assert last is not None
            clock = last.time + (now - last.ingest)
            if self.running(alarm) and clock >= alarm.delay_end + self.grace:
                due.append((alarm.delay_end, name, rule_id))
        for _, name, rule_id in sorted(due):
            rule = next(rule for rule in self.rules if rule.ruleId == rule_id)
            self.end_delay(name, rule, self.alarms[name, rule_id])

    # -- one alarm

    @staticmethod
    def running(alarm: _Alarm) -> bool:
        return alarm.state in ("rising", "falling") and alarm.unknown_since is None

    def end_delay(self, name: str, rule: Rule, alarm: _Alarm) -> None:
        if alarm.state == "rising":
            self.become_active(name, rule, alarm, alarm.rising_since, alarm.delay_end)
        else:
            self.become_idle(name, rule, alarm, alarm.delay_end)

    def apply(
        self, reading: Reading, rule: Rule, alarm: _Alarm, holds: bool | None, clears: bool | None
    ) -> None:
        now = reading.time
        if alarm.state == "idle":
            if holds and not rule.on_delay:
                self.become_active(reading.device, rule, alarm, now, now)
            elif holds:
                alarm.state, alarm.rising_since, alarm.delay_end = "rising", now, now + rule.on_delay
        elif alarm.state == "active":
            if clears and not rule.off_delay:
                self.become_idle(reading.device, rule, alarm, now)
            elif clears:
                alarm.state, alarm.delay_end = "falling", now + rule.off_delay
        else:
            goes_on = holds if alarm.state == "rising" else clears
            if goes_on is None:
                if alarm.unknown_since is None:
                    alarm.unknown_since = now
            else:
                if goes_on and alarm.unknown_since is not None:
                    alarm.delay_end += now - alarm.unknown_since
                alarm.unknown_since = None
                if not goes_on:
                    alarm.state = "idle" if alarm.state == "rising" else "active"

    def become_active(self, name: str, rule: Rule, alarm: _Alarm, onset: int, time: int) -> None:
        if alarm.onset is not None:
            self.tell(name, rule, alarm, "closed", alarm.onset, time)
        alarm.state, alarm.onset = "active", onset
        self.tell(name, rule, alarm, "raised", onset, time)

    def become_idle(self, name: str, rule: Rule, alarm: _Alarm, time: int) -> None:
        alarm.state = "idle"
        assert alarm.onset is not None
        self.tell(name, rule, alarm, "cleared", alarm.onset, time)
        if not rule.to_be_acknowledged:
            self.tell(name, rule, alarm, "closed", alarm.onset, time)
            alarm.onset = None

    def now(self, device: _Device) -> dict[str, tuple[Any, str]]:
        """Values as the device's last reading leaves them; (None, "absent") where there is none."""
        assert device.last is not None
        found: dict[str, tuple[Any, str]] = {}
        for metric in {metric for rule in self.rules for metric in rule.metrics}:
            value, quality, since = device.held.get(metric, (None, "absent", 0))
            old = self.stale_after is not None and device.last.time - since > self.stale_after
            found[metric] = (None, "absent") if old and quality in ("good", "uncertain") else (value, quality)
        return found

    def tell(self, name: str, rule: Rule, alarm: _Alarm, transition: str, onset: int, time: int) -> None:
        device = self.devices[name]
        assert device.last is not None
        position = device.last.position
        n = alarm.counted[1] if alarm.counted[0] == position else 0
        alarm.counted = (position, n + 1)
        values = self.now(device)
        self.events.append(
            Event(
                position,
                f"{name}/{rule.ruleId}",
                n,
                transition,
                onset,
                time,
                device.last.ingest,
                {metric: values[metric][0] for metric in rule.shown},
                max((values[metric][1] for metric in rule.shown), key=QUALITIES.index),
            )
        )
