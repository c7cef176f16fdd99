"""Rules that are conditions over one device's readings: threshold (rate, window) and limit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from operators.batch import HISTORICAL, IN_ORDER, Slice
from rules.alarm import AlarmRule
from rules.context import Context
from rules.measure import RuleMeasure
from rules.place import Transition
from rules.product import ProductRules
from rules.tables import parts_of
from rules.transitions import Transitions, one_by_one


class Thresholds:
    """Evaluates them for every product; knows the devices of each product that has rules of any
    kind."""

    own_rules: tuple[AlarmRule, ...] = ()

    def __init__(self, context: Context) -> None:
        spec = context.spec
        self.devices = context.devices
        self.seconds: dict[str, float] = {}  # by product
        self.products: dict[str, ProductRules] = {}
        for name, product in spec.products.items():
            rules = [rule for rule in spec.rules if name in rule.products]
            if rules:
                self.products[name] = ProductRules(
                    product,
                    parts_of(rules, context.alarms),
                    spec.joined,
                    context.devices,
                    context.samples,
                    context.parameters,
                    spec.timezone,
                )

    def run(self, item: Slice) -> list[Transition]:
        """What `find` finds, one by one."""
        return one_by_one(self.find(item))

    def find(self, item: Slice) -> list[Transitions]:
        """What happened, by product. Only readings that are in order and not historical evaluate rules;
        the others pass."""
        found: list[Transitions] = []
        for batch in item.readings:
            product = self.products.get(batch.productId)
            if product is not None:
                began = time.perf_counter()
                live = (batch.flags & np.uint8(IN_ORDER | HISTORICAL)) == IN_ORDER
                happened = product.run(item, batch if live.all() else batch.take(live))
                if happened is not None:
                    found.append(happened)
                spent = self.seconds.get(batch.productId, 0.0) + time.perf_counter() - began
                self.seconds[batch.productId] = spent
        return found

    def settle(self, item: Slice) -> None:
        for batch in item.readings:
            product = self.products.get(batch.productId)
            if product is not None:
                product.settle()

    def refresh(self, slot: int) -> None:
        """A parameter of a device has changed: its next reading sees it."""
        for product in self.products.values():
            product.refresh(slot)

    def look_again(self, device: str, row: Mapping[str, str]) -> None:
        """Master data of a device have changed."""
        slot = self.devices.slots.get(device)
        if slot is not None:
            for product in self.products.values():
                product.look_again(slot)

    def counters(self) -> Mapping[str, int]:
        told: dict[str, int] = {}
        for product in self.products.values():
            first: set[str] = set()  # one evaluation is one rule on one reading, whatever its limits
            for part, evaluations in zip(product.parts, product.evaluations.tolist(), strict=True):
                name = part.rule.ruleId
                if name not in first:
                    first.add(name)
                    told[name] = told.get(name, 0) + evaluations
        return told

    def measured(self) -> dict[tuple[str, str], RuleMeasure]:
        """(ruleId, productId) -> its evaluations, and how many of those looked at were unknown."""
        told: dict[tuple[str, str], RuleMeasure] = {}
        for name, product in self.products.items():
            columns = (product.evaluations, product.sampled, product.unknown)
            counts = [*(one.tolist() for one in columns), product.machine.overflows()[: len(product.parts)]]
            for part, *numbers in zip(product.parts, *counts, strict=True):
                known = told.get((part.rule.ruleId, name))
                if known is None:  # of a rule with several limits the first stands for all
                    evaluations, sampled, unknown, overflows = numbers
                    told[part.rule.ruleId, name] = RuleMeasure(
                        evaluations, sampled=sampled, unknown=unknown, overflows=overflows
                    )
        return told

    def newest(self, device: str) -> int:
        """Position of the last reading of a device that rules saw; -1 where there is none."""
        slot = self.devices.slots.get(device)
        return -1 if slot is None else max((one.newest(slot) for one in self.products.values()), default=-1)

    def export(self) -> dict[str, Any]:
        return {name: product.export() for name, product in self.products.items()}

    def load(self, kept: Mapping[str, Any]) -> None:
        for name, product in self.products.items():
            if name in kept:
                product.load(kept[name])
