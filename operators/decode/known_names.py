"""What payloads have named before, so that a name is read in Python once and not in every frame."""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from operators.batch import Bytes, Int32, Int64, UInt64
from operators.decode import name_kernels as k
from operators.growing import grown

LONGEST: Final = 256  # bytes of a name that is kept; a longer one is read each time
_FIRST: Final = 64


class KnownNames:
    """(address, bytes of a name) -> the number that was given for it."""

    def __init__(self) -> None:
        # devices choose names: with a seed that they do not know, they cannot choose hashes as well
        self._seed = np.uint64(int.from_bytes(os.urandom(8), "little"))
        self._state = np.zeros(2, np.int64)
        self._slots = np.full(2 * _FIRST, -1, np.int32)
        self._hashes = np.zeros(_FIRST, np.uint64)
        self._owner = np.zeros(_FIRST, np.int64)
        self._ends = np.zeros(_FIRST + 1, np.int64)
        self._arena = np.zeros(16 * _FIRST, np.uint8)
        self._number = np.zeros(_FIRST + 1, np.int64)  # by the table's own number
        self._number[-1] = -1

    def __len__(self) -> int:
        return int(self._state[k.KNOWN])

    def find(self, payload: Bytes, span: Int64, address: Int64) -> Int64:
        """int64[R]: what was given for the name of each row, -1 where nothing was.

        payload: uint8[B]; span: int64[R, >= 2], where the name stands in it, -1: nowhere; address: int64[R].
        """
        found = np.empty(len(span), np.int64)
        k.find_names(payload, span, address, *self._table(), found)
        return self._number[found]

    def add(self, name: bytes, address: int, number: int) -> None:
        """What `find` is to give for a name that it did not know."""
        if len(name) > LONGEST:
            return
        bytes_of, where = np.frombuffer(name, np.uint8).copy(), np.full(1, address, np.int64)
        if self.find(bytes_of, np.array([[0, len(name)]], np.int64), where)[0] >= 0:
            return  # it stands twice among the rows of one batch
        known, used = self._state.tolist()
        if known == len(self._hashes):
            self._hashes, self._owner = grown(self._hashes, 2 * known, 0), grown(self._owner, 2 * known, 0)
            self._ends, self._number = (
                grown(self._ends, 2 * known + 1, 0),
                grown(self._number, 2 * known + 1, -1),
            )
            self._slots = np.empty(4 * known, np.int32)
            k.rehash(self._hashes, known, self._slots)
        if used + len(name) > len(self._arena):
            self._arena = grown(self._arena, 2 * (used + len(name)), 0)
        self._number[k.add_name(bytes_of, address, *self._table(), self._state)] = number

    def _table(self) -> tuple[np.uint64, Int32, UInt64, Int64, Int64, Bytes]:
        """As the kernels take it."""
        return self._seed, self._slots, self._hashes, self._owner, self._ends, self._arena


def warm_up() -> None:
    """Compile (or load from disk) with the types of the hot path."""
    names = KnownNames()
    names.add(b"warm", 0, 0)
    k.rehash(names._hashes, 1, names._slots)
