"""Kernels of the values that devices hold: what each reading finds.

Arrays of state have the device's index within the product as their leading dimension (D), metrics
(J) as the second. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64, UInt64
from operators.jit import kernel

CARRIED: Final = 0x80  # beside a held quality: this very reading carries the metric
_REBASED: Final = 8  # operators.batch.REBASED
_ABSENT: Final = 3


@kernel
def whole(quality: Bytes, used: Int32) -> bool:
    """Whether every used metric of every reading is there and usable: quality uint8[M, N] is
    good or uncertain in the rows `used` int32[J]."""
    worst = np.uint8(0)
    for j in range(used.shape[0]):
        line = quality[used[j]]
        for row in range(line.shape[0]):
            worst |= line[row]
    return bool(worst < 2)


@kernel
def keep_last(
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    seq: UInt64,
    value: Float64,
    quality: Bytes,
    used: Int32,
    held_value: Float64,
    held_quality: Bytes,
    held_ns: Int64,
    last: Int64,
    devices: int,
    last_row: Int32,
) -> None:
    """Take a `whole` batch into the state: of each device its last row. devices: how many the product has;
    once all are met, what stands before is not looked at. The other arguments as in `hold`."""
    rows = local.shape[0]
    row = rows
    while row > 0 and devices > 0:
        row -= 1
        device = local[row]
        if last_row[device] < 0:
            last_row[device] = row
            devices -= 1
            last[device, 0] = ts_ns[row]
            last[device, 1] = ingest_ns[row]
            last[device, 2] = np.int64(seq[row] >> np.uint64(16))
            for j in range(used.shape[0]):
                held_value[device, j] = value[used[j], row]
                held_quality[device, j] = quality[used[j], row]
                held_ns[device, j] = ts_ns[row]
    for met in range(row, rows):
        last_row[local[met]] = -1


@kernel
def hold(
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    seq: UInt64,
    flags: Bytes,
    value: Float64,
    quality: Bytes,
    used: Int32,
    stale_after: int,
    held_value: Float64,
    held_quality: Bytes,
    held_ns: Int64,
    last: Int64,
    met: Int32,
    columns: Float64,
    out_quality: Bytes,
    before_value: Float64,
    before_quality: Bytes,
    before: Int64,
) -> None:
    """Values as each reading finds them: its own, and the last good ones of what it lacks.

    local: int32[N] device; value: float64[M, N], quality: uint8[M, N]; used: int32[J] rows of
    them that rules use. stale_after: nanoseconds, 0 = never.
    State: held_value float64[D, J], held_quality uint8[D, J], held_ns int64[D, J] and last
    int64[D, 3] (event time, ingest time, position of the device's last reading).
    met: int32[D], -1 throughout; afterwards f for the f-th device met in the batch, and row f of
    before_value float64[F, J], before_quality, before int64[F, 3] holds its state as it was.
    Out: columns float64[>= M, >= N], its rows `used`, and out_quality uint8[J, >= N] (with
    CARRIED), as they stand after each row.
    """
    count = 0
    for row in range(local.shape[0]):
        device = local[row]
        now = ts_ns[row]
        rebased = flags[row] & _REBASED
        if met[device] < 0:
            then = last[device, 0]
            for j in range(used.shape[0]):
                code = held_quality[device, j]
                if code < 2 and stale_after > 0 and then - held_ns[device, j] > stale_after:
                    code = _ABSENT
                before_value[count, j] = held_value[device, j] if code < 2 else np.nan
                before_quality[count, j] = code
            for k in range(3):
                before[count, k] = last[device, k]
            met[device] = count
            count += 1
        last[device, 0] = now
        last[device, 1] = ingest_ns[row]
        last[device, 2] = np.int64(seq[row] >> np.uint64(16))
        for j in range(used.shape[0]):
            code = quality[used[j], row]
            if code < _ABSENT:
                number = value[used[j], row] if code < 2 else np.nan
                held_value[device, j] = number
                held_quality[device, j] = code
                held_ns[device, j] = now
                columns[used[j], row] = number
                out_quality[j, row] = code | CARRIED
            else:
                if rebased and held_ns[device, j] > now:
                    held_ns[device, j] = now
                code = held_quality[device, j]
                if code < 2 and stale_after > 0 and now - held_ns[device, j] > stale_after:
                    columns[used[j], row] = np.nan
                    out_quality[j, row] = _ABSENT
                else:
                    columns[used[j], row] = held_value[device, j]
                    out_quality[j, row] = code


def warm_up() -> None:
    """Compile the kernels for the types of the hot path."""
    one = np.zeros(1, np.int64)
    i32 = np.zeros(1, np.int32)
    u8 = np.zeros(1, np.uint8)
    f2, u2, i2 = np.zeros((1, 1)), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.int64)
    state = np.zeros((1, 3), np.int64)
    seq = np.zeros(1, np.uint64)
    whole(u2, i32)
    keep_last(
        i32, one, one, seq, f2, u2, i32, f2.copy(), u2.copy(), i2.copy(), state, 1, np.full(1, -1, np.int32)
    )
    hold(
        i32,
        one,
        one,
        seq,
        u8,
        f2,
        u2,
        i32,
        0,
        f2.copy(),
        u2.copy(),
        i2.copy(),
        state,
        np.full(1, -1, np.int32),
        f2.copy(),
        u2.copy(),
        f2.copy(),
        u2.copy(),
        state.copy(),
    )
