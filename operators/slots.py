"""Rows of a product's state arrays.

A device's slot (`operators.devices`) is one number for the whole shard; a stage keeps its state
by product, in arrays whose leading dimension has one row a device of that product. `ProductSlots`
gives the rows, in the order in which the product first hears of its devices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from operators.batch import Int32

_FIRST_CAPACITY = 64


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
        if not len(device):
            return np.empty(0, np.int32)
        highest = int(device.max())
        if highest >= len(self._row_of):
            self._row_of = grown(self._row_of, max(highest + 1, 2 * len(self._row_of)), -1)
        rows = self._row_of[device]
        if rows.min() < 0:
            fresh, at = np.unique(device[rows < 0], return_index=True)
            fresh = fresh[np.argsort(at)]
            stop = self.count + len(fresh)
            while self.capacity < stop:
                # not by twice: state arrays of a hundred thousand devices are what a shard is made of
                self.capacity += max(self.capacity // 8, _FIRST_CAPACITY)
            self.slot_of = grown(self.slot_of, self.capacity, -1)
            self.slot_of[self.count : stop] = fresh
            self._row_of[fresh] = np.arange(self.count, stop, dtype=np.int32)
            self.count = stop
            rows = self._row_of[device]
        return rows

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
        table.rows(slots)
        return table


def grown(array: npt.NDArray[Any], capacity: int, fill: Any) -> npt.NDArray[Any]:
    """The array with a leading dimension of at least `capacity`; new elements hold `fill`."""
    if len(array) >= capacity:
        return array
    wide = np.empty((capacity, *array.shape[1:]), array.dtype)
    wide[: len(array)] = array
    wide[len(array) :] = fill
    return wide
