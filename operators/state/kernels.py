"""Newest values, row by row."""

from __future__ import annotations

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64, UInt64
from operators.jit import kernel


@kernel
def keep_latest(
    rows: Int32,
    ts_ns: Int64,
    seq: UInt64,
    flags: Bytes,
    value: Float64,
    quality: Bytes,
    latest: Float64,
    latest_quality: Bytes,
    latest_ns: Int64,
    latest_position: Int64,
    touched: Bytes,
) -> None:
    """Let every in-order reading overwrite what it carries; a metric that is absent stays.

    rows: int32[N] row of the state arrays; ts_ns: int64[N]; seq: uint64[N]; flags: uint8[N] with
    IN_ORDER; value: float64[M, N]; quality: uint8[M, N]. State, C rows: latest: float64[C, M];
    latest_quality: uint8[C, M]; latest_ns, latest_position: int64[C, M]; touched: uint8[C], 1 =
    changed since the record was last written.
    """
    for i in range(rows.shape[0]):
        if not flags[i] & 4:
            continue
        r = rows[i]
        touched[r] = 1
        position = np.int64(seq[i] >> np.uint64(16))
        for m in range(value.shape[0]):
            if quality[m, i] != 3:
                latest[r, m] = value[m, i]
                latest_quality[r, m] = quality[m, i]
                latest_ns[r, m] = ts_ns[i]
                latest_position[r, m] = position


@kernel
def keep_window(
    rows: Int32,
    metric: Int32,
    wanted: int,
    start_ns: Int64,
    revision: Int64,
    aggregate: Float64,
    column: int,
    kept: Float64,
    kept_start: Int64,
    kept_revision: Int64,
    touched: Bytes,
) -> None:
    """Keep one aggregate of the newest window of one metric: the latest start, then the highest
    revision. rows, metric: int32[R]; start_ns, revision: int64[R]; aggregate: float64[R].
    State: kept: float64[C, A], kept_start, kept_revision: int64[C, A] at `column`."""
    for i in range(rows.shape[0]):
        r = rows[i]
        if metric[i] != wanted or start_ns[i] < kept_start[r, column]:
            continue
        if start_ns[i] > kept_start[r, column] or revision[i] > kept_revision[r, column]:
            kept[r, column] = aggregate[i]
            kept_start[r, column] = start_ns[i]
            kept_revision[r, column] = revision[i]
            touched[r] = 1


@kernel
def hold_values(
    rows: Int32,
    ts_ns: Int64,
    flags: Bytes,
    value: Float64,
    quality: Bytes,
    used: Int32,
    stale_after: int,
    held: Float64,
    held_ns: Int64,
    columns: Float64,
) -> None:
    """Values as each reading finds them: its own, and the last good ones of what it lacks.

    rows: int32[N] row of the state arrays; flags: uint8[N], of which REBASED counts; value float64[M, N],
    quality uint8[M, N]; used: int32[J] rows of them. stale_after: nanoseconds, 0 = never.
    State: held float64[C, J], NaN = unknown; held_ns int64[C, J]. Out: columns float64[>= M, >= N], its
    rows `used`.
    """
    for i in range(rows.shape[0]):
        r = rows[i]
        now = ts_ns[i]
        for j in range(used.shape[0]):
            m = used[j]
            code = quality[m, i]
            if code < 3:
                held[r, j] = value[m, i] if code < 2 else np.nan
                held_ns[r, j] = now
            elif flags[i] & 8 and held_ns[r, j] > now:
                held_ns[r, j] = now
            stale = stale_after > 0 and now - held_ns[r, j] > stale_after
            columns[m, i] = np.nan if stale else held[r, j]


def warm_up() -> None:
    """Compile the kernels with the types of the hot path."""
    none = np.zeros(0, np.int32)
    times = np.zeros(0, np.int64)
    table = np.zeros((1, 1), np.int64)
    touched = np.zeros(1, np.uint8)
    keep_latest(
        none,
        times,
        np.zeros(0, np.uint64),
        np.zeros(0, np.uint8),
        np.zeros((1, 0)),
        np.zeros((1, 0), np.uint8),
        np.zeros((1, 1)),
        np.zeros((1, 1), np.uint8),
        table,
        table,
        touched,
    )
    hold_values(
        none,
        times,
        np.zeros(0, np.uint8),
        np.zeros((1, 0)),
        np.zeros((1, 0), np.uint8),
        none,
        0,
        np.zeros((1, 1)),
        table,
        np.zeros((1, 1)),
    )
    keep_window(none, none, 0, times, times, np.zeros(0), 0, np.zeros((1, 1)), table, table, touched)
