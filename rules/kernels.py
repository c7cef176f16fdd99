"""The kernel that walks every rule over a batch, and its table of events.

Arrays of state have the device's index within the product as their leading dimension (D), rules
(R) or metrics (J) as the second. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from operators.batch import Bytes, Int32, Int64, UInt64
from operators.jit import inline, kernel
from rules import held_kernels, timers_kernels
from rules.held_kernels import CARRIED

# phase of one rule of one device, in the lower two bits ...
IDLE: Final = 0
RISING: Final = 1  # the condition holds, on_delay runs
ACTIVE: Final = 2
FALLING: Final = 3  # the clear condition holds, off_delay runs
# ... and what else is so
PAUSED: Final = 4  # unknown stopped the running delay

NOT_CARRIED: Final = 4  # a condition's byte where the reading carries none of the rule's metrics

RAISED: Final = 0
CLEARED: Final = 1

# columns of the event table
(
    EVENT_KIND,
    EVENT_RULE,
    EVENT_DEVICE,
    EVENT_TIME,
    EVENT_ONSET,
    EVENT_ROW,
    EVENT_BY,
    EVENT_TICK,
    EVENT_TICK_AT,
) = range(9)
EVENT_COLUMNS: Final = 9
BY_TICK, BY_ROW, AT_ROW = 0, 1, 2  # a delay found over by a tick, by the next row; a row itself

# fields of a rule that is not idle
SINCE, ONSET, DUE, PAUSED_AT, DUE_TICK = range(5)
FIELDS: Final = 5

NEVER: Final = np.iinfo(np.int64).max
_REBASED: Final = 8  # operators.batch.REBASED
_EIGHT: Final = np.uint64(0x0101010101010101)  # whether any of eight trits is true


@inline
def _event(
    events: Int64,
    at: int,
    kind: int,
    rule: int,
    device: int,
    time: int,
    onset: int,
    row: int,
    by: int,
    tick: int,
    tick_at: int,
) -> int:
    events[at, EVENT_KIND] = kind
    events[at, EVENT_RULE] = rule
    events[at, EVENT_DEVICE] = device
    events[at, EVENT_TIME] = time
    events[at, EVENT_ONSET] = onset
    events[at, EVENT_ROW] = row
    events[at, EVENT_BY] = by
    events[at, EVENT_TICK] = tick
    events[at, EVENT_TICK_AT] = tick_at
    return at + 1


@inline
def _rest(
    phase: Bytes,
    block: Int32,
    running: Int32,
    free: Int32,
    free_count: Int64,
    busy: Int64,
    device: int,
    rule: int,
) -> None:
    """A rule of a device is idle again; the block of a device all of whose rules are goes back."""
    phase[rule, device] = IDLE
    busy[rule] -= 1
    running[device] -= 1
    if running[device] == 0:
        free[free_count[0]] = block[device]
        free_count[0] += 1
        block[device] = -1


@kernel
def last_readings(lines: Int64, local: Int32, last_row: Int32, out: Int64) -> None:
    """For each event the row of the reading that it rests on: itself, or the device's last one
    before it; -1 where that is not in the batch.

    lines: int64[E, EVENT_COLUMNS], EVENT_ROW never falling. local: int32[N]; last_row: int32[D],
    -1 throughout, and again afterwards. out: int64[E].
    """
    row = 0
    for at in range(lines.shape[0]):
        while row < lines[at, EVENT_ROW]:
            last_row[local[row]] = row
            row += 1
        if lines[at, EVENT_BY] == AT_ROW:
            out[at] = lines[at, EVENT_ROW]
        else:
            out[at] = last_row[lines[at, EVENT_DEVICE]]
    for before in range(row):
        last_row[local[before]] = -1


@kernel
def walk(
    results: Bytes,
    words: UInt64,
    any_true: Bytes,
    gated: Bytes,
    gated_true: Bytes,
    lacking: bool,
    out_quality: Bytes,
    carry_start: Int32,
    carry: Int32,
    condition_row: Int32,
    clear_row: Int32,
    on_delay: Int64,
    off_delay: Int64,
    grace: int,
    local: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    flags: Bytes,
    tick_row: Int64,
    tick_ns: Int64,
    devices: int,
    phase: Bytes,
    block: Int32,
    running: Int32,
    pool: Int64,
    free: Int32,
    free_count: Int64,
    busy: Int64,
    next_tick: Int64,
    evaluations: Int64,
    effective: Bytes,
    running_row: Bytes,
    running_rows: Int32,
    events: Int64,
    resume: Int64,
) -> int:
    """Walk every rule over the rows and the ticks between them. "Clear" is the clear condition, by
    default `not condition`; unknown changes nothing but stops a running delay:

        idle    condition true, on_delay 0             active   RAISED
        idle    condition true, on_delay               rising
        rising  condition false                        idle
        rising  condition unknown                      rising   its clock stands still
        rising  onset + on_delay + pauses is reached   active   RAISED
        rising  the device's clock stepped             idle     begins anew at this very reading
        active  clear true, off_delay 0                idle     CLEARED
        active  clear true, off_delay                  falling
        falling clear false                            active
        falling clear unknown                          falling  its clock stands still
        falling the delay is over                      idle     CLEARED
        falling the device's clock stepped             active   begins anew at this very reading

    A delay is found over before the reading itself is applied; each reading is applied once, so it
    makes at most one transition of its own.

    results: uint8[O, >= N] of the machine, words: the same as uint64 (eight rows are passed over at
    once), any_true: uint8[O]; gated: uint8[G, >= N], gated_true: the
    same of conditions under a schedule. condition_row: int32[R] rows of results, -1 - g: row g of gated;
    clear_row: int32[R] rows of results (-1: the clear condition is `not condition`). lacking: whether
    out_quality must be asked which rows carry a metric of the rule: `carry[carry_start[r]:
    carry_start[r+1]]`. on_delay, off_delay, grace: nanoseconds. tick_row, tick_ns: int64[K]
    (`operators.batch.Ticks`).
    State, see `rules.delays`: phase: uint8[R, >= D]; block, running: int32[>= D]; pool: int64[B, R,
    FIELDS]: SINCE (onset of the running on-delay), ONSET (of what is active), DUE (when the running
    delay ends, pauses so far included), PAUSED_AT (since when), DUE_TICK (the journal's clock at which
    a tick finds the delay over); free: int32[B], free_count: int64[1]; int64[R]: busy (devices not
    IDLE), next_tick (no delay is over before), evaluations.
    effective: uint8[2, >= N] scratch. running_row: uint8[>= N], 1 where the row's device had a rule that
    was not idle before the batch; running_rows: int32[B], those rows. Of a rule only they are looked
    at, those where its condition is true, and, once it has left idle for another device, all.
    events: int64[E, EVENT_COLUMNS], E >= 2, receives what happened, by rule, then in order.
    resume: int64[5], rule, row and tick to begin at, whether that rule was begun, and whether all its
    rows are to be looked at; zeros at first. Returns the number of events; if resume[0] < R the table
    was full or no block was free:
    see to both and call again.
    """
    rows = local.shape[0]
    ticks = tick_row.shape[0]
    rules = pool.shape[1]
    flat = pool.reshape(-1)  # a view a rule and row would cost more than its arithmetic
    n = 0
    room = events.shape[0] - 2  # a row makes at most two events
    for rule in range(resume[0], condition_row.shape[0]):
        row = resume[1]
        tick = resume[2]
        begun = resume[3] > 0
        all_rows = resume[4] > 0
        resume[1], resume[2], resume[3], resume[4] = 0, 0, 0, 0
        at = condition_row[rule]
        condition = results[at] if at >= 0 else gated[-1 - at]
        holds_somewhere = any_true[at] if at >= 0 else gated_true[-1 - at]
        own_clear = clear_row[rule] >= 0
        clear = results[clear_row[rule]] if own_clear else condition
        if rows > 0 and lacking:
            count = 0
            for i in range(rows):
                carried = np.uint8(0)
                for k in range(carry_start[rule], carry_start[rule + 1]):
                    carried |= out_quality[carry[k], i] & np.uint8(CARRIED)
                effective[0, i] = condition[i] if carried else np.uint8(NOT_CARRIED)
                effective[1, i] = clear[i]
                count += 1 if carried else 0
            condition = effective[0]
            clear = effective[1]
            evaluations[rule] += 0 if begun else count
        else:
            evaluations[rule] += 0 if begun else rows
        if busy[rule] == 0 and (rows == 0 or not holds_somewhere):
            continue
        mine = phase[rule]
        by_words = at >= 0 and not lacking
        next_running = 0
        while True:
            while tick < ticks and (tick_row[tick] <= row or row >= rows):
                if busy[rule] > 0 and tick_ns[tick] >= next_tick[rule]:
                    soonest = NEVER
                    for device in range(devices):
                        state = mine[device]
                        if state & 1 and not state & PAUSED:
                            base = (block[device] * rules + rule) * FIELDS
                            if flat[base + DUE_TICK] <= tick_ns[tick]:
                                if n > room:
                                    resume[0], resume[1], resume[2], resume[3] = rule, row, tick, 1
                                    resume[4] = 1 if all_rows else 0
                                    return n
                                if state & 3 == RISING:
                                    flat[base + ONSET] = flat[base + SINCE]
                                    mine[device] = ACTIVE
                                n = _event(
                                    events, n, RAISED if state & 3 == RISING else CLEARED, rule, device,
                                    flat[base + DUE], flat[base + ONSET], row, BY_TICK,
                                    flat[base + DUE_TICK], tick,
                                )  # fmt: skip
                                if state & 3 == FALLING:
                                    _rest(phase, block, running, free, free_count, busy, device, rule)
                            else:
                                soonest = min(soonest, flat[base + DUE_TICK])
                    next_tick[rule] = soonest
                tick += 1
            if row >= rows:
                break
            stop = min(rows, tick_row[tick]) if tick < ticks else rows
            if all_rows:
                while row < stop and not ((mine[local[row]] & 3) | (condition[row] & 1)):
                    row += 1
            else:
                while next_running < running_rows.shape[0] and running_rows[next_running] < row:
                    next_running += 1
                end = stop
                if next_running < running_rows.shape[0]:
                    end = min(end, running_rows[next_running])
                while row < end and not condition[row] & 1:
                    row += 1
                    if by_words and row & 7 == 0:
                        while row + 8 <= end and not words[at, row >> 3] & _EIGHT:
                            row += 8
            if row == stop:
                continue
            device = local[row]
            now = condition[row]
            if n > room or (block[device] < 0 and free_count[0] == 0):
                resume[0], resume[1], resume[2], resume[3] = rule, row, tick, 1
                resume[4] = 1 if all_rows else 0
                return n
            time = ts_ns[row]
            state = mine[device]
            fresh = block[device] < 0
            if fresh:  # given back below where the rule stays idle
                free_count[0] -= 1
                block[device] = free[free_count[0]]
            base = (block[device] * rules + rule) * FIELDS
            if state & 1:
                if flags[row] & _REBASED:  # the device's clock stepped: a running delay begins anew
                    if state & 3 == RISING:
                        mine[device] = IDLE
                    else:
                        mine[device] = ACTIVE
                elif not state & PAUSED and flat[base + DUE] <= time:
                    if state & 3 == RISING:
                        flat[base + ONSET] = flat[base + SINCE]
                        mine[device] = ACTIVE
                    else:
                        mine[device] = IDLE
                    n = _event(
                        events, n, RAISED if state & 3 == RISING else CLEARED, rule, device, flat[base + DUE],
                        flat[base + ONSET], row, BY_ROW, 0, 0,
                    )  # fmt: skip
            was = state & 3
            state = mine[device]
            kind = state & 3
            if now == NOT_CARRIED:
                pass
            elif kind == IDLE:
                if now & 1:
                    if on_delay[rule] == 0:
                        flat[base + ONSET] = time
                        mine[device] = ACTIVE
                        n = _event(events, n, RAISED, rule, device, time, time, row, AT_ROW, 0, 0)
                    else:
                        flat[base + SINCE] = time
                        flat[base + DUE] = time + on_delay[rule]
                        mine[device] = RISING
            else:
                if kind != RISING:  # what ends the delay or begins one is the clear condition
                    now = clear[row] if own_clear else np.uint8(((now & 1) << 1) | (now >> 1))
                if kind == ACTIVE:
                    if now & 1:
                        if off_delay[rule] == 0:
                            mine[device] = IDLE
                            n = _event(
                                events, n, CLEARED, rule, device, time, flat[base + ONSET], row, AT_ROW, 0, 0
                            )
                        else:
                            flat[base + DUE] = time + off_delay[rule]
                            mine[device] = FALLING
                elif now == 2:
                    mine[device] = IDLE if kind == RISING else ACTIVE
                elif now == 0:
                    if not state & PAUSED:
                        flat[base + PAUSED_AT] = time
                        mine[device] = state | PAUSED
                elif state & PAUSED:
                    flat[base + DUE] += time - flat[base + PAUSED_AT]
                    mine[device] = state & ~np.uint8(PAUSED)
            state = mine[device]
            if state & 1 and not state & PAUSED:
                flat[base + DUE_TICK] = flat[base + DUE] + grace - time + ingest_ns[row]
                next_tick[rule] = min(next_tick[rule], flat[base + DUE_TICK])
            if state & 3 != IDLE and not running_row[row]:
                all_rows = True
            if was == IDLE and state & 3 != IDLE:
                busy[rule] += 1
                running[device] += 1
            elif was != IDLE and state & 3 == IDLE:
                _rest(phase, block, running, free, free_count, busy, device, rule)
            elif fresh and running[device] == 0:
                free[free_count[0]] = block[device]
                free_count[0] += 1
                block[device] = -1
            row += 1
    resume[0] = condition_row.shape[0]
    return n


def warm_up() -> None:
    """Compile the kernels for the types of the hot path."""
    one: npt.NDArray[np.int64] = np.zeros(1, np.int64)
    i32 = np.zeros(1, np.int32)
    u8 = np.zeros(1, np.uint8)
    u2 = np.zeros((1, 1), np.uint8)
    held_kernels.warm_up()
    timers_kernels.warm_up()
    last_readings(
        np.zeros((1, EVENT_COLUMNS), np.int64), i32, np.full(1, -1, np.int32), np.zeros(1, np.int64)
    )
    walk(
        u2,
        np.zeros((1, 1), np.uint64),
        u8,
        u2,
        u8,
        False,
        u2,
        np.zeros(2, np.int32),
        i32,
        i32,
        i32,
        one,
        one,
        0,
        i32,
        one,
        one,
        u8,
        one[:0],
        one[:0],
        1,
        u2.copy(),
        i32.copy(),
        i32.copy(),
        np.zeros((1, 1, FIELDS), np.int64),
        i32.copy(),
        one.copy(),
        one.copy(),
        one.copy(),
        one.copy(),
        np.zeros((2, 1), np.uint8),
        u8.copy(),
        i32.copy(),
        np.zeros((4, EVENT_COLUMNS), np.int64),
        np.zeros(5, np.int64),
    )
