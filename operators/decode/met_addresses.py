"""The addresses that the decode stage has met: a number each, and what a batch asks of them as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

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
ROUTES_KEPT: Final = 1 << 14  # beyond it routes are found again when they are asked for
_FIRST: Final = 256
_BY_READING: Final = -2  # slot of an address whose payloads name a device for each reading
_Named = tuple[int, str]  # the number of an address, and the device that a payload of it names


class MetAddresses:
    """What is known of each address of one plant, and of each device that payloads of an address name.

    table: by COLUMNS, an element an address; sources, pairs: names by the numbers in it. A plant has an
    address or more for every device, so what is asked of one seldom (`address`, `route`) is made when it is.
    """

    COLUMNS: Final = {
        "verdict": np.int16,
        "product": np.int32,
        "slot": np.int32,
        "pair": np.int32,
        "source": np.int32,
        "flags": np.uint8,
        "reading": np.int32,
        "arrived": np.int64,
        "tells": np.uint8,
    }
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
        self._count = 0
        self.rows: dict[Address | _Named, int] = {}  # but for those of a book
        self._keys: list[Address | _Named | None] = []  # the same by number
        self._of: dict[str, int | list[int]] = {}  # by device
        self._routes: dict[int, Route] = {}
        self._ways: dict[int, Way] = {}  # of those whose payloads name the device
        self.names = KnownNames()  # that payloads of an address held: the number of both
        self.table: list[npt.NDArray[Any]] = [np.empty(_FIRST, kind) for kind in self.COLUMNS.values()]
        self.resubmitted = False  # whether any address is of a frame that is sent again
        self._last: tuple[Sequence[Address], Int64] | None = None
        self._book: AddressBook | None = None
        self._by_number: Int32 = np.empty(0, np.int32)  # of the book: the table's number, or -1
        self._in_book: Int32 = np.empty(_FIRST, np.int32)  # by the table's number: that of the book, or -1

    def __len__(self) -> int:
        return self._count

    def address(self, number: int) -> Address:
        """The address of a number."""
        if self._in_book[number] >= 0:
            assert self._book is not None
            return self._book[int(self._in_book[number])]
        key = self._keys[number]
        assert key is not None
        return key if isinstance(key, Address) else self.address(key[0])

    def route(self, number: int) -> Route:
        """What the frames of a number are."""
        number = int(number)
        found = self._routes.get(number)
        return self._routed(number, self.address(number)) if found is None else found

    def _named(self, number: int) -> str | None:
        """The device that the payloads of a number name, where it is of such."""
        key = self._keys[number]
        return None if key is None or isinstance(key, Address) else key[1]

    def _routed(self, number: int, address: Address) -> Route:
        if len(self._routes) >= ROUTES_KEPT:
            self._routes.clear()
        found = self._routes[number] = self._router.route(address, self._named(number))
        return found

    def numbers_of(self, frames: FrameBatch) -> Int64:
        """The number of each frame's address in the table; int64[N]."""
        if max(len(self), len(self.names)) > ADDRESSES_KEPT:
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
            if self._book is not None:
                self.forget()
            self._book = addresses.book
        if len(self._by_number) < len(addresses.book):
            wanted = len(addresses.book) + len(addresses.book) // 8
            self._by_number = grown(self._by_number, wanted, -1)
        found = self._by_number[addresses.numbers].astype(np.int64)
        for at in np.flatnonzero(found < 0).tolist() if found.min(initial=0) < 0 else ():
            booked = int(addresses.numbers[at])
            found[at] = self._by_number[booked] = self._add(addresses[at], booked=booked)
        return found

    def _number(self, address: Address) -> int:
        number = self.rows.get(address)
        return self._add(address) if number is None else number

    def _add(self, key: Address | _Named, *, booked: int = -1) -> int:
        """Take an address in, or a device that payloads of one name; returns its number."""
        number = self._count
        if number == len(self._in_book):
            capacity = number + max(_FIRST, number // 8)
            self.table = [grown(column, capacity, 0) for column in self.table]
            self._in_book = grown(self._in_book, capacity, -1)
        self._count += 1
        self._in_book[number] = booked
        self._keys.append(None if booked >= 0 else key)
        if booked < 0:
            self.rows[key] = number
        address = key if isinstance(key, Address) else self.address(key[0])
        route = self._routed(number, address)
        self._tell(number, address, route)
        if route.device_id:
            others = self._of.setdefault(route.device_id, number)
            if isinstance(others, list):
                others.append(number)
            elif others != number:
                self._of[route.device_id] = [others, number]
        return number

    def has_slot(self, number: int, slot: int) -> None:
        """Of an address whose device has a slot now the route is hardly asked for again."""
        self.table[self.SLOT][number] = slot
        if slot >= 0:
            self._routes.pop(number, None)

    def route_anew(self, device: str) -> None:
        """Master data of a device have changed."""
        numbers = self._of.get(device, [])
        for number in [numbers] if isinstance(numbers, int) else numbers:
            address = self.address(number)
            self._tell(number, address, self._routed(number, address))

    def _tell(self, number: int, address: Address, route: Route) -> None:
        """Put what is known of an address into the table."""
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
        source_number = self._source_number[route.source]
        self.resubmitted |= route.arrived_ns > 0
        tells = self._reader.tells(route, address)
        told = (
            route.verdict, product, slot, pair, source_number, flags, route.reading, route.arrived_ns, tells
        )  # fmt: skip
        for column, value in zip(self.table, told, strict=True):
            column[number] = value

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
            named = int(places[row]), names.device[at]
            number = self.rows.get(named)
            if number is None:
                number = self._add(named)
            if names.span is not None:
                start, stop = names.span[at, :2].tolist()
                self.names.add(frames.payload[start:stop].tobytes(), int(places[row]), number)
            places[row] = number
            status[row] = self.table[self.VERDICT][number]
