"""Event-time windows of one product and one length, row by row.

Every device has K places for windows. Window number n (n x length since 1970 is its start) has
place n mod K if that is free, else any other. A place is free once its window can change no more:
it is closed and the watermark has passed its end + correct_within. K spans lateness and
correct_within, which is enough while the watermark only rises; a device whose clock is re-based
also keeps the windows of its former time, which takes up to as many places again. A quantile
sketch is a chain of chunks of 16 buckets out of one pool.

What came out and is final is never begun anew: of each device the numbers of the windows that came out
are kept as runs of consecutive ones, also when their places are long taken, and beside them until where
windows were ever final. A steady device has one run. RUNS are kept; where there would be one more, the
gap that is smallest for its distance from the window that has just come out, length / (1 + distance),
counts as if it had come out. So a long silence whose backlog may still come outlasts the short ones of a
device that seldom sends, and no window ever comes out twice.

The sketch: DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", VLDB 2019) with alpha = 1 %, gamma = (1 + alpha) / (1 - alpha): bucket
i holds (gamma^(i-1), gamma^i] and stands for 2 gamma^i / (gamma + 1). The positive and the
negative store keep the 512 buckets below their largest magnitude; smaller ones count in the
smallest of them. The rule depends on the largest only, so a sketch is free of the order of its
readings.
"""

from __future__ import annotations

import math

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64, UInt32, UInt64
from operators.jit import fused, inline, kernel

# fields of a partial aggregate; LAST_AT is in ns after the window's start (exact in a float64)
COUNT, BAD, MIN, MAX, SUM, LAST, LAST_AT, MEAN, M2 = 0, 1, 2, 3, 4, 5, 6, 7, 8
PLAIN_FIELDS, ALL_FIELDS = 7, 9  # MEAN and M2 (Welford) only where std is asked for

# fields of a window's record
NUMBER, OPEN, REVISION, POSITION = 0, 1, 2, 3

# scalars of the state
NEXT_DUE, OPEN_COUNT, FREE, FREE_COUNT, EMITTED, DEVICES = 0, 1, 2, 3, 4, 5
SCALARS = 6

EMPTY = -(1 << 63)  # number of no window; event time of a device never heard
NEVER = (1 << 63) - 1
GRACE = 1_000_000_000  # a tick closes a window one second after it could be complete

RUNS = 6  # of windows that came out, a device
LAST_NOTED = (1 << 32) - 2  # windows before 1970, and those of one second after 2106, are not noted

CHUNK = 16
BUCKETS = 512
MAX_CHUNKS = 65  # 2 x 512 buckets, zero, and room
BIAS = 1 << 16
HOLE = -(1 << 31)  # key of a place without a bucket
NO_SKETCH = -2  # head of a window that had readings before quantiles were asked for: it has none
LOG_GAMMA = math.log(1.01 / 0.99)
TWO_OVER = 2.0 / (1.01 / 0.99 + 1.0)
QUANTILES = (0.5, 0.95, 0.99)


@inline
def bucket_key(v: float) -> int:
    """Bucket of a value as a number that rises with the value: 0 = zero, sign = store."""
    if v == 0.0:
        return 0
    magnitude = int(np.ceil(np.log(abs(v)) / LOG_GAMMA)) + BIAS
    return magnitude if v > 0.0 else -magnitude


@inline
def lowest_kept(head: int, keys: Int32, counts: Int32, following: Int32) -> tuple[int, int]:
    """Smallest magnitudes that the positive and the negative store keep."""
    positive = negative = 0
    chunk = head
    while chunk >= 0:
        for j in range(CHUNK):
            if counts[chunk, j]:
                positive = max(positive, keys[chunk, j])
                negative = max(negative, -keys[chunk, j])
        chunk = following[chunk]
    return positive - BUCKETS + 1, negative - BUCKETS + 1


@inline
def clamped(key: int, positive: int, negative: int) -> int:
    """The bucket in which a key counts."""
    if key > 0:
        return max(key, positive)
    return min(key, -negative) if key < 0 else 0


