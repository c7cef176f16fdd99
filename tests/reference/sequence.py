"""Sequence rules the plain way: one device, one reading, one second at a time.

Imports nothing of ours. Times are whole numbers; a truth is True, False or None (unknown).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Step:
    condition: int  # which of a reading's truths
    absent: bool = False
    within: int | None = None


@dataclass
class Rule:
    steps: list[Step]
    clear: int | None = None  # which truth clears; None: what the last step says


@dataclass
class Wait:
    """A `not` step that waits."""

    begin: int
    end: int
    unknown_since: int | None = None


@dataclass
class Device:
    last: tuple[int, int] | None = None  # time and ingest of the newest reading
    ended: dict[int, tuple[int, int]] = field(
        default_factory=dict
    )  # step -> start and end of its newest match
    waits: dict[int, Wait] = field(default_factory=dict)
    active: int | None = None  # onset


Event = tuple[str, str, int, int, str]  # device, transition, time, onset, how it was found


class Engine:
    def __init__(self, rule: Rule, grace: int) -> None:
        self.rule, self.grace = rule, grace
        self.devices: dict[str, Device] = {}
        self.events: list[Event] = []

    def tick(self, now: int) -> None:
        for name, device in self.devices.items():
            assert device.last is not None
            clock = device.last[0] + now - device.last[1]
            self.end_waits(name, device, clock - self.grace, "tick")

    def reading(
        self, name: str, time: int, ingest: int, truths: list[bool | None], carried: bool, rebased: bool
    ) -> None:
        device = self.devices.setdefault(name, Device())
        if rebased:
            device.ended.clear()
            device.waits.clear()
        self.end_waits(name, device, time, "row")
        device.last = (time, ingest)
        if carried:
            self.apply(name, device, time, truths)

    def end_waits(self, name: str, device: Device, clock: int, how: str) -> None:
        for at in sorted(device.waits):
            wait = device.waits.get(at)
            if wait is not None and wait.unknown_since is None and wait.end <= clock:
                del device.waits[at]
                self.completed(name, device, at, wait.begin, wait.end, how)

    def completed(self, name: str, device: Device, at: int, begin: int, end: int, how: str) -> bool:
        if at < len(self.rule.steps) - 1:
            device.ended[at] = (begin, end)
            return False
        device.ended.clear()
        device.waits.clear()
        if device.active is None:
            device.active = begin
            self.events.append((name, "raised", end, begin, how))
        return True

    def apply(self, name: str, device: Device, time: int, truths: list[bool | None]) -> None:
        steps = self.rule.steps
        last = steps[-1]
        if self.rule.clear is not None:
            clears = truths[self.rule.clear] is True
        else:
            clears = truths[last.condition] is last.absent
        was_active = device.active
        if was_active is not None and clears:
            self.events.append((name, "cleared", time, was_active, "row"))
        for at in reversed(range(len(steps))):
            step, now = steps[at], truths[steps[at].condition]
            if step.absent:
                wait = device.waits.get(at)
                if wait is None:
                    continue
                if now is True:
                    del device.waits[at]
                elif now is None:
                    wait.unknown_since = time if wait.unknown_since is None else wait.unknown_since
                elif wait.unknown_since is not None:
                    wait.end += time - wait.unknown_since
                    wait.unknown_since = None
                continue
            if now is not True:
                continue
            begin = time
            if at:
                if at - 1 not in device.ended:
                    continue
                begin, end = device.ended[at - 1]
                if step.within is not None and time - end > step.within:
                    continue
            if self.completed(name, device, at, begin, time, "row"):
                continue
            if at + 1 < len(steps) and steps[at + 1].absent and at + 1 not in device.waits:
                against = truths[steps[at + 1].condition]
                within = steps[at + 1].within
                assert within is not None
                if against is not True:
                    device.waits[at + 1] = Wait(begin, time + within, time if against is None else None)
        if was_active is not None and clears:
            device.active = None
