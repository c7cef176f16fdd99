"""The column kernels of straight layouts: which case a frame is, then one field after another.

Tables as `straight` builds them. Rows go in runs of RUN, so that the bytes of a run stay in the
cache while its fields are read.
"""

# numba's integers are of one kind, mypy's int and numpy's int64 are two
# mypy: disable-error-code="assignment, arg-type, return-value, no-any-return"

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import Bytes, Float64, Int64
from operators.jit import inline, kernel

RUN: Final = 1024
COLUMNS: Final = 18
SLOW: Final = -9
PENDING: Final = -99
_CHECK: Final = 11


@inline
def number_at(payload: Bytes, at: int, size: int, order: int) -> Any:
    """size bytes at `at`, big endian (0) or little endian (1), in the bits of an int64.

    Indexes are unsigned, so that no index counts from the end, and at constant distances, so that
    the compiler makes one load of them.
    """
    p = np.uint64(at)
    one = np.uint64(1)
    if size == 8:
        a = np.uint64(payload[p]) | np.uint64(payload[p + np.uint64(1)]) << np.uint64(8)
        a |= np.uint64(payload[p + np.uint64(2)]) << np.uint64(16)
        a |= np.uint64(payload[p + np.uint64(3)]) << np.uint64(24)
        a |= np.uint64(payload[p + np.uint64(4)]) << np.uint64(32)
        a |= np.uint64(payload[p + np.uint64(5)]) << np.uint64(40)
        a |= np.uint64(payload[p + np.uint64(6)]) << np.uint64(48)
        a |= np.uint64(payload[p + np.uint64(7)]) << np.uint64(56)
        if order == 0:
            m = np.uint64(0x00FF00FF00FF00FF)
            a = ((a >> np.uint64(8)) & m) | ((a & m) << np.uint64(8))
            m = np.uint64(0x0000FFFF0000FFFF)
            a = ((a >> np.uint64(16)) & m) | ((a & m) << np.uint64(16))
            a = (a >> np.uint64(32)) | (a << np.uint64(32))
        return np.int64(a)
    raw = np.uint64(0)
    if order == 0:
        for _ in range(size):
            raw = (raw << np.uint64(8)) | np.uint64(payload[p])
            p += one
    else:
        p += np.uint64(size)
        for _ in range(size):
            p -= one
            raw = (raw << np.uint64(8)) | np.uint64(payload[p])
    return np.int64(raw)


@inline
def crc_of_run(
    payload: Bytes,
    offset: Int64,
    first: int,
    last: int,
    low: int,
    count: int,
    crc: npt.NDArray[np.uint32],
    base: int,
    limit: int,
    registers: npt.NDArray[np.uint32],
) -> None:
    """The CRC of `count` bytes from `low` of frames first..last-1, eight bytes of all of them at a time:
    the tables of eight distances stay in the nearest cache."""
    for i in range(first, last):
        registers[i - first] = crc[base + np.uint64(256 * limit + count)]
    entry = base + np.uint64(256 * count)
    at = np.int64(low)
    eight = np.uint64(255)
    for _ in range(count >> 3):
        entry -= np.uint64(2048)
        for i in range(first, last):
            word = np.uint64(number_at(payload, offset[i] + at, 8, 1))
            registers[i - first] ^= (
                crc[entry + np.uint64(1792) + (word & eight)]
                ^ crc[entry + np.uint64(1536) + ((word >> np.uint64(8)) & eight)]
                ^ crc[entry + np.uint64(1280) + ((word >> np.uint64(16)) & eight)]
                ^ crc[entry + np.uint64(1024) + ((word >> np.uint64(24)) & eight)]
                ^ crc[entry + np.uint64(768) + ((word >> np.uint64(32)) & eight)]
                ^ crc[entry + np.uint64(512) + ((word >> np.uint64(40)) & eight)]
                ^ crc[entry + np.uint64(256) + ((word >> np.uint64(48)) & eight)]
                ^ crc[entry + (word >> np.uint64(56))]
            )
        at += 8
    for _ in range(count & 7):
        entry -= np.uint64(256)
        for i in range(first, last):
            registers[i - first] ^= crc[entry + np.uint64(payload[np.uint64(offset[i] + at)])]
        at += 1


