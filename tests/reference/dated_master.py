"""Master data as of event time, the plain way: every statement is kept, and looked through at every reading.

A cell of a row at an event time is what the newest statement says of it that counts from then or before.
What is said of a row that is not there counts from always. `run` walks steps of a plant whose only rule is
`tempC > param.tempHigh` where the city is Ulsan, at severity info, in journal order:

    ("tick", at_ms)
    ("telemetry", at_ms, lag_ms, device, tempC)
    ("change", at_ms, [(table, key, cells, from_ms)])     from_ms: None from now on, "" always
    ("plant", at_ms, rows)                                another devices.csv: key -> [(from_ms, cells)]
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

OWN = ("device_id", "productId", "hub_id", "site_id")
LIVE_WITHIN = 15 * 60_000
STEPPED = 3  # readings in turn older than the newest: the clock may count anew, which is not looked at here
ALWAYS = float("-inf")

Said = tuple[float, dict[str, str]]


class Reference:
    def __init__(self, tables: dict[str, dict[str, list[Said]]]) -> None:
        self.said: dict[tuple[str, str], list[Said]] = {}
        self.file = tables["devices"]
        self.waiting: list[tuple[float, str, str, dict[str, str], bool]] = []  # last: whether a file says it
        for table, rows in tables.items():
            for key, versions in rows.items():
                self.say_file(table, key, versions, ALWAYS)
        self.newest: dict[str, int] = {}
        self.older: dict[str, int] = {}  # readings in turn that were older than a device's newest
        self.clock_may_have_stepped = False
        self.active: dict[str, bool] = {}
        self.events: list[tuple[Any, ...]] = []
        self.position = -1

    def say_file(self, table: str, key: str, versions: list[Said], at: float) -> None:
        """All rows of a key: the first from always, each other from its day on, or once that has come."""
        self.said[table, key] = [(ALWAYS, versions[0][1])]
        for (_, before), (since, cells) in pairwise(versions):
            named = [name for name in {**before, **cells} if before.get(name) != cells.get(name)]
            self.say(table, key, {name: cells.get(name, "") for name in named}, since, at, True)

    def say(
        self, table: str, key: str, cells: dict[str, str], since: float, at: float, filed: bool = False
    ) -> None:
        if since > at:
            self.waiting.append((since, table, key, cells, filed))
            self.waiting.sort(key=lambda one: one[0])
            return
        known = self.said.setdefault((table, key), [])
        known.append((since if known else ALWAYS, cells))

    def cell(self, table: str, key: str, name: str, at: float) -> str:
        found = [
            cells[name] for since, cells in self.said.get((table, key), []) if since <= at and name in cells
        ]
        return found[-1] if found else ""

    def attribute(self, device: str, name: str, at: float) -> str:
        site = self.cell("devices", device, "site_id", at)
        own = self.cell("devices", device, name, at)
        if own or name in OWN:
            return own
        if found := self.cell("sites", site, name, at) if site else "":
            return found
        customer = self.cell("devices", device, "customer_id", at)
        customer = customer or (self.cell("sites", site, "customer_id", at) if site else "")
        return self.cell("customers", customer, name, at) if customer else ""

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        for kind, at, *rest in steps:
            if kind == "tick":
                while self.waiting and self.waiting[0][0] <= at:
                    since, table, key, cells, _ = self.waiting.pop(0)
                    self.say(table, key, cells, since, since)
            elif kind == "telemetry":
                self.position += 1
                self.telemetry(at, *rest)
            elif kind == "change":
                self.position += 1
                for table, key, cells, since in rest[0]:
                    self.say(table, key, cells, at if since is None else ALWAYS if since == "" else since, at)
            else:
                self.apply(rest[0], at)

    def apply(self, after: dict[str, list[Said]], at: int) -> None:
        """From the first row that is otherwise on, the cells in which any of the rows differ are what the
        file says; an only row counts from its day."""
        before, self.file = self.file, after
        for key, new in after.items():
            old = before[key]
            if old == new:
                continue
            self.waiting = [one for one in self.waiting if one[1:] != ("devices", key, one[3], True)]
            first = next(i for i in range(99) if old[i : i + 1] != new[i : i + 1])
            if first == 0:
                since = new[0][0] if len(old) == len(new) == 1 else ALWAYS
            else:
                since = min(one[first][0] for one in (old, new) if first < len(one))
            rows = [cells for one in (old, new) for _, cells in one[max(first - 1, 0) :]]
            named = {name for row in rows for name in row if any(one.get(name) != row[name] for one in rows)}
            for day, row in [(since, as_of(new, since)), *(one for one in new if one[0] > since)]:
                self.say("devices", key, {name: row.get(name, "") for name in named}, day, at, True)

    def telemetry(self, at: int, lag: int, device: str, value: float) -> None:
        sent = at - lag
        if sent <= self.newest.get(device, -(10**15)):
            self.older[device] = self.older.get(device, 0) + 1
            self.clock_may_have_stepped |= self.older[device] == STEPPED
            return
        self.newest[device], self.older[device] = sent, 0
        if lag > LIVE_WITHIN:
            return
        high = self.attribute(device, "tempHigh", sent) or "80"
        hot, was = value > float(high), self.active.get(device, False)
        if hot and not was and self.attribute(device, "city", sent) != "Ulsan":
            return
        if hot == was:
            return
        self.active[device] = hot
        asked = [self.attribute(device, name, sent) for name in ("hub_id", "site_id", "customer_id", "tier")]
        for word in ("raised",) if hot else ("cleared", "closed"):
            self.events.append((device, word, sent, *asked, float(high), self.position))


def as_of(rows: list[Said], at: float) -> dict[str, str]:
    """The row of a file that counts at a time; the first for what is before all."""
    return [cells for since, cells in rows if since <= at or cells is rows[0][1]][-1]
