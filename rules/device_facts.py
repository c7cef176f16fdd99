"""What is known of a device beside its readings: attributes, parameters, and whose alarm it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from operators.batch import Slice
from rules.alarm import AlarmRule, Subject
from rules.check import number_of
from rules.context import Context
from rules.message import Value

IN_SERVICE = "in_service"


class DeviceFacts:
    """Answers by device_id, out of devices.csv, the addresses and what operators have set."""

    def __init__(self, context: Context) -> None:
        self.spec = context.spec
        self.attributes = context.spec.joined
        self.devices = context.devices
        self.parameters = context.parameters

    def changed(self, item: Slice) -> int:
        """The slot of the device of which a parameter was set in the slice; -1: none was."""
        for answer in item.answers:
            param = answer.get("param")
            if answer["accepted"] and param is not None:
                return self.devices.slots.get(param["device_id"], -1)
        return -1

    def attribute(
        self,
        device: str,
        productId: str,
        name: str,
        hub_id: str = "",
        *,
        unheard: bool = False,
        at_ns: int | None = None,
    ) -> str | None:
        """An attribute of a device, now or as of event time; None where there is none. The hub may stand in
        the address. unheard: the device is asked about at a place before its first reading, which may
        stand in the same slice."""
        slot = None if unheard else self.devices.slots.get(device)
        hub = hub_id or (self.devices.hubs[slot] if slot is not None else "")
        return self.attributes.attribute(device, productId, hub, name, at_ns) or None

    def product(self, slot: int) -> str:
        """The product of a device that has been heard."""
        row = self.spec.attributes.get(self.devices.names[slot], {})
        return row.get("productId") or self.devices.products[slot]

    def in_service(self, device: str) -> bool:
        """Whether devices.csv says nothing else."""
        return (self.spec.attributes.get(device, {}).get("status") or IN_SERVICE) == IN_SERVICE

    def param(self, device: str, productId: str, name: str, at_ns: int | None = None) -> float | str | None:
        """What an operator has set, else the device's column of devices.csv, now or as of event time, else
        the default."""
        default = self.spec.products[productId].params.get(name)
        own = self.parameters.value(device, name)
        if own is not None and isinstance(own, str) == isinstance(default, str):
            return own
        cell = self.attributes.row("devices", device, at_ns).get(name, "")
        if not cell:
            return float(default) if isinstance(default, int | float) else default
        return cell if isinstance(default, str) else number_of(cell)

    def lookup(
        self,
        device: str,
        productId: str,
        values: Mapping[str, Any],
        hub_id: str = "",
        *,
        unheard: bool = False,
        at_ns: int | None = None,
    ) -> Callable[[str, str], Value]:
        """What names in a message stand for, now or as of event time; `values` are those of the metrics."""

        def named(root: str, name: str) -> Value:
            if root == "param":
                return self.param(device, productId, name, at_ns)
            if root == "device":
                return self.attribute(device, productId, name, hub_id, unheard=unheard, at_ns=at_ns)
            found: Value = values.get(name)
            return found

        return named

    def subject(
        self,
        rule: AlarmRule,
        device: str,
        productId: str,
        *,
        slot: int = -1,
        hub_id: str = "",
        unheard: bool = False,
        at_ns: int | None = None,
    ) -> Subject:
        """The subject of a rule of one device, whose it is now or was at an event time."""
        return Subject(
            rule,
            device,
            slot if slot >= 0 or unheard else self.devices.slots.get(device, -1),
            productId,
            device,
            self.attribute(device, productId, "hub_id", hub_id, unheard=unheard, at_ns=at_ns),
            self.attribute(device, productId, "site_id", at_ns=at_ns),
            self.attribute(device, productId, "customer_id", at_ns=at_ns),
        )
