"""The rules stage: accepted readings -> alarm events.

Only readings that are in order and not historical evaluate rules; the others pass. Ticks find
delays over that no reading ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from operators.batch import HISTORICAL, IN_ORDER, AlarmEvent, Slice
from operators.devices import Devices
from operators.parameters import Parameters
from operators.snapshot import pack, unpack
from rules.alarm import Alarms, Evidence, Subject
from rules.check import samples_of
from rules.kernels import RAISED
from rules.message import Value
from rules.product import Found, ProductRules
from rules.spec import RulesSpec
from rules.tables import rule_key

_SUBJECTS_AT_MOST = 100_000  # facts of subjects kept at hand, a product


class RulesLogic:
    """Evaluates the rules of every product and writes their events into the slice."""

    def __init__(self, spec: RulesSpec, devices: Devices) -> None:
        self.spec = spec
        self.devices = devices
        self.alarms = Alarms(spec.plant, spec.shard)
        self.parameters = Parameters()
        self.products = self._build(spec)
        self.raised: dict[str, int] = {}
        self.cleared: dict[str, int] = {}
        self._gone: list[tuple[str, str]] = []  # subject and comment, to be closed in the plant's slice

    def _build(self, spec: RulesSpec) -> dict[str, ProductRules]:
        built = {}
        samples = samples_of(spec.attributes)
        for name, product in spec.products.items():
            rules = [rule for rule in spec.rules if name in rule.products]
            if rules:
                built[name] = ProductRules(
                    product, rules, spec.attributes, self.devices, samples, self.parameters
                )
        return built

    def process(self, item: Slice) -> None:
        """Append the events of the slice's readings and ticks to `item.alarms`."""
        if item.control is not None:
            self._close_gone(item)
            self._take_parameter(item)
        for batch in item.readings:
            product = self.products.get(batch.productId)
            if product is None:
                continue
            live = (batch.flags & np.uint8(IN_ORDER | HISTORICAL)) == IN_ORDER
            for found in product.run(batch if live.all() else batch.take(live)):
                item.alarms.extend(self._events(product, found))

    def _take_parameter(self, item: Slice) -> None:
        """An operator has set a parameter, and the decode stage has accepted it."""
        device = self.parameters.take(item)
        slot = self.devices.slots.get(device) if device is not None else None
        if slot is not None:
            for product in self.products.values():
                product.refresh(slot)

    # -- events

    def _events(self, product: ProductRules, found: Found) -> Iterator[AlarmEvent]:
        rule = product.rules[found.rule]
        subject = self._subject(product, found)
        values, quality = product.shown(found)
        evidence = Evidence(rule.conditions[""], values, quality, found.position, found.ingest_ns)

        def event(transition: str, onset_ns: int, active: bool) -> AlarmEvent:
            message = product.messages[found.rule].fill(
                lambda root, name: self._named(product, found, subject, transition, root, name)
            )
            return self.alarms.event(
                transition, subject, onset_ns, found.time_ns, evidence, message, active=active
            )

        if found.kind == RAISED:
            if found.earlier_ns >= 0 and subject.name in self.alarms.open:
                yield event("closed", found.earlier_ns, False)
            self.raised[rule.ruleId] = self.raised.get(rule.ruleId, 0) + 1
            yield event("raised", found.onset_ns, True)
        else:
            self.cleared[rule.ruleId] = self.cleared.get(rule.ruleId, 0) + 1
            yield event("cleared", found.onset_ns, False)
            if not subject.by_hand:
                yield event("closed", found.onset_ns, False)

    def _subject(self, product: ProductRules, found: Found) -> Subject:
        known = product.subjects.get((found.rule, found.device))
        if known is not None:
            return known
        if len(product.subjects) > _SUBJECTS_AT_MOST:
            product.subjects.clear()
        rule = product.rules[found.rule]
        subject = product.subjects[found.rule, found.device] = Subject(
            self.devices.names[found.device],
            rule.ruleId,
            rule.version,
            product.product.productId,
            product.attribute("hub_id", found.device),
            product.attribute("site_id", found.device),
            product.attribute("customer_id", found.device),
            rule.severity_of(),
            rule.acknowledged_by_hand(rule.severity_of()),
        )
        return subject

    def _named(
        self, product: ProductRules, found: Found, subject: Subject, transition: str, root: str, name: str
    ) -> Value:
        """What a name in a message stands for."""
        if root == "metrics":
            at = product.metrics.index(name)
            return product.plain(at, float(found.values[at]))
        if root == "param":
            return product.param(name, found.device)
        if root == "device":
            return product.attribute(name, found.device)
        if name == "condition":
            return product.rules[found.rule].conditions[""]
        if name == "transition":
            return transition
        value: str | None = getattr(subject, name)
        return value

    # -- the plant changes

    def apply(self, spec: RulesSpec) -> None:
        """New specs from the next slice on: a rule whose text and metrics are unchanged keeps its
        state; open occurrences of the others are closed by events in that slice."""
        kept: set[tuple[str, str]] = set()
        built = self._build(spec)
        for name, product in built.items():
            if name in self.products:
                before = self.products[name]
                product.load(before.export())
                known = {rule_key(rule, before.product) for rule in before.rules}
                kept |= {
                    (name, rule.ruleId) for rule in product.rules if rule_key(rule, product.product) in known
                }
        still = {(name, rule.ruleId) for name, product in built.items() for rule in product.rules}
        for subject, data in sorted(self.alarms.open.items()):
            key = (data["productId"], data["ruleId"])
            if key not in kept:
                self._gone.append((subject, "rule changed" if key in still else "rule removed"))
        self.products, self.spec = built, spec
        self.alarms.plant, self.alarms.shard = spec.plant, spec.shard

    def _close_gone(self, item: Slice) -> None:
        """Close what a changed plant left open: such an event has no reading of its own and takes
        the position of the last frame before the change."""
        if item.control is None or item.control.kind != "plant":
            return
        for subject, comment in self._gone:
            event = self.alarms.close(subject, item.control.at_ns, max(0, item.position - 1), comment)
            if event is not None:
                item.alarms.append(event)
        self._gone = []

    # -- looking at it

    def export_active(self) -> list[dict[str, Any]]:
        """The open occurrences (active, or cleared and not acknowledged): the `data` of the
        newest event of each, by subject."""
        return [data for _, data in sorted(self.alarms.open.items())]

    def counters(self) -> dict[str, dict[str, int]]:
        """ruleId -> evaluations, raised, cleared."""
        told: dict[str, dict[str, int]] = {}
        for product in self.products.values():
            for rule, evaluations in zip(product.rules, product.evaluations.tolist(), strict=True):
                entry = told.setdefault(rule.ruleId, {"evaluations": 0, "raised": 0, "cleared": 0})
                entry["evaluations"] += evaluations
                entry["raised"] = self.raised.get(rule.ruleId, 0)
                entry["cleared"] = self.cleared.get(rule.ruleId, 0)
        return told

    # -- state

    def snapshot(self) -> bytes:
        """All state; restore it under the same specs."""
        newest = {
            device: position for product in self.products.values() for device, position in product.newest()
        }
        self.alarms.forget_before(newest)
        return pack(
            {
                "products": {name: product.export() for name, product in self.products.items()},
                "alarms": self.alarms.export(),
                "raised": self.raised,
                "cleared": self.cleared,
                "gone": self._gone,
                "parameters": self.parameters.export(),
            }
        )

    def restore(self, data: bytes) -> None:
        """Take over the state that `snapshot` gave."""
        state = unpack(data)
        self.parameters.load(state.get("parameters", {}))
        for name, product in self.products.items():
            if name in state["products"]:
                product.load(state["products"][name])
        self.alarms.load(state["alarms"])
        self.raised, self.cleared = dict(state["raised"]), dict(state["cleared"])
        self._gone = [(subject, comment) for subject, comment in state["gone"]]
