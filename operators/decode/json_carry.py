"""What elements of an array say for those behind them: base names, base times, base values.

SenML (RFC 8428, section 4) is the pattern: a record's base fields hold for it and for all records
behind it, until another record has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from operators.batch import ABSENT, Int64
from operators.decode import json_kernels as k
from operators.decode.json_decoder import Walked
from operators.decode.json_rows_spec import Naming, Path, TimePath

Flags: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class Carry:
    """Fills what is missing in elements with what stood last before them in their frame.

    carried: the paths. columns, spans, times: the path of each of what a walk finds; spans from the
    third on.
    """

    def __init__(
        self,
        carried: Sequence[Path],
        columns: Sequence[Path],
        spans: Sequence[Path],
        times: Sequence[TimePath | None],
    ) -> None:
        chosen = set(carried)
        self._columns = [at for at, path in enumerate(columns) if path in chosen]
        self._spans = [at + 2 for at, path in enumerate(spans) if path in chosen]
        self._times = [at for at, time in enumerate(times) if time is not None and time.path in chosen]

    def fill(self, found: Walked, frame: Int64) -> None:
        """frame: int64[E], rising, the frame of each element."""
        if not len(frame) or not (self._columns or self._spans or self._times):
            return
        first = np.searchsorted(frame, frame)
        for at in self._columns:
            source = _newest(found.quality[at] != ABSENT, first)
            found.value[at], found.quality[at] = found.value[at, source], found.quality[at, source]
        for at in self._spans:
            found.spans[at] = found.spans[at, _newest(found.spans[at, :, 0] >= 0, first)]
        for at in self._times:
            source = _newest(found.time_state[at] != k.TIME_NONE, first)
            found.times[at] = found.times[at, source]
            found.time_state[at] = found.time_state[at, source]


def _newest(there: Flags, first: Int64) -> Int64:
    """For each element the last one up to it, in its frame, where something stands; else itself."""
    places = np.arange(len(first))
    last = np.maximum.accumulate(np.where(there, places, -1))
    return np.where(last >= first, last, places)


def added_time(found: Walked, time: TimePath | None, arrival: Int64) -> tuple[Flags, Int64]:
    """(bool[E] a time of its own, int64[E] that time in ns): the sum of what was found, from arrival on
    where it is a small one."""
    good = found.time_state == k.TIME_GOOD
    own = good[0] | good[1]
    if time is None or (time.plus is None and time.below is None):
        return good[0], found.times[0]
    parts = np.where(good, found.times, 0)
    ts = _sum(parts[0], parts[1])
    if time.below is not None:
        ts = np.where(ts < time.below, _sum(ts, arrival), ts)
    return own, ts


def _sum(a: Int64, b: Int64) -> Int64:
    """a + b within EARLIEST_NS..LATEST_NS, which both are within."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    beyond = (low > 0) & (high > k.LATEST_NS - np.maximum(low, 0))
    before = (high < 0) & (low < k.EARLIEST_NS - np.minimum(high, 0))
    total = np.where(beyond | before, 0, a) + np.where(beyond | before, 0, b)
    total = np.where(beyond, k.LATEST_NS, np.where(before, k.EARLIEST_NS, total))
    clipped: Int64 = np.clip(total, k.EARLIEST_NS, k.LATEST_NS)
    return clipped


def names_of(naming: Naming, texts: Sequence[Sequence[str]]) -> list[str]:
    """The name of each element. texts: of each path that of every element, "" where none stands."""
    if len(texts) == 1:
        names = list(texts[0])
    elif naming.join:
        names = ["".join(parts) for parts in zip(*texts, strict=True)]
    else:
        names = [next(filter(None, parts), "") for parts in zip(*texts, strict=True)]
    if naming.words:
        names = [naming.words.get(name, name) for name in names]
    return names
