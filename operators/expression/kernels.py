"""The kernel that runs a column program over a chunk of rows at a time.

Numbers are float64 columns, NaN = unknown. Truth is a trit in a byte: TRUE, FALSE, or UNKNOWN;
bit 0 says "true" and bit 1 says "false", so that Kleene's logic is plain bit arithmetic that the
compiler makes wide. Every operation gives NaN where its result is not finite or not defined
(division by zero, root of a negative number, overflow), and unknown in, unknown out, except `if`,
`default`, `== null`, `and`, `or`.

`exp log log10 pow` are libm's, element by element.

An operation over a device's own past walks the rows in journal order with a state for each
(device, operation). Nothing feeds back from one operation into an earlier one, so walking a chunk
operation by operation equals walking it row by row, several rows of one device included.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64
from operators.jit import inline, kernel

UNKNOWN: Final = 0
TRUE: Final = 1
FALSE: Final = 2

CHUNK: Final = 2048
PAGE: Final = 16  # samples in a page of the pool
NEVER: Final = -(1 << 63)  # a time that has not been

# number, number -> number
ADD, SUB, MUL, DIV, MIN, MAX = 0, 1, 2, 3, 4, 5
NEG, ABS, FLOOR, CEIL = 6, 7, 8, 9
DEFAULT: Final = 10
IF: Final = 11  # trit, number, number -> number
FROM_TRIT: Final = 12
# number, number -> number, element by element; those of one operand take it twice
SQRT, EXP, LOG, LOG10, POW, MOD, ROUND = 20, 21, 22, 23, 24, 25, 26
BITAND, BITOR, BITXOR, SHL, SHR, POPCOUNT = 27, 28, 29, 30, 31, 32
# number, number -> trit
LT, LE, EQ, NE, IS_NULL = 40, 41, 42, 43, 44
# number, index of a constant -> trit
LTC, LEC, GTC, GEC, EQC, NEC = 50, 51, 52, 53, 54, 55
# trits -> trit
AND, OR, NOT, IF_TRIT, DEFAULT_TRIT = 60, 61, 62, 63, 64
FILL: Final = 65  # index of a constant -> trit
STORE: Final = 70  # number -> a row of values
# the past: number, line of `past` -> number; SINCE takes a trit, HELD a trit and gives one
PREV, RATE, SINCE, HELD = 71, 72, 73, 74
SPAN: Final = 75  # number, line of `past` -> the samples of a duration and what is folded from them

# columns of `past`: rows of the state arrays (each operation has its own), what it takes, and for
# a SPAN the temporary rows that receive its aggregates in the order of FOLDS, -1 = not asked for
PAST_NUMBERS, PAST_TIMES, PAST_SPAN, PAST_DURATION, PAST_LIMIT, PAST_FOLDS = 0, 1, 2, 3, 4, 5
FOLDS: Final = ("count", "sum", "avg", "min", "max", "std")
# columns of a chain: first and last page, place of the oldest sample in the first, how many samples
FIRST, LAST, OFFSET, COUNT = 0, 1, 2, 3
# `pages`: the first free page (-1: none), how many are free, how many have ever been in use
FREE, FREED, USED = 0, 1, 2
# rows of `edges`: the least and the most of a column's chunk, where the chunk begins, and for how many
# chunks they have spared nothing
LEAST, MOST, EDGES_OF, IDLE = 0, 1, 2, 3
EDGES: Final = 4

WITH_CONSTANT: Final = frozenset({LTC, LEC, GTC, GEC, EQC, NEC, FILL})

_REBASED: Final = 8  # operators.batch.REBASED
_WHOLE: Final = 9007199254740992.0  # 2**53
_LARGEST: Final = 1.7976931348623157e308
_LAST: Final = (1 << 63) - 1
_PATIENCE: Final = 8  # chunks after which edges that spare nothing are looked for seldom


@inline
def _round_half_away(x: float, digits: float) -> float:
    """Half away from zero, on the shortest decimal that stands for the double (4.475 -> 4.48).

    A tie is a decimal of at most 15 digits, and those are told apart by their nearest doubles: so
    x is compared with the double nearest to the tie.
    """
    scale = 1.0
    for _ in range(int(digits)):
        scale *= 10.0
    size = abs(x)
    below = math.floor(size * scale)
    if not 2.0 * below + 1.0 < _WHOLE:
        return x
    result = (below + 1.0) / scale if size >= (2.0 * below + 1.0) / (2.0 * scale) else below / scale
    return -result if x < 0.0 else result


@inline
def _elementwise(op: int, a: float, b: float) -> float:
    """One value of the operations that are not worth a loop of their own; may be infinite."""
    if a != a or b != b:
        return np.nan
    if op == SQRT:
        return math.sqrt(a) if a >= 0.0 else np.nan
    if op == EXP:
        return math.exp(a) if a < 710.0 else np.nan
    if op == LOG:
        return math.log(a) if a > 0.0 else np.nan
    if op == LOG10:
        return math.log10(a) if a > 0.0 else np.nan
    if op == POW:
        return math.pow(a, b)
    if op == MOD:
        if b == 0.0:
            return np.nan
        rest = float(np.fmod(a, b))
        return rest + b if rest != 0.0 and (rest < 0.0) != (b < 0.0) else rest
    if op == ROUND:
        return _round_half_away(a, b)
    if a < 0.0 or b < 0.0 or a >= _WHOLE or b >= _WHOLE or a != math.floor(a) or b != math.floor(b):
        return np.nan
    left, right = np.int64(a), np.int64(b)
    if op == BITAND:
        return float(left & right)
    if op == BITOR:
        return float(left | right)
    if op == BITXOR:
        return float(left ^ right)
    if op == SHL:
        if right > 52:
            return 0.0 if left == 0 else np.nan
        shifted = float(left) * float(np.int64(1) << right)
        return shifted if shifted < _WHOLE else np.nan
    if op == SHR:
        return float(left >> right) if right < 63 else 0.0
    ones = 0
    while left:
        left &= left - 1
        ones += 1
    return float(ones)


@inline
def _prev(a: Float64, local: Int32, began: Bytes, anew: bool, state: Float64, r: Float64) -> None:
    """The last known value before each row. state: float64[D]."""
    if not anew:
        for i in range(a.shape[0]):
            d = local[i]
            x = a[i]
            r[i] = state[d]
            if x == x:
                state[d] = x
        return
    for i in range(a.shape[0]):
        d = local[i]
        x = a[i]
        before = np.nan if began[i] else state[d]
        r[i] = before
        state[d] = x if x == x else before


@inline
def _rate(
    a: Float64, ts_ns: Int64, local: Int32, began: Bytes, state: Float64, when: Int64, r: Float64
) -> None:
    """Change per second since the last known value; state: float64[D], when: int64[D]."""
    for i in range(a.shape[0]):
        d = local[i]
        x = a[i]
        before = np.nan if began[i] else state[d]
        elapsed = (ts_ns[i] - when[d]) / 1e9
        change = x - before
        change = change if abs(change) <= _LARGEST else np.nan
        change = change / elapsed if elapsed > 0.0 else np.nan
        r[i] = change if abs(change) <= _LARGEST else np.nan
        if x == x:
            state[d] = x
            when[d] = ts_ns[i]
        else:
            state[d] = before


@inline
def _since(test: Bytes, ts_ns: Int64, local: Int32, began: Bytes, when: Int64, r: Float64) -> None:
    """Seconds since the condition was last known to be true; when: int64[D], NEVER."""
    for i in range(test.shape[0]):
        d = local[i]
        if began[i]:
            when[d] = NEVER
        if test[i] == 1:
            when[d] = ts_ns[i]
            r[i] = 0.0
        elif test[i] == 2 and when[d] != NEVER:
            r[i] = (ts_ns[i] - when[d]) / 1e9
        else:
            r[i] = np.nan


@inline
def _held(
    test: Bytes,
    ts_ns: Int64,
    local: Int32,
    began: Bytes,
    since: Int64,
    paused: Int64,
    duration: int,
    t: Bytes,
) -> None:
    """Whether the condition has been true for `duration`, as an on_delay counts: unknown stops
    the clock. since, paused: int64[D], NEVER where it is not running, not paused."""
    for i in range(test.shape[0]):
        d = local[i]
        if began[i]:
            since[d] = NEVER
            paused[d] = NEVER
        now = ts_ns[i]
        if test[i] == 1:
            if since[d] == NEVER:
                since[d] = now
            elif paused[d] != NEVER:
                since[d] += now - paused[d]
            paused[d] = NEVER
            t[i] = np.uint8(1) if now - since[d] >= duration else np.uint8(2)
        elif test[i] == 2:
            since[d] = NEVER
            paused[d] = NEVER
            t[i] = np.uint8(2)
        else:
            if since[d] != NEVER and paused[d] == NEVER:
                paused[d] = now
            t[i] = np.uint8(0)


@inline
def _pop(chain: Int32, links: Int32, pages: Int32) -> None:
    """Let a chain's oldest sample go; a page that is empty then is free. chain: int32[4]."""
    chain[COUNT] -= 1
    chain[OFFSET] += 1
    if chain[COUNT] == 0 or chain[OFFSET] == PAGE:
        page = chain[FIRST]
        chain[FIRST] = links[page]
        chain[OFFSET] = 0
        links[page] = pages[FREE]
        pages[FREE] = page
        pages[FREED] += 1


