"""Numbers of enumerations as their names, a response at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from connectors.opcua import kernels as k
from operators.batch import Bytes, Int64

MOST_UNNAMED: Final = 10_000  # numbers without a name that are remembered as texts


class Enumerations:
    """texts: item -> number -> name. A number without a name is told as its digits."""

    def __init__(self, texts: Mapping[int, Mapping[int, str]]) -> None:
        self._named: dict[tuple[int, int], bytes] = {
            (item, number & 0xFFFFFFFF): name.encode("utf-8")
            for item, names in texts.items()
            for number, name in names.items()
        }
        self._items: Int64 = np.array(sorted(texts), np.int64)
        self._unnamed = 0
        self._lay_out()

    def _lay_out(self) -> None:
        keys = sorted(self._named)
        self._keys: Int64 = np.array([item << 32 | number for item, number in keys], np.int64)
        ends = np.cumsum([0] + [len(self._named[key]) for key in keys]).astype(np.int64)
        self._first: Int64 = ends[:-1]
        self._last: Int64 = ends[1:]
        self._bytes: Bytes = np.frombuffer(b"".join(self._named[key] for key in keys), np.uint8)

    def apply(self, payload: Bytes, columns: Int64, numbers: npt.NDArray[np.float64]) -> Bytes:
        """Columns of `kernels.read_changes`, in place: numbers of enumerated items become texts. Returns
        the payload with the bytes of these texts behind it."""
        kinds = columns[:, k.KIND]
        rows = np.flatnonzero(
            ((kinds == k.NUMBER) | (kinds == k.BOOLEAN))
            & np.isin(columns[:, k.ITEM], self._items)
            & (np.abs(numbers) < 2.0**32)
        )
        if not len(rows):
            return payload
        keys = columns[rows, k.ITEM] << 32 | (numbers[rows].astype(np.int64) & 0xFFFFFFFF)
        found = self._find(keys)
        if (found < 0).any():
            self._name(keys[found < 0], numbers[rows[found < 0]])
            found = self._find(keys)
        rows, found = rows[found >= 0], found[found >= 0]
        columns[rows, k.KIND] = k.TEXT
        columns[rows, k.FIRST] = len(payload) + self._first[found]
        columns[rows, k.LAST] = len(payload) + self._last[found]
        return np.concatenate((payload, self._bytes))

    def _find(self, keys: Int64) -> Int64:
        """Which of the keys that have a name each is; -1: none."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, at, -1).astype(np.int64)

    def _name(self, keys: Int64, numbers: npt.NDArray[np.float64]) -> None:
        for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
            place = (key >> 32, key & 0xFFFFFFFF)
            if place not in self._named and self._unnamed < MOST_UNNAMED:
                self._unnamed += 1
                self._named[place] = str(int(number)).encode()
        self._lay_out()
