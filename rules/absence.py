"""Rules of type absence: readings of a device, or of one metric of it, that should have come.

A device of devices.csv that is in service and was never heard is waited for from the journal's first
entry on, or from the plant's change that brought it; afterwards each device's clock begins with its
newest live reading. While its source is not connected the clock stands still; that of a device
that was never heard does while any source is not connected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from operators.batch import HISTORICAL, IN_ORDER, QUALITY_NAMES, Int32, Int64, ReadingBatch, Slice, Ticks
from operators.growing import grown
from operators.spec import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from rules import absence_kernels as k
from rules.alarm import AlarmRule, Evidence
from rules.check import scope_of
from rules.context import Context
from rules.device_facts import DeviceFacts
from rules.gate import Gate
from rules.last_frame import LastFrame
from rules.place import BY_TICK, GRACE_NS, RAISED, Place, Transition
from rules.spec import AbsenceRule, RuleProduct
from rules.tables import rule_key

_EVENTS_AT_ONCE: Final = 1024
_NEVER_HEARD: Final = 1 << 31  # slots of devices that were never heard: behind all others
_BY_DEVICE: Final[dict[str, tuple[tuple[int, ...], Any, Any]]] = {
    "in_service": ((), np.uint8, 1),
    "device_source": ((), np.int32, -1),
    "paused_ns": ((), np.int64, k.NEVER),
    "last": ((3,), np.int64, 0),
}
_BY_RULE: Final[dict[str, tuple[Any, Any]]] = {
    "phase": (np.uint8, k.OFF),
    "since": (np.int64, 0),
    "due": (np.int64, 0),
    "due_tick": (np.int64, 0),
    "shown": (np.float64, math.nan),
    "shown_quality": (np.uint8, 3),
}


def expression_of(rule: AbsenceRule) -> str:
    """The rule as evidence shows it: `no tempC for 1m`."""
    return f"no {rule.of or 'reading'} for {_duration(rule.for_)}"


def _duration(ns: int) -> str:
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if ns % size == 0:
            return f"{ns // size}{unit}"
    return f"{ns / MILLISECOND:g}ms"


class AbsenceRules:
    """The evaluator of absence rules (`rules.place.Evaluator`)."""

    own_rules: Sequence[AlarmRule] = ()

    def __init__(self, context: Context) -> None:
        spec, alarms, samples = context.spec, context.alarms, context.samples
        facts = DeviceFacts(context)
        self.frames = LastFrame()
        self.sources: dict[str, int] = {}  # name -> number
        self.connected = np.ones(64, np.uint8)
        self.told: set[int] = set()  # sources that ever said whether they are connected
        self.products: dict[str, _Product] = {}
        for name, product in spec.products.items():
            rules = [rule for rule in spec.rules if isinstance(rule, AbsenceRule) and name in rule.products]
            if rules:
                self.products[name] = _Product(product, rules, alarms, facts, samples)

    def run(self, item: Slice) -> list[Transition]:
        if not self.products:
            return []
        found: list[Transition] = []
        began = self.frames.begin(item)
        control = item.control
        if control is not None:
            found += self._control(item, control.kind, control.at_ns, control.data.get("source", ""))
        if began:
            for product in self.products.values():
                product.arm(control.at_ns if control is not None else began, self._all_connected())
        if control is not None:
            return found
        lasts, places = self.frames.ticks(item), LastFrame.places(item)
        batches = {batch.productId: batch for batch in item.readings}
        for name, product in self.products.items():
            batch = batches.get(name)
            if batch is not None and len(batch):
                live = (batch.flags & np.uint8(IN_ORDER | HISTORICAL)) == IN_ORDER
                batch = batch if live.all() else batch.take(live)
            if batch is not None and len(batch):
                numbers = np.array([self._number(source) for source in item.sources], np.int32)
                found += product.run(batch, numbers[batch.source], self.connected, lasts, places)
            else:
                found += product.tick(item.frames.ticks.ns, self.connected, lasts, places)
        return found

    def _number(self, source: str) -> int:
        number = self.sources.setdefault(source, len(self.sources))
        self.connected = grown(self.connected, number + 1, 1)
        return number

    def _all_connected(self) -> bool:
        return all(self.connected[number] for number in self.told)

    def _control(self, item: Slice, kind: str, at_ns: int, source: str) -> list[Transition]:
        """A source comes or goes, or the engine does: what is over until then is found, then clocks
        stop or go on."""
        if kind not in ("connected", "disconnected", "started", "stopped"):
            return []
        # while no journal ran nobody was connected: it ended when it was last heard of
        stop_ns = self.frames.clock_ns if kind in ("started", "stopped") and self.frames.clock_ns else at_ns
        tick = np.array([stop_ns], np.int64)
        position = max(item.position - 1, 0)
        lasts = np.array([[position, self.frames.ingest_ns or self.frames.first_ns]], np.int64)
        places = np.array([item.position << 16], np.int64)
        found: list[Transition] = []
        for product in self.products.values():
            found += product.tick(tick, self.connected, lasts, places)
        if kind in ("connected", "disconnected"):
            number = self._number(source)
            self.told.add(number)
            self.connected[number] = kind == "connected"
        else:
            self.connected[sorted(self.told)] = 0
        for product in self.products.values():
            product.connections(self.connected, self._all_connected(), stop_ns)
        return found

    def can_refresh(self) -> bool:
        """Whether a device that comes to can be waited for without an `apply`."""
        return all(product.armed for product in self.products.values())

    def look_again(self, device: str, row: Mapping[str, str]) -> None:
        """Master data of a device have changed, or have it now: it is waited for."""
        product = self.products.get(row.get("productId", ""))
        if product is not None:
            product.await_device(device, self.frames.clock_ns, self._all_connected())

    def settle(self, item: Slice) -> None:
        self.frames.settle(item)

    def counters(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for product in self.products.values():
            for rule in product.rules:
                found[rule.ruleId] = found.get(rule.ruleId, 0) + product.evaluations
        return found

    def export(self) -> dict[str, Any]:
        return {
            "frames": self.frames.export(),
            "sources": list(self.sources),
            "connected": self.connected[: len(self.sources)],
            "told": sorted(self.told),
            "products": {name: product.export() for name, product in self.products.items()},
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        self.frames.load(kept["frames"])
        self.sources = {name: number for number, name in enumerate(kept["sources"])}
        self.connected = grown(np.array(kept["connected"]), 64, 1)
        self.told = set(kept["told"])
        for name, product in self.products.items():
            if name in kept["products"]:
                product.load(kept["products"][name], self.frames.clock_ns, self._all_connected())


class _Product:
    """The absence rules of one product, and its devices: those of devices.csv, then others as they come."""

    def __init__(
        self,
        product: RuleProduct,
        rules: Sequence[AbsenceRule],
        alarms: Mapping[tuple[str, str], AlarmRule],
        facts: DeviceFacts,
        samples: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.product, self.productId = product, product.productId
        self.facts, self.rules = facts, list(rules)
        self.alarms = [alarms[rule.ruleId, rule.of or ""] for rule in rules]
        self.expressions = [expression_of(rule) for rule in rules]
        metrics = list(product.metrics)
        self.of = np.array([metrics.index(rule.of) if rule.of else -1 for rule in rules], np.int32)
        self.types = [product.metrics[rule.of] if rule.of else "number" for rule in rules]
        self.wait = np.array([rule.for_ for rule in rules], np.int64)
        scope = scope_of(product, {name for row in samples.values() for name in row}, samples)
        self.gates = [Gate(rule, product.productId, scope, facts) for rule in rules]
        listed = [
            name for name, row in facts.spec.attributes.items() if row.get("productId") == product.productId
        ]
        self.names: list[str] = []  # of the devices, by row of the state
        self.rows: dict[str, int] = {}
        self.of_slot: Int32 = np.full(64, -1, np.int32)
        self.next_tick: Int64 = np.full(len(rules), k.NEVER, np.int64)
        self.armed = False  # whether devices that were never heard are waited for
        self.muted: set[tuple[int, int]] = set()
        self.texts: dict[int, str] = {}
        self.evaluations = 0
        self.state: dict[str, Any] = {}
        for name in listed:
            self._add(name)
        self.listed = len(listed)
        self._events()

    def _events(self) -> None:
        room = _EVENTS_AT_ONCE + 2 * len(self.rules)
        self.events = np.zeros((room, k.EVENT_COLUMNS), np.int64)
        self.values = np.zeros(room)

    def _add(self, name: str) -> int:
        row = self.rows[name] = len(self.names)
        self.names.append(name)
        capacity = len(self.state["in_service"]) if self.state else 0
        if row >= capacity:
            capacity = max(64, row + row // 2)
            shapes = {
                **_BY_DEVICE,
                **{key: ((len(self.rules),), *rest) for key, rest in _BY_RULE.items()},
            }
            for key, (shape, dtype, fill) in shapes.items():
                self.state[key] = grown(self.state.get(key, np.empty((0, *shape), dtype)), capacity, fill)
        self.state["in_service"][row] = self.facts.in_service(name)
        return row

    def _local(self, device: Int32) -> Int32:
        """Rows of the state of these slots."""
        self.of_slot = grown(self.of_slot, int(device.max()) + 1, -1)
        if (self.of_slot[device] < 0).any():
            for slot in dict.fromkeys(device[self.of_slot[device] < 0].tolist()):
                name = self.facts.devices.names[slot]
                self.of_slot[slot] = self.rows[name] if name in self.rows else self._add(name)
        return self.of_slot[device]

    # -- clocks

    def arm(self, now_ns: int, connected: bool) -> None:
        """Wait from now on for devices that were never heard, once."""
        if not self.armed:
            self.armed = True
            for row in range(self.listed):
                for rule in range(len(self.rules)):
                    self._wait(row, rule, now_ns, connected)

    def await_device(self, name: str, now_ns: int, connected: bool) -> None:
        """A device of the plant, maybe a new one."""
        row = self.rows[name] if name in self.rows else self._add(name)
        for rule in range(len(self.rules)):
            self._wait(row, rule, now_ns, connected)

    def _wait(self, row: int, rule: int, now_ns: int, connected: bool) -> None:
        """The clock of one rule of one device begins now, if it does not run."""
        state = self.state
        if not state["in_service"][row] or state["phase"][row, rule] != k.OFF:
            return
        heard = state["device_source"][row] >= 0
        clock = int(state["last"][row, 2]) + now_ns - int(state["last"][row, 1]) if heard else now_ns
        state["phase"][row, rule] = k.WAITING
        state["since"][row, rule], state["due"][row, rule] = clock, clock + self.wait[rule]
        state["due_tick"][row, rule] = now_ns + self.wait[rule] + GRACE_NS
        if not heard and not connected and state["paused_ns"][row] == k.NEVER:
            state["paused_ns"][row] = now_ns
        self.next_tick[rule] = min(self.next_tick[rule], state["due_tick"][row, rule])

    def connections(self, connected: Any, all_connected: bool, now_ns: int) -> None:
        """Stop the clocks of devices whose source has gone, and let those go on whose is there."""
        count, state = len(self.names), self.state
        source, paused = state["device_source"][:count], state["paused_ns"][:count]
        there = np.where(source >= 0, connected[np.maximum(source, 0)] != 0, all_connected)
        back = there & (paused != k.NEVER)
        shift = np.where(back, np.maximum(now_ns - paused, 0), 0)[:, None]
        waits = state["phase"][:count] == k.WAITING
        state["due"][:count] += np.where(waits, shift, 0)
        state["due_tick"][:count] += np.where(waits, shift, 0)
        paused[back] = k.NEVER
        paused[~there & (paused == k.NEVER)] = now_ns
        self._look_ahead()

    def _look_ahead(self) -> None:
        """When the first clock is over."""
        count, state = len(self.names), self.state
        runs = (state["phase"][:count] == k.WAITING) & (state["paused_ns"][:count] == k.NEVER)[:, None]
        self.next_tick[:] = np.where(runs, state["due_tick"][:count], k.NEVER).min(axis=0, initial=k.NEVER)

    # -- a slice

    def tick(self, ns: Int64, connected: Any, lasts: Int64, places: Int64) -> list[Transition]:
        """Ticks alone."""
        if not len(ns) or ns[-1] < self.next_tick.min():
            return []
        return self._walk(None, Ticks(np.zeros(len(ns), np.int64), ns), connected, lasts, places)

    def run(
        self, batch: ReadingBatch, source: Int32, connected: Any, lasts: Int64, places: Int64
    ) -> list[Transition]:
        """Live readings and ticks; source: int32[N] into `connected`."""
        self.evaluations += len(batch)
        for rule, of in enumerate(self.of.tolist()):
            if of >= 0 and self.types[rule] == "string":
                self.texts.update(batch.texts)
        return self._walk((batch, source), batch.ticks, connected, lasts, places)

    def _walk(
        self,
        rows: tuple[ReadingBatch, Int32] | None,
        ticks: Ticks,
        connected: Any,
        lasts: Int64,
        places: Int64,
    ) -> list[Transition]:
        none = np.empty(0, np.int64)
        if rows is None:
            local, source = np.empty(0, np.int32), np.empty(0, np.int32)
            ts_ns = ingest_ns = position = none
            flags, value, quality = np.empty(0, np.uint8), np.empty((0, 0)), np.empty((0, 0), np.uint8)
        else:
            batch, source = rows
            local, ts_ns, ingest_ns, flags = (
                self._local(batch.device),
                batch.ts_ns,
                batch.ingest_ns,
                batch.flags,
            )
            position = (batch.seq >> np.uint64(16)).astype(np.int64)
            value, quality = np.ascontiguousarray(batch.value), np.ascontiguousarray(batch.quality)
        found: list[Transition] = []
        resume = np.zeros(2, np.int64)
        while resume[0] >= 0:
            state = [self.state[name] for name in (*_BY_DEVICE, *_BY_RULE)]
            rest: tuple[Any, ...] = (*state, self.next_tick, self.events, self.values, resume)
            count = k.walk_absence(
                self.of,
                self.wait,
                GRACE_NS,
                local,
                ts_ns,
                ingest_ns,
                position,
                flags,
                source,
                value,
                quality,
                ticks.row,
                ticks.ns,
                lasts,
                connected,
                len(self.names),
                *rest,
            )
            for line, value_ in zip(self.events[:count].tolist(), self.values[:count].tolist(), strict=True):
                made = self._transition(line, value_, rows, places)
                if made is not None:
                    found.append(made)
        return found

    def _transition(
        self, line: list[int], value: float, rows: tuple[ReadingBatch, Int32] | None, places: Int64
    ) -> Transition | None:
        kind, rule, row, time_ns, onset_ns, at, by, due_tick, position, ingest, quality, heard = line
        name, alarm = self.names[row], self.alarms[rule]
        of = self.rules[rule].of
        values = {} if of is None else {of: self._plain(rule, value)}
        if kind == RAISED and not self.gates[rule].opens(name, time_ns, values, unheard=not heard):
            self.muted.add((rule, row))
            return None
        if kind != RAISED and (rule, row) in self.muted:
            self.muted.discard((rule, row))
            return None
        slot = self.facts.devices.slots[name] if heard else -1
        told = QUALITY_NAMES[quality] if of is not None else "absent" if kind == RAISED else "good"
        assert rows is not None or by == BY_TICK
        place = Place(
            int(places[at]) if rows is None or by == BY_TICK else int(rows[0].seq[at]),
            by,
            -(-due_tick // SECOND) if by == BY_TICK else 0,
            0 if kind != RAISED else time_ns,
            slot if heard else _NEVER_HEARD + row,
            alarm.rank,
        )
        return Transition(
            place,
            self.facts.subject(alarm, name, self.productId, slot=slot, unheard=not heard, at_ns=time_ns),
            kind,
            time_ns,
            onset_ns,
            Evidence(self.expressions[rule], values, told, position, ingest),
            self.facts.lookup(name, self.productId, values, unheard=not heard, at_ns=time_ns),
        )

    def _plain(self, rule: int, value: float) -> float | int | bool | str | None:
        if math.isnan(value):
            return None
        kind = self.types[rule]
        if kind == "string":
            return self.texts.get(int(value))
        if kind == "boolean":
            return value != 0.0
        return int(value) if kind == "integer" else value

    # -- state

    def _keys(self) -> list[str]:
        return [
            "\x1f".join((rule_key(rule, self.product, self.facts.spec.timezone), kind))
            for rule, kind in zip(self.rules, self.types, strict=True)
        ]

    def export(self) -> dict[str, Any]:
        count = len(self.names)
        shown = self.state["shown"][:count, [kind == "string" for kind in self.types]]
        codes = {int(code) for code in shown[~np.isnan(shown)]}
        self.texts = {code: text for code, text in self.texts.items() if code in codes}
        return {
            "rules": self._keys(),
            "names": list(self.names),
            "state": {name: array[:count] for name, array in self.state.items()},
            "texts": self.texts,
            "muted": sorted(list(pair) for pair in self.muted),
            "armed": self.armed,
            "evaluations": self.evaluations,
        }

    def load(self, kept: Mapping[str, Any], now_ns: int, connected: bool) -> None:
        """Take over; devices and rules that are new are waited for from now on, as are devices that
        are in service again."""
        then_of = {name: row for row, name in enumerate(kept["names"])}
        for name in kept["names"]:
            if name not in self.rows and not self.facts.spec.attributes.get(name, {}).get("productId"):
                self._add(name)
        here = [row for row, name in enumerate(self.names) if name in then_of]
        there = [then_of[self.names[row]] for row in here]
        for key in ("device_source", "paused_ns", "last"):
            self.state[key][here] = kept["state"][key][there]
        moved: dict[int, int] = {}
        for at, key in enumerate(self._keys()):
            if key in kept["rules"]:
                then = kept["rules"].index(key)
                moved[then] = at
                for array in _BY_RULE:
                    self.state[array][here, at] = kept["state"][array][there, then]
        phase = self.state["phase"]
        phase[(self.state["in_service"] == 0)[:, None] & (phase == k.WAITING)] = k.OFF
        self.texts = {int(code): text for code, text in kept["texts"].items()}
        self.evaluations = kept["evaluations"]
        self.armed = kept["armed"]
        now_at = dict(zip(there, here, strict=True))
        self.muted = {(moved[r], now_at[d]) for r, d in kept["muted"] if r in moved and d in now_at}
        if self.armed:
            for row in range(self.listed):
                for rule in range(len(self.rules)):
                    self._wait(row, rule, now_ns, connected)
        self._look_ahead()
