"""The kinds of rules the plain way: when each raises and clears. Part of `plant_oracle`, from FORMATS,
docs/rules.md and docs/alarms.md alone; `plant_oracle_rules` says what becomes of a raise and a clear.

Every evaluator has `subject`, `due` (the moment at which a delay ends, if one runs), `over()` (it has
ended) and `reading(reading, look)`. `look(kind, name)` answers for metrics (held ones included),
parameters, columns and functions over the past."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.reference.plant_oracle_expressions import Tree, metrics_of, moved, text_of, value_of
from tests.reference.plant_oracle_rules import GRACE, UNSAID, Book, Evidence, Place, Subject, in_schedule

WORST = {"good": 0, "uncertain": 1, "bad": 2, "absent": 3}
Look = Callable[[str, str], Any]


def both(*parts: bool | None) -> bool | None:
    """`and` of three truth values."""
    return False if False in parts else None if None in parts else True


class Delays:
    """Raised and cleared from what raises and what clears at each reading, with on_delay and off_delay."""

    def __init__(self, book: Book, subject: Subject) -> None:
        self.book, self.subject = book, subject
        self.state = "idle"
        self.since = self.paused = 0
        self.paused_at: int | None = None

    @property
    def due(self) -> int | None:
        if self.state not in ("rising", "falling") or self.paused_at is not None:
            return None
        delay = self.subject.rule.get("on_delay" if self.state == "rising" else "off_delay", 0)
        return int(self.since + delay + self.paused)

    def stepped(self) -> None:
        """The device's clock was stepped back."""
        self.paused_at, self.paused = None, 0
        self.state = {"rising": "idle", "falling": "active"}.get(self.state, self.state)

    def apply(
        self, ts: int, raises: bool | None, clears: bool | None, place: Place, evidence: Evidence
    ) -> None:
        if self.state in ("idle", "rising"):
            start, delay, waiting, rest = raises, "on_delay", "rising", "idle"
        else:
            start, delay, waiting, rest = clears, "off_delay", "falling", "active"
        if self.state == waiting:
            if start is None:
                self.paused_at = ts if self.paused_at is None else self.paused_at
                return
            if self.paused_at is not None:
                self.paused += ts - self.paused_at
                self.paused_at = None
            if start is False:
                self.state = rest
        elif start is True:
            self.state, self.since, self.paused, self.paused_at = waiting, ts, 0, None
            if not self.subject.rule.get(delay):
                self.over(place, evidence)

    def over(self, place: Place, evidence: Evidence) -> None:
        due = self.due
        assert due is not None
        if self.state == "rising":
            self.state = "active"
            self.book.raise_(self.subject, place, due, self.since, evidence)
        else:
            self.state = "idle"
            self.book.clear(self.subject, place, due, evidence)


class Evaluator:
    """What is common to the rules of one device. shown: metrics of the evidence."""

    def __init__(self, book: Book, device: Any, subject: Subject, shown: list[str], text: Any) -> None:
        self.book, self.device, self.subject = book, device, subject
        self.rule = subject.rule
        self.shown = list(dict.fromkeys(shown))
        self.text = text
        self.metrics = set(self.shown)
        self.evidence = Evidence({}, "absent", {})
        self.due: int | None = None

    def trees(self) -> list[Tree]:
        """Expressions whose functions over the past are kept."""
        return []

    def see(self, reading: Any, look: Look) -> None:
        """What an event that rests on this reading shows."""
        device = self.device
        values = {name: look("metric", name) for name in self.shown}
        qualities = [
            "absent"
            if name not in device.held
            else device.held[name][2]
            if values[name] is not None or device.held[name][2] == "bad"
            else "absent"
            for name in self.shown
        ]
        quality = max(qualities, key=WORST.__getitem__) if qualities else UNSAID
        temp, high = look("metric", "temp"), look("param", "high")
        said = self.said() | {
            "metrics.temp": plain(temp),
            "temp:.1f": "unknown" if temp is None else f"{temp:.1f}",
            "param.high": plain(high),
        }
        self.evidence = Evidence(values, quality, said)

    def said(self) -> dict[str, Any]:
        return {
            "device_id": self.device.name,
            "ruleId": self.rule["ruleId"],
            "condition": self.text,
            "site_id": self.device.row.get("site_id") or "unknown",
        }

    def allowed(self, time: int, look: Look) -> bool | None:
        """`where` and the schedule."""
        where = value_of(self.rule["where"], look) if "where" in self.rule else True
        return both(where, in_schedule(self.rule.get("schedule"), time))

    def stepped(self, reading: Any) -> None:
        """The device's clock was stepped back, at this reading."""

    def over(self, place: Place) -> None:
        raise NotImplementedError

    def reading(self, reading: Any, look: Look) -> None:
        raise NotImplementedError