@inline
def said_of_run(
    payload: Bytes,
    offset: Int64,
    first: int,
    last: int,
    stands: int,
    size: int,
    order: int,
    xor: int,
    registers: npt.NDArray[np.uint32],
) -> int:
    """What the frames say, XORed into `registers`: 0 where a check fits; returns whether any does not."""
    wrong = np.uint32(0)
    if size == 2:
        high = np.uint64(order)
        low = np.uint64(1 - order)
        for i in range(first, last):
            p = np.uint64(offset[i] + stands)
            said = (np.uint32(payload[p + high]) << np.uint32(8)) | np.uint32(payload[p + low])
            registers[i - first] ^= said ^ np.uint32(xor)
            wrong |= registers[i - first]
    else:
        for i in range(first, last):
            said = np.uint32(number_at(payload, offset[i] + stands, size, order))
            registers[i - first] ^= said ^ np.uint32(xor)
            wrong |= registers[i - first]
    return np.int64(wrong)


@kernel
def classify(
    payload: Bytes,
    offset: Int64,
    length: Int64,
    ports: Int64,
    tests: Int64,
    cases: Int64,
    ranges: Int64,
    checks: Int64,
    crc: npt.NDArray[np.uint32],
    least: int,
    outcome: Int64,
    place: Int64,
    case: Int64,
    flag: Bytes,
) -> int:
    """outcome, place, case, flag: of each frame; returns how many frames are readings.

    Within a run, one check and then one condition after another goes over all frames; a frame's
    `outcome` is PENDING until it is settled.
    """
    good = 0
    fits = np.empty(RUN, np.uint8)
    registers = np.empty(RUN, np.uint32)
    for first in range(0, offset.shape[0], RUN):
        last = min(first + RUN, offset.shape[0])
        alike = True
        for i in range(first, last):
            outcome[i] = SLOW if length[i] < least else PENDING
            case[i] = 0
            alike &= length[i] == length[first]
        for c in range(checks.shape[0]):
            kind, width, low, stands_at = checks[c, 0], checks[c, 1], checks[c, 2], checks[c, 3]
            order, init, xor, flagged, limit = (
                checks[c, 4],
                checks[c, 6],
                checks[c, 7],
                checks[c, 8],
                checks[c, 9],
            )
            base = np.uint64(c * (limit + 2) * 256)
            if kind == 0 and alike:
                size = length[first]
                stands = stands_at if stands_at >= 0 else size + stands_at
                count = stands - low
                if count >= 0 and stands >= 0 and stands + (width >> 3) <= size and count <= limit:
                    crc_of_run(payload, offset, first, last, low, count, crc, base, limit, registers)
                    wrong = said_of_run(
                        payload, offset, first, last, stands, width >> 3, order, xor, registers
                    )
                    if wrong == 0:
                        continue
                    for i in range(first, last):
                        if registers[i - first] != 0 and outcome[i] == PENDING:
                            if flagged == 1:
                                flag[i] = 1
                            else:
                                outcome[i] = _CHECK
                                place[i] = stands
                    continue
            for i in range(first, last):
                if outcome[i] != PENDING:
                    continue
                size = length[i]
                stands = stands_at if stands_at >= 0 else size + stands_at
                count = stands - low
                if count < 0 or stands < 0 or stands + (width >> 3) > size or (kind == 0 and count > limit):
                    outcome[i] = SLOW
                    continue
                total = init
                p = np.uint64(offset[i] + low)
                if kind == 0:
                    register = crc[base + np.uint64(256 * limit + count)]
                    entry = base + np.uint64(256 * count)
                    for _ in range(count >> 2):
                        entry -= np.uint64(1024)
                        register ^= (
                            crc[entry + np.uint64(768) + np.uint64(payload[p])]
                            ^ crc[entry + np.uint64(512) + np.uint64(payload[p + np.uint64(1)])]
                            ^ crc[entry + np.uint64(256) + np.uint64(payload[p + np.uint64(2)])]
                            ^ crc[entry + np.uint64(payload[p + np.uint64(3)])]
                        )
                        p += np.uint64(4)
                    for _ in range(count & 3):
                        entry -= np.uint64(256)
                        register ^= crc[entry + np.uint64(payload[p])]
                        p += np.uint64(1)
                    total = np.int64(register)
                else:
                    for j in range(count):
                        byte = np.int64(payload[p + np.uint64(j)])
                        total = total + byte if kind == 1 else total ^ byte
                    if kind == 1:
                        total &= (np.int64(1) << width) - 1
                said = np.int64(0)
                p = np.uint64(offset[i] + stands)
                if order == 0:
                    for j in range(width >> 3):
                        said = (said << 8) | np.int64(payload[p + np.uint64(j)])
                else:
                    for j in range(width >> 3):
                        said |= np.int64(payload[p + np.uint64(j)]) << (8 * j)
                if total ^ xor != said:
                    if flagged == 1:
                        flag[i] = 1
                    else:
                        outcome[i] = _CHECK
                        place[i] = stands
        for c in range(cases.shape[0]):
            open_now = 0
            for i in range(first, last):
                pending = outcome[i] == PENDING
                fits[i - first] = pending
                open_now += pending
            if open_now == 0:
                break
            for t in range(cases[c, 0], cases[c, 0] + cases[c, 1]):
                what, at, mask, span, spans = tests[t, 0], tests[t, 1], tests[t, 2], tests[t, 3], tests[t, 4]
                lowest, highest = np.int64(1), np.int64(0)
                if spans > 0:
                    lowest, highest = ranges[span, 0], ranges[span, 1]
                if what == 1 and spans == 1:
                    for i in range(first, last):
                        fits[i - first] &= (length[i] >= lowest) & (length[i] <= highest)
                    continue
                for i in range(first, last):
                    if fits[i - first] == 0:
                        continue
                    size = length[i]
                    value = size
                    holds = True
                    if what == 4:
                        fits[i - first] = size >= mask and (size - mask) % at == 0
                        continue
                    if what == 0:
                        value = ports[i]
                        holds = value >= 0
                    elif what >= 2:
                        where = at if at >= 0 else size + at
                        if where < 0 or where >= size:
                            holds = False
                        else:
                            value = np.int64(payload[np.uint64(offset[i] + where)])
                            if what == 3:
                                value &= mask
                    some = lowest <= value <= highest
                    if not some:
                        for r in range(span + 1, span + spans):
                            some = some or ranges[r, 0] <= value <= ranges[r, 1]
                    fits[i - first] = holds and some
            result, shortest = cases[c, 2], cases[c, 3]
            for i in range(first, last):
                if fits[i - first]:
                    case[i] = c
                    outcome[i] = result if length[i] >= shortest else SLOW
                    place[i] = cases[c, 8]
        for i in range(first, last):
            good += outcome[i] == 0
    return good


