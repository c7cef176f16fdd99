"""Attributes of devices as of event time: their rows, joined with those of their site and customer.

A cell that a device's row leaves empty is that of its site's row, then that of its customer's; the
customer is the device's own, else the site's. What names a row or a device (`NOT_JOINED`) is never
taken from another table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from operators.batch import Float64, Int32, Int64
from operators.growing import grown

Row = Mapping[str, str]
ALWAYS: Final = -(1 << 63)  # as the time from which a row counts: whatever was said before is forgotten
NOT_JOINED: Final = ("device_id", "productId", "hub_id", "site_id", "name", "status", "valid_from")
_NOTHING: Final[Row] = {}


class Past(NamedTuple):
    """A row that stood for event times before `until_ns`, and from the end of the one before it on."""

    until_ns: int
    row: Row


Tables = Mapping[str, Mapping[str, Row]]
PastTables = Mapping[str, Mapping[str, tuple[Past, ...]]]


def as_of(row: Row | None, past: tuple[Past, ...], at_ns: int) -> Row | None:
    """The row at an event time; row, past: as it is now, and was, by rising time."""
    return next((one.row for one in past if at_ns < one.until_ns), row)


class Attributes:
    """Answers by device_id out of `devices`, `sites` and `customers`. past: rows that were otherwise, of
    those that ever changed. The tables are looked at whenever it is asked, never copied."""

    def __init__(self, tables: Tables, past: PastTables | None = None) -> None:
        self.tables = tables
        self.past: PastTables = {} if past is None else past

    @classmethod
    def of_devices(cls, rows: Mapping[str, Row]) -> Attributes:
        """Rows of devices alone, which never were otherwise."""
        return cls({"devices": rows})

    def row(self, table: str, key: str, at_ns: int | None = None) -> Row:
        """A row now, or as of event time; an empty one where there is none."""
        row = self.tables.get(table, {}).get(key)
        past = self.past.get(table, {}).get(key) if at_ns is not None else None
        if past and at_ns is not None:
            row = as_of(row, past, at_ns)
        return _NOTHING if row is None else row

    def cell(self, device: str, name: str, at_ns: int | None = None) -> str:
        """A cell of a device's joined row, "" where it is empty."""
        row = self.row("devices", device, at_ns)
        if (found := row.get(name, "")) or name in NOT_JOINED:
            return found
        site = self.row("sites", row["site_id"], at_ns) if row.get("site_id") else _NOTHING
        if found := site.get(name, ""):
            return found
        customer = row.get("customer_id") or site.get("customer_id")
        return self.row("customers", customer, at_ns).get(name, "") if customer else ""

    def attribute(self, device: str, productId: str, hub_id: str, name: str, at_ns: int | None = None) -> str:
        """What an expression calls `device.NAME`; productId, hub_id: what counts where master data say
        nothing, of the device's first reading."""
        if found := self.cell(device, name, at_ns):
            return found
        return {"device_id": device, "productId": productId, "hub_id": hub_id}.get(name, "")

    def former(self) -> Iterator[Row]:
        """Rows that devices had."""
        return (one.row for past in self.past.get("devices", {}).values() for one in past)

    @property
    def dated(self) -> bool:
        """Whether any row was ever otherwise."""
        return any(self.past.values())

    def is_past(self, device: str, at_ns: int) -> bool:
        """Whether the joined row of a device was another at an event time."""
        breaks = self.breaks(device)
        return bool(breaks) and at_ns < breaks[-1]

    def breaks(self, device: str) -> list[int]:
        """The event times, rising, at which the joined row of a device became another: it is one row
        from each of them to the next."""
        if not self.dated:
            return []
        found: set[int] = set()
        sites: set[str] = set()
        customers: set[str] = set()
        for row in self._rows("devices", device, found):
            sites.add(row.get("site_id", ""))
            customers.add(row.get("customer_id", ""))
        for site in sorted(sites):
            customers.update(row.get("customer_id", "") for row in self._rows("sites", site, found))
        for customer in sorted(customers):
            for _ in self._rows("customers", customer, found):
                pass
        return sorted(found)

    def _rows(self, table: str, key: str, until: set[int]) -> list[Row]:
        """A row as it is and was; where it ended to be so is added to `until`."""
        past = self.past.get(table, {}).get(key, ())
        until.update(one.until_ns for one in past)
        return [self.row(table, key), *(one.row for one in past)]

    def touches(self, device: str, sites: frozenset[str], customers: frozenset[str]) -> bool:
        """Whether a device was ever joined with one of these rows."""
        unused: set[int] = set()
        for row in self._rows("devices", device, unused):
            site, customer = row.get("site_id", ""), row.get("customer_id", "")
            if site in sites or customer in customers:
                return True
            if customers and any(
                one.get("customer_id") in customers for one in self._rows("sites", site, unused)
            ):
                return True
        return False


class DatedColumns:
    """Puts what held then into columns of parameters and attributes, at readings that are older than a
    change of their device's master data. Costs nothing while no device has such a change."""

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self._breaks: dict[int, Int64] = {}  # index of a device -> `Attributes.breaks`, where there are any
        self._since: Int64 = np.empty(0, np.int64)  # by index: the newest of them

    def describe(self, index: int, device: str) -> None:
        """Look again from when on the present row of a device counts."""
        breaks = self.attributes.breaks(device)
        if breaks:
            self._breaks[index] = np.array(breaks, np.int64)
        elif self._breaks.pop(index, None) is None:
            return
        if index >= len(self._since):
            self._since = grown(self._since, max(64, 2 * index), ALWAYS)
        self._since[index] = breaks[-1] if breaks else ALWAYS

    def fill(
        self,
        columns: Float64,
        first: int,
        local: Int32,
        ts_ns: Int64,
        ask: Callable[[int, int], Sequence[float]],
    ) -> None:
        """columns: float64[>= first + P, >= N], where the present stands; local: int32[N], the devices'
        indices; ask(index, at_ns): the P values of a device as of event time."""
        if not self._breaks or not len(local):
            return
        self._since = grown(self._since, int(local.max()) + 1, ALWAYS)
        old = np.flatnonzero(ts_ns < self._since[local])
        for index in np.unique(local[old]).tolist():
            rows, breaks = old[local[old] == index], self._breaks[index]
            piece = np.searchsorted(breaks, ts_ns[rows], side="right")
            for at in np.unique(piece).tolist():
                values = np.array(ask(index, int(breaks[at]) - 1))
                columns[first : first + len(values), rows[piece == at]] = values[:, None]