class Threshold(Evaluator):
    """A condition, or one limit of a limit rule."""

    def __init__(self, book: Book, device: Any, subject: Subject, condition: Tree) -> None:
        text = text_of(condition)
        if subject.rule.get("type") == "limit":
            limit = condition[3]
            written = plain(limit[1]) if limit[0] == "num" else text_of(limit)
            text = f"{text_of(condition[2])} {condition[1]} {written}"
        super().__init__(book, device, subject, list(metrics_of(condition)), text)
        self.condition = condition
        self.clear: Tree = self.rule.get("clear_condition") or (
            "not",
            moved(condition, self.rule.get("deadband", 0.0)),
        )
        self.metrics = {*self.shown, *metrics_of(self.clear), *metrics_of(self.rule.get("where", ()))}
        self.delays = Delays(book, subject)

    def trees(self) -> list[Tree]:
        return [self.condition, self.clear, self.rule.get("where", ("num", 0.0))]

    @property
    def due(self) -> int | None:
        return self.delays.due

    @due.setter
    def due(self, value: int | None) -> None:
        pass

    def stepped(self, reading: Any) -> None:
        self.delays.stepped()

    def over(self, place: Place) -> None:
        now = {"param.high": plain(self.device.param("high"))}
        self.delays.over(place, self.evidence._replace(said=self.evidence.said | now))

    def reading(self, reading: Any, look: Look) -> None:
        if not self.metrics & reading.values.keys():
            return
        raises = both(value_of(self.condition, look), self.allowed(reading.ts, look))
        clears = value_of(self.clear, look)
        self.delays.apply(reading.ts, raises, clears, self.device.last, self.evidence)


class Absence(Evaluator):
    """No reading (or none with `of`) for so long."""

    def __init__(self, book: Book, device: Any, subject: Subject) -> None:
        of = subject.rule.get("of")
        super().__init__(book, device, subject, [], UNSAID)
        self.of = of
        self.heard = False
        self.onset = 0
        self.end: int | None = None
        self.paused_at: int | None = None  # of the journal's clock
        self.state = "waiting"  # missing: raised, or kept from it

    @property
    def due(self) -> int | None:
        return self.end if self.paused_at is None else None

    @due.setter
    def due(self, value: int | None) -> None:
        pass

    def connection(self, away: set[str], now: int) -> None:
        """A source was connected or disconnected; its clock stands still while the device's is away (of
        one never heard: any)."""
        stands = bool(away) if not self.heard else self.device.source in away
        if stands and self.paused_at is None:
            ts, ingest = self.device.live if self.heard else (now, now)
            if self.end is None or ts + now - ingest < self.end + GRACE:  # else a tick would find it
                self.paused_at = now
        elif not stands and self.paused_at is not None:
            self.end = None if self.end is None else self.end + now - self.paused_at
            self.paused_at = None

    def in_service(self) -> bool:
        return (self.device.row.get("status") or "in_service") == "in_service"

    def wait_from(self, onset: int) -> None:
        """Waits, from a moment of the device's clock (heard) or of the journal's."""
        self.onset = onset
        if self.state == "waiting" and self.in_service():
            self.end, self.paused_at = onset + self.rule["for"], None

    def stepped(self, reading: Any) -> None:
        if self.heard:
            self.wait_from(reading.ts)

    def see(self, reading: Any, look: Look) -> None:
        super().see(reading, look)
        self.evidence = self.evidence._replace(values=UNSAID, quality=UNSAID)

    def over(self, place: Place) -> None:
        due, self.end = self.end, None
        assert due is not None
        self.state = "missing"
        evidence = self.evidence
        if not self.heard:
            evidence = Evidence(UNSAID, UNSAID, self.said())
        look = self.device.look_now
        if self.allowed(due, look) is True:
            self.book.raise_(self.subject, place, due, self.onset, evidence)

    def reading(self, reading: Any, look: Look) -> None:
        if self.of is not None:
            _, quality = reading.values.get(self.of, (None, "absent"))
            if quality not in ("good", "uncertain"):
                if not self.heard and self.state == "waiting":
                    self.wait_from(reading.ts)
                self.heard = True
                return
        self.heard = True
        if self.state == "missing":
            self.state = "waiting"
            if self.subject.active:
                self.book.clear(self.subject, self.device.last, reading.ts, self.evidence)
        self.wait_from(reading.ts)