@kernel
def fill_times(
    payload: Bytes,
    start: Int64,
    length: Int64,
    case: Int64,
    cases: Int64,
    times: Int64,
    ranges: Int64,
    arrival: Int64,
    ts: Int64,
    source: Bytes,
) -> None:
    """Event time of each reading: that of the last time row of its case, else its arrival."""
    known = np.int64(-1)
    timed = False
    base, size, order, signed = np.int64(0), np.int64(1), np.int64(0), np.int64(0)
    unit, epoch, first, tests = np.int64(1), np.int64(0), np.int64(0), np.int64(0)
    most = 0.0
    for i in range(start.shape[0]):
        if case[i] != known:
            known = case[i]
            timed = cases[known, 7] > 0
            t = cases[known, 6] + cases[known, 7] - 1 if timed else 0
            base, size, order, signed = times[t, 0], times[t, 1], times[t, 2], times[t, 3]
            unit, epoch, first, tests = times[t, 4], times[t, 5], times[t, 6], times[t, 7]
            most = min(9e18, 9.2e18 - abs(float(epoch))) / float(unit) if unit else 0.0
        newest = arrival[i]
        mark = 2
        if timed:
            at = base if base >= 0 else length[i] + base
            p = np.uint64(start[i] + at)
            raw = np.int64(0)
            if order == 0:
                for j in range(size):
                    raw = (raw << 8) | np.int64(payload[p + np.uint64(j)])
            else:
                for j in range(size):
                    raw |= np.int64(payload[p + np.uint64(j)]) << (8 * j)
            unknown = False
            if signed:
                raw = (raw << (64 - size * 8)) >> (64 - size * 8)
            else:
                unknown = raw < 0
            for r in range(first, first + tests):
                unknown = unknown or ranges[r, 0] <= raw <= ranges[r, 1]
            if not unknown and abs(float(raw)) < most:
                newest = epoch + raw * unit
                mark = 0
        ts[i] = newest
        source[i] = mark


