"""Rules of type group: what holds for many devices of a hub, a site or a product at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from operators.batch import HISTORICAL, IN_ORDER, Bytes, Int32, Int64, ReadingBatch, Slice
from operators.expression.grammar import parse
from operators.expression.machine import Machine
from operators.expression.program import Scope, compile_conditions
from operators.expression.registers import Column
from operators.expression.tree import Call, Expr, Null
from operators.growing import grown
from operators.spec import SECOND
from rules import group_kernels as k
from rules.alarm import AlarmRule, Evidence, Subject
from rules.check import scope_of
from rules.conditions import Conditions
from rules.context import Context
from rules.device_facts import DeviceFacts
from rules.held_kernels import CARRIED
from rules.last_frame import LastFrame
from rules.message import Value
from rules.place import AT_ROW, BY_TICK, GRACE_NS, Place, Transition
from rules.schedule import Windows
from rules.spec import GroupRule
from rules.tables import meaning

WHEN: Final = ("count", "total", "share")
"""Names in `when`: members whose condition holds, members for which it is known, and their share."""

PREFIX: Final = {"hub_id": "hub", "site_id": "site", "productId": "product"}
_NO_SLOT: Final = -1  # groups stand before all devices, whose alarms they may suppress
_NOT_ASKED, _NONE = -2, -1
_EVENTS_AT_ONCE: Final = 256


def when_scope() -> Scope:
    """What `when` may name."""
    return Scope("a group", dict.fromkeys(WHEN, "number"))


def member_tree(rule: GroupRule) -> Expr:
    """The condition of a member; unknown, and so not counted, where `where` does not hold."""
    condition = parse(rule.condition)
    if rule.where is None:
        return condition
    end = len(rule.condition)
    return Call(0, end, "if", (parse(rule.where), condition, Null(0, end)))


class _Rows(NamedTuple):
    """Live rows of members, in journal order."""

    device: Int32  # slots
    truth: Bytes
    ts_ns: Int64
    ingest_ns: Int64
    seq: Int64

    def take(self, which: npt.NDArray[Any]) -> _Rows:
        """Some of the rows, by mask or index."""
        device, truth, ts_ns, ingest_ns, seq = self
        return _Rows(device[which], truth[which], ts_ns[which], ingest_ns[which], seq[which])


class GroupRules:
    """The evaluator of group rules (`rules.place.Evaluator`)."""

    own_rules: Sequence[AlarmRule] = ()

    def __init__(self, context: Context) -> None:
        spec, alarms, samples = context.spec, context.alarms, context.samples
        facts = self.facts = DeviceFacts(context)
        self.frames = LastFrame()
        rules = [rule for rule in spec.rules if isinstance(rule, GroupRule)]
        self.rules = [_Rule(rule, alarms[rule.ruleId, ""], facts) for rule in rules]
        self.conditions: dict[str, Conditions] = {}
        self.of_product: dict[str, list[int]] = {}
        for name, product in spec.products.items():
            mine = [at for at, rule in enumerate(rules) if name in rule.products]
            if mine:
                scope = scope_of(product, {key for row in samples.values() for key in row}, samples)
                trees = [member_tree(rules[at]) for at in mine]
                self.conditions[name] = Conditions(product, scope, trees, [], facts)
                self.of_product[name] = mine

    def run(self, item: Slice) -> list[Transition]:
        if not self.rules:
            return []
        if (slot := self.facts.changed(item)) >= 0:
            for conditions in self.conditions.values():
                conditions.refresh(slot)
        rows: list[list[_Rows]] = [[] for _ in self.rules]
        for batch in item.readings:
            if len(batch) and batch.productId in self.conditions:
                self._evaluate(batch, rows)
        found: list[Transition] = []
        lasts, places = self.frames.ticks(item), LastFrame.places(item)
        for rule, mine in zip(self.rules, rows, strict=True):
            found += rule.run(item, _merged(mine), lasts, places, self.frames)
        return found

    def _evaluate(self, batch: ReadingBatch, rows: list[list[_Rows]]) -> None:
        """The truth of each rule's condition at the live rows that carry one of its metrics."""
        live = (batch.flags & np.uint8(IN_ORDER | HISTORICAL)) == IN_ORDER
        batch = batch if live.all() else batch.take(live)
        if not len(batch):
            return
        conditions = self.conditions[batch.productId]
        _, results = conditions.run(batch)
        seq = batch.seq.astype(np.int64)
        for at, rule in enumerate(self.of_product[batch.productId]):
            carried = np.zeros(len(batch), np.bool_)
            for metric in conditions.metrics_of[at]:
                carried |= (conditions.quality[metric, : len(batch)] & CARRIED) != 0
            truth = results[conditions.outputs[at], : len(batch)]
            whole = _Rows(batch.device, truth, batch.ts_ns, batch.ingest_ns, seq)
            rows[rule].append(whole.take(carried))
            self.rules[rule].evaluations += int(carried.sum())
        conditions.settle()

    def look_again(self, device: str, row: Mapping[str, str]) -> None:
        """Master data of a device have changed: it may belong to another group."""
        slot = self.facts.devices.slots.get(device)
        if slot is not None:
            for conditions in self.conditions.values():
                conditions.refresh(slot)
            for rule in self.rules:
                rule.move(slot)

    def leave(self, devices: Sequence[tuple[int, str]]) -> None:
        """Devices that left, as slots, and the products that they were of."""
        for rule in self.rules:
            rule.leave([slot for slot, product in devices if product in rule.rule.products])

    def settle(self, item: Slice) -> None:
        self.frames.settle(item)

    def counters(self) -> Mapping[str, int]:
        return {rule.rule.ruleId: rule.evaluations for rule in self.rules}

    def export(self) -> dict[str, Any]:
        return {
            "frames": self.frames.export(),
            "conditions": {name: one.export() for name, one in self.conditions.items()},
            "rules": {rule.key(self.conditions): rule.export() for rule in self.rules},
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        self.frames.load(kept["frames"])
        for name, conditions in self.conditions.items():
            if name in kept["conditions"]:
                conditions.load(kept["conditions"][name])
        for rule in self.rules:
            key = rule.key(self.conditions)
            if key in kept["rules"]:
                rule.load(kept["rules"][key])


def _merged(rows: Sequence[_Rows]) -> _Rows | None:
    """Rows of several products as one, in journal order."""
    if not rows:
        return None
    if len(rows) == 1:
        return rows[0]
    whole = _Rows(
        np.concatenate([one.device for one in rows]),
        np.concatenate([one.truth for one in rows]),
        np.concatenate([one.ts_ns for one in rows]),
        np.concatenate([one.ingest_ns for one in rows]),
        np.concatenate([one.seq for one in rows]),
    )
    return whole.take(np.argsort(whole.seq, kind="stable"))


class _Rule:
    """One rule: its groups, and which device belongs to which."""

    def __init__(self, rule: GroupRule, alarm: AlarmRule, facts: DeviceFacts) -> None:
        self.rule, self.alarm, self.facts = rule, alarm, facts
        columns = [Column("metrics", name) for name in WHEN]
        self.machine = Machine(compile_conditions([parse(rule.when)], when_scope(), columns))
        schedules = rule.schedules
        self.windows = Windows.of(schedules, facts.spec.timezone) if schedules else None
        self.names: list[str] = []  # of groups, in the order in which they were met
        self.known: dict[str, int] = {}
        self.group_of: Int32 = np.full(64, _NOT_ASKED, np.int32)  # by slot
        self.member: Bytes = np.zeros(64, np.uint8)
        self.subjects: dict[int, Subject] = {}
        self.evaluations = 0
        self.next_tick: Int64 = np.full(1, k.NEVER, np.int64)
        self.events = np.zeros((_EVENTS_AT_ONCE, k.EVENT_COLUMNS), np.int64)
        self._arrays(8)

    def _arrays(self, groups: int) -> None:
        def wider(name: str, width: int) -> Any:
            return grown(getattr(self, name, np.zeros((0, width), np.int64)), groups, 0)

        self.counts, self.state = wider("counts", 2), wider("state", 6)
        self.newest, self.shown = wider("newest", 3), wider("shown", 2)

    def _group(self, slot: int) -> int:
        """The group of a device; -1 where it has none: no such attribute, or not in service."""
        name, product = self.facts.devices.names[slot], self.facts.product(slot)
        if product not in self.rule.products:  # a source's `product:` says otherwise than the row
            product = self.rule.products[0]
        key = (
            product if self.rule.over == "productId" else self.facts.attribute(name, product, self.rule.over)
        )
        if not key or not self.facts.in_service(name):
            return _NONE
        group = self.known.get(key)
        if group is None:
            group = self.known[key] = len(self.names)
            self.names.append(key)
            if group >= len(self.counts):
                self._arrays(2 * group)
        return group

    def run(
        self, item: Slice, rows: _Rows | None, lasts: Int64, places: Int64, frames: LastFrame
    ) -> list[Transition]:
        ticks = item.frames.ticks
        if rows is None or not len(rows.device):
            if not len(ticks.ns) or ticks.ns[-1] < self.next_tick[0]:
                return []
            none = np.empty(0, np.int64)
            rows = _Rows(none.astype(np.int32), none.astype(np.uint8), none, none, none)
        else:
            rows = self._members(rows)
        count = len(rows.device)
        group = self.group_of[rows.device]
        counted = np.zeros((3, count))
        k.count_members(group, rows.device, rows.truth, self.member, self.counts, counted)
        when = self.machine.run(count, counted)[self.machine.program.outputs[0], :count]
        scheduled = np.ones(count, np.uint8)
        if self.windows is not None and count:
            clock = np.empty(count, np.int64)
            k.group_clocks(group, rows.ts_ns, self.newest[:, 0].copy(), clock)
            scheduled[:] = self.windows.covers(clock)
        found: list[Transition] = []
        resume = np.zeros(2, np.int64)
        while resume[0] >= 0:
            made = k.walk_groups(
                np.ascontiguousarray(when),
                scheduled,
                counted,
                group,
                rows.ts_ns,
                rows.ingest_ns,
                rows.seq >> 16,
                np.searchsorted(rows.seq, places),
                ticks.ns,
                lasts,
                self.rule.on_delay,
                self.rule.off_delay,
                GRACE_NS,
                len(self.names),
                self.state,
                self.newest,
                self.shown,
                self.next_tick,
                self.events,
                resume,
            )
            found += [
                self._transition(item, line, rows, lasts, places, frames)
                for line in self.events[:made].tolist()
            ]
        return found

    def _members(self, rows: _Rows) -> _Rows:
        """Rows of devices that belong to a group; groups are numbered in the order of the journal."""
        highest = int(rows.device.max())
        self.group_of = grown(self.group_of, highest + 1, _NOT_ASKED)
        self.member = grown(self.member, highest + 1, 0)
        group = self.group_of[rows.device]
        if (group == _NOT_ASKED).any():
            for slot in dict.fromkeys(rows.device[group == _NOT_ASKED].tolist()):
                self.group_of[slot] = self._group(slot)
            group = self.group_of[rows.device]
        keep = group >= 0
        return rows if keep.all() else rows.take(keep)

    def _transition(
        self, item: Slice, line: list[int], rows: _Rows, lasts: Int64, places: Int64, frames: LastFrame
    ) -> Transition:
        kind, group, time_ns, onset_ns, at, by, due_tick, true, known, position = line
        if by == BY_TICK:
            place_at, ingest = int(places[at]), int(lasts[at, 1])
        else:
            place_at = int(rows.seq[at])
            ingest = frames.ingest_at(item, position, int(rows.ingest_ns[at]))
        values: dict[str, Value] = {"count": true, "total": known, "share": true / known if known else None}
        place = Place(
            place_at,
            by,
            -(-due_tick // SECOND) if by == BY_TICK else 0,
            0 if by == AT_ROW else time_ns,
            _NO_SLOT,
            self.alarm.rank,
        )
        return Transition(
            place,
            self._subject(group),
            kind,
            time_ns,
            onset_ns,
            Evidence(self.rule.when, values, "good", position, ingest),
            lambda root, name: values.get(name) if root == "metrics" else None,
        )

    def _subject(self, group: int) -> Subject:
        known = self.subjects.get(group)
        if known is None:
            over, name = self.rule.over, self.names[group]
            known = self.subjects[group] = Subject(
                self.alarm,
                f"{PREFIX[over]}:{name}",
                -1,
                name if over == "productId" else self.rule.products[0],
                None,
                name if over == "hub_id" else None,
                name if over == "site_id" else None,
                None,
            )
        return known

    # -- state

    def key(self, conditions: Mapping[str, Conditions]) -> str:
        """What must be equal for its state to be kept: its text, and the types of its metrics."""
        types = sorted(
            {
                f"{name}.{metric}:{kind}"
                for name in self.rule.products
                if name in conditions
                for metric, kind in zip(conditions[name].metrics, conditions[name].types, strict=True)
                if metric in conditions[name].named(member_tree(self.rule))
            }
        )
        said = msgspec.json.encode(meaning(self.rule, self.facts.spec.timezone), order="sorted")
        return "\x1f".join((said.decode(), *types))

    def export(self) -> dict[str, Any]:
        count = len(self.names)
        return {
            "names": list(self.names),
            "member": self.member,
            "state": self.state[:count],
            "newest": self.newest[:count],
            "shown": self.shown[:count],
            "evaluations": self.evaluations,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take over; who belongs where is asked again, and members counted anew."""
        self.names = list(kept["names"])
        self.known = {name: group for group, name in enumerate(self.names)}
        count = len(self.names)
        self._arrays(max(8, count))
        for name in ("state", "newest", "shown"):
            getattr(self, name)[:count] = kept[name]
        self.evaluations = kept["evaluations"]
        self.member = np.array(kept["member"])
        self.group_of = np.full(len(self.member), _NOT_ASKED, np.int32)
        self._count(np.flatnonzero(self.member).tolist())
        runs = ((self.state[:count, 0] & 1) == 1) & (self.state[:count, 4] == k.NEVER)
        self.next_tick[0] = self.state[:count, 5][runs].min(initial=k.NEVER)

    def leave(self, slots: Iterable[int]) -> None:
        """Devices that are not of a product of the rule any more, unless of another one: they count no more
        until they are heard as one again."""
        for slot in slots:
            if slot < len(self.group_of) and self.facts.product(slot) not in self.rule.products:
                if self.member[slot]:
                    self.counts[self.group_of[slot]] -= np.array([self.member[slot] & 1, 1])
                self.group_of[slot], self.member[slot] = _NOT_ASKED, 0

    def move(self, slot: int) -> None:
        """A device may belong to another group from now on, and be counted there."""
        if slot >= len(self.group_of) or self.group_of[slot] == _NOT_ASKED:
            return
        if not self.member[slot]:
            self.group_of[slot] = _NOT_ASKED
            return
        before, after = int(self.group_of[slot]), self._group(slot)
        if before == after:
            return
        counted = np.array([self.member[slot] & 1, 1])
        self.counts[before] -= counted
        self.group_of[slot] = after
        if after >= 0:
            self.counts[after] += counted
        else:
            self.member[slot] = 0

    def _count(self, slots: Iterable[int]) -> None:
        self.counts[:] = 0
        for slot in slots:
            group = self.group_of[slot] = self._group(slot)
            if group < 0:
                self.member[slot] = 0
                continue
            self.counts[group, 0] += self.member[slot] & 1
            self.counts[group, 1] += 1
