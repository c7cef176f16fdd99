"""The rules stage: accepted readings, ticks and operators' actions -> alarm events.

Evaluators find transitions; they are put in one order with the timers that end among them, and the
lifecycle tells what becomes of each alarm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from operators.attributes import Attributes
from operators.batch import Slice
from operators.devices import Devices
from operators.master import RETIRED, DeviceRow, is_retired
from operators.parameters import Parameters
from operators.snapshot import Kept
from rules.absence import AbsenceRules
from rules.context import Context
from rules.device_clock import DeviceClock
from rules.group import GroupRules
from rules.historical import AlarmIntervals
from rules.input_gap import InputGaps
from rules.lifecycle import Lifecycle
from rules.measure import Measured, RuleMeasure
from rules.place import Evaluator, Transition
from rules.plain_events import PlainEvents
from rules.reported import ReportedRules
from rules.sequence import SequenceRules
from rules.spec import RulesSpec
from rules.tables import rule_key
from rules.thresholds import Thresholds
from rules.transitions import Transitions, one_by_one

EVALUATORS: Final[dict[str, Callable[[Context], Evaluator]]] = {
    "sequence": SequenceRules,
    "absence": AbsenceRules,
    "group": GroupRules,
    "reported": ReportedRules,
    "device_clock": DeviceClock,
    "input_gap": InputGaps,
}
"""What finds transitions beside the conditions of thresholds and limits; the name stands in snapshots."""

_place: Final = attrgetter("place")


class RulesLogic(Kept):
    """Evaluates the rules of every product and writes their events into the slice."""

    def __init__(self, spec: RulesSpec, devices: Devices) -> None:
        self.devices = devices
        self.parameters = Parameters()
        self._gone: list[tuple[str, str]] = []  # subject and comment, to be closed in the plant's slice
        self.seconds: dict[str, float] = {}  # by evaluator
        self._build(spec)
        self.alarms = Lifecycle(spec.plant, spec.shard, self._alarm_rules(), self.thresholds.products)
        self.plain = PlainEvents(self.alarms, self.intervals)

    def _build(self, spec: RulesSpec) -> None:
        self.spec = spec
        self.context = Context.of(spec, self.devices, self.parameters)
        self.thresholds = Thresholds(self.context)
        others = {name: make(self.context) for name, make in EVALUATORS.items()}
        self.intervals = AlarmIntervals(self.context)
        self.evaluators: dict[str, Evaluator] = {
            "thresholds": self.thresholds,
            **others,
            "intervals": self.intervals,
        }
        self.keys = {
            (name, rule.ruleId): rule_key(rule, product, spec.timezone)
            for name, product in spec.products.items()
            for rule in spec.rules
            if name in rule.products
        }

    def _alarm_rules(self) -> list[Any]:
        own = [rule for evaluator in self.evaluators.values() for rule in evaluator.own_rules]
        return [*self.context.alarms.values(), *own]

    def _plan(self) -> None:
        """The lifecycle of the rules as they are now."""
        self.alarms.plan(self._alarm_rules(), self.thresholds.products)
        self.plain = PlainEvents(self.alarms, self.intervals)

    def process(self, item: Slice) -> None:
        """Append the events of the slice to `item.alarms`, and the answer to an operator's action."""
        if item.control is not None:
            self._control(item)
        if item.master is not None and self._gone:
            self._close_gone(item, item.master.at_ns)
        others: list[Transition] = []
        found: list[Transitions] = []
        for name, evaluator in self.evaluators.items():
            began = time.perf_counter()
            if evaluator is self.thresholds:
                found = self.thresholds.find(item)
            else:
                others += evaluator.run(item)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        self.alarms.begin(item)
        if others or self.alarms.timers.heap or not self.plain.takes(found):
            others += one_by_one(found)
            others.sort(key=_place)
            for transition in others:
                self.alarms.take(transition)
        else:
            self.plain.run(item, found)
        self.alarms.end(item)
        for evaluator in self.evaluators.values():
            evaluator.settle(item)
        self.alarms.timers.end()

    def _control(self, item: Slice) -> None:
        """What a journal entry that is neither frames nor a tick does. Such an event has no reading
        of its own and takes the position of the last frame before it."""
        control = item.control
        assert control is not None
        before = max(0, item.position - 1)
        self.alarms.out = item.alarms
        if control.kind == "plant":
            self._close_gone(item, control.at_ns)
            self.alarms.suppress_anew(control.at_ns, before)
        elif control.kind == "action" and control.data.get("kind") == "alarm":
            item.answers.append(self.alarms.action(control, before))
        known = self.parameters.names()
        device = self.parameters.take(item)
        if self.parameters.names() - known:
            self.apply(self.spec)  # to the programs, what nothing overrides was a constant
        slot = self.devices.slots.get(device) if device is not None else None
        if slot is not None:
            self.thresholds.refresh(slot)

    def _close_gone(self, item: Slice, at_ns: int) -> None:
        """Close the alarms of what the plant has no more. Such an event has no reading of its own."""
        self.alarms.out = item.alarms
        before = max(0, item.position - len(item.frames) * (not item.released) - 1)
        for subject, comment in self._gone:
            self.alarms.close_gone(subject, comment, at_ns, before)
        self._gone = []

    # -- the plant changes

    def refresh(self, rows: Sequence[DeviceRow], attributes: Attributes) -> bool:
        """Devices whose master data have changed, each by itself: what is known of it is looked up again,
        in `attributes` from now on. False: it takes an `apply`, because a device leaves, comes back or moves
        to another product, or a column is filled, or a number, for the first time or the last."""
        absence = self.evaluators["absence"]
        if not (isinstance(absence, AbsenceRules) and absence.can_refresh()):
            return False
        for device, before, after, *_ in rows:
            slot = self.devices.slots.get(device)
            was = (before or {}).get("productId") or (self.devices.products[slot] if slot is not None else "")
            if is_retired(before) or is_retired(after) or (was and after.get("productId", was) != was):
                return False
            if (before or {}).get("status", "") != after.get("status", ""):
                return False
        if not self.context.cells.move(rows):
            return False
        self.spec.joined.tables, self.spec.joined.past = attributes.tables, attributes.past
        for device, _, after, *_ in rows:
            self.spec.attributes[device] = after
        for evaluator in self.evaluators.values():
            look = getattr(evaluator, "look_again", None)
            if look is not None:
                for device, _, after, *_ in rows:
                    look(device, after)
        return True

    def apply(self, spec: RulesSpec) -> None:
        """New specs from the next slice on: a rule whose meaning is unchanged (`tables.meaning`)
        keeps its state; open occurrences of the others are closed by events in that slice, and so are
        those of devices that devices.csv had and has no more, or has under another product."""
        kept = {name: evaluator.export() for name, evaluator in self.evaluators.items()}
        before, rows = self.keys, self.spec.attributes
        self._build(spec)
        for name, evaluator in self.evaluators.items():
            if name in kept:
                evaluator.load(kept[name])
        left = _left(rows, spec.attributes)
        slots = self.devices.slots
        gone = [device for device in sorted(left) if device in slots]
        for name, product in self.thresholds.products.items():
            product.leave([slots[one] for one in gone if _leaves(one, name, rows, spec.attributes)])
        groups = self.evaluators["group"]
        if isinstance(groups, GroupRules):
            groups.leave([(slots[device], rows.get(device, {}).get("productId", "")) for device in gone])
        own = {rule.ruleId for evaluator in self.evaluators.values() for rule in evaluator.own_rules}
        for name, standing in sorted(self.alarms.standings.items()):
            device, its = standing.subject.device_id, standing.subject.productId or ""
            if device is not None and device in left and _leaves(device, its, rows, spec.attributes):
                self._gone.append((name, "device removed"))
                continue
            ruleId = standing.subject.rule.ruleId
            key = (standing.subject.productId or "", ruleId)
            if ruleId in own or (key in self.keys and self.keys[key] == before.get(key)):
                continue
            self._gone.append((name, "rule changed" if key in self.keys else "rule removed"))
        self.alarms.events.plant, self.alarms.events.shard = spec.plant, spec.shard
        self._plan()
        self.alarms.watch_all()

    # -- looking at it

    def export_active(self) -> list[dict[str, Any]]:
        """The open occurrences (active, or something is left to do with them) of rules that are not
        in shadow: the `data` of the newest event of each, by subject."""
        return [
            one.data for one in self.alarms.open() if one.data is not None and not one.subject.rule.shadow
        ]

    def counters(self) -> dict[str, dict[str, int]]:
        """ruleId -> evaluations, raised, cleared."""
        told = {rule.ruleId: {"evaluations": 0, "raised": 0, "cleared": 0} for rule in self.spec.rules}
        for evaluator in self.evaluators.values():
            for name, evaluations in evaluator.counters().items():
                told.setdefault(name, {"evaluations": 0, "raised": 0, "cleared": 0})
                told[name]["evaluations"] += evaluations
        for (name, _), tally in self.alarms.tallies.items():
            if name in told:
                told[name]["raised"] += tally.raised
                told[name]["cleared"] += tally.cleared
        return told

    def measured(self) -> Measured:
        """What each rule did on the devices of each product, and what it cost (for metrics alone). From
        any thread."""
        found: dict[tuple[str, str], RuleMeasure] = {}
        for evaluator in self.evaluators.values():
            if evaluator is not self.thresholds:
                products = {rule.ruleId: rule.products for rule in self.spec.rules}
                for name, evaluations in evaluator.counters().items():
                    of = products.get(name, ())
                    found[name, of[0] if len(of) == 1 else ""] = RuleMeasure(evaluations)
        found |= self.thresholds.measured()
        for key, tally in list(self.alarms.tallies.items()):
            one = found.setdefault(key, RuleMeasure(0))
            one.raised, one.cleared, one.active_ns = tally.raised, tally.cleared, tally.active_ns
        return Measured(found, self.thresholds.seconds.copy(), self.seconds.copy())

    # -- state

    def export(self) -> dict[str, Any]:
        """All state; load it under the same specs."""
        self.alarms.events.forget_before(self.thresholds.newest, self.alarms.standings)
        return {
            "evaluators": {name: evaluator.export() for name, evaluator in self.evaluators.items()},
            "alarms": self.alarms.export(),
            "gone": self._gone,
            "parameters": self.parameters.export(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `export` gave."""
        self.parameters.load(state.get("parameters", {}))
        if self.parameters.names():
            self._build(self.spec)
            self._plan()
        for name, evaluator in self.evaluators.items():
            if name in state["evaluators"]:
                evaluator.load(state["evaluators"][name])
        self.alarms.load(state["alarms"])
        self._gone = [(subject, comment) for subject, comment in state["gone"]]


def _leaves(
    device: str,
    productId: str,
    before: Mapping[str, Mapping[str, str]],
    after: Mapping[str, Mapping[str, str]],
) -> bool:
    """Whether a device that left is no more one of a product: one that moved to another may go on sending,
    by a source's `product:`, frames of a third."""
    then, now = before.get(device, {}).get("productId"), after.get(device)
    moved = now is not None and now.get("status") != RETIRED and now.get("productId") != then
    return not moved or productId == then


def _left(before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Devices of whose product no more is heard: gone, retired, or of another."""
    retired = {device for device, row in after.items() if row.get("status") == RETIRED}
    return (retired - before.keys()) | {
        device
        for device, row in before.items()
        if device not in after
        or (row.get("productId") and after[device].get("productId") != row.get("productId"))
        or (device in retired and row.get("status") != RETIRED)
    }
