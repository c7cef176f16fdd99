"""Why a rule did or did not fire: the value of every sub-expression at a device's last evaluation.

A `Probe` stands beside the rules stage of a replay and sees the same readings. Every sub-expression
of the rule is a result of one column program, run by the machine that runs the rules, on values held
by the kernel that holds them for the rules; so what it tells is what the rules stage computed. It
keeps what each watched device's last evaluating reading left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from flows.explain_evaluation import Evaluation, samples_of_chain
from flows.explain_expressions import Expression, expressions_of, formulas_in
from flows.explain_recall import recalled
from flows.explain_text import kind_of, written
from operators.attributes import Attributes
from operators.batch import HISTORICAL, IN_ORDER, QUALITY_NAMES, Int32, ReadingBatch, Slice
from operators.devices import Devices
from operators.expression.kernels import NEVER
from operators.expression.machine import Machine
from operators.expression.program import Scope, compile_conditions
from operators.expression.registers import Column
from operators.expression.tree import (
    Bool,
    Call,
    Duration,
    Expr,
    Name,
    Null,
    Number,
    Text,
    children,
    is_temporal,
    walk,
)
from operators.parameters import Parameters
from operators.text import text_code
from rules import held_kernels as held
from rules.check import number_of, samples_of, scope_of
from rules.spec import Rule, RuleProduct
from rules.step import RulesLogic

SAMPLES_SHOWN: Final = 100  # of a window, the newest


@dataclass(slots=True, eq=False)
class ProbeSpec:
    """What a probe is built from: a rule of a product, and the attributes of devices as of event time."""

    product: RuleProduct
    rule: Rule
    attributes: Attributes
    columns: Sequence[str] = ()
    scope: Scope = field(init=False)
    expressions: list[Expression] = field(init=False)

    def __post_init__(self) -> None:
        rows = self.attributes.tables["devices"]
        samples = samples_of(rows, self.columns, self.attributes.former())
        scope = scope_of(self.product, {name for row in samples.values() for name in row}, samples)
        # every parameter is a column of its own: what it is for a device is told beside it
        self.scope = replace(scope, params=dict.fromkeys(scope.params))
        self.expressions = expressions_of(self.rule, self.scope)


class Probe:
    """Evaluates every sub-expression of one rule beside the rules stage.

    watched: the device that is asked about; None: all of the product.
    """

    def __init__(self, spec: ProbeSpec, devices: Devices, watched: str | None) -> None:
        self.spec = spec
        self.devices = devices
        self.watched = watched
        self.parameters = Parameters()
        product = spec.product
        trees = [one.tree for one in spec.expressions]
        self.metrics = list(product.metrics)
        self.scope = spec.scope
        self.formulas = formulas_in(spec.rule, spec.scope)
        self.nodes: dict[Expr, int] = {}
        for tree in trees:
            for node in walk(tree):
                if not isinstance(node, Duration | Null | Text | Number | Bool):
                    self.nodes.setdefault(node, len(self.nodes))
        first = [Column("metrics", name) for name in self.metrics]
        self.program = compile_conditions([], self.scope, first, values=list(self.nodes))
        self.machine = Machine(self.program)
        named = {
            node.parts[0]
            for tree in trees
            for node in walk(tree)
            if isinstance(node, Name) and node.root in ("", "metrics")
        }
        self.used = np.array([self.metrics.index(name) for name in self.metrics if name in named], np.int32)
        self.slots: dict[int, int] = {}  # slot -> index in the arrays
        self.texts: dict[int, str] = {}
        self.found: dict[int, Evaluation] = {}  # by slot
        self.passed_by: dict[str, dict[str, int]] = {}  # device -> readings that rules did not see, by why
        self.recallable: set[int] = set()  # slots of which a snapshot knows what their last reading left
        self.last: dict[int, int] = {}  # slot -> event time of its last reading that rules saw
        self.state: dict[str, Any] = {}
        self._grow(16)

    def _grow(self, capacity: int) -> None:
        used = len(self.used)
        shapes: dict[str, tuple[tuple[int, ...], Any, Any]] = {
            "held_value": ((capacity, used), np.float64, np.nan),
            "held_quality": ((capacity, used), np.uint8, 3),
            "held_ns": ((capacity, used), np.int64, 0),
            "last": ((capacity, 3), np.int64, 0),
            "met": ((capacity,), np.int32, -1),
        }
        for name, (shape, dtype, fill) in shapes.items():
            grown = np.full(shape, fill, dtype)
            if name in self.state:
                grown[: len(self.state[name])] = self.state[name]
            self.state[name] = grown
        self.machine.grow(capacity)

    def take(self, item: Slice) -> None:
        """The readings of a slice that has passed the contract stage."""
        self.parameters.take(item)
        for batch in item.readings:
            if batch.productId != self.spec.product.productId:
                continue
            mine = np.ones(len(batch), np.bool_)
            if self.watched is not None:
                slot = self._slot_of(self.watched)
                mine = batch.device == (-1 if slot is None else slot)
            keep = mine & ((batch.flags & np.uint8(IN_ORDER | HISTORICAL)) == IN_ORDER)
            for row in np.flatnonzero(mine & ~keep).tolist():
                word = "historical" if batch.flags[row] & HISTORICAL else "out of order"
                self._pass(self.devices.names[int(batch.device[row])], word)
            if keep.any():
                self._run(batch.take(keep))
        for reject in item.rejects:
            if reject.device_id and self.watched in (None, reject.device_id):
                self._pass(reject.device_id, f"rejected: {reject.reason.name}")

    def _pass(self, device: str, why: str) -> None:
        counts = self.passed_by.setdefault(device, {})
        counts[why] = counts.get(why, 0) + 1

    def _slot_of(self, name: str) -> int | None:
        return self.devices.names.index(name) if name in self.devices.names else None

    def _run(self, batch: ReadingBatch) -> None:
        rows = len(batch)
        for slot in dict.fromkeys(batch.device.tolist()):
            self.slots.setdefault(slot, len(self.slots))
        if len(self.slots) > len(self.state["met"]):
            self._grow(2 * len(self.slots))
        local = np.array([self.slots[slot] for slot in batch.device.tolist()], np.int32)
        self.texts.update(batch.texts)
        columns = self.machine.room(rows)
        columns[: len(self.metrics), :rows] = batch.value
        quality = np.zeros((len(self.used), rows), np.uint8)
        self._hold(batch, local, columns, quality)
        self._fill_other(batch, columns)
        self.machine.run(rows, columns, local=local, ts_ns=batch.ts_ns, flags=batch.flags)
        carried = (quality & np.uint8(held.CARRIED)).max(axis=0, initial=0).tolist()
        newest = {slot: row for row, slot in enumerate(batch.device.tolist()) if carried[row]}
        for slot, row in newest.items():
            self.found[slot] = self._evaluation(batch, row, local[row], columns, quality)
        for slot, ts_ns in zip(batch.device.tolist(), batch.ts_ns.tolist(), strict=True):
            self.last[slot] = ts_ns

    def _hold(self, batch: ReadingBatch, local: Int32, columns: Any, quality: Any) -> None:
        state, rows, used = self.state, len(batch), len(self.used)
        self._held_before = state["held_ns"].copy()
        held.hold(
            local,
            batch.ts_ns,
            batch.ingest_ns,
            batch.seq,
            batch.flags,
            np.ascontiguousarray(batch.value),
            np.ascontiguousarray(batch.quality),
            self.used,
            self.spec.product.stale_after,
            state["held_value"],
            state["held_quality"],
            state["held_ns"],
            state["last"],
            state["met"],
            columns,
            quality,
            np.zeros((rows, used)),
            np.zeros((rows, used), np.uint8),
            np.zeros((rows, 3), np.int64),
        )
        state["met"][local] = -1

    def _evaluation(
        self, batch: ReadingBatch, row: int, device: int, columns: Any, quality: Any
    ) -> Evaluation:
        values = np.array([self.machine.values[at, row] for at in self.program.value_outputs])
        ts_ns = int(batch.ts_ns[row])
        found = {}
        for j, metric in enumerate(self.used.tolist()):
            since = self._held_since(batch, row, j, metric, device)
            age = math.nan if since is None else (ts_ns - since) / 1e9
            code = int(quality[j, row]) & 0x7F
            found[self.metrics[metric]] = (float(columns[metric, row]), QUALITY_NAMES[code], age)
        position, asked = int(batch.seq[row]) >> 16, self.asked(int(batch.device[row]), ts_ns)
        return Evaluation(ts_ns, int(batch.ingest_ns[row]), position, values, found, False, *asked)

    def _held_since(self, batch: ReadingBatch, row: int, j: int, metric: int, device: int) -> int | None:
        """The event time of the reading that brought the value that stands at a row; None: none did."""
        own = np.flatnonzero(batch.device[: row + 1] == batch.device[row])
        for at in reversed(own.tolist()):
            if batch.quality[metric, at] < 3:
                return int(batch.ts_ns[at])
        before = int(self._held_before[device, j])
        return before or None

    # -- parameters and attributes

    def _fill_other(self, batch: ReadingBatch, columns: Any) -> None:
        first = len(self.metrics)
        times = batch.ts_ns.tolist() if self.spec.attributes.dated else [None] * len(batch)
        readings = list(zip(batch.device.tolist(), times, strict=True))
        for at, column in enumerate(self.program.columns[first:], first):
            known = {one: self.input(column, *one) for one in dict.fromkeys(readings)}
            columns[at, : len(batch)] = [known[one] for one in readings]

    def input(self, column: Column, slot: int, at_ns: int | None) -> float:
        if column.root == "param":
            value, _ = self.param(column.name, slot, at_ns)
        else:
            value = self.attribute(column.name, slot, at_ns)
        if value is None:
            return math.nan
        return float(text_code(value)) if isinstance(value, str) else value

    def asked(
        self, slot: int, at_ns: int
    ) -> tuple[dict[str, tuple[float | str | None, str]], dict[str, str | None]]:
        """The parameters and attributes that the rule names, at a reading."""
        others = self.program.columns[len(self.metrics) :]
        params = {one.name: self.param(one.name, slot, at_ns) for one in others if one.root == "param"}
        rest = {one.name: self.attribute(one.name, slot, at_ns) for one in others if one.root == "device"}
        return params, rest

    def param_then(self, name: str, slot: int) -> tuple[float | str | None, str]:
        """A parameter as the device's last evaluating reading met it; without one, as it is."""
        evaluation = self.evaluation(slot)
        known = evaluation.params.get(name) if evaluation is not None else None
        return self.param(name, slot) if known is None else known

    def param(self, name: str, slot: int, at_ns: int | None = None) -> tuple[float | str | None, str]:
        """A parameter for a device, now or as of event time, and where it comes from."""
        device = self.devices.names[slot]
        default = self.spec.product.params.get(name)
        value = self.parameters.value(device, name)
        if value is not None and (default is None or isinstance(value, str) == isinstance(default, str)):
            return value, "set by an operator"
        cell = self.spec.attributes.row("devices", device, at_ns).get(name, "")
        if cell:
            return (cell if isinstance(default, str) else number_of(cell)), "devices.csv"
        return (
            float(default) if isinstance(default, int | float) else default
        ), f"{self.spec.product.productId}: params"

    def attribute(self, name: str, slot: int, at_ns: int | None = None) -> str | None:
        """An attribute of a device, now or as of event time; None where there is none."""
        device, hub = self.devices.names[slot], self.devices.hubs[slot]
        return self.spec.attributes.attribute(device, self.spec.product.productId, hub, name, at_ns) or None

    # -- what it found

    def follow(self, before: Probe) -> None:
        """Go on where another probe of the same product stands: the plant changed, or its master data."""
        if before.spec.rule.version == self.spec.rule.version:
            self.found, self.recallable = before.found, before.recallable
        self.parameters, self.slots, self.texts = before.parameters, before.slots, before.texts
        self.last, self.passed_by = before.last, before.passed_by
        self._grow(max(16, 2 * len(self.slots)))
        self.state["last"] = before.state["last"].copy()
        for j, metric in enumerate(self.used.tolist()):
            where = np.flatnonzero(before.used == metric)
            if len(where):
                for name in ("held_value", "held_quality", "held_ns"):
                    count = len(before.state[name])
                    self.state[name][:count, j] = before.state[name][:, int(where[0])]
        self.machine.load(before.machine.export(len(self.slots)), len(self.slots))

    def seed(self, logic: RulesLogic) -> None:
        """Begin where the rules stage stands that was restored from a snapshot."""
        self.parameters.load(logic.parameters.export())
        rules = logic.thresholds.products.get(self.spec.product.productId)
        if rules is None:
            return
        count = len(rules.slots)
        self.slots = {slot: index for index, slot in enumerate(rules.slots)}
        self.texts.update(rules.texts)
        self._grow(max(16, 2 * count))
        state = self.state
        state["last"][:count] = rules.state["last"][:count]
        for j, metric in enumerate(self.used.tolist()):
            if self.metrics[metric] in rules.metrics:
                at = rules.metrics.index(self.metrics[metric])
                for name in ("held_value", "held_quality", "held_ns"):
                    state[name][:count, j] = rules.state[name][:count, at]
        self.machine.load(rules.machine.export(count), count)
        for slot, index in self.slots.items():
            ts_ns = int(state["last"][index, 0])
            if ts_ns and self.watched in (None, self.devices.names[slot]):
                self.last[slot] = ts_ns
                self.recallable.add(slot)

    def evaluation(self, slot: int) -> Evaluation | None:
        """What a device's last evaluating reading left; None where there was none."""
        if slot not in self.found and slot in self.recallable:
            self.found[slot] = recalled(self, slot)
        return self.found.get(slot)

    def explained(self, slot: int) -> list[dict[str, Any]]:
        """Every expression with the values of its tree: {"what", "text", "default",
        "value", "tree"}."""
        past = self.machine.export(len(self.slots))
        found = []
        for one in self.spec.expressions:
            tree = self._node(one.tree, slot, past)
            told = {"what": one.what, "text": one.text, "default": one.default}
            found.append({**told, "value": tree["value"], "tree": tree})
        return found

    def _node(self, node: Expr, slot: int, past: Mapping[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {"text": written(node), "value": self._value(node, slot)}
        if node in self.formulas:
            told["formula"] = self.formulas[node]
        if isinstance(node, Name):
            told |= self._named(node, slot)
        if isinstance(node, Call) and is_temporal(node):
            told["past"] = self._past(node, slot, past)
        below = [one for one in children(node) if not isinstance(one, Duration)]
        told["children"] = [self._node(one, slot, past) for one in below if not _is_plain(one)]
        return told

    def _value(self, node: Expr, slot: int) -> Any:
        if isinstance(node, Number | Text | Bool):
            return node.value
        evaluation = self.evaluation(slot)
        if isinstance(node, Null) or evaluation is None:
            return None
        number = float(evaluation.values[self.nodes[node]])
        if math.isnan(number):
            return None
        kind = kind_of(node, self.scope)
        if kind == "bool":
            return number != 0.0
        return self.texts_of(number, node, slot) if kind == "text" else number

    def texts_of(self, code: float, node: Expr, slot: int) -> str:
        """The text behind a code: of a reading, a text of the rule, a parameter or attribute."""
        known = self.texts.get(int(code))
        if known is not None:
            return known
        evaluation = self.evaluation(slot)
        for one in walk(node):
            text: Any = None
            if isinstance(one, Text):
                text = one.value
            elif isinstance(one, Name) and one.root == "param":
                text, _ = self.param_then(one.parts[0], slot)
            elif isinstance(one, Name) and one.root == "device" and evaluation is not None:
                text = evaluation.attributes.get(one.parts[0])
            if isinstance(text, str) and text_code(text) == int(code):
                return text
        return "?"

    def _named(self, node: Name, slot: int) -> dict[str, Any]:
        """What is told of a name beside its value."""
        name = node.parts[0]
        if node.root == "param":
            return {"param": name, "from": self.param_then(name, slot)[1]}
        if node.root == "device":
            return {"from": "devices.csv"}
        evaluation = self.evaluation(slot)
        if evaluation is None or name not in evaluation.held:
            return {"quality": "absent", "age_s": None}
        _, quality, age = evaluation.held[name]
        return {"quality": quality, "age_s": None if math.isnan(age) else age}

    def kept(self, node: Call, past: Mapping[str, Any]) -> Any:
        """The state of a function over the past; None where it has none (yet)."""
        program = compile_conditions([], self.scope, self.program.columns, values=[node])
        texts = set(program.past[-1].texts)
        return next((one for one in past.get("operations", ()) if texts & set(one["texts"])), None)

    def _past(self, node: Call, slot: int, past: Mapping[str, Any]) -> dict[str, Any]:
        """What a function over the past keeps, as the device's last reading left it."""
        kept, at = self.kept(node, past), self.slots.get(slot)
        if kept is None or at is None:
            return {}
        if node.function in ("delta", "prev", "changed", "rate"):
            before = float(kept["numbers"][0][at])
            told = {"newest": None if math.isnan(before) else before}
            if node.function == "rate" and told["newest"] is not None:
                told["newest_ns"] = int(kept["times"][0][at])
            return told
        if node.function in ("since", "held"):
            when = [int(times[at]) for times in kept["times"]]
            told = {"true_since_ns" if node.function == "held" else "true_at_ns": _or_none(when[0])}
            if node.function == "held":
                told["paused_at_ns"] = _or_none(when[1])
            return told
        return {"samples": [list(pair) for pair in samples_of_chain(past, kept["chains"][at])]}


def _or_none(when: int) -> int | None:
    return None if when == NEVER else when


def _is_plain(node: Expr) -> bool:
    """A constant: its text is its value."""
    return isinstance(node, Number | Text | Bool | Null | Duration)


def flat(tree: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """A tree of `Probe.explained` line by line, with its depth."""
    yield depth, tree
    below: Sequence[Mapping[str, Any]] = tree["children"]
    for one in below:
        yield from flat(one, depth + 1)
