"""Group rules the plain way: one reading, one second at a time. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

When = Callable[[int, int, "float | None"], "bool | None"]  # count, total, share


@dataclass
class Group:
    members: dict[str, bool | None] = field(default_factory=dict)
    newest: tuple[int, int] = (0, 0)  # event and ingest time of the newest reading
    phase: str = "idle"
    since: int = 0
    onset: int = 0
    end: int = 0
    unknown_since: int | None = None

    def counts(self) -> tuple[int, int]:
        known = [one for one in self.members.values() if one is not None]
        return sum(known), len(known)


Event = tuple[str, str, int, int, int, int]  # group, transition, time, onset, count, total


class Engine:
    def __init__(self, when: When, on_delay: int, off_delay: int, grace: int) -> None:
        self.when, self.on_delay, self.off_delay, self.grace = when, on_delay, off_delay, grace
        self.groups: dict[str, Group] = {}
        self.events: list[Event] = []

    def tell(self, name: str, transition: str, time: int) -> None:
        group = self.groups[name]
        self.events.append((name, transition, time, group.onset, *group.counts()))

    def end_delay(self, name: str, clock: int) -> None:
        group = self.groups[name]
        if group.phase not in ("rising", "falling") or group.unknown_since is not None or group.end > clock:
            return
        if group.phase == "rising":
            group.phase, group.onset = "active", group.since
            self.tell(name, "raised", group.end)
        else:
            group.phase = "idle"
            self.tell(name, "cleared", group.end)

    def tick(self, now: int) -> None:
        for name, group in self.groups.items():
            self.end_delay(name, group.newest[0] + now - group.newest[1] - self.grace)

    def reading(self, name: str, member: str, time: int, ingest: int, truth: bool | None) -> None:
        group = self.groups.setdefault(name, Group())
        if time >= group.newest[0]:
            group.newest = (time, ingest)
        now = group.newest[0]
        self.end_delay(name, now)
        group.members[member] = truth
        count, total = group.counts()
        holds = self.when(count, total, count / total if total else None)
        if group.phase == "idle" and holds:
            group.since, group.end, group.unknown_since = now, now + self.on_delay, None
            group.phase = "rising"
            if not self.on_delay:
                group.phase, group.onset = "active", now
                self.tell(name, "raised", now)
        elif group.phase == "active" and holds is False:
            group.end, group.unknown_since = now + self.off_delay, None
            group.phase = "falling"
            if not self.off_delay:
                group.phase = "idle"
                self.tell(name, "cleared", now)
        elif group.phase in ("rising", "falling"):
            ends = holds is (group.phase == "falling")
            if ends:
                group.phase = "idle" if group.phase == "rising" else "active"
            elif holds is None:
                group.unknown_since = now if group.unknown_since is None else group.unknown_since
            elif group.unknown_since is not None:
                group.end += now - group.unknown_since
                group.unknown_since = None
