"""Formulas that submodels show: their newest value by device, of readings and of windows.

A formula over readings sees what a rule would see: the values of each in-order reading, held values
for what it lacks (unknown once they are older than `stale_after`), the device's own past. One over a
window is made of the last window's aggregates when that window, or a revision of it, closes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from operators.attributes import DatedColumns
from operators.batch import IN_ORDER, Float64, Int32, Int64, ReadingBatch
from operators.devices import Devices
from operators.expression.canonical import canonical_text
from operators.expression.formula_spec import READING, ProductFormula
from operators.expression.grammar import WINDOW_AGGREGATES
from operators.expression.machine import Machine
from operators.expression.program import compile_conditions, metrics_of, resolved
from operators.expression.registers import Column, Program
from operators.growing import grown
from operators.parameters import Parameters
from operators.state.kernels import hold_values
from operators.state.references import WindowRef
from operators.state.spec import FormulasSpec
from operators.state.store import NO_WINDOW
from operators.text import text_code


class Inputs:
    """Parameters and attributes that formulas name, by device."""

    def __init__(self, columns: Sequence[Column], spec: FormulasSpec, productId: str) -> None:
        self.columns = tuple(columns)
        self.spec = spec
        self.productId = productId
        self.attributes = spec.master
        self.dated = DatedColumns(self.attributes)
        self._rows: Float64 = np.empty((0, len(self.columns)))
        self._known = 0

    def rows(self, slot_of: Int32, count: int, devices: Devices, parameters: Parameters) -> Float64:
        """float64[>= count, P]; slot_of: the device of each row."""
        self._rows = grown(self._rows, len(slot_of), math.nan)
        for row in range(self._known, count):
            self.refresh(row, int(slot_of[row]), devices, parameters)
        self._known = count
        return self._rows

    def refresh(self, row: int, slot: int, devices: Devices, parameters: Parameters) -> None:
        """Look a device's values up again."""
        self._rows[row] = self.values(slot, devices, parameters)
        self.dated.describe(row, devices.names[slot])

    def values(
        self, slot: int, devices: Devices, parameters: Parameters, at_ns: int | None = None
    ) -> list[float]:
        """What they are for a device, now or as of event time."""
        name, hub = devices.names[slot], devices.hubs[slot]
        found = []
        for root, column in self.columns:
            if root == "device":
                text = self.attributes.attribute(name, self.productId, hub, column, at_ns)
                found.append(float(text_code(text)) if text else math.nan)
            else:
                cell = self.attributes.row("devices", name, at_ns).get(column, "")
                found.append(self._param(name, column, cell, parameters))
        return found

    def _param(self, device: str, name: str, cell: str, parameters: Parameters) -> float:
        """What an operator has set, else the cell of devices.csv, else the product's default."""
        default = self.spec.params.get(name)
        value = parameters.value(device, name)
        if value is None or isinstance(value, str) != isinstance(default, str):
            value = default if not cell else cell if isinstance(default, str) else _number(cell)
        if value is None:
            return math.nan
        return float(text_code(value)) if isinstance(value, str) else float(value)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class ReadingFormulas:
    """The formulas over readings of one product."""

    def __init__(self, productId: str, metrics: Sequence[str], spec: FormulasSpec) -> None:
        self.formulas = [one for one in spec.formulas if one.over == READING]
        trees = [resolved(one.tree, spec.scope) for one in self.formulas]
        first = [Column("metrics", name) for name in metrics]
        self.machine = Machine(compile_conditions([], spec.scope, first, values=trees))
        self.names = list(metrics_of(trees))
        self.used = np.array([list(metrics).index(name) for name in self.names], np.int32)
        self.stale_after = spec.stale_after
        self.first_input = len(first)
        self.inputs = Inputs(self.machine.program.columns[len(first) :], spec, productId)
        self.held: Float64 = np.empty((0, len(self.names)))
        self.held_ns: Int64 = np.empty((0, len(self.names)), np.int64)

    def run(
        self,
        rows: Int32,
        batch: ReadingBatch,
        slot_of: Int32,
        count: int,
        devices: Devices,
        parameters: Parameters,
    ) -> tuple[Int32, Float64, Int64, Int64] | None:
        """rows: int32[N] of the state arrays. The rows of devices with an in-order reading, each
        once; float64[R, F] the formulas there after the device's last one; its time and position."""
        live = (batch.flags & np.uint8(IN_ORDER)) != 0
        if not live.all():
            batch, rows = batch.take(live), rows[live]
        n = len(batch)
        if not n or not self.formulas:
            return None
        self._grow(len(slot_of))
        columns = self.machine.room(n)
        hold_values(
            rows,
            batch.ts_ns,
            batch.flags,
            np.ascontiguousarray(batch.value),
            np.ascontiguousarray(batch.quality),
            self.used,
            self.stale_after,
            self.held,
            self.held_ns,
            columns,
        )
        inputs = self.inputs.rows(slot_of, count, devices, parameters)
        for at in range(inputs.shape[1]):
            columns[self.first_input + at, :n] = inputs[rows, at]
        self.inputs.dated.fill(
            columns,
            self.first_input,
            rows,
            batch.ts_ns,
            lambda row, at_ns: self.inputs.values(int(slot_of[row]), devices, parameters, at_ns),
        )
        self.machine.run(n, columns, local=rows, ts_ns=batch.ts_ns, flags=batch.flags)
        who, last = np.unique(rows[::-1], return_index=True)
        last = n - 1 - last
        values = self.machine.values[np.array(self.machine.program.value_outputs)][:, last].T
        position = (batch.seq[last] >> np.uint64(16)).astype(np.int64)
        return who.astype(np.int32), values, batch.ts_ns[last], position

    def _grow(self, capacity: int) -> None:
        self.held = grown(self.held, capacity, math.nan)
        self.held_ns = grown(self.held_ns, capacity, 0)
        self.machine.grow(capacity)

    def export(self, count: int) -> dict[str, Any]:
        """What a snapshot holds."""
        return {
            "names": self.names,
            "held": self.held[:count],
            "held_ns": self.held_ns[:count],
            "past": self.machine.export(count) if self.machine.devices >= count else {},
        }

    def load(self, kept: Mapping[str, Any], capacity: int, count: int) -> None:
        """Take over what `export` gave, of metrics and operations that are the same."""
        self._grow(capacity)
        there = len(kept["held"])
        for at, name in enumerate(self.names):
            if name in kept["names"]:
                then = list(kept["names"]).index(name)
                self.held[:there, at] = kept["held"][:, then]
                self.held_ns[:there, at] = kept["held_ns"][:, then]
        self.machine.load(kept["past"], count)


