"""Conditions of one product over its live readings, for rules that combine several of them.

Like `rules.product` for thresholds: values are held, the past is kept, and what a device's last
reading left is at hand as evidence. Who asks gets a column of truth a condition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operators.attributes import DatedColumns
from operators.batch import QUALITY_NAMES, Bytes, Int32, Int64, ReadingBatch
from operators.expression.machine import Machine
from operators.expression.program import Scope, compile_conditions, metrics_of, resolved
from operators.expression.registers import Column
from operators.expression.tree import Expr
from operators.growing import grown
from operators.slots import ProductSlots
from operators.text import text_code
from rules import held_kernels as held
from rules.device_facts import DeviceFacts
from rules.spec import RuleProduct

_TEXTS_AT_MOST = 1 << 16
_BEFORE = -1


class Conditions:
    """Trees as one program, and the state of the product's devices that it needs."""

    def __init__(
        self,
        product: RuleProduct,
        scope: Scope,
        trees: Sequence[Expr],
        shown: Sequence[str],
        facts: DeviceFacts,
        *,
        max_samples: Sequence[int] = (),
    ) -> None:
        """trees: conditions that have passed their checks. shown: metrics that messages name beside
        theirs."""
        self.product = product
        self.scope = scope
        self.facts = facts
        whole = [resolved(tree, scope) for tree in trees]
        self.metrics = tuple(dict.fromkeys((*metrics_of(whole), *shown)))
        self.metrics_of = [tuple(self.metrics.index(name) for name in metrics_of([tree])) for tree in whole]
        names = list(product.metrics)
        first = [Column("metrics", name) for name in names]
        self.program = compile_conditions(trees, scope, first, max_samples=max_samples)
        self.outputs = self.program.outputs
        self.machine = Machine(self.program)
        self.used = np.array([names.index(name) for name in self.metrics], np.int32)
        self.types = [product.metrics[name] for name in self.metrics]
        self.slots = ProductSlots()
        self.dated = DatedColumns(facts.attributes)
        self.texts: dict[int, str] = {}
        self._others = self.program.columns[len(names) :]
        self._described = 0
        self._room = 0
        self._state: dict[str, Any] = {}
        self._grow(0)
        self._scratch(1)

    def named(self, tree: Expr) -> tuple[str, ...]:
        """The metrics that a condition needs, those of formulas too."""
        return metrics_of([resolved(tree, self.scope)])

    @property
    def devices(self) -> int:
        """How many devices have a row in the state."""
        return self.slots.count

    def _grow(self, least: int) -> None:
        metrics = len(self.metrics)
        for name, shape, dtype, fill in (
            ("held_value", (metrics,), np.float64, np.nan),
            ("held_quality", (metrics,), np.uint8, 3),
            ("held_ns", (metrics,), np.int64, 0),
            ("last", (3,), np.int64, 0),
            ("met", (), np.int32, _BEFORE),
            ("inputs", (len(self._others),), np.float64, np.nan),
        ):
            if name not in self._state:
                self._state[name] = np.full((0, *shape), fill, dtype)
            self._state[name] = grown(self._state[name], max(least, self.slots.capacity), fill)
        self.machine.grow(self.slots.capacity)

    def _scratch(self, rows: int) -> None:
        metrics = len(self.metrics)
        self._room = rows
        self.quality: Bytes = np.zeros((metrics, rows), np.uint8)
        self._before_value = np.zeros((rows, metrics))
        self._before_quality = np.zeros((rows, metrics), np.uint8)
        self._before = np.zeros((rows, 3), np.int64)

    # -- a batch

    def run(self, batch: ReadingBatch) -> tuple[Int32, Bytes]:
        """Rows in the state (int32[N]) and truth (uint8[O, >= N], by `outputs`) of live readings, valid
        until the next run; `quality` says which metrics (`metrics`) each row carries. `settle` must
        follow once no evidence is asked for any more."""
        rows = len(batch)
        if rows > self._room:
            self._scratch(max(rows, 2 * self._room))
        local = self.slots.rows(batch.device)
        if len(self._state["last"]) < self.slots.capacity:
            self._grow(0)
        state = self._state
        for index in range(self._described, self.slots.count):
            self._describe(index)
        self._described = self.slots.count
        if "string" in self.types and batch.texts:
            self.texts.update(batch.texts)
            if len(self.texts) > _TEXTS_AT_MOST:
                self._forget_texts(batch.texts)
        self.columns = self.machine.room(max(rows, 1))
        for at in range(len(self._others)):
            self.columns[len(self.product.metrics) + at, :rows] = state["inputs"][local, at]
        if self._others:
            self.dated.fill(self.columns, len(self.product.metrics), local, batch.ts_ns, self._inputs)
        held.hold(
            local, batch.ts_ns, batch.ingest_ns, batch.seq, batch.flags,
            np.ascontiguousarray(batch.value), np.ascontiguousarray(batch.quality), self.used,
            self.product.stale_after, state["held_value"], state["held_quality"], state["held_ns"],
            state["last"], state["met"], self.columns, self.quality, self._before_value,
            self._before_quality, self._before,
        )  # fmt: skip
        self._batch, self._local = batch, local
        return local, self.machine.run(rows, self.columns, local=local, ts_ns=batch.ts_ns, flags=batch.flags)

    def settle(self) -> None:
        """The batch is over."""
        self._state["met"][self._local] = _BEFORE

    def _describe(self, index: int) -> None:
        self._state["inputs"][index] = self._inputs(index)
        self.dated.describe(index, self.facts.devices.names[self.slots.slot_of[index]])

    def _inputs(self, index: int, at_ns: int | None = None) -> list[float]:
        """Parameters and attributes of a device, now or as of event time, as columns hold them."""
        device = self.facts.devices.names[self.slots.slot_of[index]]
        product = self.product.productId
        found = []
        for column in self._others:
            value = (
                self.facts.param(device, product, column.name, at_ns)
                if column.root == "param"
                else self.facts.attribute(device, product, column.name, at_ns=at_ns)
            )
            found.append(math.nan if value is None else text_code(value) if isinstance(value, str) else value)
        return found

    def refresh(self, slot: int) -> None:
        """A parameter of a device has changed: the next reading sees it."""
        index = self.slots.row(slot)
        if 0 <= index < self._described:
            self._describe(index)

    # -- evidence

    def row_before(self, device: int, row: int) -> int:
        """The device's last row of the batch before `row`; -1 where there is none."""
        found = np.flatnonzero(self._local[:row] == device)
        return int(found[-1]) if len(found) else _BEFORE

    def evidence(self, device: int, row: int, metrics: Sequence[int]) -> tuple[dict[str, Any], str, int, int]:
        """Values of some metrics, the worst quality of them, position and ingest time, as a row left
        them; -1: as the device's last reading before the batch did."""
        if row >= 0:
            values, qualities = self.columns[self.used, row], self.quality[:, row] & np.uint8(0x7F)
            ingest, position = int(self._batch.ingest_ns[row]), int(self._batch.seq[row]) >> 16
        elif (at := int(self._state["met"][device])) >= 0:
            values, qualities = self._before_value[at], self._before_quality[at]
            ingest, position = int(self._before[at, 1]), int(self._before[at, 2])
        else:
            values, qualities = self._held(device)
            ingest, position = (int(one) for one in self._state["last"][device, 1:])
        told = {self.metrics[j]: self._plain(j, float(values[j])) for j in metrics}
        quality = QUALITY_NAMES[max((int(qualities[j]) for j in metrics), default=0)]
        return told, quality, position, ingest

    def _held(self, device: int) -> tuple[Any, Any]:
        state, limit = self._state, self.product.stale_after
        values, qualities = state["held_value"][device].copy(), state["held_quality"][device].copy()
        if limit:
            stale = (state["last"][device, 0] - state["held_ns"][device] > limit) & (qualities < 2)
            values[stale], qualities[stale] = np.nan, 3
        return values, qualities

    def _plain(self, metric: int, value: float) -> float | int | bool | str | None:
        if math.isnan(value):
            return None
        kind = self.types[metric]
        if kind == "string":
            return self.texts.get(int(value))
        if kind == "boolean":
            return value != 0.0
        return int(value) if kind == "integer" else value

    # -- state

    def _forget_texts(self, keep: Mapping[int, str]) -> None:
        values = self._state["held_value"][: self.slots.count, [kind == "string" for kind in self.types]]
        codes = {int(code) for code in values[~np.isnan(values)]} | set(keep)
        self.texts = {code: text for code, text in self.texts.items() if code in codes}

    def newest(self) -> Int64:
        """int64[D, 3]: event time, ingest time and position of each device's last reading."""
        newest: Int64 = self._state["last"][: self.slots.count]
        return newest

    def export(self) -> dict[str, Any]:
        """What a snapshot holds."""
        count = self.slots.count
        self._forget_texts({})
        names = ("held_value", "held_quality", "held_ns", "last")
        return {
            "metrics": list(self.metrics),
            "types": list(self.types),
            "slots": self.slots.export().copy(),
            "texts": self.texts,
            "state": {name: self._state[name][:count] for name in names},
            "past": self.machine.export(count),
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take over what `export` gave: metrics and operations that are still there."""
        self.slots = ProductSlots.load(kept["slots"])
        self._grow(0)
        count, arrays = self.slots.count, kept["state"]
        self._state["last"][:count] = arrays["last"]
        for j, name in enumerate(self.metrics):
            if name in kept["metrics"]:
                then = kept["metrics"].index(name)
                if kept["types"][then] == self.types[j]:
                    for array in ("held_value", "held_quality", "held_ns"):
                        self._state[array][:count, j] = arrays[array][:, then]
        self.texts = {int(code): text for code, text in kept["texts"].items()}
        self.machine.load(kept["past"], count)