@kernel
def fill_columns(
    payload: Bytes,
    start: Int64,
    length: Int64,
    rows: Int64,
    fields: Int64,
    scales: Float64,
    ranges: Int64,
    mi: Int64,
    mf: Float64,
    quality_of: Bytes,
    value: Float64,
    quality: Bytes,
) -> None:
    """Columns of the frames at start (int64[N]) of one case; rows: int64[N] where each goes, or
    empty = in order. value, quality: [M, readings]."""
    count = start.shape[0]
    raw = np.empty(RUN, np.int64)
    apart = np.empty(RUN, np.float64)
    kinds = np.empty(RUN, np.uint8)
    whole = np.empty(1, np.uint64)
    as_double = whole.view(np.float64)
    half = np.empty(1, np.uint32)
    as_single = half.view(np.float32)
    scattered = rows.shape[0] > 0
    for first in range(0, count, RUN):
        n = min(RUN, count - first)
        for f in range(fields.shape[0]):
            slot = fields[f, 0]
            how = fields[f, 1]
            at = fields[f, 2]
            size = fields[f, 3]
            order = fields[f, 4]
            signed = fields[f, 7]
            real = apart if scattered else value[slot, first : first + n]
            # raw values of the run
            if how >= 2:
                width = size
                for i in range(n):
                    bit = start[first + i] * 8 + at
                    bits = np.uint64(0)
                    if how == 3:
                        for j in range(width):
                            bits |= np.uint64((payload[(bit + j) >> 3] >> ((bit + j) & 7)) & 1) << np.uint64(
                                j
                            )
                    else:
                        left = width
                        while left > 0:
                            room = 8 - (bit & 7)
                            take = room if room < left else left
                            part = (np.int64(payload[bit >> 3]) >> (room - take)) & ((1 << take) - 1)
                            bits = (bits << np.uint64(take)) | np.uint64(part)
                            bit += take
                            left -= take
                    raw[i] = np.int64(bits)
            else:
                width = size * 8
                if at < 0:
                    for i in range(n):
                        raw[i] = number_at(payload, start[first + i] + length[first + i] + at, size, order)
                elif size == 1:
                    for i in range(n):
                        raw[i] = payload[np.uint64(start[first + i] + at)]
                elif size == 2:
                    shift_a = 8 if order == 0 else 0
                    shift_b = 8 - shift_a
                    for i in range(n):
                        p = np.uint64(start[first + i] + at)
                        raw[i] = (np.int64(payload[p]) << shift_a) | (
                            np.int64(payload[p + np.uint64(1)]) << shift_b
                        )
                elif size == 4:
                    turn = 24 if order == 0 else 0
                    step = -8 if order == 0 else 8
                    for i in range(n):
                        p = np.uint64(start[first + i] + at)
                        raw[i] = (
                            (np.int64(payload[p]) << turn)
                            | (np.int64(payload[p + np.uint64(1)]) << (turn + step))
                            | (np.int64(payload[p + np.uint64(2)]) << (turn + 2 * step))
                            | (np.int64(payload[p + np.uint64(3)]) << (turn + 3 * step))
                        )
                else:
                    for i in range(n):
                        raw[i] = number_at(payload, start[first + i] + at, size, order)
                if fields[f, 6] > 0:
                    width = fields[f, 6]
                    low_bit = fields[f, 5]
                    if width < 64:
                        mask = (np.int64(1) << width) - 1
                        for i in range(n):
                            raw[i] = (raw[i] >> low_bit) & mask
            if signed and how != 1 and width < 64:
                shift = 64 - width
                for i in range(n):
                    raw[i] = (raw[i] << shift) >> shift
            # what they mean
            kind = np.uint8(2)
            plain = True
            if how == 1:
                kind = np.uint8(3)
                plain = False
                for i in range(n):
                    if size == 4:
                        half[0] = np.uint32(raw[i])
                        x = np.float64(as_single[0])
                    else:
                        whole[0] = np.uint64(raw[i])
                        x = as_double[0]
                    real[i] = x
                    kinds[i] = 3 if np.isfinite(x) else 1
            elif fields[f, 16]:
                kind = np.uint8(3)
                a = scales[f, 0]
                b = scales[f, 1]
                d = scales[f, 2]
                if b == 0.0:
                    for i in range(n):
                        real[i] = (float(raw[i]) * a) / d
                else:
                    for i in range(n):
                        real[i] = (float(raw[i]) * a + b) / d
            elif fields[f, 15]:
                kind = np.uint8(4)
                for i in range(n):
                    real[i] = 1.0 if raw[i] != 0 else 0.0
            else:
                for i in range(n):
                    real[i] = float(raw[i])
            if fields[f, 17]:
                for i in range(n):
                    real[i] = min(max(real[i], scales[f, 3]), scales[f, 4])
            if fields[f, 9] > 0 or fields[f, 11] > 0 or fields[f, 13] >= 0:
                plain = False
                for i in range(n):
                    kinds[i] = kind
                for r in range(fields[f, 8], fields[f, 8] + fields[f, 9]):
                    least = ranges[r, 0]
                    most = ranges[r, 1]
                    for i in range(n):
                        kinds[i] = 1 if least <= raw[i] <= most else kinds[i]
                if fields[f, 11] > 0:
                    least = ranges[fields[f, 10], 0]
                    most = ranges[fields[f, 10], 1]
                    for i in range(n):
                        kinds[i] = kinds[i] if least <= raw[i] <= most else 1
                if fields[f, 13] >= 0:
                    for i in range(n):
                        if kinds[i] == 1:
                            continue
                        chosen = fields[f, 14]
                        for r in range(fields[f, 12], fields[f, 12] + fields[f, 13]):
                            if mi[r, 0] <= raw[i] <= mi[r, 1]:
                                chosen = r
                                break
                        kinds[i] = 1
                        if chosen >= 0:
                            real[i] = mf[chosen, 2]
                            kinds[i] = mi[chosen, 2]
            # into the columns
            good = quality_of[slot, kind]
            if plain and not scattered and good < 2:
                marks = quality[slot, first : first + n]
                for i in range(n):
                    marks[i] = good
            elif not scattered and fields[f, 13] < 0 and good < 2:
                null = quality_of[slot, 1]
                marks = quality[slot, first : first + n]
                for i in range(n):
                    real[i] = np.nan if kinds[i] == 1 else real[i]
                for i in range(n):
                    marks[i] = null if kinds[i] == 1 else good
            else:
                for i in range(n):
                    to = rows[first + i] if scattered else first + i
                    q = quality_of[slot, kind if plain else kinds[i]]
                    quality[slot, to] = q
                    value[slot, to] = real[i] if q < 2 else np.nan