class Sequence(Evaluator):
    """Steps one after the other."""

    def __init__(self, book: Book, device: Any, subject: Subject) -> None:
        self.steps = subject.rule["steps"]
        clear = subject.rule.get("clear_condition")
        conditions = [*(step["condition"] for step in self.steps), *([clear] if clear else [])]
        shown = [name for tree in conditions for name in metrics_of(tree)]
        super().__init__(book, device, subject, shown, UNSAID)
        last = self.steps[-1]
        self.clear: Tree = clear or (last["condition"] if last.get("not") else ("not", last["condition"]))
        self.metrics = {*self.shown, *metrics_of(self.clear)}
        self.complete = False  # raised, or kept from it, and not cleared yet
        self.begin()

    def begin(self) -> None:
        self.met: list[tuple[int, int] | None] = [None] * len(self.steps)  # start and end of the match
        self.waits: dict[int, tuple[int, int]] = {}  # of not steps: start of the match, since when
        self.paused: dict[int, int] = {}
        self.paused_at: dict[int, int | None] = {}

    def trees(self) -> list[Tree]:
        return [*(step["condition"] for step in self.steps), self.clear]

    def _ends(self) -> list[tuple[int, int]]:
        return [
            (since + self.steps[i]["within"] + self.paused[i], i)
            for i, (_, since) in self.waits.items()
            if self.paused_at[i] is None
        ]

    @property
    def due(self) -> int | None:
        return min(self._ends())[0] if self._ends() else None

    @due.setter
    def due(self, value: int | None) -> None:
        pass

    def stepped(self, reading: Any) -> None:
        self.begin()

    def over(self, place: Place) -> None:
        due, i = min(self._ends())
        start, _ = self.waits.pop(i)
        self.meet(i, start, due, place)

    def meet(self, i: int, start: int, at: int, place: Place) -> bool:
        """Step i is met; whether this raised."""
        if i + 1 < len(self.steps):
            self.met[i] = (start, at)
            return False
        self.begin()
        if self.complete:
            return False
        self.complete = True
        if self.allowed(at, self.device.look_now) is True:
            self.book.raise_(self.subject, place, at, start, self.evidence)
        return True

    def reading(self, reading: Any, look: Look) -> None:
        if not self.metrics & reading.values.keys():
            return
        ts = reading.ts
        was_complete = self.complete
        holds = [value_of(step["condition"], look) for step in self.steps]
        for i in range(len(self.steps) - 1, -1, -1):
            step = self.steps[i]
            if step.get("not"):
                self.look_at_wait(i, holds[i], ts)
                continue
            if holds[i] is not True:
                continue
            before = (ts, ts) if i == 0 else self.met[i - 1]
            if before is None or (i and "within" in step and ts - before[1] > step["within"]):
                continue
            if i + 1 == len(self.steps):
                self.meet(i, before[0], ts, self.device.last)
                continue
            self.met[i] = (before[0], ts)
            if self.steps[i + 1].get("not") and i + 1 not in self.waits and holds[i + 1] is not True:
                self.waits[i + 1] = (before[0], ts)
                self.paused[i + 1] = 0
                self.paused_at[i + 1] = ts if holds[i + 1] is None else None
        if was_complete and value_of(self.clear, look) is True:
            self.complete = False
            if self.subject.active:
                self.book.clear(self.subject, self.device.last, ts, self.evidence)

    def look_at_wait(self, i: int, holds: bool | None, ts: int) -> None:
        if i not in self.waits:
            return
        if holds is True:
            del self.waits[i]
        elif holds is None:
            self.paused_at[i] = ts if self.paused_at[i] is None else self.paused_at[i]
        else:
            stopped = self.paused_at[i]
            self.paused[i] += 0 if stopped is None else ts - stopped
            self.paused_at[i] = None