@inline
def _push(
    chain: Int32, ts_ns: int, x: float, links: Int32, pages: Int32, sample_ns: Int64, sample: Float64
) -> None:
    """Put a sample behind a chain's newest; there must be a page for it."""
    place = (chain[OFFSET] + chain[COUNT]) % PAGE
    if chain[COUNT] == 0:
        place = 0
    if place == 0:
        page = pages[FREE]
        if page >= 0:
            pages[FREE] = links[page]
            pages[FREED] -= 1
        else:
            page = pages[USED]
            pages[USED] += 1
        if chain[COUNT] == 0:
            chain[FIRST] = page
            chain[OFFSET] = 0
        else:
            links[chain[LAST]] = page
        chain[LAST] = page
    sample_ns[chain[LAST], place] = ts_ns
    sample[chain[LAST], place] = x
    chain[COUNT] += 1


@inline
def _sum(chain: Int32, n: int, links: Int32, sample: Float64, mean: float, squares: bool) -> float:
    """Sum of a chain's n samples, or of the squares of their distances to `mean`, oldest first."""
    page, place = chain[FIRST], chain[OFFSET]
    total = sample[page, place] - mean if squares else sample[page, place]
    if squares:
        total *= total
    left = n - 1
    place += 1
    while left > 0:
        if place == PAGE:
            page, place = links[page], 0
        stop = min(np.int64(PAGE), place + left)
        left -= stop - place
        if squares:
            for at in range(place, stop):
                away = sample[page, at] - mean
                total += away * away
        else:
            for at in range(place, stop):
                total += sample[page, at]
        place = stop
    return float(total)


