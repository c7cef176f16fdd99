"""Which submodels a plant has: id -> product, mapping and device, made once an applied plant.

Listing a page or finding one submodel touches only the devices asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from flows.plant_file import Plant, Product
from operators.state.aas import fill_in, submodel_json
from operators.state.spec import Submodel
from operators.state.store import FORMER, DeviceState, Heard

REBUILD_S: Final = 1.0  # how old the index may be where devices are heard or changed all the time

ReadState = Callable[[str, str], DeviceState | None]


class Place(NamedTuple):
    """Where a submodel comes from."""

    product: Product
    submodel: Submodel
    device_id: str
    formulas: Mapping[str, str]  # formulaId -> number | bool


class SubmodelIndex:
    """The submodels of an applied plant, by product, then device, then the mapping's order.

    A device has those of the product that master data give it, and of every other that it sends. heard:
    what has been heard; devices that are not in the master data count with `unknown: accept`. known:
    a number that changes with what has been heard.
    """

    def __init__(self, plant: Plant, heard: Iterable[Heard], known: int) -> None:
        self.plant = plant
        self.known = known
        self._made_at = time.monotonic()
        rows = plant.master.devices
        owners: dict[str, list[str]] = {name: [] for name in plant.products}
        for device_id, row in rows.items():
            owners.setdefault(row.get("productId", ""), []).append(device_id)
        accepts = plant.devices.unknown == "accept"
        for device_id, productId, standing in sorted(set(heard)):
            own = rows.get(device_id, {}).get("productId")
            if standing != FORMER and own != productId and (device_id in rows or accepts):
                owners.setdefault(productId, []).append(device_id)
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

    def holds(self, plant: Plant, known: int) -> bool:
        """Whether the index is still the plant's."""
        fresh = time.monotonic() - self._made_at < REBUILD_S
        same = plant is self.plant and known == self.known
        return same or (fresh and plant.sha256 == self.plant.sha256)

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
    state = read(place.device_id, place.product.productId)
    return submodel_json(place.submodel, place.product.metrics, place.device_id, state, place.formulas)