class DeviceClock(Evaluator):
    """The alarm of every plant: a stepped clock, or half of the newest 31 readings beyond `live_within`."""

    def __init__(self, book: Book, device: Any, subject: Subject, live_within: int) -> None:
        super().__init__(book, device, subject, [], UNSAID)
        self.live_within = live_within
        self.lags: deque[int] = deque(maxlen=31)
        self.first = (0, 0)

    def in_order(self, reading: Any) -> None:
        """Any reading in order, historical or not."""
        place = Place(reading.position, reading.ingest)
        evidence = Evidence(UNSAID, UNSAID, self.said() | {"condition": UNSAID})
        lag = reading.ingest - reading.ts
        if reading.rebased:
            self.lags.clear()
        if lag > self.live_within and not any(one > self.live_within for one in self.lags):
            self.first = (reading.ts, reading.ingest)
        self.lags.append(lag)
        wrong = median([*self.lags, *([0] * (31 - len(self.lags)))]) > self.live_within
        backlog = reading.ts - self.first[0] > 2 * (reading.ingest - self.first[1])
        active = self.subject.active
        if reading.rebased or (wrong and lag > self.live_within and not backlog):
            if not active:
                onset = reading.ts if reading.rebased else self.first[0]
                self.book.raise_(self.subject, place, reading.ts, onset, evidence)
        elif active and lag <= self.live_within and not wrong:
            self.book.clear(self.subject, place, reading.ts, evidence)


class Group:
    """One group of a group rule."""

    def __init__(self, book: Book, subject: Subject, key: str) -> None:
        self.book, self.subject, self.key = book, subject, key
        self.rule, self.rank = subject.rule, 0
        condition = self.rule["condition"]
        self.metrics = set(metrics_of(condition))
        self.holds: dict[str, bool | None] = {}  # of each member that was heard
        self.newest = (-(1 << 62), 0)  # event and ingest time of the newest reading
        self.delays = Delays(book, subject)
        self.evidence = Evidence({}, "absent", {})
        self.said = {
            "ruleId": self.rule["ruleId"],
            "condition": UNSAID,
            "device_id": UNSAID,
            "site_id": UNSAID,
        }
        self.said |= {"metrics.temp": UNSAID, "temp:.1f": UNSAID, "param.high": UNSAID}

    @property
    def due(self) -> int | None:
        return self.delays.due

    def over(self, place: Place) -> None:
        self.delays.over(place, self.evidence)

    def reading(self, reading: Any, look: Look) -> None:
        """A member's reading, which carries one of the metrics."""
        where = value_of(self.rule["where"], look) if "where" in self.rule else True
        self.holds.pop(reading.device.name, None)
        if where is True:
            self.holds[reading.device.name] = value_of(self.rule["condition"], look)
        if reading.ts >= self.newest[0]:
            self.newest = (reading.ts, reading.ingest)
        known = [one for one in self.holds.values() if one is not None]
        figures = {"count": float(sum(known)), "total": float(len(known))}
        figures["share"] = figures["count"] / len(known) if known else math.nan

        def figure(kind: str, name: str) -> Any:
            return None if math.isnan(figures[name]) else figures[name]

        holds = value_of(self.rule["when"], figure)
        raises = both(holds, in_schedule(self.rule.get("schedule"), self.newest[0]))
        clears = None if holds is None else not holds
        values = {name: figure("metric", name) for name in figures}
        self.evidence = Evidence(values, UNSAID, self.said)
        place = Place(reading.position, reading.ingest)
        self.delays.apply(self.newest[0], raises, clears, place, self.evidence)


def plain(value: Any) -> str:
    """A number in a message: a whole one has no fraction."""
    return "unknown" if value is None else str(int(value)) if value == int(value) else repr(value)