@inline
def _bounds(chain: Int32, n: int, links: Int32, sample: Float64) -> tuple[float, float]:
    """The least and the most of a chain's n samples; of equal ones the oldest."""
    page, place = chain[FIRST], chain[OFFSET]
    least = most = sample[page, place]
    left = n - 1
    place += 1
    while left > 0:
        if place == PAGE:
            page, place = links[page], 0
        stop = min(np.int64(PAGE), place + left)
        left -= stop - place
        for at in range(place, stop):
            x = sample[page, at]
            least = x if x < least else least
            most = x if x > most else most
        place = stop
    return least, most


@inline
def _span(
    a: Float64,
    ts_ns: Int64,
    local: Int32,
    began: Bytes,
    chains: Int32,
    dropped: Int64,
    duration: int,
    limit: int,
    links: Int32,
    pages: Int32,
    sample_ns: Int64,
    sample: Float64,
    folds: Int64,
    width: int,
    temps: Float64,
) -> int:
    """The known samples of (t - duration, t] at each row, and what is folded from them, oldest
    first and anew at each row, so that the result is a function of the samples alone.

    chains: int32[D, 4]; dropped: int64[D], event time of the newest sample that found more than
    `limit` in its interval, NEVER. folds: int64[6], the temporary rows + width, -1 = not asked for.
    Returns at how many rows the interval held more than `limit` samples (all is unknown there).
    """
    over = 0
    summed = folds[1] >= 0 or folds[2] >= 0 or folds[5] >= 0
    bounded = folds[3] >= 0 or folds[4] >= 0
    for i in range(a.shape[0]):
        d = local[i]
        chain = chains[d]
        now = ts_ns[i]
        after = now - duration
        x = a[i]
        if began[i]:
            while chain[COUNT] > 0:
                _pop(chain, links, pages)
            dropped[d] = NEVER
        while chain[COUNT] > 0 and sample_ns[chain[FIRST], chain[OFFSET]] <= after:
            _pop(chain, links, pages)
        if x == x:
            if chain[COUNT] == limit:
                dropped[d] = sample_ns[chain[FIRST], chain[OFFSET]]
                _pop(chain, links, pages)
            _push(chain, now, x, links, pages, sample_ns, sample)
        n = chain[COUNT]
        if dropped[d] > after:
            over += 1
            n = 0
        total, least, most, spread = np.nan, np.nan, np.nan, np.nan
        if n > 0 and summed:
            total = _sum(chain, n, links, sample, 0.0, False)
            if folds[5] >= 0:
                spread = math.sqrt(_sum(chain, n, links, sample, total / n, True) / n)
        if n > 0 and bounded:
            least, most = _bounds(chain, n, links, sample)
        if folds[0] >= 0:
            temps[folds[0] - width, i] = np.nan if dropped[d] > after else float(n)
        if folds[1] >= 0:
            temps[folds[1] - width, i] = total if abs(total) <= _LARGEST else np.nan
        if folds[2] >= 0:
            mean = total / max(n, 1)
            temps[folds[2] - width, i] = mean if abs(mean) <= _LARGEST else np.nan
        if folds[3] >= 0:
            temps[folds[3] - width, i] = least
        if folds[4] >= 0:
            temps[folds[4] - width, i] = most
        if folds[5] >= 0:
            temps[folds[5] - width, i] = spread if abs(spread) <= _LARGEST else np.nan
    return over


