"""Kernels that find where the timers of devices are over: the first row or tick of each.

A timer ends like a delay: found over by its device's next reading at or after it, before that reading is
applied, or by a tick once the device's clock has passed it by the grace. Arrays by device have the
device's index within the product as their dimension (D). Times are nanoseconds since 1970.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import Bytes, Int32, Int64
from operators.jit import kernel

NEVER: Final = np.iinfo(np.int64).max
FOUND_BY_TICK, FOUND_BY_ROW, REBASED_AT, NOT_FOUND = 0, 1, 2, 3
_REBASED: Final = 8  # operators.batch.REBASED

# columns of what is found
FOUND_DEVICE, FOUND_BY, FOUND_AT, FOUND_BEFORE, FOUND_DUE_TICK = range(5)
FOUND_COLUMNS: Final = 5


@kernel
def scan(
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    flags: Bytes,
    tick_row: Int64,
    tick_ns: Int64,
    grace: int,
    armed: Int32,
    due: Int64,
    due_tick: Int64,
    last_row: Int32,
    out: Int64,
) -> int:
    """Where the next timer of each armed device is over, in the order of rows and ticks.

    armed: int32[A] devices with a timer. due: int64[D], NEVER where there is none, and as it was
    afterwards; due_tick: int64[D], the journal's clock at which a tick finds it over, moved on by
    rows of devices that were not found. last_row: int32[D], -1 throughout, and again afterwards.
    out: int64[A, FOUND_COLUMNS]: device, FOUND_BY_TICK, FOUND_BY_ROW or REBASED_AT (the device's clock
    stepped at that row), the tick or row, the device's last row before (-1: not in the batch), and
    due_tick as it then was. Returns how many were found.
    """
    rows = local.shape[0]
    ticks = tick_row.shape[0]
    n = 0
    soonest = NEVER
    for a in range(armed.shape[0]):
        soonest = min(soonest, due_tick[armed[a]])
    row, tick = 0, 0
    while row < rows or tick < ticks:
        if tick < ticks and (row >= rows or tick_row[tick] <= row):
            if tick_ns[tick] >= soonest:
                soonest = NEVER
                for a in range(armed.shape[0]):
                    device = armed[a]
                    if last_row[device] < -1:  # found already
                        continue
                    if due_tick[device] <= tick_ns[tick]:
                        out[n, FOUND_DEVICE] = device
                        out[n, FOUND_BY] = FOUND_BY_TICK
                        out[n, FOUND_AT] = tick
                        out[n, FOUND_BEFORE] = last_row[device]
                        out[n, FOUND_DUE_TICK] = due_tick[device]
                        n += 1
                        last_row[device] = -2
                    else:
                        soonest = min(soonest, due_tick[device])
            tick += 1
            continue
        device = local[row]
        if due[device] != NEVER and last_row[device] >= -1:
            stepped = flags[row] & _REBASED
            if stepped or due[device] <= ts_ns[row]:
                out[n, FOUND_DEVICE] = device
                out[n, FOUND_BY] = REBASED_AT if stepped else FOUND_BY_ROW
                out[n, FOUND_AT] = row
                out[n, FOUND_BEFORE] = last_row[device]
                out[n, FOUND_DUE_TICK] = due_tick[device]
                n += 1
                last_row[device] = -2
            else:
                last_row[device] = row
                due_tick[device] = due[device] + grace - ts_ns[row] + ingest_ns[row]
                soonest = min(soonest, due_tick[device])
        row += 1
    for a in range(armed.shape[0]):
        last_row[armed[a]] = -1
    return n


@kernel
def search(
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    flags: Bytes,
    tick_row: Int64,
    tick_ns: Int64,
    grace: int,
    device: int,
    due: int,
    row: int,
    tick: int,
    before_ts: int,
    before_ingest: int,
    out: Int64,
) -> None:
    """Where one timer of one device is over, looking from `row` and `tick` on.

    before_ts, before_ingest: event and ingest time of the device's last reading before the batch.
    out: int64[FOUND_COLUMNS] as of `scan`; NOT_FOUND where the batch ends first.
    """
    rows = local.shape[0]
    ticks = tick_row.shape[0]
    last = row - 1
    while last >= 0 and local[last] != device:
        last -= 1
    ts, ingest = before_ts, before_ingest
    if last >= 0:
        ts, ingest = ts_ns[last], ingest_ns[last]
    out[FOUND_DEVICE] = device
    out[FOUND_BY] = NOT_FOUND
    while row < rows or tick < ticks:
        by_tick = due + grace - ts + ingest
        if tick < ticks and (row >= rows or tick_row[tick] <= row):
            if tick_ns[tick] >= by_tick:
                out[FOUND_BY], out[FOUND_AT] = FOUND_BY_TICK, tick
                break
            tick += 1
            continue
        if local[row] == device:
            if flags[row] & _REBASED or due <= ts_ns[row]:
                out[FOUND_BY] = REBASED_AT if flags[row] & _REBASED else FOUND_BY_ROW
                out[FOUND_AT] = row
                break
            last = row
            ts, ingest = ts_ns[row], ingest_ns[row]
        row += 1
    out[FOUND_BEFORE] = last
    out[FOUND_DUE_TICK] = due + grace - ts + ingest


def warm_up() -> None:
    """Compile the kernels for the types of the hot path."""
    one = np.zeros(1, np.int64)
    i32 = np.zeros(1, np.int32)
    u8 = np.zeros(1, np.uint8)
    out = np.zeros((1, FOUND_COLUMNS), np.int64)
    scan(i32, one, one, u8, one, one, 0, i32, one, one.copy(), np.full(1, -1, np.int32), out)
    search(i32, one, one, u8, one, one, 0, 0, 0, 0, 0, 0, 0, out[0])