@kernel
def to_columns(
    row_value: Float64, row_kind: Bytes, row_flag: Bytes, quality_of: Bytes, value: Float64, quality: Bytes
) -> None:
    """Readings of the interpreter as columns. row_value, row_kind: [N, slots], metrics first; row_flag:
    uint8[N] doubtful; quality_of: uint8[M, 6]; value, quality: [M, N]."""
    count = row_flag.shape[0]
    for first in range(0, count, 64):
        last = min(first + 64, count)
        for m in range(value.shape[0]):
            for i in range(first, last):
                q = quality_of[m, row_kind[i, m]]
                value[m, i] = np.nan if q >= 2 else row_value[i, m]
                quality[m, i] = 1 if q == 0 and row_flag[i] else q


def warm_up() -> None:
    """Compile the kernels."""
    to_columns(
        np.zeros((1, 1)), np.zeros((1, 1), np.uint8), np.zeros(1, np.uint8), np.zeros((1, 6), np.uint8),
        np.zeros((1, 1)), np.zeros((1, 1), np.uint8),
    )  # fmt: skip
    one, none = np.zeros(1, np.int64), np.zeros((1, 2), np.int64)
    frame, byte = np.ones(1, np.int64), np.zeros(4, np.uint8)
    cases = np.zeros((1, 9), np.int64)
    classify(
        byte, one, frame, one, np.zeros((1, 5), np.int64), cases, none, np.zeros((0, 11), np.int64),
        np.zeros(66 * 256, np.uint32), 0, one.copy(), one.copy(), one.copy(), np.zeros(1, np.uint8),
    )  # fmt: skip
    fill_times(
        byte, one, frame, one, cases, np.zeros((1, 8), np.int64), none, one, one.copy(), np.zeros(1, np.uint8)
    )
    fields = np.zeros((1, COLUMNS), np.int64)
    fields[0, 3], fields[0, 13] = 1, -1
    fill_columns(
        byte, one, frame, np.empty(0, np.int64), fields, np.ones((1, 6)), none, np.zeros((1, 3), np.int64),
        np.zeros((1, 4)), np.zeros((1, 6), np.uint8), np.zeros((1, 1)), np.zeros((1, 1), np.uint8),
    )  # fmt: skip
