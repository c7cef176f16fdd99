"""Rows of a product's state arrays.

A device's slot (`operators.devices`) is one number for the whole shard; a stage keeps its state
by product, in arrays whose leading dimension has one row a device of that product. `ProductSlots`
gives the rows, in the order in which the product first hears of its devices.
"""

from __future__ import annotations

import numpy as np

from operators.batch import Int32
from operators.growing import grown
from operators.jit import kernel

_FIRST_CAPACITY = 64


@kernel
def look_up(device: Int32, row_of: Int32, out: Int32) -> int:
    """out int32[N]: the row of each of the N slots in `row_of`, -1 where it has none; returns the least of
    them."""
    least = np.int32(0x7FFFFFFF)
    for at in range(len(device)):
        row = row_of[device[at]] if device[at] < len(row_of) else np.int32(-1)
        out[at] = row
        least = min(least, row)
    return int(least)


class ProductSlots:
    """device slot -> row, of one product. Rows are dense and never given back."""

    __slots__ = ("_row_of", "capacity", "count", "slot_of")

    def __init__(self) -> None:
        self.count = 0
        self.capacity = _FIRST_CAPACITY  # rows that the state arrays should have
        self.slot_of: Int32 = np.full(_FIRST_CAPACITY, -1, np.int32)  # int32[capacity]
        self._row_of: Int32 = np.full(_FIRST_CAPACITY, -1, np.int32)

    def rows(self, device: Int32) -> Int32:
        """int32[N]: the row of each of the N slots, new ones given in their order. Afterwards
        `count` rows are in use and the owner grows its arrays to `capacity`."""
        rows = np.empty(len(device), np.int32)
        if look_up(device, self._row_of, rows) < 0:
            self._give(device)
            look_up(device, self._row_of, rows)
        return rows

    def _give(self, device: Int32) -> None:
        """Rows for the slots that have none."""
        highest = int(device.max(initial=-1))
        if highest >= len(self._row_of):
            self._row_of = grown(self._row_of, max(highest + 1, 2 * len(self._row_of)), -1)
        fresh, at = np.unique(device[self._row_of[device] < 0], return_index=True)
        fresh = fresh[np.argsort(at)]
        stop = self.count + len(fresh)
        while self.capacity < stop:
            # not by twice: state arrays of a hundred thousand devices are what a shard is made of
            self.capacity += max(self.capacity // 8, _FIRST_CAPACITY)
        self.slot_of = grown(self.slot_of, self.capacity, -1)
        self.slot_of[self.count : stop] = fresh
        self._row_of[fresh] = np.arange(self.count, stop, dtype=np.int32)
        self.count = stop

    def row(self, slot: int) -> int:
        """The row of one slot; -1 where the product has not heard of it."""
        return int(self._row_of[slot]) if slot < len(self._row_of) else -1

    def export(self) -> Int32:
        """What a snapshot holds: the slots in the order of their rows."""
        return self.slot_of[: self.count]

    @classmethod
    def load(cls, slots: Int32) -> ProductSlots:
        """The table that `export` was taken of."""
        table = cls()
        table._give(slots)
        return table


def warm_up() -> None:
    """Compile the kernel for the types of the hot path."""
    none = np.full(1, -1, np.int32)
    look_up(np.zeros(1, np.int32), none, none.copy())
