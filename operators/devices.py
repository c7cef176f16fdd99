"""Device slots: the small integers under which devices travel in batches.

A slot is given in journal order by the decode stage, which owns the table and keeps it in its
snapshot; the other stages of the same shard read it. A device keeps its slot for ever; one that is gone
counts no more against `limits.devices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Devices:
    """Names, products and hubs by slot; hubs: what the address of the first reading named, which counts
    where master data say nothing. Only the decode stage adds to it."""

    names: list[str] = field(default_factory=list)
    products: list[str] = field(default_factory=list)
    hubs: list[str] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)

    def add(self, device_id: str, productId: str, hub_id: str) -> int:
        """The device's slot, given now if it has none."""
        slot = self.slots.get(device_id)
        if slot is None:
            slot = self.slots[device_id] = len(self.names)
            self.names.append(device_id)
            self.products.append(productId)
            self.hubs.append(hub_id)
        return slot

    def __len__(self) -> int:
        return len(self.names)

    def export(self) -> Mapping[str, list[str]]:
        """What a snapshot holds."""
        return {"names": self.names, "products": self.products, "hubs": self.hubs}

    def load(self, data: Mapping[str, list[str]]) -> None:
        """Take the place of what `export` gave."""
        self.names[:], self.products[:], self.hubs[:] = data["names"], data["products"], data["hubs"]
        self.slots.clear()
        self.slots.update({name: slot for slot, name in enumerate(self.names)})
