"""Kernels of group rules: how many members' conditions hold, and what follows of that.

Arrays of state have the group's index as their leading dimension (G), or the device's slot (D). Times
are nanoseconds since 1970; a truth is a byte, bit 0 "true" and bit 1 "false".
"""

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64
from operators.jit import inline, kernel

IDLE, RISING, ACTIVE, FALLING = 0, 1, 2, 3
RAISED: Final = 0
CLEARED: Final = 1
BY_TICK, BY_ROW, AT_ROW = 0, 1, 2

(
    EVENT_KIND,
    EVENT_GROUP,
    EVENT_TIME,
    EVENT_ONSET,
    EVENT_AT,
    EVENT_BY,
    EVENT_TICK,
    EVENT_TRUE,
    EVENT_KNOWN,
    EVENT_POSITION,
) = range(10)
EVENT_COLUMNS: Final = 10

NEVER: Final = np.iinfo(np.int64).max
_TRUE: Final = 1
_FALSE: Final = 2


@kernel
def count_members(
    group: Int32, device: Int32, condition: Bytes, member: Bytes, counts: Int64, out: Float64
) -> None:
    """After each row: how many members' conditions hold, how many are known, and the share.

    group: int32[N]; device: int32[N]; condition: uint8[N]. State: member: uint8[D], the truth after
    each member's newest reading; counts: int64[G, 2], true and known. out: float64[3, N], the share of
    nothing is NaN.
    """
    for row in range(group.shape[0]):
        g, d = group[row], device[row]
        before, now = member[d], condition[row] & np.uint8(3)
        counts[g, 0] += int(now & 1) - int(before & 1)
        counts[g, 1] += int(now != 0) - int(before != 0)
        member[d] = now
        out[0, row] = counts[g, 0]
        out[1, row] = counts[g, 1]
        out[2, row] = counts[g, 0] / counts[g, 1] if counts[g, 1] else np.nan


@inline
def _over(
    g: int, at: int, by: int, tick: int, position: int, state: Int64, shown: Int64, events: Int64, n: int
) -> int:
    """A running delay of a group ends at its own due time."""
    raised = state[g, 0] == RISING
    if raised:
        state[g, 2] = state[g, 1]
    state[g, 0] = ACTIVE if raised else IDLE
    return _event(
        g, RAISED if raised else CLEARED, state[g, 3], state[g, 2], at, by, tick, position, shown, events, n
    )


@inline
def _event(
    g: int,
    kind: int,
    time: int,
    onset: int,
    at: int,
    by: int,
    tick: int,
    position: int,
    shown: Int64,
    events: Int64,
    n: int,
) -> int:
    events[n, EVENT_KIND] = kind
    events[n, EVENT_GROUP] = g
    events[n, EVENT_TIME] = time
    events[n, EVENT_ONSET] = onset
    events[n, EVENT_AT] = at
    events[n, EVENT_BY] = by
    events[n, EVENT_TICK] = tick
    events[n, EVENT_TRUE] = shown[g, 0]
    events[n, EVENT_KNOWN] = shown[g, 1]
    events[n, EVENT_POSITION] = position
    return n + 1


@kernel
def group_clocks(group: Int32, ts_ns: Int64, newest: Int64, out: Int64) -> None:
    """The clock of each row's group at that row: the newest event time of its readings so far.

    group: int32[N]; ts_ns: int64[N]. newest: int64[G] before the rows, updated. out: int64[N].
    """
    for row in range(group.shape[0]):
        g = group[row]
        newest[g] = max(newest[g], ts_ns[row])
        out[row] = newest[g]