@inline
def _find_edges(bits: Int64, edges: Int64, column: int) -> None:
    """The least and the most of the numbers whose bits these are, as bits; a NaN is either. As whole
    numbers (IEEE 754 orders like them, but for the sign), since a loop over these is made wide."""
    low, high = np.int64(_LAST), np.int64(-_LAST)
    for i in range(bits.shape[0]):
        key = bits[i] ^ ((bits[i] >> 63) & _LAST)
        low = min(low, key)
        high = max(high, key)
    edges[LEAST, column] = low ^ ((low >> 63) & _LAST)
    edges[MOST, column] = high ^ ((high >> 63) & _LAST)


@inline
def _same_for_all(op: int, least: float, most: float, limit: float) -> int:
    """What a comparison with a constant gives for every number between these two; 0 where it differs, or
    where one of the three is NaN."""
    if not (least == least and most == most and limit == limit):
        return 0
    if op == LTC:
        return TRUE if most < limit else FALSE if least >= limit else 0
    if op == LEC:
        return TRUE if most <= limit else FALSE if least > limit else 0
    if op == GTC:
        return TRUE if least > limit else FALSE if most <= limit else 0
    if op == GEC:
        return TRUE if least >= limit else FALSE if most < limit else 0
    if least <= limit <= most:
        return 0
    return FALSE if op == EQC else TRUE


