"""The kernel of the `device-clock` system alarm: clocks that stepped, and clocks that are wrong.

Arrays of state have the device's index within the product as their leading dimension (D). Times are
nanoseconds since 1970.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import Bytes, Int32, Int64
from operators.jit import inline, kernel

NEWEST: Final = 31  # in-order readings whose lag is looked at
MOST: Final = 16  # so many of them beyond: the median of 31 is
TWICE: Final = 2  # event time that runs faster than this against ingest time is a backlog

RAISED: Final = 0
CLEARED: Final = 1
STEPPED: Final = 0  # why it was raised
LAGS: Final = 1

EVENT_KIND, EVENT_DEVICE, EVENT_ROW, EVENT_WHY, EVENT_ONSET = range(5)
EVENT_COLUMNS: Final = 5

_IN_ORDER: Final = 4  # operators.batch
_REBASED: Final = 8
_LIVE_REFERENCE: Final = 16
_ALL: Final = (1 << NEWEST) - 1


@inline
def _ones(mask: int) -> int:
    count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


@kernel
def watch_clocks(
    live_within: int,
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    flags: Bytes,
    beyond: Int32,
    first: Int64,
    active: Bytes,
    onset: Int64,
    events: Int64,
    resume: Int64,
) -> int:
    """Raise for a device whose clock stepped, or most of whose newest readings are older than
    `live_within` while its event time runs no faster than a clock does; clear at a reading that is not.

    local: int32[N]; flags: uint8[N]. Only in-order rows count, historical ones too; rows whose event
    time is the reference have no lag.
    State: beyond: int32[D], of the newest 31 in-order readings those beyond, the newest in bit 0;
    first: int64[D, 2] event and ingest time of the first reading beyond since the last moment at
    which none of the 31 was; active: uint8[D]; onset: int64[D].
    events: int64[E, EVENT_COLUMNS]. resume: int64[1], the row to begin at; returns the number of
    events; if resume[0] < N the table was full: call again.
    """
    n = 0
    for row in range(resume[0], local.shape[0]):
        flag = flags[row]
        if not flag & _IN_ORDER:
            continue
        if n == events.shape[0]:
            resume[0] = row
            return n
        d = local[row]
        stepped = flag & _REBASED
        lag = 0 if flag & _LIVE_REFERENCE else ingest_ns[row] - ts_ns[row]
        late = lag > live_within
        if not (late or stepped or beyond[d] or active[d]):
            continue
        if stepped:  # what was measured by the clock before says nothing of this one
            beyond[d] = 0
        if late and beyond[d] == 0:
            first[d, 0] = ts_ns[row]
            first[d, 1] = ingest_ns[row]
        beyond[d] = ((beyond[d] << 1) | (1 if late else 0)) & _ALL
        wrong = _ones(beyond[d]) >= MOST
        why = STEPPED if stepped else LAGS
        if stepped or (wrong and late and ts_ns[row] - first[d, 0] <= TWICE * (ingest_ns[row] - first[d, 1])):
            if active[d]:
                continue
            active[d] = 1
            onset[d] = ts_ns[row] if stepped else first[d, 0]
            kind = RAISED
        elif active[d] and not late and not wrong:
            active[d] = 0
            kind = CLEARED
        else:
            continue
        events[n, EVENT_KIND] = kind
        events[n, EVENT_DEVICE] = d
        events[n, EVENT_ROW] = row
        events[n, EVENT_WHY] = why
        events[n, EVENT_ONSET] = onset[d]
        n += 1
    resume[0] = local.shape[0]
    return n


def warm_up() -> None:
    """Compile the kernel for the types of the hot path."""
    i32, i64, u8 = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.uint8)
    watch_clocks(
        1,
        i32,
        i64,
        i64,
        u8,
        i32.copy(),
        np.zeros((1, 2), np.int64),
        u8.copy(),
        i64.copy(),
        np.zeros((1, EVENT_COLUMNS), np.int64),
        np.zeros(1, np.int64),
    )
