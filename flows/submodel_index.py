"""Which submodels a plant has: id -> product, mapping and device, made once an applied plant.

Listing a page or finding one submodel touches only the devices asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from flows.plant_file import Plant, Product
from operators.state.aas import fill_in, submodel_json
from operators.state.spec import Submodel
from operators.state.store import DeviceState

UNLISTED_S: Final = 1.0  # how old the list of unlisted devices may be where a plant accepts them

ReadState = Callable[[str], DeviceState | None]


class Place(NamedTuple):
    """Where a submodel comes from."""

    product: Product
    submodel: Submodel
    device_id: str
    formulas: Mapping[str, str]  # formulaId -> number | bool


class SubmodelIndex:
    """The submodels of an applied plant, by product, then device, then the mapping's order.

    unlisted: device_id -> productId of devices that were heard and are not in the master data
    (`unknown: accept`).
    """

    def __init__(self, plant: Plant, unlisted: Mapping[str, str]) -> None:
        self.plant = plant
        self._accepts = plant.devices.unknown == "accept"
        self._made_at = time.monotonic()
        owners: dict[str, list[str]] = {name: [] for name in plant.products}
        for device_id, row in plant.master.devices.items():
            owners.setdefault(row.get("productId") or unlisted.get(device_id, ""), []).append(device_id)
        for device_id in sorted(unlisted.keys() - plant.master.devices.keys()):
            owners.setdefault(unlisted[device_id], []).append(device_id)
        self.places: list[Place] = []
        self._by_id: dict[str, Place] = {}
        self._by_short: dict[str, list[Place]] = {}
        for name, product in plant.products.items():
            if product.aas is None:
                continue
            formulas = {one.formulaId: one.kind for one in plant.formulas.of.get(name, {}).values()}
            for device_id in owners[name]:
                for submodel in product.aas.submodels:
                    self._add(Place(product, submodel, device_id, formulas))

    def _add(self, place: Place) -> None:
        identifier = fill_in(place.submodel.id, place.device_id)
        if identifier in self._by_id:  # two products with one id template: the first has it
            return
        self._by_id[identifier] = place
        self.places.append(place)
        self._by_short.setdefault(place.submodel.idShort, []).append(place)

    def holds(self, plant: Plant) -> bool:
        """Whether the index is still the plant's."""
        fresh = not self._accepts or time.monotonic() - self._made_at < UNLISTED_S
        return plant.sha256 == self.plant.sha256 and fresh

    def page(self, start: int, limit: int, id_short: str | None, read: ReadState) -> list[dict[str, Any]]:
        """Submodels from ordinal `start` on; with `id_short`, of those of that name."""
        places = self.places if id_short is None else self._by_short.get(id_short, [])
        return [as_json(place, read) for place in places[start : start + limit]]

    def find(self, identifier: str, read: ReadState) -> dict[str, Any] | None:
        """The submodel of an id; None where there is none."""
        place = self._by_id.get(identifier)
        return None if place is None else as_json(place, read)


def as_json(place: Place, read: ReadState) -> dict[str, Any]:
    """One submodel with its newest values."""
    state = read(place.device_id)
    if state is not None and state.productId != place.product.productId:
        state = None  # the device was of another product when it was last heard
    return submodel_json(place.submodel, place.product.metrics, place.device_id, state, place.formulas)