@kernel
def beginnings(local: Int32, ts_ns: Int64, flags: Bytes, newest: Int64, began: Bytes) -> None:
    """Where a device's past begins anew: its clock was re-based, or its time does not advance.

    local: int32[N]; newest: int64[D], NEVER: event time of the device's last row. began: uint8[N].
    """
    for row in range(local.shape[0]):
        d = local[row]
        began[row] = np.uint8(flags[row] & _REBASED != 0 or ts_ns[row] <= newest[d])
        newest[d] = ts_ns[row]


@kernel
def evaluate(
    code: Int32,
    constants: Float64,
    columns: Float64,
    rows: int,
    temps: Float64,
    trits: Bytes,
    out: Bytes,
    any_true: Bytes,
    values: Float64,
    local: Int32,
    ts_ns: Int64,
    began: Bytes,
    past: Int64,
    numbers: Float64,
    times: Int64,
    chains: Int32,
    over: Int64,
    links: Int32,
    pages: Int32,
    sample_ns: Int64,
    sample: Float64,
    often: Bytes,
    edges: Int64,
    resume: Int64,
) -> bool:
    """Run a program over rows 0..rows; False: the pool of samples has too few pages left, call
    again with more.

    code: int32[L, 5]. constants: float64[K]. columns: float64[C, >= rows], the inputs.
    temps: float64[T, CHUNK], its first rows filled with constants; trits: uint8[S, CHUNK].
    Operands that are numbers: below C a column, then a temporary row; trits: below S a temporary
    row, then a row of out. out: uint8[O, >= rows] receives the results; any_true: uint8[O]: bit 0
    set where a result is TRUE in any row. values: float64[V, >= rows] receives what is stored.

    For operations over the past (else empty): local int32[N] device, below D; ts_ns int64[N]; began
    uint8[N] as `beginnings` says; past int64[P, 11]. Their state: numbers float64[A, D], NaN; times
    int64[B, D], NEVER; chains int32[S, D, 4], 0; over int64[S] counts. The pool: links int32[Q],
    pages int32[3], sample_ns int64[Q, PAGE], sample float64[Q, PAGE].
    often: uint8[C], 1 of a column that is compared with several constants: where all of a chunk lies on
    one side of a constant, its rows need not be looked at. edges: int64[EDGES, C], 0 once; it changes no
    result. resume: int64[2], 0 at first: the chunk and the line to go on with.
    """
    width = columns.shape[0]
    own = trits.shape[0]
    if resume[0] == 0 and resume[1] == 0:
        any_true[:] = 0
        edges[EDGES_OF] = -1
    ends = edges.view(np.float64)
    for start in range(resume[0], rows, CHUNK):
        stop = min(start + CHUNK, rows)
        n = stop - start
        anew = False
        if past.shape[0] > 0:
            for i in range(start, stop):
                if began[i]:
                    anew = True
                    break
        for line in range(resume[1], code.shape[0]):
            op = code[line, 0]
            to, ia, ib, ic = code[line, 1], code[line, 2], code[line, 3], code[line, 4]
            if op < 40:
                r = temps[to - width, :n]
                if op == IF:
                    test = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                    b = columns[ib, start:stop] if ib < width else temps[ib - width, :n]
                    c = columns[ic, start:stop] if ic < width else temps[ic - width, :n]
                    for i in range(n):
                        r[i] = b[i] if test[i] == 1 else (c[i] if test[i] == 2 else np.nan)
                elif op == FROM_TRIT:
                    test = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                    for i in range(n):
                        r[i] = 1.0 if test[i] == 1 else (0.0 if test[i] == 2 else np.nan)
                else:
                    a = columns[ia, start:stop] if ia < width else temps[ia - width, :n]
                    b = columns[ib, start:stop] if ib < width else temps[ib - width, :n]
                    if op == ADD:
                        for i in range(n):
                            x = a[i] + b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == SUB:
                        for i in range(n):
                            x = a[i] - b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == MUL:
                        for i in range(n):
                            x = a[i] * b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == DIV:
                        for i in range(n):
                            x = a[i] / b[i]
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                    elif op == MIN:
                        for i in range(n):
                            r[i] = a[i] if a[i] < b[i] or a[i] != a[i] else b[i]
                    elif op == MAX:
                        for i in range(n):
                            r[i] = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]
                    elif op == NEG:
                        for i in range(n):
                            r[i] = -a[i]
                    elif op == ABS:
                        for i in range(n):
                            r[i] = abs(a[i])
                    elif op == FLOOR:
                        for i in range(n):
                            r[i] = np.floor(a[i])
                    elif op == CEIL:
                        for i in range(n):
                            r[i] = np.ceil(a[i])
                    elif op == DEFAULT:
                        for i in range(n):
                            r[i] = a[i] if a[i] == a[i] else b[i]
                    else:
                        for i in range(n):
                            x = _elementwise(op, a[i], b[i])
                            r[i] = x if abs(x) <= _LARGEST else np.nan
                continue
            if op == STORE:
                a = columns[ia, start:stop] if ia < width else temps[ia - width, :n]
                values[to, start:stop] = a
                continue
            if op in (PREV, RATE, SPAN):
                a = columns[ia, start:stop] if ia < width else temps[ia - width, :n]
                own_number, own_time = past[ib, PAST_NUMBERS], past[ib, PAST_TIMES]
                if op == PREV:
                    r = temps[to - width, :n]
                    _prev(a, local[start:stop], began[start:stop], anew, numbers[own_number], r)
                elif op == RATE:
                    _rate(
                        a,
                        ts_ns[start:stop],
                        local[start:stop],
                        began[start:stop],
                        numbers[own_number],
                        times[own_time],
                        temps[to - width, :n],
                    )
                else:
                    if links.shape[0] - pages[USED] + pages[FREED] < n:
                        resume[0], resume[1] = start, line
                        return False
                    own_span = past[ib, PAST_SPAN]
                    over[own_span] += _span(
                        a,
                        ts_ns[start:stop],
                        local[start:stop],
                        began[start:stop],
                        chains[own_span],
                        times[own_time],
                        past[ib, PAST_DURATION],
                        past[ib, PAST_LIMIT],
                        links,
                        pages,
                        sample_ns,
                        sample,
                        past[ib, PAST_FOLDS:],
                        width,
                        temps,
                    )
                continue
            if op == SINCE:
                p = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                _since(
                    p,
                    ts_ns[start:stop],
                    local[start:stop],
                    began[start:stop],
                    times[past[ib, PAST_TIMES]],
                    temps[to - width, :n],
                )
                continue
            t = trits[to, :n] if to < own else out[to - own, start:stop]
            if op == HELD:
                p = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                own_time = past[ib, PAST_TIMES]
                _held(
                    p,
                    ts_ns[start:stop],
                    local[start:stop],
                    began[start:stop],
                    times[own_time],
                    times[own_time + 1],
                    past[ib, PAST_DURATION],
                    t,
                )
                continue
            if op < 60:
                a = columns[ia, start:stop] if ia < width else temps[ia - width, :n]
                if op >= LTC:
                    limit = constants[ib]
                    same_for_all = 0
                    if ia < width and often[ia]:
                        if edges[EDGES_OF, ia] != start:
                            edges[IDLE, ia] += 1
                            if edges[IDLE, ia] < _PATIENCE or edges[IDLE, ia] % _PATIENCE == 0:
                                _find_edges(a.view(np.int64), edges, ia)
                            else:
                                ends[LEAST, ia] = np.nan
                            edges[EDGES_OF, ia] = start
                        same_for_all = _same_for_all(op, ends[LEAST, ia], ends[MOST, ia], limit)
                    if same_for_all:
                        edges[IDLE, ia] = 0
                        for i in range(n):
                            t[i] = np.uint8(same_for_all)
                    elif op == LTC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] < limit) | (np.uint8(a[i] >= limit) << np.uint8(1))
                    elif op == LEC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] <= limit) | (np.uint8(a[i] > limit) << np.uint8(1))
                    elif op == GTC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] > limit) | (np.uint8(a[i] <= limit) << np.uint8(1))
                    elif op == GEC:
                        for i in range(n):
                            t[i] = np.uint8(a[i] >= limit) | (np.uint8(a[i] < limit) << np.uint8(1))
                    else:
                        same = np.uint8(1) if op == EQC else np.uint8(2)
                        other = np.uint8(3) - same
                        for i in range(n):
                            x = a[i]
                            known = x == x and limit == limit
                            t[i] = (same if x == limit else other) if known else np.uint8(0)
                elif op == IS_NULL:
                    for i in range(n):
                        t[i] = np.uint8(2) if a[i] == a[i] else np.uint8(1)
                else:
                    b = columns[ib, start:stop] if ib < width else temps[ib - width, :n]
                    if op == LT:
                        for i in range(n):
                            t[i] = np.uint8(a[i] < b[i]) | (np.uint8(a[i] >= b[i]) << np.uint8(1))
                    elif op == LE:
                        for i in range(n):
                            t[i] = np.uint8(a[i] <= b[i]) | (np.uint8(a[i] > b[i]) << np.uint8(1))
                    else:
                        same = np.uint8(1) if op == EQ else np.uint8(2)
                        other = np.uint8(3) - same
                        for i in range(n):
                            known = a[i] == a[i] and b[i] == b[i]
                            t[i] = (same if a[i] == b[i] else other) if known else np.uint8(0)
            elif op == FILL:
                filled = np.uint8(constants[ib])
                for i in range(n):
                    t[i] = filled
            else:
                p = trits[ia, :n] if ia < own else out[ia - own, start:stop]
                if op == NOT:
                    for i in range(n):
                        t[i] = ((p[i] & np.uint8(1)) << np.uint8(1)) | (p[i] >> np.uint8(1))
                else:
                    q = trits[ib, :n] if ib < own else out[ib - own, start:stop]
                    if op == AND:
                        for i in range(n):
                            t[i] = (p[i] & q[i] & np.uint8(1)) | ((p[i] | q[i]) & np.uint8(2))
                    elif op == OR:
                        for i in range(n):
                            t[i] = ((p[i] | q[i]) & np.uint8(1)) | (p[i] & q[i] & np.uint8(2))
                    elif op == DEFAULT_TRIT:
                        for i in range(n):
                            t[i] = p[i] if p[i] != 0 else q[i]
                    else:
                        s = trits[ic, :n] if ic < own else out[ic - own, start:stop]
                        for i in range(n):
                            t[i] = q[i] if p[i] == 1 else (s[i] if p[i] == 2 else np.uint8(0))
        resume[1] = 0
        for row in range(out.shape[0]):
            seen = np.uint8(0)
            line_of = out[row, start:stop]
            for i in range(n):
                seen |= line_of[i]
            any_true[row] |= seen & np.uint8(1)
    return True


@kernel
def unload(chains: Int32, links: Int32, sample_ns: Int64, sample: Float64, to_ns: Int64, to: Float64) -> None:
    """The samples of the devices' chains (int32[D, 4]), oldest first, device after device."""
    at = 0
    for d in range(chains.shape[0]):
        page, place = chains[d, FIRST], chains[d, OFFSET]
        for _ in range(chains[d, COUNT]):
            if place == PAGE:
                page, place = links[page], 0
            to_ns[at] = sample_ns[page, place]
            to[at] = sample[page, place]
            place += 1
            at += 1


@kernel
def reload(
    count: Int32,
    from_ns: Int64,
    samples: Float64,
    chains: Int32,
    links: Int32,
    pages: Int32,
    sample_ns: Int64,
    sample: Float64,
) -> None:
    """Put back what `unload` gave: count int32[<= D] samples a device, into empty chains; the
    pool has the pages for it."""
    at = 0
    for d in range(count.shape[0]):
        for _ in range(count[d]):
            _push(chains[d], from_ns[at], samples[at], links, pages, sample_ns, sample)
            at += 1
