"""Windows over all devices of a hub, a site, a customer or a product.

A group is to the windower what a device is elsewhere: it has one clock, that of its newest reading, and
every reading counts in the group whose its device was at its event time. What an older reading of another
device finds is decided as for a late reading of one device: `lateness` and `correct_within` say how far
the devices of a group may be apart. A device that belongs to no group counts in none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from operators.attributes import Attributes, DatedColumns
from operators.batch import IN_ORDER, Bytes, Int32, Int64, ReadingBatch
from operators.devices import Devices
from operators.growing import grown
from operators.jit import kernel
from operators.windows.spec import PREFIX

_NONE: Final = -1
_UNKNOWN: Final = -2


class Groups:
    """The groups of one window: their names, by number in the order in which they were met, and which
    devices are in which. names: added to, never taken from."""

    def __init__(
        self, by: str, productId: str, devices: Devices, attributes: Attributes, names: list[str]
    ) -> None:
        self.by = by
        self.productId = productId
        self.devices = devices
        self.names = names
        self._numbers = {name: number for number, name in enumerate(names)}
        self.use(attributes)

    def use(self, attributes: Attributes, changed: Iterable[str] | None = None) -> None:
        """Master data are others, of these devices, or of any."""
        self.attributes = attributes
        if changed is None:
            self._of_slot: Int32 = np.empty(0, np.int32)
            self._dated = DatedColumns(attributes)
            return
        self._dated.attributes = attributes
        for name in changed:
            slot = self.devices.slots.get(name)
            if slot is not None and slot < len(self._of_slot):
                self._of_slot[slot] = _UNKNOWN

    def of(self, batch: ReadingBatch) -> Int32:
        """int32[N]: the group of each reading as of its event time; -1 where it has none."""
        if not len(batch):
            return np.empty(0, np.int32)
        self._of_slot = grown(self._of_slot, len(self.devices), _UNKNOWN)
        found = self._of_slot[batch.device]
        if found.min() == _UNKNOWN:
            fresh, first = np.unique(batch.device[found == _UNKNOWN], return_index=True)
            for slot in fresh[np.argsort(first)].tolist():
                self._of_slot[slot] = self._number(slot)
                self._dated.describe(slot, self.devices.names[slot])
            found = self._of_slot[batch.device]
        columns = found[None, :].astype(np.float64)
        self._dated.fill(columns, 0, batch.device, batch.ts_ns, self._then)
        numbers: Int32 = columns[0].astype(np.int32)
        return numbers

    def _then(self, slot: int, at_ns: int) -> Sequence[float]:
        return [self._number(slot, at_ns)]

    def _number(self, slot: int, at_ns: int | None = None) -> int:
        """The group of a device, now or as of event time."""
        name, hub = self.devices.names[slot], self.devices.hubs[slot]
        # a device of two products counts in each of them
        found = self.productId
        if self.by != "productId":
            found = self.attributes.attribute(name, self.productId, hub, self.by, at_ns)
        if not found:
            return _NONE
        whole = f"{PREFIX[self.by]}:{found}"
        number = self._numbers.get(whole)
        if number is None:
            number = self._numbers[whole] = len(self.names)
            self.names.append(whole)
        return number


def in_order(batch: ReadingBatch, rows: Int32, newest: Int64) -> ReadingBatch:
    """The readings newer than all before of their group, by row, marked as such. newest: int64[C], event
    times by row; they are moved on."""
    flags = batch.flags & ~np.uint8(IN_ORDER)
    mark_newest(rows, batch.ts_ns, newest, flags)
    return replace(batch, flags=flags)


@kernel
def mark_newest(rows: Int32, ts_ns: Int64, newest: Int64, flags: Bytes) -> None:
    """Set IN_ORDER of flags uint8[N] where ts_ns int64[N] is above newest int64[C] at rows int32[N], which
    it becomes then."""
    for i in range(rows.shape[0]):
        if ts_ns[i] > newest[rows[i]]:
            newest[rows[i]] = ts_ns[i]
            flags[i] |= 4


def warm_up() -> None:
    """Compile the kernel with the types of the hot path."""
    mark_newest(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.uint8))
