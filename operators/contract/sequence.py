"""Numbers that a device counts its readings with: how many never came (`contract.sequence`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from operators.batch import REBASED, Bytes, Float64, Int32, Int64
from operators.contract.kernels import DUPLICATE, NEVER
from operators.contract.spec import ProductContract
from operators.growing import grown
from operators.jit import kernel
from operators.slots import ProductSlots

MISSING, GAPS, RESTARTS = 0, 1, 2  # columns of the counts
MISSING_TOLD: Final = 100  # devices that are told by name, those that miss most
TERMS: Final = ("sequence_missing", "sequence_gaps", "sequence_restarts")  # of the ledger


@kernel
def follow(
    rows: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    flags: Bytes,
    verdict: Bytes,
    number: Float64,
    quality: Bytes,
    wraps: float,
    max_future: int,
    last: Float64,
    at: Int64,
    counts: Int64,
    found: Int64,
) -> None:
    """Compare each reading's number with the one before it of the same device, in row order.

    rows: int32[N] row of the state; ts_ns, ingest_ns: int64[N]; flags, verdict: uint8[N] as
    `check_contract` left them; number: float64[N], quality: uint8[N] the counting metric; wraps: the
    number that follows the highest one is 0 again, 0 = never; max_future: ns.
    State, C rows: last: float64[C] NaN = none yet; at: int64[C] its event time; counts: int64[C, 3].
    found: int64[N, 3] numbers missing before this reading, 1 for a gap, 1 for a restart.

    Read are usable whole numbers of readings that are not filtered, not before the device's newest
    read and not beyond `max_future`; a reading that the contract refuses did come. Half of `wraps` and
    more ahead, or below the last number where it never wraps, is a restart, and nothing is missing.
    """
    for i in range(rows.shape[0]):
        found[i] = 0
        r = rows[i]
        value = number[i]
        if verdict[i] >= DUPLICATE or quality[i] >= 2 or value != np.floor(value) or value < 0.0:
            continue
        if ts_ns[i] > ingest_ns[i] + max_future:
            continue
        if ts_ns[i] < at[r] and not flags[i] & REBASED:
            continue
        at[r] = ts_ns[i]
        before = last[r]
        last[r] = value
        if before != before:
            continue
        ahead = value - before
        if wraps > 0.0:
            ahead -= np.floor(ahead / wraps) * wraps
        if ahead < 0.0 or (wraps > 0.0 and ahead > wraps / 2.0):
            found[i, RESTARTS] = 1
            counts[r, RESTARTS] += 1
        elif ahead > 1.0:
            found[i, MISSING] = np.int64(ahead) - 1
            found[i, GAPS] = 1
            counts[r, MISSING] += found[i, MISSING]
            counts[r, GAPS] += 1


class Follower:
    """The numbers of one product's devices; state arrays have one row a device."""

    def __init__(self, spec: ProductContract) -> None:
        self._sequence = spec.contract.sequence
        self._max_future = spec.contract.timestamp.max_future
        name = self._sequence.metric if self._sequence is not None else ""
        self.column = list(spec.metrics).index(name) if name in spec.metrics else -1
        self.last: Float64 = np.empty(0)
        self.at: Int64 = np.empty(0, np.int64)
        self.counts: Int64 = np.empty((0, 3), np.int64)

    def run(
        self,
        slots: ProductSlots,
        rows: Int32,
        ts_ns: Int64,
        ingest_ns: Int64,
        flags: Bytes,
        verdict: Bytes,
        value: Float64,
        quality: Bytes,
    ) -> Int64 | None:
        """int64[N, 3], see `follow`; None where nothing is missing or the product does not count."""
        if self.column < 0 or self._sequence is None:
            return None
        self._grow(slots.capacity)
        found = np.empty((len(rows), 3), np.int64)
        number = np.ascontiguousarray(value[self.column])
        good = np.ascontiguousarray(quality[self.column])
        wraps = float(self._sequence.wraps or 0)
        below = (number, good, wraps, self._max_future, self.last, self.at, self.counts, found)
        follow(rows, ts_ns, ingest_ns, flags, verdict, *below)
        return found if found.any() else None

    def _grow(self, capacity: int) -> None:
        if len(self.last) < capacity:
            self.last = grown(self.last, capacity, np.nan)
            self.at = grown(self.at, capacity, NEVER)
            self.counts = grown(self.counts, capacity, 0)

    def export(self, count: int) -> dict[str, Any]:
        """What a snapshot holds of `count` rows."""
        if self.column < 0:
            return {}
        self._grow(count)
        return {"last": self.last[:count], "at": self.at[:count], "counts": self.counts[:count]}

    def load(self, kept: dict[str, Any]) -> None:
        """Take over what `export` gave."""
        if kept and self.column >= 0:
            self.last, self.at, self.counts = kept["last"].copy(), kept["at"].copy(), kept["counts"].copy()


def warm_up() -> None:
    """Compile the kernel with the types of the hot path."""
    follower_state = (np.zeros(1), np.zeros(1, np.int64), np.zeros((1, 3), np.int64))
    found = np.zeros((1, 3), np.int64)
    times = np.zeros(1, np.int64)
    marks = np.zeros(1, np.uint8)
    follow(
        np.zeros(1, np.int32), times, times, marks, marks, np.zeros(1), marks, 0.0, 0, *follower_state, found
    )