@kernel
def walk_groups(
    when: Bytes,
    scheduled: Bytes,
    counted: Float64,
    group: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    position: Int64,
    tick_row: Int64,
    tick_ns: Int64,
    tick_last: Int64,
    on_delay: int,
    off_delay: int,
    grace: int,
    groups: int,
    state: Int64,
    newest: Int64,
    shown: Int64,
    next_tick: Int64,
    events: Int64,
    resume: Int64,
) -> int:
    """Walk one group rule over its members' rows, in journal order, and the ticks between them.

    when: uint8[N] truth after each row; scheduled: uint8[N], 0 where the schedule keeps it from raising;
    counted: float64[3, N] of `count_members`. tick_row, tick_ns:
    int64[K]; tick_last: int64[K, 2] position and ingest time of the last frame before each tick.
    State: int64[G, 6] phase, since, onset, due, paused (NEVER: it runs), due_tick; newest: int64[G, 3]
    event and ingest time of the newest reading, position of the last one; shown: int64[G, 2] counts
    after the last one; next_tick: int64[1]. A group's clock is that of its newest reading.
    events: int64[E, EVENT_COLUMNS], E >= 2, in order of finding. resume: int64[2], row and tick to
    begin at; returns the number of events; if resume[0] >= 0 the table was full: call again.
    """
    rows = group.shape[0]
    ticks = tick_row.shape[0]
    n = 0
    row = resume[0]
    tick = resume[1]
    while True:
        while tick < ticks and (tick_row[tick] <= row or row >= rows):
            if tick_ns[tick] >= next_tick[0]:
                soonest = NEVER
                for g in range(groups):
                    if state[g, 0] & 1 and state[g, 4] == NEVER:
                        if state[g, 5] > tick_ns[tick]:
                            soonest = min(soonest, state[g, 5])
                            continue
                        if n == events.shape[0]:
                            resume[0], resume[1] = row, tick
                            return n
                        n = _over(g, tick, BY_TICK, state[g, 5], tick_last[tick, 0], state, shown, events, n)
                next_tick[0] = soonest
            tick += 1
        if row >= rows:
            resume[0] = -1
            return n
        if n + 2 > events.shape[0]:
            resume[0], resume[1] = row, tick
            return n
        g = group[row]
        if ts_ns[row] >= newest[g, 0]:
            newest[g, 0] = ts_ns[row]
            newest[g, 1] = ingest_ns[row]
        time = newest[g, 0]
        if state[g, 0] & 1 and state[g, 4] == NEVER and state[g, 3] <= time:
            n = _over(g, row, BY_ROW, 0, max(newest[g, 2], position[row] - 1), state, shown, events, n)
        newest[g, 2] = position[row]
        shown[g, 0] = int(counted[0, row])
        shown[g, 1] = int(counted[1, row])
        phase = state[g, 0]
        now = when[row] if scheduled[row] or phase >= ACTIVE else np.uint8(_FALSE)
        if phase == IDLE:
            if now == _TRUE and on_delay == 0:
                state[g, 0], state[g, 2] = ACTIVE, time
                n = _event(g, RAISED, time, time, row, AT_ROW, 0, position[row], shown, events, n)
            elif now == _TRUE:
                state[g, 0], state[g, 1], state[g, 3], state[g, 4] = RISING, time, time + on_delay, NEVER
        elif phase == ACTIVE:
            if now == _FALSE and off_delay == 0:
                state[g, 0] = IDLE
                n = _event(g, CLEARED, time, state[g, 2], row, AT_ROW, 0, position[row], shown, events, n)
            elif now == _FALSE:
                state[g, 0], state[g, 3], state[g, 4] = FALLING, time + off_delay, NEVER
        elif now == (_FALSE if phase == RISING else _TRUE):
            state[g, 0] = IDLE if phase == RISING else ACTIVE
        elif now == 0:
            state[g, 4] = min(state[g, 4], time)
        elif state[g, 4] != NEVER:
            state[g, 3] += time - state[g, 4]
            state[g, 4] = NEVER
        if state[g, 0] & 1 and state[g, 4] == NEVER:
            state[g, 5] = state[g, 3] + grace - time + newest[g, 1]
            next_tick[0] = min(next_tick[0], state[g, 5])
        row += 1


def warm_up() -> None:
    """Compile the kernels for the types of the hot path."""
    i32, i64, u8 = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.uint8)
    out = np.zeros((3, 1))
    count_members(i32, i32, u8, u8.copy(), np.zeros((1, 2), np.int64), out)
    group_clocks(i32, i64, i64.copy(), i64.copy())
    walk_groups(
        u8,
        u8,
        out,
        i32,
        i64,
        i64,
        i64,
        i64[:0],
        i64[:0],
        np.zeros((0, 2), np.int64),
        0,
        0,
        0,
        1,
        np.zeros((1, 6), np.int64),
        np.zeros((1, 3), np.int64),
        np.zeros((1, 2), np.int64),
        i64.copy(),
        np.zeros((2, EVENT_COLUMNS), np.int64),
        np.zeros(2, np.int64),
    )
