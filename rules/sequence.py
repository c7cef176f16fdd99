"""Rules of type sequence: conditions that one device meets one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from operators.batch import HISTORICAL, IN_ORDER, Int64, ReadingBatch, Slice
from operators.expression.grammar import parse
from operators.expression.tree import Expr
from operators.growing import grown
from operators.spec import SECOND
from rules import sequence_kernels as k
from rules.alarm import AlarmRule, Evidence
from rules.check import scope_of
from rules.conditions import Conditions
from rules.context import Context
from rules.device_facts import DeviceFacts
from rules.gate import Gate
from rules.last_frame import LastFrame
from rules.message import Field
from rules.place import AT_ROW, BY_TICK, GRACE_NS, RAISED, Place, Transition
from rules.spec import RuleProduct, SequenceRule, Step
from rules.tables import rule_key

_EVENTS_AT_ONCE: Final = 1024
_STATE: Final = ("start", "matched", "begun", "due", "paused", "due_tick")


def steps_of(rule: SequenceRule) -> list[tuple[str, bool, int]]:
    """Each step as its condition, whether it is a `not` step, and `within` (-1: for ever)."""
    found = []
    for step in rule.steps:
        if isinstance(step, Step):
            text = step.not_ if step.not_ is not None else step.condition
            assert text is not None
            found.append((text, step.not_ is not None, -1 if step.within is None else step.within))
        else:
            found.append((step, False, -1))
    return found


def expression_of(rule: SequenceRule) -> str:
    """The steps as evidence shows them: `mode == 'run'; not rpm > 100 within 20s`."""
    told = []
    for text, absent, within in steps_of(rule):
        told.append(f"{'not ' if absent else ''}{text}{'' if within < 0 else f' within {_seconds(within)}'}")
    return "; ".join(told)


def _seconds(ns: int) -> str:
    return f"{ns / SECOND:g}s"


class SequenceRules:
    """The evaluator of sequence rules (`rules.place.Evaluator`)."""

    own_rules: Sequence[AlarmRule] = ()

    def __init__(self, context: Context) -> None:
        spec, alarms, samples = context.spec, context.alarms, context.samples
        facts = self.facts = DeviceFacts(context)
        self.products: dict[str, _Product] = {}
        for name, product in spec.products.items():
            rules = [rule for rule in spec.rules if isinstance(rule, SequenceRule) and name in rule.products]
            if rules:
                self.products[name] = _Product(product, rules, alarms, facts, samples)

    def run(self, item: Slice) -> list[Transition]:
        found: list[Transition] = []
        if (slot := self.facts.changed(item)) >= 0:
            for product in self.products.values():
                product.conditions.refresh(slot)
        for batch in item.readings:
            if batch.productId in self.products:
                product = self.products[batch.productId]
                live = (batch.flags & np.uint8(IN_ORDER | HISTORICAL)) == IN_ORDER
                found += product.run(item, batch if live.all() else batch.take(live))
        return found

    def look_again(self, device: str, row: Mapping[str, str]) -> None:
        """Master data of a device have changed."""
        slot = self.facts.devices.slots.get(device)
        if slot is not None:
            for product in self.products.values():
                product.conditions.refresh(slot)

    def settle(self, item: Slice) -> None:
        pass

    def counters(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for product in self.products.values():
            for rule in product.rules:
                found[rule.ruleId] = found.get(rule.ruleId, 0) + product.evaluations
        return found

    def export(self) -> dict[str, Any]:
        return {name: product.export() for name, product in self.products.items()}

    def load(self, kept: Mapping[str, Any]) -> None:
        for name, product in self.products.items():
            if name in kept:
                product.load(kept[name])


class _Product:
    """The sequence rules of one product."""

    def __init__(
        self,
        product: RuleProduct,
        rules: Sequence[SequenceRule],
        alarms: Mapping[tuple[str, str], AlarmRule],
        facts: DeviceFacts,
        samples: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.rules = list(rules)
        self.alarms = [alarms[rule.ruleId, ""] for rule in rules]
        self.expressions = [expression_of(rule) for rule in rules]
        self.facts = facts
        self.productId = product.productId
        self.evaluations = 0
        scope = scope_of(product, {name for row in samples.values() for name in row}, samples)
        self.gates = [Gate(rule, product.productId, scope, facts) for rule in rules]
        trees: list[Expr] = []
        steps: list[tuple[int, bool, int]] = []  # tree, not step, within
        starts, clear_tree, clear_when = [0], [], []
        parts: list[list[int]] = []  # trees of each rule
        for rule in rules:
            first = len(trees)
            for text, absent, within in steps_of(rule):
                steps.append((len(trees), absent, within))
                trees.append(parse(text))
            starts.append(len(steps))
            clear_tree.append(steps[-1][0])
            clear_when.append(1 if steps[-1][1] else 2)
            if rule.clear_condition is not None:
                clear_tree[-1], clear_when[-1] = len(trees), 1
                trees.append(parse(rule.clear_condition))
            parts.append(list(range(first, len(trees))))
        shown = [
            piece.name
            for alarm in self.alarms
            for piece in alarm.template.pieces
            if isinstance(piece, Field) and piece.root == "metrics"
        ]
        named = [
            column.name
            for gate in self.gates
            if gate.machine is not None
            for column in gate.machine.program.columns
            if column.root == "metrics"
        ]
        self.conditions = Conditions(product, scope, trees, [*shown, *named], facts)
        out = self.conditions.outputs
        self.of_rule = [
            sorted({j for tree in part for j in self.conditions.metrics_of[tree]}) for part in parts
        ]
        carry_start = np.cumsum([0, *(len(part) for part in self.of_rule)])
        self.tables = (
            np.array(starts, np.int32),
            np.array([out[tree] for tree, _, _ in steps], np.int32),
            np.array([absent for _, absent, _ in steps], np.uint8),
            np.array([within for _, _, within in steps], np.int64),
            np.array([out[tree] for tree in clear_tree], np.int32),
            np.array(clear_when, np.uint8),
        )
        self.carry = (
            carry_start.astype(np.int32),
            np.array([j for part in self.of_rule for j in part], np.int32),
        )
        self.next_tick: Int64 = np.full(len(rules), k.NEVER, np.int64)
        self.events = np.zeros((_EVENTS_AT_ONCE + len(steps) + 2 * len(rules), k.EVENT_COLUMNS), np.int64)
        self.muted: set[tuple[int, int]] = set()  # rule, device: kept from raising, and not cleared yet
        self.state: dict[str, Any] = {}
        self._grow(64)

    def _grow(self, capacity: int) -> None:
        steps, rules = len(self.tables[1]), len(self.rules)
        for name in _STATE:
            fresh = np.empty((0, steps), np.int64)
            self.state[name] = grown(self.state.get(name, fresh), capacity, k.NEVER)
        self.state["active"] = grown(self.state.get("active", np.empty((0, rules), np.uint8)), capacity, 0)
        self.state["onset"] = grown(self.state.get("onset", np.empty((0, rules), np.int64)), capacity, 0)

    def run(self, item: Slice, batch: ReadingBatch) -> list[Transition]:
        ticks = batch.ticks
        if not len(batch) and (not len(ticks.ns) or ticks.ns[-1] < self.next_tick.min()):
            return []
        conditions = self.conditions
        local, results = conditions.run(batch)
        self.evaluations += len(batch)
        if len(self.state["active"]) < conditions.slots.capacity:
            self._grow(conditions.slots.capacity)
        found: list[Transition] = []
        places = LastFrame.places(item)
        resume = np.zeros(2, np.int64)
        while resume[0] >= 0:
            state = [self.state[name] for name in (*_STATE, "active", "onset")]
            carried = (True, conditions.quality, *self.carry, GRACE_NS)
            readings = (local, batch.ts_ns, batch.ingest_ns, batch.flags, ticks.row, ticks.ns)
            found_in = (self.next_tick, self.events, resume)
            rest: tuple[Any, ...] = (*carried, *readings, conditions.devices, *state, *found_in)
            count = k.walk_sequences(results, *self.tables, *rest)
            for line in self.events[:count].tolist():
                made = self._transition(line, batch, places)
                if made is not None:
                    found.append(made)
        conditions.settle()
        return found

    def _transition(self, line: list[int], batch: ReadingBatch, places: Int64) -> Transition | None:
        kind, rule, device, time_ns, onset_ns, row, by, due_tick, tick = line
        conditions, alarm = self.conditions, self.alarms[rule]
        rests_on = row if by == AT_ROW else conditions.row_before(device, row)
        slot = int(conditions.slots.slot_of[device])
        name = self.facts.devices.names[slot]
        whole, _, _, _ = conditions.evidence(device, rests_on, range(len(conditions.metrics)))
        if kind == RAISED and not self.gates[rule].opens(name, time_ns, whole):
            self.muted.add((rule, device))
            return None
        if kind != RAISED and (rule, device) in self.muted:
            self.muted.discard((rule, device))
            return None
        values, quality, position, ingest = conditions.evidence(device, rests_on, self.of_rule[rule])
        at = int(places[tick]) if by == BY_TICK else int(batch.seq[row])
        place = Place(
            at,
            by,
            -(-due_tick // SECOND) if by == BY_TICK else 0,
            0 if by == AT_ROW else time_ns,
            slot,
            alarm.rank,
        )
        return Transition(
            place,
            self.facts.subject(alarm, name, self.productId, slot=slot, at_ns=time_ns),
            kind,
            time_ns,
            onset_ns,
            Evidence(self.expressions[rule], values, quality, position, ingest),
            self.facts.lookup(name, self.productId, whole, at_ns=time_ns),
        )

    # -- state

    def _keys(self) -> list[str]:
        """What must be equal for a rule's state to be kept: its text, and the types of its metrics."""
        conditions = self.conditions
        return [
            "\x1f".join(
                (
                    rule_key(rule, conditions.product, self.facts.spec.timezone),
                    *(f"{conditions.metrics[j]}:{conditions.types[j]}" for j in used),
                )
            )
            for rule, used in zip(self.rules, self.of_rule, strict=True)
        ]

    def export(self) -> dict[str, Any]:
        count = self.conditions.devices
        return {
            "rules": self._keys(),
            "steps": self.tables[0],
            "conditions": self.conditions.export(),
            "state": {name: array[:count] for name, array in self.state.items()},
            "muted": sorted(list(pair) for pair in self.muted),
            "evaluations": self.evaluations,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        self.conditions.load(kept["conditions"])
        self._grow(self.conditions.slots.capacity)
        self.evaluations = kept["evaluations"]
        count = self.conditions.devices
        first, before = self.tables[0], kept["steps"]
        moved: dict[int, int] = {}
        for at, key in enumerate(self._keys()):
            if key not in kept["rules"]:
                continue
            then = kept["rules"].index(key)
            moved[then] = at
            for name in _STATE:
                self.state[name][:count, first[at] : first[at + 1]] = kept["state"][name][
                    :, before[then] : before[then + 1]
                ]
            for name in ("active", "onset"):
                self.state[name][:count, at] = kept["state"][name][:, then]
            waits = self.state["due"][:count, first[at] : first[at + 1]] != k.NEVER
            waits &= self.state["paused"][:count, first[at] : first[at + 1]] == k.NEVER
            due_tick = self.state["due_tick"][:count, first[at] : first[at + 1]]
            self.next_tick[at] = due_tick[waits].min(initial=k.NEVER)
        self.muted = {(moved[rule], device) for rule, device in kept["muted"] if rule in moved}
