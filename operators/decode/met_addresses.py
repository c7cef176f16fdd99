"""The addresses that the decode stage has met: a number each, and what a batch asks of them as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from operators.batch import (
    HISTORICAL,
    LIVE_REFERENCE,
    Address,
    AddressBook,
    BookedAddresses,
    FrameBatch,
    Int32,
    Int64,
)
from operators.decode.decoders import DeviceNames, Names, Way
from operators.decode.known_names import KnownNames
from operators.decode.master import MasterReader
from operators.decode.routing import GO, UNREAD, Route, Router
from operators.decode.spec import DecodePlan
from operators.devices import Devices
from operators.growing import grown

ADDRESSES_KEPT: Final = 200_000  # beyond it the table of addresses is begun anew
_BY_READING: Final = -2  # slot of an address whose payloads name a device for each reading


class MetAddresses:
    """What is known of each address of one plant, and of each device that payloads of an address name.

    table: int64[len(COLUMNS), capacity], a column an address; sources, pairs: names by the numbers in it.
    """

    COLUMNS: Final = ("verdict", "product", "slot", "pair", "source", "flags", "reading", "arrived", "tells")
    VERDICT, PRODUCT, SLOT, PAIR, SOURCE, FLAGS, READING, ARRIVED, TELLS = range(9)

    def __init__(
        self,
        plan: DecodePlan,
        router: Router,
        reader: MasterReader,
        devices: Devices,
        product_number: Mapping[str, int],
    ) -> None:
        self._router, self._reader, self._devices = router, reader, devices
        self._product_number = product_number
        self.sources = [source.name for source in plan.routing.sources]
        self._source_number = {name: number for number, name in enumerate(self.sources)}
        self.pairs: list[tuple[str, str]] = []  # source and productId: a line of the ledger
        self._pair_number: dict[tuple[str, str], int] = {}
        self._device_names = DeviceNames(plan)
        self.forget()

    def forget(self) -> None:
        """Begin the table anew; sources and pairs keep their numbers."""
        self.rows: dict[Any, int] = {}
        self._of: dict[str, list[int]] = {}  # by device
        self._keys: list[Any] = []
        self.routes: list[Route] = []
        self._ways: dict[int, Way] = {}  # of those whose payloads name the device
        self.names = KnownNames()  # that payloads of an address held: the number of both
        self.table: Int64 = np.empty((len(self.COLUMNS), 256), np.int64)
        self.resubmitted = False  # whether any address is of a frame that is sent again
        self._last: tuple[Sequence[Address], Int64] | None = None
        self._book: AddressBook | None = None
        self._by_number: Int64 = np.empty(0, np.int64)  # of the book: the table's number, or -1

    def address(self, number: int) -> Address:
        """The address of a number."""
        key = self._keys[number]
        found: Address = key if isinstance(key, Address) else key[0]
        return found

    def numbers_of(self, frames: FrameBatch) -> Int64:
        """The number of each frame's address in the table; int64[N]."""
        if max(len(self.rows), len(self.names)) > ADDRESSES_KEPT:
            self.forget()
        if self._last is not None and self._last[0] is frames.addresses:
            return self._last[1][frames.address]
        if isinstance(frames.addresses, BookedAddresses):
            numbers = self._booked(frames.addresses)
        else:
            numbers = np.array([self._number(address) for address in frames.addresses], np.int64)
        self._last = (frames.addresses, numbers)
        return numbers[frames.address]

    def _booked(self, addresses: BookedAddresses) -> Int64:
        """The numbers of addresses that are met by their number in a book."""
        if self._book is not addresses.book:
            self._book = addresses.book
            self._by_number = np.empty(0, np.int64)
        if len(self._by_number) < len(addresses.book):
            self._by_number = grown(self._by_number, 2 * len(addresses.book), -1)
        found = self._by_number[addresses.numbers]
        for at in np.flatnonzero(found < 0).tolist() if found.min(initial=0) < 0 else ():
            found[at] = self._by_number[addresses.numbers[at]] = self._number(addresses[at])
        return found

    def _number(self, address: Address) -> int:
        number = self.rows.get(address)
        return self._add(address, self._router.route(address)) if number is None else number

    def _add(self, key: Any, route: Route) -> int:
        """Keep a route under its key; returns its number."""
        row, number = self._row(key, route), len(self.routes)
        if number == self.table.shape[1]:
            self.table = np.concatenate((self.table, np.empty_like(self.table)), axis=1)
        self.table[:, number] = row
        self.routes.append(route)
        self._keys.append(key)
        self.rows[key] = number
        if route.device_id:
            self._of.setdefault(route.device_id, []).append(number)
        return number

    def route_anew(self, device: str) -> None:
        """Master data of a device have changed."""
        for number in self._of.get(device, ()):
            key = self._keys[number]
            named = None if isinstance(key, Address) else key[1]
            route = self.routes[number] = self._router.route(self.address(number), named)
            self.table[:, number] = self._row(key, route)

    def _row(self, key: Any, route: Route) -> tuple[int, ...]:
        """What stands of an address in the table."""
        source = self._router.source(route.source)
        pair = self._pair(route.source, route.productId)
        flags = (LIVE_REFERENCE if source.live else 0) | (HISTORICAL if source.historical else 0)
        if route.source not in self._source_number:
            self._source_number[route.source] = len(self.sources)
            self.sources.append(route.source)
        product = self._product_number.get(route.productId, -1)
        slot = self._devices.slots.get(route.device_id, -1) if route.verdict == GO else -1
        if route.verdict == GO and not route.device_id:
            slot = _BY_READING
        number = self._source_number[route.source]
        self.resubmitted |= route.arrived_ns > 0
        address = key if isinstance(key, Address) else key[0]
        tells = self._reader.tells(route, address)
        return (route.verdict, product, slot, pair, number, flags, route.reading, route.arrived_ns, tells)

    def _pair(self, source: str, productId: str) -> int:
        pair = (source, productId)
        number = self._pair_number.get(pair)
        if number is None:
            number = self._pair_number[pair] = len(self.pairs)
            self.pairs.append(pair)
        return number

    def read_names(self, frames: FrameBatch, places: Int64, status: Int32, messages: dict[int, str]) -> None:
        """Frames whose payload names their device: read the name and route them by it."""
        unread = np.flatnonzero(status == UNREAD)
        ways: dict[Way, list[int]] = {}
        for number in np.unique(places[unread]).tolist():
            ways.setdefault(self._way(number), []).append(number)
        for way, numbers in ways.items():
            rows = unread if len(ways) == 1 else unread[np.isin(places[unread], numbers)]
            self._route_by_names(
                self._device_names.read(way, frames, rows), frames, rows, places, status, messages
            )

    def _way(self, number: int) -> Way:
        """How the frames of an address name their device."""
        way = self._ways.get(number)
        if way is None:
            address = self.address(number)
            source = self._router.source(address.source)
            way = self._device_names.way(source, self._router.takers(source, address.topic))
            self._ways[number] = way
        return way

    def _route_by_names(
        self,
        names: Names,
        frames: FrameBatch,
        rows: Int64,
        places: Int64,
        status: Int32,
        messages: dict[int, str],
    ) -> None:
        left = np.arange(len(rows))
        if names.span is not None:
            known = self.names.find(frames.payload, names.span, places[rows])
            met = (known >= 0) & (names.status == 0)
            if met.any():
                status[rows[met]] = self.table[self.VERDICT][known[met]]
                places[rows[met]] = known[met]
                left = np.flatnonzero(~met)
        for at in left.tolist():
            row = int(rows[at])
            if names.status[at]:
                status[row] = names.status[at]
                messages[row] = names.detail.get(at, "")
                continue
            address, device = frames.addresses[int(frames.address[row])], names.device[at]
            number = self.rows.get((address, device))
            if number is None:
                number = self._add((address, device), self._router.route(address, device))
            if names.span is not None:
                start, stop = names.span[at, :2].tolist()
                self.names.add(frames.payload[start:stop].tobytes(), int(places[row]), number)
            places[row] = number
            status[row] = self.table[self.VERDICT, number]
