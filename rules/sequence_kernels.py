"""The kernel of sequence rules: conditions that hold one after the other, or fail to.

Arrays of state have the device's index within the product as their leading dimension (D), the R
sequence rules of the product or all T steps of them as the second. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from operators.batch import Bytes, Int32, Int64
from operators.jit import inline, kernel
from rules.held_kernels import CARRIED

RAISED: Final = 0
CLEARED: Final = 1
BY_TICK, BY_ROW, AT_ROW = 0, 1, 2

# columns of the event table
EVENT_KIND, EVENT_RULE, EVENT_DEVICE, EVENT_TIME, EVENT_ONSET, EVENT_ROW, EVENT_BY, EVENT_TICK, EVENT_K = (
    range(9)
)
EVENT_COLUMNS: Final = 9

NEVER: Final = np.iinfo(np.int64).max
_REBASED: Final = 8  # operators.batch.REBASED
_TRUE: Final = 1
_FALSE: Final = 2


@inline
def _forget(d: int, first: int, stop: int, start: Int64, due: Int64) -> None:
    """No match of this rule has begun."""
    for s in range(first, stop):
        start[d, s] = NEVER
        due[d, s] = NEVER


@inline
def _completed(
    d: int,
    r: int,
    s: int,
    begin: int,
    time: int,
    step_start: Int32,
    start: Int64,
    matched: Int64,
    due: Int64,
    active: Bytes,
    onset: Int64,
) -> bool:
    """A match of step s that began at `begin` ends at `time`; true where this raises. The whole
    sequence being matched, all that had begun is spent."""
    if s + 1 < step_start[r + 1]:
        start[d, s] = begin
        matched[d, s] = time
        return False
    _forget(d, step_start[r], step_start[r + 1], start, due)
    if active[d, r]:
        return False
    active[d, r] = 1
    onset[d, r] = begin
    return True


@inline
def _event(
    events: Int64,
    n: int,
    kind: int,
    rule: int,
    device: int,
    time: int,
    onset: int,
    row: int,
    by: int,
    tick: int,
    k: int,
) -> int:
    events[n, EVENT_KIND] = kind
    events[n, EVENT_RULE] = rule
    events[n, EVENT_DEVICE] = device
    events[n, EVENT_TIME] = time
    events[n, EVENT_ONSET] = onset
    events[n, EVENT_ROW] = row
    events[n, EVENT_BY] = by
    events[n, EVENT_TICK] = tick
    events[n, EVENT_K] = k
    return n + 1


@kernel
def walk_sequences(
    results: Bytes,
    step_start: Int32,
    step_row: Int32,
    absent: Bytes,
    within: Int64,
    clear_row: Int32,
    clear_when: Bytes,
    lacking: bool,
    out_quality: Bytes,
    carry_start: Int32,
    carry: Int32,
    grace: int,
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    flags: Bytes,
    tick_row: Int64,
    tick_ns: Int64,
    devices: int,
    start: Int64,
    matched: Int64,
    begun: Int64,
    due: Int64,
    paused: Int64,
    due_tick: Int64,
    active: Bytes,
    onset: Int64,
    next_tick: Int64,
    events: Int64,
    resume: Int64,
) -> int:
    """Walk every sequence rule over the rows and the ticks between them.

    results: uint8[O, >= N] truth of the machine (bit 0 true, bit 1 false). step_start: int32[R + 1]
    into the steps; of each step step_row: int32[T] its row of results, absent: uint8[T] it is a `not`
    step, within: int64[T], -1 = for ever. clear_row: int32[R] row of results, clear_when: uint8[R]
    the truth at which it clears. lacking, out_quality, carry_start, carry: as `kernels.walk` has them.
    State int64[D, T]: start (of the newest match that ends at this step; NEVER: there is none), matched
    (when that ended); of a `not` step begun (the start of the match for whose step it waits), due (when
    it is over; NEVER: it does not wait), paused (since when its condition is unknown; NEVER: it is
    not), due_tick;
    active: uint8[D, R]; onset: int64[D, R]; next_tick: int64[R].
    events: int64[E, EVENT_COLUMNS], E >= T + R + 1, in order of finding. resume: int64[2], row and
    tick to begin at; returns the number of events; if resume[0] >= 0 the table was full: call again.
    """
    rules = clear_row.shape[0]
    rows = local.shape[0]
    ticks = tick_row.shape[0]
    n = 0
    row = resume[0]
    tick = resume[1]
    while True:
        while tick < ticks and (tick_row[tick] <= row or row >= rows):
            for r in range(rules):
                if tick_ns[tick] < next_tick[r]:
                    continue
                soonest = NEVER
                for d in range(devices):
                    for s in range(step_start[r], step_start[r + 1]):
                        if due[d, s] == NEVER or paused[d, s] != NEVER:
                            continue
                        if due_tick[d, s] > tick_ns[tick]:
                            soonest = min(soonest, due_tick[d, s])
                            continue
                        if n == events.shape[0]:
                            resume[0], resume[1] = row, tick
                            return n
                        over = due[d, s]
                        due[d, s] = NEVER
                        if _completed(
                            d, r, s, begun[d, s], over, step_start, start, matched, due, active, onset
                        ):
                            n = _event(
                                events, n, RAISED, r, d, over, onset[d, r], row, BY_TICK, due_tick[d, s], tick
                            )
                next_tick[r] = soonest
            tick += 1
        if row >= rows:
            resume[0] = -1
            return n
        if n + 2 * rules > events.shape[0]:
            resume[0], resume[1] = row, tick
            return n
        d = local[row]
        time = ts_ns[row]
        for r in range(rules):
            first = step_start[r]
            stop = step_start[r + 1]
            carried = not lacking
            for k in range(carry_start[r], carry_start[r + 1] if lacking else carry_start[r]):
                carried |= (out_quality[carry[k], row] & np.uint8(CARRIED)) != 0
            if flags[row] & _REBASED:  # the device's clock stepped: what has begun is measured wrongly
                _forget(d, first, stop, start, due)
            for s in range(first, stop):
                if due[d, s] != NEVER and paused[d, s] == NEVER and due[d, s] <= time:
                    over = due[d, s]
                    due[d, s] = NEVER
                    if _completed(d, r, s, begun[d, s], over, step_start, start, matched, due, active, onset):
                        n = _event(events, n, RAISED, r, d, over, onset[d, r], row, BY_ROW, 0, -1)
            if carried:
                cleared = active[d, r] != 0 and results[clear_row[r], row] == clear_when[r]
                if cleared:
                    n = _event(events, n, CLEARED, r, d, time, onset[d, r], row, AT_ROW, 0, -1)
                for back in range(stop - first):
                    s = stop - 1 - back
                    now = results[step_row[s], row]
                    if absent[s]:
                        if due[d, s] == NEVER:
                            continue
                        if now == _TRUE:
                            due[d, s] = NEVER
                        elif now == _FALSE:
                            if paused[d, s] != NEVER:
                                due[d, s] += time - paused[d, s]
                                paused[d, s] = NEVER
                        elif paused[d, s] == NEVER:
                            paused[d, s] = time
                        continue
                    if now != _TRUE:
                        continue
                    begin = time
                    if s > first:
                        if start[d, s - 1] == NEVER:
                            continue
                        if within[s] >= 0 and time - matched[d, s - 1] > within[s]:
                            continue
                        begin = start[d, s - 1]
                    if _completed(d, r, s, begin, time, step_start, start, matched, due, active, onset):
                        n = _event(events, n, RAISED, r, d, time, begin, row, AT_ROW, 0, -1)
                    elif s + 1 < stop and absent[s + 1] and due[d, s + 1] == NEVER:
                        against = results[step_row[s + 1], row]
                        if against != _TRUE:
                            begun[d, s + 1] = begin
                            due[d, s + 1] = time + within[s + 1]
                            paused[d, s + 1] = NEVER if against == _FALSE else time
                if cleared:
                    active[d, r] = 0
            for s in range(first, stop):
                if due[d, s] != NEVER and paused[d, s] == NEVER:
                    due_tick[d, s] = due[d, s] + grace - time + ingest_ns[row]
                    next_tick[r] = min(next_tick[r], due_tick[d, s])
        row += 1


def warm_up() -> None:
    """Compile the kernel for the types of the hot path."""
    i32, i64, u8 = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.uint8)
    u2: npt.NDArray[np.uint8] = np.zeros((1, 1), np.uint8)
    i2 = np.full((1, 1), NEVER, np.int64)
    walk_sequences(
        u2,
        np.array([0, 1], np.int32),
        i32,
        u8,
        i64,
        i32,
        u8,
        False,
        u2,
        np.zeros(2, np.int32),
        i32,
        0,
        i32,
        i64,
        i64,
        u8,
        i64[:0],
        i64[:0],
        1,
        i2.copy(),
        i2.copy(),
        i2.copy(),
        i2.copy(),
        i2.copy(),
        i2.copy(),
        u2.copy(),
        i2.copy(),
        i64.copy(),
        np.zeros((4, EVENT_COLUMNS), np.int64),
        np.zeros(2, np.int64),
    )
