"""The contract of one product, row by row: accepted, rejected or filtered, and the timeline.

Order of checks for one reading (first rejecting breach wins, metrics in file order within each):
type, required, range, step, values, then the time stamp against ingest time.
"""

from __future__ import annotations

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64, UInt64
from operators.jit import fused, kernel

# verdicts beside the codes of `operators.rejects.Reason`
ACCEPTED = 0
DUPLICATE = 254
RETIRED = 255

# types of metrics
NUMBER, INTEGER, BOOLEAN, STRING = 0, 1, 2, 3

# kinds of checks: rows of the action table; Reason = 12 + kind
TYPE, REQUIRED, RANGE, STEP, VALUES = 0, 1, 2, 3, 4
FIRST_REASON = 12
FUTURE, PAST = 17, 18

# actions on a breach
REJECT, MARK_BAD, CLAMP = 0, 1, 2

NEVER = -(1 << 63)  # event time of a device never heard
RING = 64  # accepted frames of a device among which a duplicate is looked for
RUN = 3  # readings that are older than newest and rise among themselves: the clock was stepped


@fused
def eight(data: Bytes, at: np.uint64) -> np.uint64:
    """The little-endian u64 at `at`, an unsigned number: LLVM makes one load of it then."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[at + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[at + np.uint64(7)]) << np.uint64(56)
    )


@fused
def mixed(state: np.uint64, word: np.uint64) -> np.uint64:
    """A step of multiply and xor."""
    state = (state ^ word) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(32))


@fused
def frame_hash(
    payload: Bytes, at: int, size: int, index: int, first: int, stop: int, ts_ns: Int64
) -> np.uint64:
    """64-bit hash of a frame's bytes payload[at:at + size], of the readings first..stop of it: their
    event times, and the place of the first in its frame. Multiply-xor steps, four lanes of them side by
    side over long frames, and the finalizer of MurmurHash3 (public domain). Never 0, which marks an
    empty place of the ring."""
    state = mixed(np.uint64(0xCBF29CE484222325), np.uint64(size) ^ np.uint64(index) << np.uint64(40))
    p = np.uint64(at)
    if size >= 32:
        second = state ^ np.uint64(0xA0761D6478BD642F)
        third = state ^ np.uint64(0xE7037ED1A0B428DB)
        fourth = state ^ np.uint64(0x8EBC6AF09C88C6E3)
        for _ in range(size >> 5):
            state = mixed(state, eight(payload, p))
            second = mixed(second, eight(payload, p + np.uint64(8)))
            third = mixed(third, eight(payload, p + np.uint64(16)))
            fourth = mixed(fourth, eight(payload, p + np.uint64(24)))
            p += np.uint64(32)
        state = mixed(mixed(mixed(state, second), third), fourth)
    for _ in range((size & 31) >> 3):
        state = mixed(state, eight(payload, p))
        p += np.uint64(8)
    rest = np.uint64(0)
    for _ in range(size & 7):
        rest = rest << np.uint64(8) | np.uint64(payload[p])
        p += np.uint64(1)
    state = mixed(state, rest)
    for i in range(first, stop):
        state = mixed(state, np.uint64(ts_ns[i]))
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(33)
    return state if state != np.uint64(0) else np.uint64(1)


@kernel
def check_contract(
    rows: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    seq: UInt64,
    flags: Bytes,
    value: Float64,
    payload: Bytes,
    frame_at: Int64,
    frame_size: Int64,
    quality: Bytes,
    kinds: Bytes,
    actions: Bytes,
    lower: Float64,
    upper: Float64,
    max_step: Float64,
    step_column: Int32,
    allowed_from: Int32,
    allowed: Float64,
    times: Int64,
    retired: Bytes,
    newest: Int64,
    highest: Int64,
    run_last: Int64,
    run_count: Bytes,
    ring: UInt64,
    ring_next: Bytes,
    previous: Float64,
    verdict: Bytes,
    breach_metric: Int32,
    breach: Float64,
) -> int:
    """Judge N readings of one product in row order; returns how many are not accepted.

    rows: int32[N] row of the state arrays; ts_ns, ingest_ns: int64[N]; seq: uint64[N]; flags:
    uint8[N]; value: float64[M, N]; payload: uint8[B], frame_at, frame_size: int64[N] the frame of each
    reading in it; quality: uint8[M, N]. Time stamps, flags, values and qualities of accepted readings
    are changed in place.

    Tables: kinds: uint8[M] type; actions: uint8[5, M] by check (required: 3 = not required);
    lower, upper, max_step: float64[M] (infinite = none); step_column: int32[M] column in
    `previous`, -1 = none; allowed_from: int32[M + 1] into allowed: float64[A], none = any value;
    times: int64[4] max_future, max_age, live_within in ns, action on an implausible time.

    State, C rows: retired: uint8[C]; newest: int64[C] event time of the newest in-order reading;
    highest: int64[C] largest event time that an accepted frame begins with; run_last: int64[C],
    run_count: uint8[C] the run of older, rising readings; ring: uint64[C, 64] hashes of accepted
    frames, ring_next: uint8[C] the next place; previous: float64[C, S] last usable in-order value.

    verdict: uint8[N] ACCEPTED, a Reason, DUPLICATE or RETIRED; breach_metric: int32[N] (-1: the
    time stamp); breach: float64[2, N] the breaching value and, for a step, the value before it.
    """
    refused = 0
    metrics = value.shape[0]
    group_stop = 0
    began = np.int64(0)
    duplicate = False
    pending = np.uint64(0)  # hash of the frame at hand that is not in the ring yet
    for i in range(rows.shape[0]):
        r = rows[i]
        if retired[r]:
            verdict[i] = RETIRED
            refused += 1
            continue

        if i >= group_stop:  # the readings of one device in one frame stand and fall together
            frame = seq[i] >> np.uint64(16)
            group_stop = i + 1
            while (
                group_stop < rows.shape[0]
                and rows[group_stop] == r
                and seq[group_stop] >> np.uint64(16) == frame
            ):
                group_stop += 1
            pending = frame_hash(
                payload, frame_at[i], frame_size[i], int(seq[i]) & 0xFFFF, i, group_stop, ts_ns
            )
            began = ts_ns[i]
            duplicate = False
            if began <= highest[r]:
                for k in range(RING):
                    duplicate |= ring[r, k] == pending
        if duplicate:
            verdict[i] = DUPLICATE
            refused += 1
            continue

        # the values
        worst = 255  # the first kind of check that rejects
        worst_metric = -1
        worst_value = 0.0
        worst_before = 0.0
        ahead = ts_ns[i] > newest[r]
        usable = 1 if flags[i] & 2 else 0  # TIME_UNCERTAIN: at best UNCERTAIN
        for m in range(metrics):
            q = quality[m, i]
            if q == 3:
                if actions[REQUIRED, m] != 3:
                    if actions[REQUIRED, m] == REJECT:
                        if worst > REQUIRED:
                            worst, worst_metric = REQUIRED, m
                    else:
                        quality[m, i] = 2
                continue
            if q == 2:
                continue
            v = value[m, i]
            kind = kinds[m]
            if (
                q == 4
                or v != v
                or (kind == INTEGER and v != np.floor(v))
                or (kind == BOOLEAN and v != 0.0 and v != 1.0)
            ):
                if actions[TYPE, m] == REJECT and worst > TYPE:
                    worst, worst_metric, worst_value = TYPE, m, v
                value[m, i] = np.nan
                quality[m, i] = 2
                continue
            if v < lower[m] or v > upper[m]:
                if actions[RANGE, m] == CLAMP:
                    v = lower[m] if v < lower[m] else upper[m]
                    value[m, i] = v
                    q = 1
                else:
                    if actions[RANGE, m] == REJECT and worst > RANGE:
                        worst, worst_metric, worst_value = RANGE, m, v
                    q = 2
            s = step_column[m]
            if s >= 0 and q != 2 and ahead:
                before = previous[r, s]
                if abs(v - before) > max_step[m]:
                    if actions[STEP, m] == CLAMP:
                        v = before + max_step[m] if v > before else before - max_step[m]
                        value[m, i] = v
                        q = 1
                    else:
                        if actions[STEP, m] == REJECT and worst > STEP:
                            worst, worst_metric, worst_value, worst_before = STEP, m, v, before
                        q = 2
            if allowed_from[m] < allowed_from[m + 1] and q != 2:
                known = False
                for k in range(allowed_from[m], allowed_from[m + 1]):
                    known |= allowed[k] == v
                if not known:
                    if actions[VALUES, m] == REJECT and worst > VALUES:
                        worst, worst_metric, worst_value = VALUES, m, v
                    q = 2
            quality[m, i] = max(q, usable)
        if worst != 255:
            verdict[i] = FIRST_REASON + worst
            breach_metric[i] = worst_metric
            breach[0, i] = worst_value
            breach[1, i] = worst_before
            refused += 1
            continue

        # the time stamp
        heard = ts_ns[i]
        ahead = heard > ingest_ns[i] + times[0]
        if ahead or (heard < ingest_ns[i] - times[1] and not flags[i] & 16):
            if times[3] == REJECT:
                verdict[i] = FUTURE if ahead else PAST
                breach_metric[i] = -1
                refused += 1
                continue
            if times[3] == CLAMP:
                ts_ns[i] = ingest_ns[i] + (times[0] if ahead else -times[1])
                flags[i] |= 2
            for m in range(metrics):
                if quality[m, i] < 2:
                    quality[m, i] = 1 if times[3] == CLAMP else 2

        # accepted: the frame is remembered, the timeline goes on
        verdict[i] = ACCEPTED
        if pending != np.uint64(0):
            ring[r, ring_next[r]] = pending
            ring_next[r] = (ring_next[r] + 1) % RING
            pending = np.uint64(0)
            highest[r] = max(highest[r], began)
        at = ts_ns[i]
        if not flags[i] & 16 and at < ingest_ns[i] - times[2]:
            flags[i] |= 1
        flags[i] &= 0xF3  # IN_ORDER and REBASED are decided here
        if at > newest[r]:
            newest[r] = at
            run_count[r] = 0
            flags[i] |= 4
        elif at < newest[r]:
            run_count[r] = run_count[r] + 1 if run_count[r] and at > run_last[r] else 1
            run_last[r] = at
            if run_count[r] == RUN:
                newest[r] = at
                run_count[r] = 0
                flags[i] |= 12
                for m in range(metrics):
                    if quality[m, i] == 0:
                        quality[m, i] = 1
        if flags[i] & 4 and previous.shape[1]:
            for m in range(metrics):
                if step_column[m] >= 0 and quality[m, i] < 2:
                    previous[r, step_column[m]] = value[m, i]
    return refused


def warm_up() -> None:
    """Compile the kernel with the types of the hot path."""
    value = np.zeros((1, 1))
    check_contract(
        np.zeros(1, np.int32),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.zeros(1, np.uint64),
        np.zeros(1, np.uint8),
        value,
        np.zeros(1, np.uint8),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.zeros((1, 1), np.uint8),
        np.zeros(1, np.uint8),
        np.zeros((5, 1), np.uint8),
        np.zeros(1),
        np.zeros(1),
        np.zeros(1),
        np.full(1, -1, np.int32),
        np.zeros(2, np.int32),
        np.zeros(0),
        np.zeros(4, np.int64),
        np.zeros(1, np.uint8),
        np.full(1, NEVER, np.int64),
        np.full(1, NEVER, np.int64),
        np.zeros(1, np.int64),
        np.zeros(1, np.uint8),
        np.zeros((1, RING), np.uint64),
        np.zeros(1, np.uint8),
        np.zeros((1, 0)),
        np.zeros(1, np.uint8),
        np.zeros(1, np.int32),
        np.zeros((2, 1)),
    )