class WindowFormulas:
    """The formulas of one product over one of its windows."""

    def __init__(self, productId: str, over: str, spec: FormulasSpec) -> None:
        self.over = over
        self.formulas = [one for one in spec.formulas if one.over == over]
        program = _window_program(self.formulas, over, spec)
        self.machine = Machine(program)
        self.asked = [
            WindowRef(over, *column.name.split(" ", 1))
            for column in program.columns
            if column.root == "window"
        ]
        self.of_window = [at for at, column in enumerate(program.columns) if column.root == "window"]
        self.others = [at for at, column in enumerate(program.columns) if column.root != "window"]
        self.inputs = Inputs([program.columns[at] for at in self.others], spec, productId)

    def run(
        self, kept: Float64, start: Int64, revision: Int64, inputs: Float64
    ) -> tuple[Float64, Int64, Int64]:
        """kept float64[R, A], start, revision int64[R, A]: what `asked` came to in the last window of R
        devices; inputs: float64[R, P]. The formulas float64[R, F], and the window that they are of."""
        rows = len(kept)
        newest = start.max(axis=1) if start.shape[1] else np.full(rows, NO_WINDOW, np.int64)
        of_it = start == newest[:, None]
        columns = self.machine.room(rows)
        for at, column in enumerate(self.of_window):
            columns[column, :rows] = np.where(of_it[:, at], kept[:, at], math.nan)
        for at, column in enumerate(self.others):
            columns[column, :rows] = inputs[:, at]
        self.machine.run(rows)
        values = self.machine.values[np.array(self.machine.program.value_outputs)][:, :rows].T
        number = np.where(of_it, revision, 0).max(axis=1) if start.shape[1] else np.zeros(rows, np.int64)
        return values, newest, number


def _window_program(formulas: Sequence[ProductFormula], over: str, spec: FormulasSpec) -> Program:
    scope = replace(spec.scope, window=over, aggregates=_Any())
    return compile_conditions([], scope, values=[one.tree for one in formulas])


class _Any(dict[str, tuple[str, ...]]):
    """Every aggregate of every metric: the check has let pass what is named."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> tuple[str, ...]:
        return WINDOW_AGGREGATES


def meaning(spec: FormulasSpec | None) -> list[tuple[str, str, str]]:
    """What must be equal for formulas to be the same: name, over and canonical text."""
    return [(one.formulaId, one.over, canonical_text(one.tree)) for one in (spec.formulas if spec else ())]
