"""The rules of one product: their program, their state by device, one batch at a time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.attributes import Attributes, DatedColumns
from operators.batch import (
    Bytes,
    Float64,
    Int32,
    Int64,
    ReadingBatch,
    Slice,
    Ticks,
)
from operators.devices import Devices
from operators.expression.kernels import UNKNOWN
from operators.expression.machine import Machine
from operators.expression.registers import Column
from operators.growing import grown
from operators.parameters import Parameters
from operators.slots import look_up
from operators.text import text_code
from rules import held_kernels as held
from rules import kernels as k
from rules.alarm import Subject
from rules.check import number_of, samples_of
from rules.delays import Delays
from rules.place import GRACE_NS, BatchPlaces
from rules.spec import RuleProduct
from rules.tables import Part, compile_rules, rule_key
from rules.transitions import Transitions

_EVENTS_AT_ONCE = 4096
_TEXTS_AT_MOST = 1 << 16
_SAMPLED_EVERY, _SAMPLED_SMALL = 64, 4096  # batches; readings times rules


_Facts = tuple[Any, ...]
"""What `rules.alarm.Subject` says of a device, the rule aside."""

_FALSE = np.uint8(2)
_NO_ROWS = np.zeros(0, np.int32)
_SUBJECTS_AT_MOST = 100_000  # facts of subjects kept at hand, a product
_BY_DEVICE = ("held_value", "held_quality", "held_ns", "last")


class ProductRules:
    """Evaluates a product's rules over its batches, in journal order."""

    def __init__(
        self,
        product: RuleProduct,
        parts: Sequence[Part],
        attributes: Attributes,
        devices: Devices,
        samples: Mapping[str, Mapping[str, str]] | None = None,
        parameters: Parameters | None = None,
        timezone: str = "UTC",
    ) -> None:
        """parts: the alarms of the rules that are conditions; attributes: of devices, as of event time;
        samples: `check.samples_of` their rows; parameters: what operators have set (`refresh` tells that
        it has changed)."""
        self.product = product
        self.parameters = Parameters() if parameters is None else parameters
        self.parts = tuple(parts)
        self.keys = [f"{part.alarm.part}\x1f{rule_key(part.rule, product, timezone)}" for part in parts]
        self.attributes = attributes
        self.dated = DatedColumns(attributes)
        self.devices = devices
        samples = samples_of(attributes.tables["devices"]) if samples is None else samples
        compiled = compile_rules(product, parts, samples, timezone)
        self.tables = compiled.tables
        self.gates = compiled.gates
        rows = self.tables.condition_row.tolist()
        self.looked_at = np.array([row if row >= 0 else self.gates[-row - 1].row for row in rows], np.int64)
        self.metrics = compiled.metrics
        self.types = tuple(product.metrics[name] for name in self.metrics)
        self.used = compiled.used
        self.evidence_of = [[(self.metrics[j], j) for j in used] for used in compiled.evidence_of]
        self.other_columns = compiled.program.columns[len(product.metrics) :]
        self.machine = Machine(compiled.program)
        self.local = np.full(0, -1, np.int32)  # slot -> index in the product
        self.slots = array("i")  # index in the product -> slot
        self.described = 0  # devices whose parameters and attributes stand in state["inputs"]
        self.capacity = 0
        self.state: dict[str, npt.NDArray[Any]] = {}
        self.texts: dict[int, str] = {}
        self.subjects: dict[tuple[int, int], Subject] = {}  # alarm, device: facts, once they were needed
        self.facts: dict[int, _Facts] = {}  # of devices that have such
        self.looked = 0  # how often facts were looked at again
        count = len(parts)
        self.ranks = np.array([part.alarm.rank for part in parts], np.int64)
        self.delays = Delays(count)
        self.evaluations = np.zeros(count, np.int64)
        self.sampled = np.zeros(count, np.int64)  # readings at which a condition was looked at ...
        self.unknown = np.zeros(count, np.int64)  # ... and was unknown
        self.runs = 0
        self.events = np.zeros((_EVENTS_AT_ONCE, k.EVENT_COLUMNS), np.int64)
        self.gated = np.zeros((max(1, len(self.gates)), 0), np.uint8)
        self.gated_true = np.zeros(max(1, len(self.gates)), np.uint8)
        self.batch = self.nothing = _no_readings(product)
        self.batch_local: Int32 = np.zeros(0, np.int32)
        self.places = BatchPlaces()
        self._whole = True
        self._scratch(1)
        self._grow(16)

    # -- devices

    def index(self, slot: int) -> int:
        """The device's index in the product; -1 where no rule has heard of it."""
        return int(self.local[slot]) if slot < len(self.local) else -1

    def last(self, index: int) -> tuple[int, int, int]:
        """Event time, ingest time and position of a device's last reading before the batch; once
        that is settled, of its last reading. 0 where there is none."""
        at = int(self.state["met"][index])
        line = self.before[at] if at >= 0 else self.state["last"][index]
        return int(line[0]), int(line[1]), int(line[2])

    def _grow(self, least: int) -> None:
        """Room for `least` devices in all state."""
        if least <= self.capacity:
            return
        capacity = max(16, self.capacity)
        while capacity < least:
            capacity += max(16, capacity // 8)
        metrics = len(self.metrics)
        shapes: dict[str, tuple[tuple[int, ...], Any, Any]] = {
            "held_value": ((metrics,), np.float64, np.nan),
            "held_quality": ((metrics,), np.uint8, 3),
            "held_ns": ((metrics,), np.int64, 0),
            "last": ((3,), np.int64, 0),
            "last_row": ((), np.int32, -1),  # scratch of kernels, -1 throughout
            "met": ((), np.int32, -1),
            "inputs": ((len(self.other_columns),), np.float64, np.nan),
        }
        for name, (shape, dtype, fill) in shapes.items():
            self.state[name] = grown(self.state.get(name, np.empty((0, *shape), dtype)), capacity, fill)
        self.machine.grow(capacity)
        self.delays.grow(capacity)
        self.capacity = capacity

    def _scratch(self, rows: int) -> None:
        metrics = len(self.metrics)
        self.room = rows
        self.quality = np.zeros((metrics, rows), np.uint8)
        self.before_value = np.zeros((rows, metrics))
        self.before_quality = np.zeros((rows, metrics), np.uint8)
        self.before = np.zeros((rows, 3), np.int64)
        self.effective = np.zeros((2, max(1, rows)), np.uint8)
        self.idle = np.zeros(max(1, rows), np.uint8)

    def _locals(self, device: Int32) -> Int32:
        """The devices' indices in the product; a device met for the first time gets the next."""
        local = np.empty(len(device), np.int32)
        if look_up(device, self.local, local) < 0:
            most = int(device.max())
            if most >= len(self.local):
                self.local = grown(self.local, max(64, 2 * (most + 1)), -1)
            for slot in dict.fromkeys(device[self.local[device] < 0].tolist()):
                self._admit(slot)
            look_up(device, self.local, local)
        for index in range(self.described, len(self.slots)):
            slot = self.slots[index]
            self._describe(index, slot)
        self.described = len(self.slots)
        return local

    def _admit(self, slot: int) -> None:
        self._grow(len(self.slots) + 1)
        self.local[slot] = len(self.slots)
        self.slots.append(slot)

    def refresh(self, slot: int) -> None:
        """A parameter of a device has changed: the next reading sees it."""
        index = int(self.local[slot]) if slot < len(self.local) else -1
        if 0 <= index < self.described:
            self._describe(index, slot)

    def _describe(self, index: int, slot: int) -> None:
        self.state["inputs"][index] = self._inputs(slot)
        self.dated.describe(index, self.devices.names[slot])

    def look_again(self, slot: int) -> None:
        """Master data of a device have changed: the next reading sees them, and so do its next events."""
        self.refresh(slot)
        self.subjects.clear()
        self.facts.clear()
        self.looked += 1

    def _inputs(self, slot: int, at_ns: int | None = None) -> list[float]:
        """Parameters and attributes of one device, now or as of event time, as columns hold them."""
        return [self._input(column, slot, at_ns) for column in self.other_columns]

    def _input(self, column: Column, slot: int, at_ns: int | None) -> float:
        ask = self.param if column.root == "param" else self.attribute
        value = ask(column.name, slot, at_ns)
        if value is None:
            return math.nan
        return float(text_code(value)) if isinstance(value, str) else value

    def attribute(self, name: str, slot: int, at_ns: int | None = None) -> str | None:
        """An attribute of a device, now or as of event time; None where the cell is empty."""
        device, hub = self.devices.names[slot], self.devices.hubs[slot]
        return self.attributes.attribute(device, self.product.productId, hub, name, at_ns) or None

    def param(self, name: str, slot: int, at_ns: int | None = None) -> float | str | None:
        """A parameter for a device: what an operator has set, else its column of devices.csv, now or as of
        event time, else the product's default."""
        default = self.product.params.get(name)
        own = self.parameters.value(self.devices.names[slot], name)
        if own is not None and isinstance(own, str) == isinstance(default, str):
            return own
        cell = self.attributes.row("devices", self.devices.names[slot], at_ns).get(name, "")
        if not cell:
            return float(default) if isinstance(default, int | float) else default
        return cell if isinstance(default, str) else number_of(cell)

    # -- a batch

    def run(self, item: Slice, batch: ReadingBatch) -> Transitions | None:
        """Evaluate the batch's rows (all are in order and live) and its ticks; what happened, good until
        `settle`, which is to be called before the next."""
        rows = len(batch)
        self.batch, self.places = batch, BatchPlaces(item, batch)
        if rows == 0:
            self.batch_local = self.nothing.device
            if not len(batch.ticks.ns):
                return None
            if not self.delays.busy.any() or batch.ticks.ns[-1] < self.delays.next_tick.min():
                return None
        if rows > self.room:
            self._scratch(max(rows, 2 * self.room))
        local = self.batch_local = self._locals(batch.device)
        state = self.state
        if "string" in self.types and batch.texts:
            self.texts.update(batch.texts)
            if len(self.texts) > _TEXTS_AT_MOST:
                self._forget_texts(keep=batch.texts)
        value, quality = np.ascontiguousarray(batch.value), np.ascontiguousarray(batch.quality)
        self._whole = whole = held.whole(quality, self.used)
        columns = value
        if not whole or self.other_columns:
            columns = self.machine.room(max(rows, 1))
            self._fill_other(columns, local, batch.ts_ns)
        if whole and self.other_columns:
            columns[self.used, :rows] = value[self.used]
        if not whole:
            held.hold(
                local,
                batch.ts_ns,
                batch.ingest_ns,
                batch.seq,
                batch.flags,
                value,
                quality,
                self.used,
                self.product.stale_after,
                *self._held_state(),
                state["met"],
                columns,
                self.quality,
                self.before_value,
                self.before_quality,
                self.before,
            )
        return self._walk(batch, local, columns, lacking=not whole) if self.parts else None

    def settle(self) -> None:
        """The batch is over: of each device its last reading is what is held from now on."""
        batch, local, state = self.batch, self.batch_local, self.state
        if len(batch):
            if self._whole:
                held.keep_last(
                    local,
                    batch.ts_ns,
                    batch.ingest_ns,
                    batch.seq,
                    np.ascontiguousarray(batch.value),
                    np.ascontiguousarray(batch.quality),
                    self.used,
                    *self._held_state(),
                    len(self.slots),
                    state["last_row"],
                )
            else:
                state["met"][local] = -1
        self.batch, self.batch_local = self.nothing, self.nothing.device

    def _held_state(self) -> tuple[Float64, Bytes, Int64, Int64]:
        state = self.state
        return state["held_value"], state["held_quality"], state["held_ns"], state["last"]

    def _fill_other(self, columns: Float64, local: Int32, ts_ns: Int64) -> None:
        """Parameters and attributes of each row's device."""
        first = len(self.product.metrics)
        for at in range(len(self.other_columns)):
            columns[first + at, : len(local)] = self.state["inputs"][local, at]
        self.dated.fill(
            columns, first, local, ts_ns, lambda index, at_ns: self._inputs(self.slots[index], at_ns)
        )

    def _gate(self, results: Bytes, ts_ns: Int64) -> None:
        """Conditions under a schedule: false outside of its windows."""
        rows = len(ts_ns)
        if self.gated.shape[1] < rows:
            self.gated = np.zeros((len(self.gated), max(rows, 2 * self.gated.shape[1])), np.uint8)
        covered: dict[int, npt.NDArray[np.bool_]] = {}
        for at, gate in enumerate(self.gates):
            inside = covered.get(id(gate.windows))
            if inside is None:
                inside = covered[id(gate.windows)] = gate.windows.covers(ts_ns)
            line = self.gated[at, :rows]
            line[:] = _FALSE
            np.copyto(line, results[gate.row, :rows], where=inside)
            self.gated_true[at] = (line & 1).any()

    def _walk(
        self, batch: ReadingBatch, local: Int32, columns: Float64, *, lacking: bool
    ) -> Transitions | None:
        tables, state, delays = self.tables, self.state, self.delays
        results = self.machine.run(len(batch), columns, local=local, ts_ns=batch.ts_ns, flags=batch.flags)
        if self.gates:
            self._gate(results, batch.ts_ns)
        self.runs += 1
        if len(batch) and (self.runs % _SAMPLED_EVERY == 1 or len(batch) * len(self.parts) <= _SAMPLED_SMALL):
            self._sample(results, len(batch))
        resume = np.zeros(5, np.int64)
        words = results.view(np.uint64)
        running_row, running_rows = self.idle, _NO_ROWS
        if delays.busy.any():
            running_row = (delays.running[local] > 0).view(np.uint8)
            running_rows = np.flatnonzero(running_row).astype(np.int32)
        happened: list[npt.NDArray[np.int64]] = []
        while resume[0] < len(self.parts):
            count = k.walk(
                results,
                words,
                self.machine.any_true,
                self.gated,
                self.gated_true,
                lacking,
                self.quality,
                tables.carry_start,
                tables.carry,
                tables.condition_row,
                tables.clear_row,
                tables.on_delay,
                tables.off_delay,
                GRACE_NS,
                local,
                batch.ts_ns,
                batch.ingest_ns,
                batch.flags,
                batch.ticks.row,
                batch.ticks.ns,
                len(self.slots),
                delays.phase,
                delays.block,
                delays.running,
                delays.pool,
                delays.free,
                delays.free_count,
                delays.busy,
                delays.next_tick,
                self.evaluations,
                self.effective,
                running_row,
                running_rows,
                self.events,
                resume,
            )
            if count:
                happened.append(self.events[:count].copy())
            if not delays.free_count[0]:
                delays.add_blocks()
        if not happened:
            return None
        lines = np.concatenate(happened)
        lines = lines[np.argsort(lines[:, k.EVENT_ROW], kind="stable")]
        rows = np.zeros(len(lines), np.int64)
        k.last_readings(lines, local, state["last_row"], rows)
        return Transitions(self, lines, rows, columns, lacking=lacking)

    def _sample(self, results: Bytes, rows: int) -> None:
        """Count the readings at which conditions are unknown (for metrics alone)."""
        self.unknown += np.add.reduce(results[self.looked_at, :rows] == UNKNOWN, axis=1, dtype=np.int64)
        self.sampled += rows

    def subject(self, number: int, device: int, time_ns: int) -> Subject:
        """Whose alarm it is at an event time, with its facts; kept at hand once it was needed."""
        slot = self.slots[device]
        if self.attributes.dated and self.attributes.is_past(self.devices.names[slot], time_ns):
            return Subject(self.parts[number].alarm, *self._facts(slot, time_ns))
        return self.subjects.get((number, device)) or self.subject_now(number, device)

    def subject_now(self, number: int, device: int) -> Subject:
        """The same now, where it is not at hand."""
        if len(self.subjects) > _SUBJECTS_AT_MOST:
            self.subjects.clear()
            self.facts.clear()
        facts = self.facts.get(device)
        if facts is None:
            facts = self.facts[device] = self._facts(self.slots[device])
        subject = self.subjects[number, device] = Subject(self.parts[number].alarm, *facts)
        return subject

    def _facts(self, slot: int, at_ns: int | None = None) -> _Facts:
        name = self.devices.names[slot]
        asked = (self.attribute(column, slot, at_ns) for column in ("hub_id", "site_id", "customer_id"))
        return (name, slot, self.product.productId, name, *asked)

    # -- what an event shows

    def plain(self, metric: int, value: float) -> float | int | bool | str | None:
        """A value as JSON says it."""
        if value != value:  # unknown
            return None
        kind = self.types[metric]
        if kind == "number":
            return value
        if kind == "string":
            return self.texts.get(int(value))
        if kind == "boolean":
            return value != 0.0
        return int(value)

    # -- state

    def _forget_texts(self, keep: Mapping[int, str]) -> None:
        """Drop texts that no device holds any more."""
        values = self.state["held_value"][: len(self.slots), [kind == "string" for kind in self.types]]
        codes = {int(code) for code in values[~np.isnan(values)]} | set(keep)
        self.texts = {code: text for code, text in self.texts.items() if code in codes}

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        count = len(self.slots)
        self._forget_texts(keep={})
        return {
            "rules": self.keys,
            "metrics": list(self.metrics),
            "types": list(self.types),
            "slots": np.array(self.slots, np.int64),
            "texts": self.texts,
            "state": {name: self.state[name][:count] for name in _BY_DEVICE},
            "delays": self.delays.export(count),
            "evaluations": self.evaluations,
            "past": self.machine.export(count),
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take over what `export` gave, of rules and metrics that are unchanged; the rest begins
        anew."""
        slots = [int(slot) for slot in kept["slots"]]
        if slots:
            self.local = np.full(max(64, 2 * (max(slots) + 1)), -1, np.int32)
        self.slots = array("i")
        for slot in slots:
            self._admit(slot)
        count = len(slots)
        arrays = kept["state"]
        self.state["last"][:count] = arrays["last"]
        for j, name in enumerate(self.metrics):
            if name in kept["metrics"]:
                then = kept["metrics"].index(name)
                if kept["types"][then] == self.types[j]:
                    for held_by in ("held_value", "held_quality", "held_ns"):
                        self.state[held_by][:count, j] = arrays[held_by][:, then]
        self.texts = {int(code): text for code, text in kept["texts"].items()}
        self.machine.load(kept["past"], count)
        then_of = [kept["rules"].index(key) if key in kept["rules"] else -1 for key in self.keys]
        self.delays.load(kept["delays"], then_of)
        for at, was in enumerate(then_of):
            if was >= 0:
                self.evaluations[at] = kept["evaluations"][was]

    def leave(self, slots: Iterable[int]) -> None:
        """Devices that the plant has no more, or has of another product: nothing of theirs runs on."""
        for slot in slots:
            index = int(self.local[slot]) if slot < len(self.local) else -1
            if index >= 0:
                self.delays.end(index)
        self.delays.count()

    def newest(self, slot: int) -> int:
        """Position of a device's last in-order reading; -1 where there is none."""
        index = self.index(slot)
        return int(self.state["last"][index, 2]) if index >= 0 else -1


def _no_readings(product: RuleProduct) -> ReadingBatch:
    """A batch without rows and ticks."""
    none = np.empty(0, np.int64)
    return ReadingBatch(
        product.productId,
        none.astype(np.int32),
        none,
        np.empty((len(product.metrics), 0)),
        np.empty((len(product.metrics), 0), np.uint8),
        none.astype(np.uint64),
        none,
        none.astype(np.uint8),
        none.astype(np.int32),
        {},
        Ticks.none(),
    )
