"""The kernel of absence rules: readings that should have come, found by the next one or by a tick.

Arrays of state have the device's index within the product as their leading dimension (D), the A
absence rules of the product as the second. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from operators.batch import Bytes, Float64, Int32, Int64
from operators.jit import kernel

# phase of one rule of one device
OFF: Final = 0  # its clock does not run: the device is not in service, or nothing started it yet
WAITING: Final = 1
ACTIVE: Final = 2  # it was missed and has not been heard since

RAISED: Final = 0
CLEARED: Final = 1
BY_TICK, BY_ROW, AT_ROW = 0, 1, 2

# columns of the event table
(
    EVENT_KIND,
    EVENT_RULE,
    EVENT_DEVICE,
    EVENT_TIME,
    EVENT_ONSET,
    EVENT_AT,
    EVENT_BY,
    EVENT_TICK,
    EVENT_POSITION,
    EVENT_INGEST,
    EVENT_QUALITY,
    EVENT_HEARD,
) = range(12)
EVENT_COLUMNS: Final = 12

NEVER: Final = np.iinfo(np.int64).max
_REBASED: Final = 8  # operators.batch.REBASED


@kernel
def walk_absence(
    of: Int32,
    wait: Int64,
    grace: int,
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    position: Int64,
    flags: Bytes,
    source: Int32,
    value: Float64,
    quality: Bytes,
    tick_row: Int64,
    tick_ns: Int64,
    tick_last: Int64,
    connected: Bytes,
    devices: int,
    in_service: Bytes,
    device_source: Int32,
    paused_ns: Int64,
    last: Int64,
    phase: Bytes,
    since: Int64,
    due: Int64,
    due_tick: Int64,
    shown: Float64,
    shown_quality: Bytes,
    next_tick: Int64,
    events: Int64,
    event_value: Float64,
    resume: Int64,
) -> int:
    """Walk the absence rules of one product over its rows and the ticks between them.

    of: int32[A] row of `quality` that a reading must carry, -1 = any reading counts; wait: int64[A].
    local: int32[N]; source: int32[N] into connected: uint8[S]. tick_row, tick_ns: int64[K]; tick_last:
    int64[K, 2] position and ingest time of the last frame before each tick.
    State: in_service: uint8[D]; device_source: int32[D], -1 = never heard; paused_ns: int64[D], the
    journal's clock from which on the device's source is away, NEVER = it is there; last: int64[D, 3]
    position, ingest and event time of the device's newest reading; [D, A]: phase, since (when it was last
    heard; the onset while ACTIVE), due, due_tick (the journal's clock at which a tick finds it),
    shown and shown_quality (the value last heard); next_tick: int64[A], nothing is due before.
    events: int64[E, EVENT_COLUMNS], event_value: float64[E], E >= 2 A + 1. resume: int64[2], row and
    tick to begin at. Returns the number of events; if resume[0] >= 0 the table was full: call again.
    """
    rules = of.shape[0]
    rows = local.shape[0]
    ticks = tick_row.shape[0]
    n = 0
    row = resume[0]
    tick = resume[1]
    while True:
        while tick < ticks and (tick_row[tick] <= row or row >= rows):
            for a in range(rules):
                if tick_ns[tick] < next_tick[a]:
                    continue
                soonest = NEVER
                for d in range(devices):
                    if phase[d, a] != WAITING or paused_ns[d] != NEVER:
                        continue
                    if due_tick[d, a] > tick_ns[tick]:
                        soonest = min(soonest, due_tick[d, a])
                        continue
                    if n == events.shape[0]:
                        resume[0], resume[1] = row, tick
                        return n
                    heard = device_source[d] >= 0
                    phase[d, a] = ACTIVE
                    events[n, EVENT_KIND] = RAISED
                    events[n, EVENT_RULE] = a
                    events[n, EVENT_DEVICE] = d
                    events[n, EVENT_TIME] = due[d, a]
                    events[n, EVENT_ONSET] = since[d, a]
                    events[n, EVENT_AT] = tick
                    events[n, EVENT_BY] = BY_TICK
                    events[n, EVENT_TICK] = due_tick[d, a]
                    events[n, EVENT_POSITION] = last[d, 0] if heard else tick_last[tick, 0]
                    events[n, EVENT_INGEST] = last[d, 1] if heard else tick_last[tick, 1]
                    events[n, EVENT_QUALITY] = shown_quality[d, a]
                    events[n, EVENT_HEARD] = 1 if heard else 0
                    event_value[n] = shown[d, a]
                    n += 1
                next_tick[a] = soonest
            tick += 1
        if row >= rows:
            resume[0] = -1
            return n
        if n + 2 * rules > events.shape[0]:
            resume[0], resume[1] = row, tick
            return n
        d = local[row]
        time = ts_ns[row]
        rebased = flags[row] & _REBASED
        if paused_ns[d] != NEVER:  # its source was away: the time until now does not count
            for a in range(rules):
                if phase[d, a] == WAITING:
                    due[d, a] += max(0, ingest_ns[row] - paused_ns[d])
        elif device_source[d] >= 0 and not rebased:
            for a in range(rules):
                if phase[d, a] == WAITING and due[d, a] <= time:
                    phase[d, a] = ACTIVE
                    events[n, EVENT_KIND] = RAISED
                    events[n, EVENT_RULE] = a
                    events[n, EVENT_DEVICE] = d
                    events[n, EVENT_TIME] = due[d, a]
                    events[n, EVENT_ONSET] = since[d, a]
                    events[n, EVENT_AT] = row
                    events[n, EVENT_BY] = BY_ROW
                    events[n, EVENT_TICK] = 0
                    events[n, EVENT_POSITION] = last[d, 0]
                    events[n, EVENT_INGEST] = last[d, 1]
                    events[n, EVENT_QUALITY] = shown_quality[d, a]
                    events[n, EVENT_HEARD] = 1
                    event_value[n] = shown[d, a]
                    n += 1
        fresh = device_source[d] < 0
        device_source[d] = source[row]
        paused_ns[d] = NEVER if connected[source[row]] else ingest_ns[row]
        last[d, 0] = position[row]
        last[d, 1] = ingest_ns[row]
        last[d, 2] = time
        for a in range(rules):
            usable = of[a] < 0 or quality[of[a], row] < 2
            if usable:
                if of[a] >= 0:
                    shown[d, a] = value[of[a], row]
                    shown_quality[d, a] = quality[of[a], row]
                if phase[d, a] == ACTIVE:
                    events[n, EVENT_KIND] = CLEARED
                    events[n, EVENT_RULE] = a
                    events[n, EVENT_DEVICE] = d
                    events[n, EVENT_TIME] = time
                    events[n, EVENT_ONSET] = since[d, a]
                    events[n, EVENT_AT] = row
                    events[n, EVENT_BY] = AT_ROW
                    events[n, EVENT_TICK] = 0
                    events[n, EVENT_POSITION] = position[row]
                    events[n, EVENT_INGEST] = ingest_ns[row]
                    events[n, EVENT_QUALITY] = shown_quality[d, a]
                    events[n, EVENT_HEARD] = 1
                    event_value[n] = shown[d, a]
                    n += 1
                phase[d, a] = WAITING if in_service[d] else OFF
            if usable or (phase[d, a] == WAITING and (rebased or fresh)):
                # on another clock than before (the journal's, or one that stepped) it begins anew
                since[d, a] = time
                due[d, a] = time + wait[a]
            elif phase[d, a] == OFF and in_service[d]:
                phase[d, a] = WAITING
                since[d, a] = time
                due[d, a] = time + wait[a]
            if phase[d, a] == WAITING:
                due_tick[d, a] = due[d, a] + grace - time + ingest_ns[row]
                if paused_ns[d] == NEVER:
                    next_tick[a] = min(next_tick[a], due_tick[d, a])
        row += 1


def warm_up() -> None:
    """Compile the kernel for the types of the hot path."""
    i32, i64, u8 = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.uint8)
    f2: npt.NDArray[np.float64] = np.zeros((1, 1))
    u2, i2 = np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.int64)
    walk_absence(
        i32,
        i64,
        0,
        i32,
        i64,
        i64,
        i64,
        u8,
        i32,
        f2,
        u2,
        i64[:0],
        i64[:0],
        np.zeros((0, 2), np.int64),
        u8,
        1,
        u8,
        i32.copy(),
        i64.copy(),
        np.zeros((1, 3), np.int64),
        u2.copy(),
        i2,
        i2.copy(),
        i2.copy(),
        f2.copy(),
        u2.copy(),
        i64.copy(),
        np.zeros((4, EVENT_COLUMNS), np.int64),
        np.zeros(4),
        np.zeros(2, np.int64),
    )