@inline
def count_value(
    heads: Int32,
    r: int,
    place: int,
    w: int,
    v: float,
    keys: Int32,
    counts: Int32,
    following: Int32,
    scalars: Int64,
) -> None:
    """Count one value in the sketch whose chain starts at heads[r, place, w] (-1: none yet).
    The caller has seen to a free chunk."""
    if heads[r, place, w] == NO_SKETCH:
        return
    key = bucket_key(v)
    while True:
        length = 0
        chunk = heads[r, place, w]
        while chunk >= 0:
            found = -1
            for j in range(CHUNK):  # without a way out, so that it becomes vector instructions
                if keys[chunk, j] == key:
                    found = j
            if found >= 0:
                counts[chunk, found] += 1
                return
            length += 1
            chunk = following[chunk]
        # holes are in the newest chunk, or, once the chain has its full length, anywhere
        chunk = heads[r, place, w]
        while chunk >= 0:
            for j in range(CHUNK):
                if counts[chunk, j] == 0:
                    keys[chunk, j] = key
                    counts[chunk, j] = 1
                    return
            if length < MAX_CHUNKS:
                break
            chunk = following[chunk]
        if length < MAX_CHUNKS:
            fresh = scalars[FREE]
            scalars[FREE] = following[fresh]
            scalars[FREE_COUNT] -= 1
            following[fresh] = heads[r, place, w]
            heads[r, place, w] = fresh
            for j in range(CHUNK):
                keys[fresh, j] = HOLE
                counts[fresh, j] = 0
            keys[fresh, 0] = key
            counts[fresh, 0] = 1
            return
        # full: what the stores no longer keep moves to their lowest buckets, which makes holes
        positive, negative = lowest_kept(heads[r, place, w], keys, counts, following)
        positive_at = negative_at = -1
        chunk = heads[r, place, w]
        while chunk >= 0:
            for j in range(CHUNK):
                k = clamped(keys[chunk, j], positive, negative)
                if counts[chunk, j] and ((k == positive and k > 0) or (k == -negative and k < 0)):
                    target = positive_at if k > 0 else negative_at
                    if target < 0:
                        keys[chunk, j] = k
                        if k > 0:
                            positive_at = chunk * CHUNK + j
                        else:
                            negative_at = chunk * CHUNK + j
                    else:
                        counts[target // CHUNK, target % CHUNK] += counts[chunk, j]
                        keys[chunk, j] = HOLE
                        counts[chunk, j] = 0
            chunk = following[chunk]


@inline
def free_chain(
    heads: Int32, r: int, place: int, w: int, counts: Int32, following: Int32, scalars: Int64
) -> None:
    """Give the chunks of a sketch back to the pool."""
    chunk = heads[r, place, w]
    while chunk >= 0:
        after = following[chunk]
        following[chunk] = scalars[FREE]
        scalars[FREE] = chunk
        scalars[FREE_COUNT] += 1
        chunk = after
    heads[r, place, w] = -1


@inline
def read_quantiles(
    head: int, part: Float64, keys: Int32, counts: Int32, following: Int32, out: Float64
) -> None:
    """out[0..2] = p50, p95, p99: the bucket of rank q (n - 1), within the window's min and max."""
    out[:] = np.nan
    n = part[COUNT]
    if n == 0.0 or head == NO_SKETCH:
        return
    positive, negative = lowest_kept(head, keys, counts, following)
    length = 0
    chunk = head
    while chunk >= 0:
        length += CHUNK
        chunk = following[chunk]
    pairs = np.empty(length, np.int64)
    used = 0
    chunk = head
    while chunk >= 0:
        for j in range(CHUNK):
            if counts[chunk, j]:
                pairs[used] = (np.int64(keys[chunk, j]) << 32) + np.int64(counts[chunk, j])
                used += 1
        chunk = following[chunk]
    pairs = np.sort(pairs[:used])
    at = 0
    below = float(pairs[0] & 0xFFFFFFFF)
    for q in range(3):
        rank = QUANTILES[q] * (n - 1.0)
        while below <= rank and at + 1 < used:
            at += 1
            below += float(pairs[at] & 0xFFFFFFFF)
        key = clamped(pairs[at] >> 32, positive, negative)
        if key == 0:
            v = 0.0
        elif key > 0:
            v = TWO_OVER * np.exp((key - BIAS) * LOG_GAMMA)
        else:
            v = -TWO_OVER * np.exp((-key - BIAS) * LOG_GAMMA)
        out[q] = min(max(v, part[MIN]), part[MAX])


@inline
def came_out(r: int, number: int, runs: UInt32) -> bool:
    """Whether a window of a device came out before, or counts as if it had."""
    for j in range(RUNS):
        if number >= runs[r, j, 1]:
            return False
        if number >= runs[r, j, 0]:
            return True
    return False


@inline
def note(r: int, number: int, runs: UInt32) -> None:
    """Count a window among those that came out."""
    if number < 0 or number > LAST_NOTED:
        return
    at = 0  # the first run that begins at or before it
    while at < RUNS and number < runs[r, at, 0]:
        at += 1
    if at < RUNS and number < runs[r, at, 1]:
        return
    follows = at < RUNS and number == runs[r, at, 1]
    precedes = at > 0 and number + 1 == runs[r, at - 1, 0]
    if follows and precedes:
        runs[r, at - 1, 0] = runs[r, at, 0]
        for j in range(at, RUNS - 1):
            runs[r, j, 0], runs[r, j, 1] = runs[r, j + 1, 0], runs[r, j + 1, 1]
        runs[r, RUNS - 1, 0] = runs[r, RUNS - 1, 1] = 0
    elif follows:
        runs[r, at, 1] = number + 1
    elif precedes:
        runs[r, at - 1, 0] = number
    else:
        note_apart(r, number, at, runs)


@inline
def note_apart(r: int, number: int, at: int, runs: UInt32) -> None:
    """A new run of one window, the `at`-th from the latest."""
    all_runs = np.empty((RUNS + 1, 2), np.int64)
    for j in range(RUNS + 1):
        if j == at:
            all_runs[j, 0], all_runs[j, 1] = number, number + 1
        else:
            before = j if j < at else j - 1
            all_runs[j, 0], all_runs[j, 1] = runs[r, before, 0], runs[r, before, 1]
    skipped = RUNS
    if all_runs[RUNS, 1]:
        least = np.inf
        for j in range(RUNS, 0, -1):  # the gap between run j and the one after it
            gap = all_runs[j - 1, 0] - all_runs[j, 1]
            distance = all_runs[j, 1] - number - 1 if at >= j else number - all_runs[j - 1, 0]
            if gap / (1.0 + distance) < least:
                least = gap / (1.0 + distance)
                skipped = j
        all_runs[skipped - 1, 0] = all_runs[skipped, 0]
    for j in range(RUNS):
        kept = j if j < skipped else j + 1
        runs[r, j, 0], runs[r, j, 1] = all_runs[kept, 0], all_runs[kept, 1]


@inline
def emit(
    r: int,
    place: int,
    record: Int64,
    runs: UInt32,
    part: Float64,
    heads: Int32,
    keys: Int32,
    counts: Int32,
    following: Int32,
    scalars: Int64,
    out: Int64,
    out_part: Float64,
    out_quantile: Float64,
) -> None:
    """Write one revision of a window out; it is closed now."""
    e = scalars[EMITTED]
    scalars[EMITTED] += 1
    scalars[OPEN_COUNT] -= record[r, place, OPEN]
    record[r, place, OPEN] = 0
    record[r, place, REVISION] += 1
    if record[r, place, REVISION] == 1:
        note(r, record[r, place, NUMBER], runs)
    out[e, 0] = r
    out[e, 1] = record[r, place, NUMBER]
    out[e, 2] = record[r, place, REVISION]
    out[e, 3] = record[r, place, POSITION]
    for w in range(part.shape[2]):
        for f in range(part.shape[3]):
            out_part[e, w, f] = part[r, place, w, f]
    for w in range(heads.shape[2]):
        read_quantiles(heads[r, place, w], part[r, place, w], keys, counts, following, out_quantile[e, w])


@inline
def earliest_open(r: int, record: Int64, length: int) -> int:
    """End of the first open window of a device; NEVER when none is open."""
    end = NEVER
    for place in range(record.shape[1]):
        if record[r, place, OPEN]:
            end = min(end, (record[r, place, NUMBER] + 1) * length)
    return end


@fused
def place_of(r: int, number: int, forgotten: int, length: int, record: Int64) -> int:
    """Place of window `number`, or of one that it may take: free, or of a window that is closed and
    ends at or before `forgotten`; -1 when there is none."""
    places = record.shape[1]
    home: int = number % places
    if record[r, home, NUMBER] == number:
        return home
    free = -1
    for step in range(places):
        place: int = (home + step) % places
        other = record[r, place, NUMBER]
        if other == number:
            return place
        if free < 0 and (
            other == EMPTY or (not record[r, place, OPEN] and (other + 1) * length <= forgotten)
        ):
            free = place
    return free


@inline
def oldest_place(r: int, record: Int64) -> int:
    """Place of the device's oldest window."""
    oldest = 0
    for place in range(record.shape[1]):
        if record[r, place, NUMBER] < record[r, oldest, NUMBER]:
            oldest = place
    return oldest


@fused
def await_tick(r: int, lateness: int, clock: Int64, scalars: Int64) -> None:
    """The tick that closes the device's first open window is looked at, if no earlier one is."""
    if clock[r, 2] != NEVER:
        scalars[NEXT_DUE] = min(scalars[NEXT_DUE], clock[r, 2] + lateness + GRACE + clock[r, 1] - clock[r, 0])


@kernel
def fold_windows(
    first: int,
    may_grow: bool,
    rows: Int32,
    ts_ns: Int64,
    ingest_ns: Int64,
    seq: UInt64,
    flags: Bytes,
    value: Float64,
    quality: Bytes,
    tick_row: Int64,
    tick_ns: Int64,
    metric: Int32,
    times: Int64,
    clock: Int64,
    record: Int64,
    runs: UInt32,
    part: Float64,
    heads: Int32,
    keys: Int32,
    counts: Int32,
    following: Int32,
    scalars: Int64,
    refused: Bytes,
    out: Int64,
    out_part: Float64,
    out_quantile: Float64,
) -> int:
    """Fold N accepted readings and the ticks between them; returns N, or the number of the reading
    whose window finds no place: with `may_grow` the caller widens record, part and heads and calls
    again with that number as `first`, which is -1 at the beginning. Without, the device's oldest
    window is closed and gives its place. scalars[EMITTED], which the caller sets to 0 before the
    first call, counts the revisions of windows that came out.

    rows: int32[N] row of the state arrays; ts_ns, ingest_ns: int64[N]; seq: uint64[N]; flags:
    uint8[N] with IN_ORDER; value: float64[M, N]; quality: uint8[M, N]; tick_row, tick_ns:
    int64[T]. metric: int32[W] columns of value; times: int64[3] length, lateness, correct_within.

    State, C rows: clock: int64[C, 4] newest event time, ingest time of that reading, end of the
    first open window, and up to which end all that came out is final where the clock does not say so
    (0: nowhere); record: int64[C, K, 4]; runs: uint32[C, 6, 2] first number of a run and the one
    behind its last, the latest run first, then 0, 0; part: float64[C, K, W, F]; heads: int32[C, K, W]
    (or [C, K, 0] without quantiles) into the pool keys, counts: int32[P, 16], following: int32[P];
    scalars: int64[6]. The pool has at least N x W free chunks.

    refused: uint8[N], 1 = the reading is too late. out: int64[E, 4] row, number, revision,
    position; out_part: float64[E, W, F]; out_quantile: float64[E, W or 0, 3]; room for
    OPEN_COUNT + 2 N. A window closes when newest - lateness reaches its end, or at the first tick
    where newest + (tick - ingest) - lateness - 1 s does. A later reading of a window that only a
    tick has closed opens it again; one of a window that the watermark has passed corrects it at
    once while its end + correct_within is above the watermark, and is refused afterwards. Where the
    clock is re-based, windows that the former watermark had made final stay so: readings of one that
    came out are refused, whatever the clock is then. All others are kept as they are.
    """
    length, lateness, correct_within = times[0], times[1], times[2]
    windows = record.shape[1]
    forgetting = lateness + correct_within
    flat = part.reshape(-1)  # a view a cell would cost more than the cell's arithmetic
    tick = 0
    while tick < tick_row.shape[0] and tick_row[tick] <= first:
        tick += 1  # those before the reading that is tried again
    for i in range(max(first, 0), rows.shape[0] + 1):
        while tick < tick_row.shape[0] and tick_row[tick] <= i:
            if tick_ns[tick] >= scalars[NEXT_DUE]:
                due = NEVER
                for r in range(scalars[DEVICES]):
                    if clock[r, 2] == NEVER:
                        continue
                    lag = lateness + GRACE + clock[r, 1] - clock[r, 0]
                    while clock[r, 2] != NEVER and clock[r, 2] + lag <= tick_ns[tick]:
                        for place in range(windows):
                            number = record[r, place, NUMBER]
                            if record[r, place, OPEN] and (number + 1) * length == clock[r, 2]:
                                emit(
                                    r, place, record, runs, part, heads, keys, counts, following, scalars,
                                    out, out_part, out_quantile,
                                )  # fmt: skip
                        clock[r, 2] = earliest_open(r, record, length)
                    if clock[r, 2] != NEVER:
                        due = min(due, clock[r, 2] + lag)
                scalars[NEXT_DUE] = due
            tick += 1
        if i == rows.shape[0]:
            break

        r = rows[i]
        at = ts_ns[i]
        number = at // length
        end = (number + 1) * length
        if flags[i] & 4 or clock[r, 0] == EMPTY:
            if at < clock[r, 0]:
                clock[r, 3] = max(clock[r, 3], clock[r, 0] - forgetting)
                for place in range(windows):
                    other = record[r, place, NUMBER]
                    if not record[r, place, OPEN] and (other + 1) * length <= clock[r, 0] - forgetting:
                        record[r, place, NUMBER] = EMPTY
            clock[r, 0] = at
            clock[r, 1] = ingest_ns[i]
            while clock[r, 2] <= at - lateness:
                for place in range(windows):
                    if record[r, place, OPEN] and (record[r, place, NUMBER] + 1) * length == clock[r, 2]:
                        emit(
                            r, place, record, runs, part, heads, keys, counts, following, scalars,
                            out, out_part, out_quantile,
                        )  # fmt: skip
                clock[r, 2] = earliest_open(r, record, length)
        watermark = clock[r, 0] - lateness
        if end <= watermark and end + correct_within <= watermark:
            refused[i] = 1
            continue
        place = place_of(r, number, clock[r, 0] - forgetting, length, record)
        begins = place < 0 or record[r, place, NUMBER] != number
        if begins and end <= clock[r, 3] and came_out(r, number, runs):
            refused[i] = 1
            await_tick(r, lateness, clock, scalars)  # it may have moved the device's clock nevertheless
            continue
        refused[i] = 0
        if place < 0:
            if may_grow:
                return i
            place = oldest_place(r, record)
            clock[r, 3] = max(clock[r, 3], (record[r, place, NUMBER] + 1) * length)
            if record[r, place, OPEN]:
                emit(
                    r, place, record, runs, part, heads, keys, counts, following, scalars,
                    out, out_part, out_quantile,
                )  # fmt: skip
                clock[r, 2] = earliest_open(r, record, length)
        if record[r, place, NUMBER] != number:
            record[r, place, NUMBER] = number
            record[r, place, REVISION] = 0
            for w in range(metric.shape[0]):
                part[r, place, w, :] = 0.0
                part[r, place, w, MIN] = np.inf
                part[r, place, w, MAX] = -np.inf
                part[r, place, w, LAST_AT] = -1.0
            for w in range(heads.shape[2]):
                free_chain(heads, r, place, w, counts, following, scalars)
        record[r, place, POSITION] = np.int64(seq[i] >> np.uint64(16))

        into = float(at - number * length)
        fields = part.shape[3]
        for w in range(metric.shape[0]):
            q = quality[metric[w], i]
            if q == 3:
                continue
            cell = ((r * windows + place) * metric.shape[0] + w) * fields
            v = value[metric[w], i]
            if q >= 2 or v != v:
                flat[cell + BAD] += 1.0
                continue
            flat[cell + COUNT] += 1.0
            flat[cell + MIN] = min(flat[cell + MIN], v)
            flat[cell + MAX] = max(flat[cell + MAX], v)
            flat[cell + SUM] += v
            if into >= flat[cell + LAST_AT]:
                flat[cell + LAST] = v
                flat[cell + LAST_AT] = into
            if fields == ALL_FIELDS:
                off = v - flat[cell + MEAN]
                flat[cell + MEAN] += off / flat[cell + COUNT]
                flat[cell + M2] += off * (v - flat[cell + MEAN])
            if heads.shape[2]:
                count_value(heads, r, place, w, v, keys, counts, following, scalars)

        if end > watermark:
            if not record[r, place, OPEN]:
                record[r, place, OPEN] = 1
                scalars[OPEN_COUNT] += 1
                clock[r, 2] = min(clock[r, 2], end)
        elif not record[r, place, OPEN]:
            emit(
                r, place, record, runs, part, heads, keys, counts, following, scalars,
                out, out_part, out_quantile,
            )  # fmt: skip
        await_tick(r, lateness, clock, scalars)
    done: int = rows.shape[0]
    return done


def warm_up() -> None:
    """Compile the kernel with the types of the hot path."""
    scalars = np.zeros(SCALARS, np.int64)
    scalars[NEXT_DUE] = NEVER
    fold_windows(
        -1,
        True,
        np.zeros(0, np.int32),
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint64),
        np.zeros(0, np.uint8),
        np.zeros((1, 0)),
        np.zeros((1, 0), np.uint8),
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros(1, np.int32),
        np.ones(3, np.int64),
        np.zeros((1, 4), np.int64),
        np.zeros((1, 1, 4), np.int64),
        np.zeros((1, RUNS, 2), np.uint32),
        np.zeros((1, 1, 1, PLAIN_FIELDS)),
        np.zeros((1, 1, 0), np.int32),
        np.zeros((1, CHUNK), np.int32),
        np.zeros((1, CHUNK), np.int32),
        np.zeros(1, np.int32),
        scalars,
        np.zeros(0, np.uint8),
        np.zeros((0, 4), np.int64),
        np.zeros((0, 1, PLAIN_FIELDS)),
        np.zeros((0, 0, 3)),
    )
