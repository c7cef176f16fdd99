"""The kernel that interprets a binary layout, frame by frame.

`layout` writes a layout as instructions and tables; `interpret` runs them over the bytes of each
frame. It generates nothing and compiles nothing: a new layout is new tables. Every read is
checked against the region it belongs to, every loop against a budget, so that no frame can read
outside of itself or hold the kernel up.

Instructions are rows (op, a, b, c, d, e, f, g); OPS names them. A context is one activation of a
fragment or loop; the columns of `ctx` are named below. Registers carry what an instruction
leaves for the next one: 0 a value, 1 a size, 2 a count, 3 a reference time, 4 a step.
"""

# numba's integers are of one kind, mypy's int and numpy's int64 are two
# mypy: disable-error-code="assignment, arg-type, return-value, no-any-return"

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from operators.batch import Bytes, Float64, Int64
from operators.decode.binary_reads import (
    as_float,
    crc_of,
    load,
    load_bits,
    make_text,
    read_bcd,
    read_number,
    signed_of,
    unsigned_float,
)
from operators.decode.evaluate import run_program
from operators.decode.exact import EXACT, rounded, scaled, scaled_exactly, two_sum
from operators.jit import inline, kernel
from operators.text import hash_bytes

OPS: Final = (
    *("frame_end", "field", "bit", "expr", "unless", "write", "set", "move", "cursor", "jump"),
    *("when", "enter", "leave", "reject", "ignore", "check", "time", "bits", "bit_skip", "bit_repeat"),
    *("bit_next", "bits_end", "tlv", "tlv_next", "tlv_item_end", "tlv_end", "sections", "section_bit"),
    *("section_enter", "section_leave", "sections_end", "record", "record_next", "record_leave"),
    *("record_end", "select", "tail_row", "own", "skip", "behind"),
)
OP: Final = {name: number for number, name in enumerate(OPS)}

# context columns
BASE, END, CUR, PREV, BEHIND, FAR, KEYS, ROW, INDEXED, INDEX, ABOVE, KIND = range(12)
AT, COUNT, DONE, SIZE, KEY0, POLICY, SERIAL, ITEM, SHORT, UNDO, ROWS, EXIT, STAMP, SOURCE, REF, STEP = (
    *(12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30),
)
CONTEXT: Final = 31
DEPTH: Final = 72
FRAGMENT, TLV_LOOP, TLV_ITEM, REPEAT = range(4)

FIELD_COLUMNS: Final = 28
LAST, FIRST, REFUSE, LISTED = range(4)

# Reason numbers of operators.rejects that this kernel gives
_MALFORMED: Final = 1
_SHORT: Final = 9
_UNMATCHED: Final = 10
_CHECK: Final = 11
IGNORED: Final = -1
MOST_READINGS: Final = 65535

NO_TIME: Final = -(1 << 63)


@inline
def choose(mi: Int64, mf: Float64, start: int, count: int, by_float: int, raw: int, real: float) -> int:
    """The first entry of a map whose range holds the code; -1 = none."""
    for i in range(start, start + count):
        if by_float:
            if mf[i, 0] <= real <= mf[i, 1]:
                return i
        elif mi[i, 0] <= raw <= mi[i, 1]:
            return i
    return -1


@inline
def find_name(table: Int64, kind: int, n0: int, n1: int, n2: int, n3: int) -> int:
    """The slot of a name made by a template; -1 = no such name. Open addressing, power of two."""
    mask = table.shape[0] - 1
    h = (((kind * 31 + n0) * 1000003 + n1) * 1000003 + n2) * 1000003 + n3
    h ^= h >> 15
    at = h & mask
    while table[at, 0] >= 0:
        if (
            table[at, 0] == kind
            and table[at, 1] == n0
            and table[at, 2] == n1
            and table[at, 3] == n2
            and table[at, 4] == n3
        ):
            return table[at, 5]
        at = (at + 1) & mask
    return -1


@inline
def fill_holes(names: Int64, w: int, ctx: Int64, depth: int, counters: Int64, numbers: Int64) -> None:
    """The numbers of a templated name here: parts of the key, indexes, places in lists."""
    for h in range(4):
        numbers[h] = 0
        if h >= names[w, 2]:
            continue
        kind = names[w, 3 + 2 * h]
        add = names[w, 4 + 2 * h]
        n = np.int64(0)
        if kind < 10:
            n = ctx[ctx[depth, KEYS], KEY0 + kind]
        elif kind < 100:
            at = ctx[depth, INDEXED]
            for _ in range(kind - 10):
                if at >= 0:
                    at = ctx[at, ABOVE]
            if at >= 0:
                n = ctx[at, INDEX]
        else:
            c = (kind - 100) >> 1
            if (kind & 1) == 0:
                counters[c] += 1
            n = counters[c] if counters[c] >= 0 else 0
        numbers[h] = n + add


@inline
def holds(
    tests: Int64,
    ranges: Int64,
    first: int,
    count: int,
    buf: Bytes,
    base: int,
    end: int,
    port: int,
    length: int,
) -> bool:
    """All conditions of a `when`, rows (what, at, mask, first range, ranges) of `tests`."""
    for i in range(first, first + count):
        what = tests[i, 0]
        if what == 4:
            n = length - tests[i, 2]
            if n < 0 or n % tests[i, 1] != 0:
                return False
            continue
        if what == 0:
            value = port
            if port < 0:
                return False
        elif what == 1:
            value = length
        else:
            at = base + tests[i, 1] if tests[i, 1] >= 0 else end + tests[i, 1]
            if at < base or at >= end:
                return False
            value = np.int64(buf[at])
            if what == 3:
                value &= tests[i, 2]
        some = False
        for j in range(tests[i, 3], tests[i, 3] + tests[i, 4]):
            if ranges[j, 0] <= value <= ranges[j, 1]:
                some = True
                break
        if not some:
            return False
    return True


@inline
def find_item(items: Int64, first: int, count: int, key0: int, key1: int, key2: int, key3: int) -> int:
    """The row of the first matching item (rows stand in the order of preference); -1 = none.
    Of each part k: mask, value, low, high in columns 2 + 4k ..."""
    for i in range(first, first + count):
        if (
            (key0 & items[i, 2]) == items[i, 3]
            and items[i, 4] <= key0 <= items[i, 5]
            and (key1 & items[i, 6]) == items[i, 7]
            and items[i, 8] <= key1 <= items[i, 9]
            and (key2 & items[i, 10]) == items[i, 11]
            and items[i, 12] <= key2 <= items[i, 13]
            and (key3 & items[i, 14]) == items[i, 15]
            and items[i, 16] <= key3 <= items[i, 17]
        ):
            return i
    return -1


@inline
def push(ctx: Int64, depth: int, base: int, end: int, kind: int) -> None:
    """A context above `depth`, reading base..end; keys, reading and indexes are the outer one's."""
    up = depth + 1
    ctx[up, BASE] = base
    ctx[up, END] = end
    ctx[up, CUR] = base
    ctx[up, PREV] = base
    ctx[up, BEHIND] = base
    ctx[up, FAR] = base
    ctx[up, KEYS] = ctx[depth, KEYS]
    ctx[up, ROW] = ctx[depth, ROW]
    ctx[up, INDEXED] = ctx[depth, INDEXED]
    ctx[up, KIND] = kind
    ctx[up, POLICY] = ctx[depth, POLICY]
    ctx[up, SOURCE] = ctx[depth, SOURCE]


@inline
def number_index(ctx: Int64, depth: int, index: int) -> None:
    """Make the context at `depth` an indexed one: `{i}` inside of it is `index`."""
    ctx[depth, INDEX] = index
    ctx[depth, ABOVE] = ctx[depth - 1, INDEXED]
    ctx[depth, INDEXED] = depth


@inline
def time_of(
    times: Int64, timef: Float64, t: int, value: float, kind: int, whole: int, raw: int, arrival: int,
    ref: int, step: float, index: int,
) -> Any:  # fmt: skip
    """Event time in ns by row t of `times` (what, unit, epoch, wrap bits, first); NO_TIME = none."""
    what = times[t, 0]
    unit = times[t, 1]
    epoch = times[t, 2]
    if what == 3:
        if ref == NO_TIME or math.isnan(step):
            return np.int64(NO_TIME)
        shift = float(times[t, 4] + index) * step
        if not math.fabs(shift) < 4e18 or math.fabs(float(ref) + shift) > 9.2e18:
            return np.int64(NO_TIME)
        return ref + np.int64(np.floor(shift + 0.5))
    if kind < 2 or kind == 5:
        return np.int64(NO_TIME)
    if what == 1:
        bits = times[t, 3]
        newest = (arrival + 300000000000 - epoch) // unit
        period = np.int64(1) << bits
        count = newest - ((newest - np.int64(value)) & (period - 1))
        return epoch + count * unit
    span = value * float(unit)
    if not math.fabs(span) < 9e18:
        return np.int64(NO_TIME)
    exact = raw * unit if whole else np.int64(np.floor(span + 0.5))
    at = arrival - exact if what == 2 else epoch + exact
    if math.fabs(float(arrival if what == 2 else epoch)) + math.fabs(span) > 9.2e18:
        return np.int64(NO_TIME)
    return np.int64(at)


@kernel
def interpret(
    payload: Bytes,
    offset: Int64,
    size_of: Int64,
    ports: Int64,
    ingest: Int64,
    first: int,
    pad: int,
    code: Int64,
    fields: Int64,
    reals: Float64,
    ranges: Int64,
    franges: Float64,
    mi: Int64,
    mf: Float64,
    pieces: Int64,
    names: Int64,
    made: Int64,
    tests: Int64,
    items: Int64,
    tlvs: Int64,
    times: Int64,
    timef: Float64,
    selects: Int64,
    own: Int64,
    checks: Int64,
    crc_tables: Int64,
    program: Int64,
    constants: Float64,
    params: Float64,
    shape: Int64,
    value: Float64,
    kind: Bytes,
    row_frame: Int64,
    row_index: Int64,
    row_ts: Int64,
    row_source: Bytes,
    row_flag: Bytes,
    outer: Int64,
    status: Int64,
    place: Int64,
    text: Bytes,
    text_entries: Int64,
    text_set: Int64,
    missed: Int64,
    trace: Int64,
    trace_value: Float64,
    result: Int64,
) -> None:
    """Interpret frames first.. until they or the room for readings and texts are used up.

    offset, size_of, ports, ingest: int64[R] of the frames; params: float64[P, R]. shape: metrics,
    slots, locals, counters, records yes or no. value, kind: float64, uint8 [rows, slots] of the
    readings, metrics first; row_*: of each reading its frame, index, time, time source, doubtful.
    status, place: int64[R] as in `Decoded`. text: bytes of texts, text_entries: (code, start,
    stop). missed: (template, numbers, frame) of names that are not known. trace: (field, first bit,
    end bit, slot, row, kind). result: frames done, rows, texts, text bytes, missed, traced.
    """
    metrics = shape[0]
    slots = shape[1]
    locals_ = shape[2]
    counters = np.empty(max(1, shape[3]), np.int64)
    saved = np.empty((DEPTH, max(1, shape[3])), np.int64)
    ctx = np.zeros((DEPTH, CONTEXT), np.int64)
    stepf = np.zeros(DEPTH, np.float64)
    local = np.empty(max(1, locals_), np.float64)
    local_kind = np.zeros(max(1, locals_), np.uint8)
    regs = np.zeros(8, np.float64)
    regk = np.zeros(8, np.uint8)
    regi = np.zeros(8, np.int64)
    regw = np.zeros(8, np.uint8)
    numbers = np.zeros(4, np.int64)
    occurrences = np.zeros(max(1, shape[5]), np.int64)
    seen = np.zeros(max(1, slots), np.int64)
    seen_item = np.zeros(max(1, slots), np.int64)
    seen_count = np.zeros(max(1, slots), np.int64)
    undo_at = np.empty((1024, 3), np.int64)
    undo_value = np.empty(1024, np.float64)
    serial = np.int64(0)
    sv = np.empty(512, np.float64)
    sk = np.empty(512, np.uint8)
    padded = np.zeros(max(1, pad), np.uint8)
    rows = np.int64(0)
    texts = np.int64(0)
    text_end = np.int64(0)
    misses = np.int64(0)
    traced = np.int64(0)
    frame = np.int64(first)
    full = False
    while frame < offset.shape[0]:
        start = offset[frame]
        length = size_of[frame]
        buf = payload
        if length < pad:
            for i in range(pad):
                padded[i] = payload[start + i] if i < length else np.uint8(0)
            buf = padded
            start = np.int64(0)
            length = np.int64(pad)
        arrival = ingest[frame]
        rows0 = rows
        texts0 = texts
        text0 = text_end
        misses0 = misses
        traced0 = traced
        if rows >= value.shape[0]:
            break
        depth = np.int64(0)
        ctx[0, :] = 0
        ctx[0, BASE] = start
        ctx[0, END] = start + length
        ctx[0, CUR] = start
        ctx[0, PREV] = start
        ctx[0, BEHIND] = start
        ctx[0, FAR] = start
        ctx[0, INDEXED] = -1
        ctx[0, POLICY] = -1
        ctx[0, ROW] = rows
        ctx[0, SOURCE] = -1
        for i in range(slots):
            kind[rows, i] = 0
        row_ts[rows] = arrival
        row_source[rows] = 2
        row_flag[rows] = 0
        outer[rows] = -1
        rows += 1
        for i in range(locals_):
            local_kind[i] = 0
        for i in range(shape[3]):
            counters[i] = -1
        for i in range(shape[5]):
            occurrences[i] = 0
        undos = np.int64(0)
        undoing = np.int64(0)
        guess = np.int64(-1)
        bit_at = np.int64(0)
        bit_lsb = np.int64(0)
        doubtful = False
        budget = np.int64(100000 + 256 * length)
        reason = np.int64(0)
        where = np.int64(-1)
        pc = np.int64(0)
        while True:
            op = code[pc, 0]
            a = code[pc, 1]
            b = code[pc, 2]
            pc += 1
            budget -= 1
            if budget < 0:
                reason = _MALFORMED
                where = ctx[depth, BASE] - start
            write = np.int64(-1)
            v = np.nan
            k = np.int64(0)
            if op <= 2:
                if op == 0:
                    break
                # a field: first its raw value
                source = fields[a, 0]
                type_ = fields[a, 3]
                order = fields[a, 4]
                raw = np.int64(0)
                real = np.nan
                by_float = fields[a, 26]
                is_int = True
                unknown = False
                low_bit = np.int64(0)
                high_bit = np.int64(0)
                absent = False
                if op == 2:
                    width = fields[a, 6]
                    low_bit = bit_at
                    high_bit = bit_at + width
                    if (high_bit + 7) >> 3 > ctx[depth, END]:
                        absent = True
                        if fields[a, 11] == 0:
                            reason = _SHORT
                            where = (bit_at >> 3) - start
                    else:
                        raw = load_bits(buf, bit_at, width, bit_lsb)
                        if fields[a, 7]:
                            raw = signed_of(raw, width)
                        bit_at = high_bit
                elif source == 5:
                    raw = ctx[ctx[depth, KEYS], KEY0 + fields[a, 1]]
                elif source == 6:
                    v = reals[a, 7]
                    k = fields[a, 25]
                elif source == 7:
                    far = ctx[depth, BASE]
                    for i in range(fields[a, 9], fields[a, 9] + fields[a, 10]):
                        at = pieces[i, 0]
                        at = ctx[depth, BASE] + at if at >= 0 else ctx[depth, END] + at
                        if at < ctx[depth, BASE] or at >= ctx[depth, END]:
                            absent = True
                            if fields[a, 11] == 0:
                                reason = _SHORT
                                where = max(at - start, 0)
                            break
                        width = pieces[i, 2]
                        part = (np.int64(buf[at]) >> pieces[i, 1]) & ((1 << width) - 1)
                        raw = (raw << width) | part
                        if i == fields[a, 9]:
                            ctx[depth, PREV] = at
                            low_bit = at * 8
                        if at + 1 > far:
                            far = at + 1
                    if not absent:
                        high_bit = far * 8
                        ctx[depth, CUR] = far
                        ctx[depth, FAR] = max(ctx[depth, FAR], far)
                        ctx[depth, BEHIND] = max(ctx[depth, BEHIND], far)
                        if fields[a, 7]:
                            raw = signed_of(raw, fields[a, 6])
                else:
                    at = ctx[depth, CUR]
                    if source == 0:
                        at = ctx[depth, BASE] + fields[a, 1]
                    elif source == 1:
                        at = ctx[depth, END] + fields[a, 1]
                    elif source == 3:
                        at = ctx[depth, PREV]
                    elif source == 8:
                        at = ctx[depth, BEHIND]
                    elif source == 4:
                        place_ = regs[0]
                        if regk[0] < 2 or regk[0] == 5 or place_ != np.floor(place_):
                            absent = True
                            if regk[0] != 0:
                                k = np.int64(1)
                        elif math.fabs(place_) > 1e9:
                            at = ctx[depth, END]
                        else:
                            at = np.int64(place_)
                            at = ctx[depth, BASE] + at if at >= 0 else ctx[depth, END] + at
                    size = fields[a, 2]
                    if size == -1:
                        if regk[1] < 2 or regk[1] == 5 or regs[1] != np.floor(regs[1]) or regs[1] < 0.0:
                            absent = True
                            if regk[1] != 0:
                                k = np.int64(1)
                            size = np.int64(0)
                        else:
                            size = np.int64(min(regs[1], 1e9))
                    elif size == -2:
                        size = max(ctx[depth, END] - at, 0)
                    if absent:
                        pass
                    elif at < ctx[depth, BASE] or at + size > ctx[depth, END]:
                        absent = True
                        if fields[a, 11] == 0:
                            reason = _SHORT
                            where = max(at - start, 0)
                    else:
                        low_bit = at * 8
                        high_bit = (at + size) * 8
                        ctx[depth, PREV] = at
                        ctx[depth, CUR] = at + size
                        ctx[depth, FAR] = max(ctx[depth, FAR], at + size)
                        if source != 1:
                            ctx[depth, BEHIND] = max(ctx[depth, BEHIND], at + size)
                        if type_ <= 3:
                            if size == 1:
                                raw = np.int64(buf[np.uint64(at)])
                            elif size == 2 and order <= 1:
                                near = np.int64(buf[np.uint64(at)])
                                next_ = np.int64(buf[np.uint64(at + 1)])
                                raw = (near << 8) | next_ if order == 0 else (next_ << 8) | near
                            else:
                                raw = load(buf, at, size, order)
                            if fields[a, 6] > 0:
                                width = fields[a, 6]
                                raw = raw >> fields[a, 5]
                                if width < 64:
                                    raw &= (np.int64(1) << width) - 1
                                if fields[a, 7]:
                                    raw = signed_of(raw, width)
                            elif type_ == 1:
                                raw = signed_of(raw, size * 8)
                            elif type_ == 3:
                                sign = np.int64(1) << (size * 8 - 1)
                                raw = -(raw & (sign - 1)) if raw & sign else raw
                            elif type_ == 2:
                                real = as_float(raw, size)
                                is_int = False
                                unknown = math.isnan(real)
                        elif type_ == 4:
                            real = read_bcd(buf, at, size, order) if size <= 9 else np.nan
                            unknown = math.isnan(real)
                            raw = np.int64(0) if unknown else np.int64(real)
                        elif type_ <= 6:
                            real, whole_ = read_number(buf, at, size, type_ - 5)
                            is_int = whole_ == 1
                            unknown = not math.isfinite(real)
                        else:
                            end = make_text(buf, at, size, type_, order, text, text_end)
                            if end == -2:
                                full = True
                                break
                            is_int = False
                            unknown = end == -1
                            if not unknown:
                                text_code = hash_bytes(text, text_end, end)
                                real = float(text_code)
                                mask = text_set.shape[0] - 1
                                slot = text_code & mask
                                probes = 0
                                while text_set[slot] >= 0 and text_set[slot] != text_code and probes < 64:
                                    slot = (slot + 1) & mask
                                    probes += 1
                                if text_set[slot] != text_code:
                                    if texts >= text_entries.shape[0]:
                                        full = True
                                        break
                                    if text_set[slot] < 0:
                                        text_set[slot] = text_code
                                    text_entries[texts, 0] = text_code
                                    text_entries[texts, 1] = text_end
                                    text_entries[texts, 2] = end
                                    texts += 1
                                    text_end = end
                # then what it means
                if not absent and source != 6:
                    biased = fields[a, 24] == 1
                    if by_float == 0:
                        if (type_ <= 3 and type_ != 2) or op == 2:
                            real = unsigned_float(raw) if biased else float(raw)
                        if biased:
                            raw ^= np.int64(NO_TIME)
                    if fields[a, 23] >= 0 and not unknown:
                        value[ctx[depth, ROW], fields[a, 23]] = real
                        kind[ctx[depth, ROW], fields[a, 23]] = 3
                    if not unknown and fields[a, 13] > 0:
                        for i in range(fields[a, 12], fields[a, 12] + fields[a, 13]):
                            if by_float:
                                if franges[i, 0] <= real <= franges[i, 1]:
                                    unknown = True
                            elif ranges[i, 0] <= raw <= ranges[i, 1]:
                                unknown = True
                    if not unknown and fields[a, 15] > 0:
                        i = fields[a, 14]
                        if by_float:
                            unknown = not (franges[i, 0] <= real <= franges[i, 1])
                        else:
                            unknown = not (ranges[i, 0] <= raw <= ranges[i, 1])
                    if unknown:
                        k = np.int64(1)
                    elif fields[a, 17] >= 0:
                        i = choose(mi, mf, fields[a, 16], fields[a, 17], by_float, raw, real)
                        if i < 0:
                            i = fields[a, 18]
                        k = np.int64(1)
                        if i >= 0:
                            v = mf[i, 2]
                            k = mi[i, 2]
                    elif type_ >= 7:
                        v = real
                        k = np.int64(5)
                    elif fields[a, 8]:
                        v = 1.0 if real != 0.0 else 0.0
                        k = np.int64(4)
                    else:
                        v = real
                        k = np.int64(2) if is_int else np.int64(3)
                        if fields[a, 19]:
                            k = np.int64(3)
                            if math.fabs(real) < EXACT:
                                v = scaled(
                                    real, reals[a, 0], reals[a, 1], reals[a, 2], reals[a, 3], reals[a, 4]
                                )
                            else:
                                high = real
                                low = 0.0
                                if by_float == 0:
                                    bits = raw ^ np.int64(NO_TIME) if biased else raw
                                    top = bits >> 32
                                    if biased:
                                        top &= 0xFFFFFFFF
                                    high, low = two_sum(float(top) * 4294967296.0, float(bits & 0xFFFFFFFF))
                                v = scaled_exactly(
                                    high, low, reals[a, 0], reals[a, 1], reals[a, 2], reals[a, 3], reals[a, 4]
                                )
                            if not math.isfinite(v):
                                k = np.int64(1)
                        if k > 1:
                            if fields[a, 20] & 1 and v < reals[a, 5]:
                                v = reals[a, 5]
                            if fields[a, 20] & 2 and v > reals[a, 6]:
                                v = reals[a, 6]
                            if k == 2 and v != np.floor(v):
                                k = np.int64(3)
                            if fields[a, 21] != 99:
                                v = rounded(v, fields[a, 21])
                if reason == 0:
                    write = fields[a, 22]
                    if write < 0:
                        r = fields[a, 27]
                        regs[r] = max(v, 0.0) if r == 2 else v
                        regk[r] = k
                        if fields[a, 24] and op <= 2:
                            raw ^= np.int64(NO_TIME)
                        regi[r] = raw
                        exact = k == 2 and by_float == 0 and type_ <= 3
                        regw[r] = 1 if exact and (fields[a, 24] == 0 or raw >= 0) else 0
                    elif k != 0 and traced < trace.shape[0]:
                        trace[traced, 0] = a
                        trace[traced, 1] = low_bit - start * 8
                        trace[traced, 2] = high_bit - start * 8
                        trace[traced, 3] = -1
                        trace[traced, 4] = ctx[depth, ROW]
                        trace[traced, 5] = k
                        trace_value[traced] = v
                        traced += 1
            elif op == 3:  # an expression, into register b
                run_program(
                    program, constants, a, value, kind, ctx[depth, ROW], outer, local, local_kind, params,
                    frame, ports[frame], length, sv, sk,
                )  # fmt: skip
                regs[b] = max(sv[0], 0.0) if b == 2 else sv[0]
                regk[b] = sk[0]
                regw[b] = 0
            elif op == 4:  # unless the value holds, go to b
                if regk[a] < 2 or regk[a] == 5 or regs[a] == 0.0:
                    pc = b
            elif op == 5:
                write = a
                v = regs[0]
                k = np.int64(regk[0])
            elif op == 6:
                regs[a] = float(b)
                regk[a] = 0 if code[pc - 1, 3] else 2
                regw[a] = 0
            elif op == 7:
                regs[b] = regs[a]
                regk[b] = regk[a]
                regi[b] = regi[a]
                regw[b] = regw[a]
            elif op == 8:
                ctx[depth, CUR] = ctx[depth, BASE]
            elif op == 9:
                pc = a
            elif op == 10:  # when
                base = ctx[depth, AT] if code[pc - 1, 4] else ctx[depth, BASE]
                if not holds(tests, ranges, a, b, buf, base, ctx[depth, END], ports[frame], length):
                    pc = code[pc - 1, 3]
            elif op == 11:  # enter a fragment at the same base
                push(ctx, depth, ctx[depth, BASE], ctx[depth, END], FRAGMENT)
                depth += 1
                for i in range(a, b):
                    local_kind[i] = 0
            elif op == 12:  # leave it; a: its size is in register 1
                far = ctx[depth, FAR]
                behind = ctx[depth, BEHIND]
                if a and regk[1] >= 2 and regk[1] != 5 and regs[1] >= 0.0:
                    far = ctx[depth, BASE] + np.int64(min(regs[1], 1e9))
                    behind = far
                depth -= 1
                ctx[depth, FAR] = max(ctx[depth, FAR], far)
                ctx[depth, BEHIND] = max(ctx[depth, BEHIND], behind)
            elif op == 13:
                reason = a
                where = np.int64(-1) if b < 0 else ctx[depth, BASE] - start
            elif op == 14:
                reason = np.int64(IGNORED)
            elif op == 15:  # check
                base = ctx[depth, BASE]
                stop = ctx[depth, END]
                at = base + checks[a, 5] if checks[a, 5] >= 0 else stop + checks[a, 5]
                width = checks[a, 1]
                if at < base or at + (width >> 3) > stop:
                    reason = _SHORT
                    where = max(at - start, 0)
                else:
                    low = base if checks[a, 6] == NO_TIME else checks[a, 6]
                    if checks[a, 6] != NO_TIME:
                        low = base + low if low >= 0 else stop + low
                    high = at
                    if checks[a, 7] != NO_TIME:
                        high = checks[a, 7] + 1
                        high = base + high if checks[a, 7] >= 0 else stop + high
                    elif checks[a, 6] != NO_TIME and low > at:
                        high = stop
                    if low < base or high > stop:
                        reason = _SHORT
                        where = max(high - 1 - start, 0)
                    else:
                        total = checks[a, 3]
                        if checks[a, 0] == 0:
                            total = crc_of(buf, low, high, crc_tables[a], width, checks[a, 2], total)
                        elif checks[a, 0] == 1:
                            for i in range(low, high):
                                total += np.int64(buf[i])
                            total &= (1 << width) - 1
                        else:
                            for i in range(low, high):
                                total ^= np.int64(buf[i])
                        total ^= checks[a, 4]
                        if total != load(buf, at, width >> 3, checks[a, 8]):
                            if checks[a, 9]:
                                doubtful = True
                            else:
                                reason = _CHECK
                                where = at - start
            elif op == 16:  # time of the reading
                row = ctx[depth, ROW]
                d = ctx[depth, SOURCE]
                ref = ctx[d, REF] if d >= 0 else np.int64(0)
                index = ctx[d, DONE] if d >= 0 else np.int64(0)
                gap = stepf[d] if d >= 0 else 0.0
                if times[a, 0] == 3 and (d < 0 or b):
                    ref = arrival
                    index = np.int64(0)
                    if times[a, 5]:
                        ref = time_of(
                            times,
                            timef,
                            times[a, 6],
                            regs[3],
                            regk[3],
                            regw[3],
                            regi[3],
                            arrival,
                            ref,
                            gap,
                            index,
                        )
                    gap = timef[a] if times[a, 7] == 0 else regs[4] * 1e9
                    if times[a, 7] and (regk[4] < 2 or regk[4] == 5):
                        gap = np.nan
                ts = time_of(times, timef, a, regs[0], regk[0], regw[0], regi[0], arrival, ref, gap, index)
                if ts == NO_TIME:
                    row_ts[row] = arrival
                    row_source[row] = 2
                else:
                    row_ts[row] = ts
                    row_source[row] = 0
            elif op == 17:  # a bit stream: a: from is given, b: from, c: lsb
                at = ctx[depth, BEHIND]
                if a:
                    at = ctx[depth, BASE] + b if b >= 0 else ctx[depth, END] + b
                bit_lsb = code[pc - 1, 3]
                if at < ctx[depth, BASE]:
                    reason = _SHORT
                    where = max(at - start, 0)
                bit_at = at * 8
            elif op == 18:
                bit_at += a
            elif op == 19:  # repeat a list of bits: count in register 2 (-1 rest), a: least width
                push(ctx, depth, ctx[depth, BASE], ctx[depth, END], REPEAT)
                depth += 1
                ctx[depth, COUNT] = 0
                if regk[2] >= 2 and regk[2] != 5:
                    ctx[depth, COUNT] = np.int64(min(regs[2], 1e9))
                ctx[depth, DONE] = -1
                ctx[depth, AT] = -1
            elif op == 20:  # next of it, or go to b; a: least width
                ctx[depth, DONE] += 1
                done = ctx[depth, DONE] >= ctx[depth, COUNT]
                if ctx[depth, COUNT] == -1:
                    done = bit_at + max(a, 1) > ctx[depth, END] * 8 or bit_at == ctx[depth, AT]
                ctx[depth, AT] = bit_at
                if done:
                    depth -= 1
                    pc = b
                else:
                    number_index(ctx, depth, ctx[depth, DONE])
            elif op == 21:
                at = (bit_at + 7) >> 3
                ctx[depth, FAR] = max(ctx[depth, FAR], at)
                ctx[depth, BEHIND] = max(ctx[depth, BEHIND], at)
            elif op == 22:  # tlv
                at = ctx[depth, BEHIND]
                if tlvs[a, 0]:
                    at = tlvs[a, 1]
                    at = ctx[depth, BASE] + at if at >= 0 else ctx[depth, END] + at
                stop = ctx[depth, END]
                if tlvs[a, 2]:
                    stop = tlvs[a, 3]
                    stop = ctx[depth, BASE] + stop if stop >= 0 else ctx[depth, END] + stop
                if at < ctx[depth, BASE]:
                    reason = _SHORT
                    where = max(at - start, 0)
                elif stop > ctx[depth, END]:
                    reason = _SHORT
                    where = ctx[depth, END] - start
                else:
                    push(ctx, depth, at, max(stop, at), TLV_LOOP)
                    depth += 1
                    serial += 1
                    ctx[depth, AT] = at
                    ctx[depth, SERIAL] = serial
                    ctx[depth, POLICY] = depth
                    ctx[depth, SIZE] = tlvs[a, 8]
                    ctx[depth, SHORT] = tlvs[a, 9]
                    ctx[depth, STAMP] = a
                    ctx[depth, EXIT] = b
            elif op == 23:  # the next item of tlv a, or go to b
                at = ctx[depth, AT]
                stop = ctx[depth, END]
                if at >= stop:
                    pc = b
                else:
                    p = at
                    found = np.int64(-2)
                    key0 = np.int64(0)
                    key1 = np.int64(0)
                    key2 = np.int64(0)
                    key3 = np.int64(0)
                    for i in range(tlvs[a, 4]):
                        width = tlvs[a, 12 + 2 * i]
                        if p + width > stop:
                            found = np.int64(-3)
                            break
                        if width == 1:
                            part = np.int64(buf[np.uint64(p)])
                        else:
                            part = load(buf, p, width, tlvs[a, 13 + 2 * i])
                        p += width
                        if i == 0:
                            key0 = part
                        elif i == 1:
                            key1 = part
                        elif i == 2:
                            key2 = part
                        else:
                            key3 = part
                    span = np.int64(-1)
                    if found == -2 and tlvs[a, 5] > 0:
                        if p + tlvs[a, 5] > stop:
                            found = np.int64(-3)
                        else:
                            span = load(buf, p, tlvs[a, 5], tlvs[a, 6])
                            p += tlvs[a, 5]
                            if span < 0:
                                span = np.int64(1) << 40
                    if found == -2:
                        # items mostly come in the order of the spec: look at the next one first
                        if tlvs[a, 10] <= guess < tlvs[a, 10] + tlvs[a, 11] and items[guess, 21]:
                            found = find_item(items, guess, 1, key0, key1, key2, key3)
                        if found < 0:
                            found = find_item(items, tlvs[a, 10], tlvs[a, 11], key0, key1, key2, key3)
                        if found < 0:
                            found = np.int64(-1)
                        guess = found + 1
                    if found == -3:
                        if ctx[depth, SHORT]:
                            pc = b
                        else:
                            reason = _SHORT
                            where = at - start
                    elif found == -1 and tlvs[a, 7] != 2:
                        if tlvs[a, 7] == 0:
                            pc = b
                        elif tlvs[a, 7] == 1:
                            reason = _UNMATCHED
                            where = at - start
                        else:
                            ctx[depth, AT] = at + 1
                            pc -= 1
                    elif span > stop - p:
                        if ctx[depth, SHORT]:
                            pc = b
                        else:
                            reason = _SHORT
                            where = p - start
                    elif found == -1:
                        ctx[depth, AT] = p + span
                        pc -= 1
                    else:
                        end = p + span if span >= 0 else stop
                        if span < 0 and items[found, 18] >= 0:
                            end = min(stop, p + items[found, 18])
                        serial += 1
                        ctx[depth, ITEM] = serial
                        ctx[depth, DONE] = at
                        push(ctx, depth, p, end, TLV_ITEM)
                        depth += 1
                        ctx[depth, KEYS] = depth
                        ctx[depth, KEY0] = key0
                        ctx[depth, KEY0 + 1] = key1
                        ctx[depth, KEY0 + 2] = key2
                        ctx[depth, KEY0 + 3] = key3
                        ctx[depth, SIZE] = span
                        number_index(ctx, depth, occurrences[items[found, 1]])
                        occurrences[items[found, 1]] += 1
                        for i in range(items[found, 19], items[found, 20]):
                            local_kind[i] = 0
                        ctx[depth, SHORT] = ctx[depth - 1, SHORT]
                        if ctx[depth, SHORT]:
                            undoing += 1
                            ctx[depth, UNDO] = undos
                            ctx[depth, ROWS] = rows
                            ctx[depth, REF] = row_ts[ctx[depth, ROW]]
                            ctx[depth, STEP] = np.int64(row_source[ctx[depth, ROW]])
                            for i in range(shape[3]):
                                saved[depth, i] = counters[i]
                        pc = items[found, 0]
            elif op == 24:  # the item is read; a: size in register 1; go on at b
                far = ctx[depth, FAR]
                if a and regk[1] >= 2 and regk[1] != 5 and regs[1] >= 0.0:
                    far = ctx[depth, BASE] + np.int64(min(regs[1], 1e9))
                if ctx[depth, SIZE] >= 0:
                    far = ctx[depth, BASE] + ctx[depth, SIZE]
                if far > ctx[depth - 1, END]:
                    reason = _SHORT
                    where = ctx[depth - 1, END] - start
                else:
                    if ctx[depth, SHORT]:
                        undoing -= 1
                        if undoing == 0:
                            undos = np.int64(0)
                    depth -= 1
                    ctx[depth, AT] = far
                    pc = b
            elif op == 25:
                at = ctx[depth, AT]
                depth -= 1
                ctx[depth, FAR] = max(ctx[depth, FAR], at)
                ctx[depth, BEHIND] = max(ctx[depth, BEHIND], at)
            elif op == 26:  # sections: a, b: from; c, d: to; mask in register 0
                at = ctx[depth, BEHIND]
                if a:
                    at = ctx[depth, BASE] + b if b >= 0 else ctx[depth, END] + b
                stop = ctx[depth, END]
                if code[pc - 1, 3]:
                    stop = code[pc - 1, 4]
                    stop = ctx[depth, BASE] + stop if stop >= 0 else ctx[depth, END] + stop
                if at < ctx[depth, BASE]:
                    reason = _SHORT
                    where = max(at - start, 0)
                elif stop > ctx[depth, END]:
                    reason = _SHORT
                    where = ctx[depth, END] - start
                else:
                    push(ctx, depth, ctx[depth, BASE], max(stop, at), REPEAT)
                    depth += 1
                    ctx[depth, AT] = at
                    ctx[depth, BEHIND] = at
                    ctx[depth, SERIAL] = 0
                    if regk[0] >= 2 and regk[0] != 5 and code[pc - 1, 5]:
                        ctx[depth, SERIAL] = regi[0]
                    ctx[depth, COUNT] = -2
            elif op == 27:  # section of bit a, else go to b
                ctx[depth, BEHIND] = ctx[depth, AT]
                if (ctx[depth, SERIAL] >> a) & 1 == 0:
                    pc = b
            elif op == 28:  # enter a section: a: repeated, b: behind; c, d: locals; e: least size
                if a == 1:  # first time: count in register 2
                    ctx[depth, COUNT] = 0
                    if regk[2] >= 2 and regk[2] != 5:
                        ctx[depth, COUNT] = np.int64(min(regs[2], 1e9))
                    ctx[depth, DONE] = 0
                    ctx[depth, AT] = max(ctx[depth, AT], ctx[depth, BEHIND])
                done = False
                if a:
                    done = ctx[depth, DONE] >= ctx[depth, COUNT]
                    if ctx[depth, COUNT] == -1:
                        done = ctx[depth, AT] + max(code[pc - 1, 5], 1) > ctx[depth, END]
                if done:
                    pc = b
                else:
                    push(ctx, depth, ctx[depth, AT], ctx[depth, END], FRAGMENT)
                    depth += 1
                    if a:
                        number_index(ctx, depth, ctx[depth - 1, DONE])
                    for i in range(code[pc - 1, 3], code[pc - 1, 4]):
                        local_kind[i] = 0
            elif op == 29:  # leave a section: a: size in register 1; b: go on there
                far = ctx[depth, FAR]
                if a and regk[1] >= 2 and regk[1] != 5 and regs[1] >= 0.0:
                    far = ctx[depth, BASE] + np.int64(min(regs[1], 1e9))
                still = far == ctx[depth, BASE]
                depth -= 1
                ctx[depth, AT] = far
                ctx[depth, BEHIND] = far
                ctx[depth, DONE] += 1
                if still and ctx[depth, COUNT] == -1:
                    ctx[depth, COUNT] = 0
                pc = b
            elif op == 30:
                at = ctx[depth, AT]
                depth -= 1
                ctx[depth, FAR] = max(ctx[depth, FAR], at)
                ctx[depth, BEHIND] = max(ctx[depth, BEHIND], at)
            elif op == 31:  # records: a, b: at; c, d: to; e: sized (register 1); f: relative time
                at = ctx[depth, BEHIND]
                if a:
                    at = ctx[depth, BASE] + b if b >= 0 else ctx[depth, END] + b
                stop = ctx[depth, END]
                if code[pc - 1, 3]:
                    stop = code[pc - 1, 4]
                    stop = ctx[depth, BASE] + stop if stop >= 0 else ctx[depth, END] + stop
                if at < ctx[depth, BASE] or stop > ctx[depth, END]:
                    reason = _SHORT
                    where = max(at - start, 0)
                else:
                    push(ctx, depth, at, max(stop, at), REPEAT)
                    depth += 1
                    ctx[depth, AT] = at
                    ctx[depth, COUNT] = 0
                    if regk[2] >= 2 and regk[2] != 5:
                        ctx[depth, COUNT] = np.int64(min(regs[2], 1e9))
                    ctx[depth, DONE] = -1
                    ctx[depth, SIZE] = -1
                    if code[pc - 1, 5] and regk[1] >= 2 and regk[1] != 5 and regs[1] >= 0.0:
                        ctx[depth, SIZE] = np.int64(min(regs[1], 1e9))
                    ctx[depth, SOURCE] = depth
                    ctx[depth, REF] = arrival
                    stepf[depth] = 0.0
                    t = code[pc - 1, 6]
                    if t >= 0:
                        if times[t, 5]:
                            ctx[depth, REF] = time_of(
                                times, timef, times[t, 6], regs[3], regk[3], regw[3], regi[3], arrival,
                                arrival, 0.0, 0,
                            )  # fmt: skip
                        stepf[depth] = timef[t]
                        if times[t, 7]:
                            stepf[depth] = regs[4] * 1e9 if regk[4] >= 2 and regk[4] != 5 else np.nan
            elif op == 32:  # the next record, or go to b; c, d: locals
                ctx[depth, DONE] += 1
                at = ctx[depth, AT]
                done = ctx[depth, DONE] >= ctx[depth, COUNT]
                if ctx[depth, COUNT] == -1:
                    done = at + max(ctx[depth, SIZE], 1) > ctx[depth, END]
                if done:
                    pc = b
                elif rows - rows0 > MOST_READINGS:
                    reason = _MALFORMED
                    where = at - start
                elif rows >= value.shape[0]:
                    full = True
                    break
                else:
                    end = ctx[depth, END]
                    if ctx[depth, SIZE] >= 0:
                        end = max(at, min(end, at + ctx[depth, SIZE]))
                    push(ctx, depth, at, end, FRAGMENT)
                    depth += 1
                    number_index(ctx, depth, ctx[depth - 1, DONE])
                    outer[rows] = ctx[depth - 1, ROW]
                    ctx[depth, ROW] = rows
                    ctx[depth, POLICY] = -1
                    for i in range(slots):
                        kind[rows, i] = 0
                    row_ts[rows] = arrival
                    row_source[rows] = 2
                    row_flag[rows] = 0
                    rows += 1
                    for i in range(code[pc - 1, 3], code[pc - 1, 4]):
                        local_kind[i] = 0
            elif op == 33:  # a record is read; go on at b
                far = max(ctx[depth, FAR], ctx[depth, BASE])
                still = far == ctx[depth, BASE]
                base = ctx[depth, BASE]
                depth -= 1
                if ctx[depth, SIZE] >= 0:
                    far = base + ctx[depth, SIZE]
                    still = ctx[depth, SIZE] == 0
                if still and ctx[depth, COUNT] == -1:
                    ctx[depth, COUNT] = 0
                ctx[depth, AT] = far
                pc = b
            elif op == 34:
                at = ctx[depth, AT]
                depth -= 1
                ctx[depth, FAR] = max(ctx[depth, FAR], at)
                ctx[depth, BEHIND] = max(ctx[depth, BEHIND], at)
            elif op == 35:  # select: target name, raw slot, scale, offset, rename (first, count, else)
                slot = names[selects[a, 0], 0]
                if slot == -1:
                    fill_holes(names, selects[a, 0], ctx, depth, counters, numbers)
                    slot = find_name(
                        made, names[selects[a, 0], 1], numbers[0], numbers[1], numbers[2], numbers[3]
                    )
                row = ctx[depth, ROW]
                if slot >= 0 and kind[row, slot] != 0:
                    v = value[row, slot]
                    k = np.int64(kind[row, slot])
                    have = kind[row, selects[a, 1]] != 0
                    real = value[row, selects[a, 1]]
                    factor = 1.0
                    per = 1.0
                    shift = 0.0
                    shift_per = 1.0
                    for part in range(2):
                        if selects[a, 3 + 3 * part] >= 0 and k > 1:
                            i = np.int64(-1)
                            if have:
                                i = choose(
                                    mi, mf, selects[a, 2 + 3 * part], selects[a, 3 + 3 * part], 1, 0, real
                                )
                            if i < 0:
                                i = selects[a, 4 + 3 * part]
                            if i < 0 or mi[i, 2] < 2:
                                k = np.int64(1)
                                v = np.nan
                            elif part == 0:
                                factor = mf[i, 2]
                                per = mf[i, 3]
                            else:
                                shift = mf[i, 2]
                                shift_per = mf[i, 3]
                    if k > 1 and k != 5 and not (factor == per and shift == 0.0):
                        v = scaled(v, factor * shift_per, 0.0, shift * per, 0.0, per * shift_per)
                        k = np.int64(2) if k == 2 and per == 1.0 and shift_per == 1.0 else np.int64(3)
                        if not math.isfinite(v):
                            k = np.int64(1)
                    if selects[a, 9] >= 0:
                        i = np.int64(-1)
                        if have:
                            i = choose(mi, mf, selects[a, 8], selects[a, 9], 1, 0, real)
                        if i < 0:
                            i = selects[a, 10]
                        kind[row, slot] = 0
                        if i >= 0 and mi[i, 2] >= 2:
                            write = np.int64(mf[i, 3])
                    else:
                        write = selects[a, 0]
            elif op == 36:  # the next record's reading, or go to b
                row = ctx[depth, ROW] + 1
                if row >= rows:
                    ctx[depth, ROW] = rows0
                    pc = b
                else:
                    ctx[depth, ROW] = row
            elif op == 37:  # unless this reading has one of the slots a..a+b itself, go to c
                some = False
                for i in range(a, a + b):
                    if kind[ctx[depth, ROW], own[i]] != 0:
                        some = True
                if not some:
                    pc = code[pc - 1, 3]
            elif op == 38:  # a bytes more, nothing read
                far = ctx[depth, FAR] + a
                if far > ctx[depth, END]:
                    reason = _SHORT
                    where = ctx[depth, END] - start
                else:
                    ctx[depth, FAR] = far
                    ctx[depth, BEHIND] = far
            elif op == 39:
                ctx[depth, BEHIND] = ctx[depth, AT]
            # a value goes to its name
            if write >= 0 and k != 0 and reason == 0:
                if names[write, 11] >= 0:
                    local[names[write, 11]] = v
                    local_kind[names[write, 11]] = k
                slot = names[write, 0]
                row = ctx[depth, ROW]
                if slot == -1:
                    fill_holes(names, write, ctx, depth, counters, numbers)
                    slot = find_name(made, names[write, 1], numbers[0], numbers[1], numbers[2], numbers[3])
                    if slot < 0 and names[write, 12] == 0:
                        if misses < missed.shape[0]:
                            missed[misses, 0] = names[write, 1]
                            for i in range(4):
                                missed[misses, 1 + i] = numbers[i]
                            missed[misses, 5] = frame
                        misses += 1
                policy = ctx[depth, POLICY]
                if slot >= 0 and policy >= 0 and ctx[policy, SIZE] != LAST:
                    if seen[slot] != ctx[policy, SERIAL]:
                        seen[slot] = ctx[policy, SERIAL]
                        seen_item[slot] = ctx[policy, ITEM]
                        seen_count[slot] = 0
                    else:
                        again = seen_item[slot] != ctx[policy, ITEM]
                        seen_item[slot] = ctx[policy, ITEM]
                        if ctx[policy, SIZE] == FIRST:
                            if again:
                                seen_item[slot] = -1
                                slot = np.int64(-1)
                        elif ctx[policy, SIZE] == REFUSE:
                            if again:
                                reason = _MALFORMED
                                where = ctx[policy, DONE] - start
                        else:
                            if again:
                                seen_count[slot] += 1
                                if seen_count[slot] == 1:
                                    head = find_name(made, shape[6] + slot, 0, 0, 0, 0)
                                    if head >= 0:
                                        value[row, head] = value[row, slot]
                                        kind[row, head] = kind[row, slot]
                                    elif misses < missed.shape[0]:
                                        missed[misses, 0] = shape[6] + slot
                                        missed[misses, 1:5] = 0
                                        missed[misses, 5] = frame
                                        misses += 1
                                    kind[row, slot] = 0
                            if seen_count[slot] > 0:
                                head = find_name(made, shape[6] + slot, seen_count[slot], 0, 0, 0)
                                if head < 0 and misses < missed.shape[0]:
                                    missed[misses, 0] = shape[6] + slot
                                    missed[misses, 1] = seen_count[slot]
                                    missed[misses, 2:5] = 0
                                    missed[misses, 5] = frame
                                    misses += 1
                                slot = np.int64(head)
                if slot >= 0 and reason == 0:
                    if undoing > 0:
                        if undos >= undo_at.shape[0]:
                            reason = _MALFORMED
                            where = ctx[depth, BASE] - start
                        else:
                            undo_at[undos, 0] = row
                            undo_at[undos, 1] = slot
                            undo_at[undos, 2] = kind[row, slot]
                            undo_value[undos] = value[row, slot]
                            undos += 1
                    value[row, slot] = v
                    kind[row, slot] = k
                if op <= 2 and traced > traced0 and traced <= trace.shape[0]:
                    trace[traced - 1, 3] = slot
            if reason != 0:
                if reason == _SHORT:
                    d = depth
                    while d >= 0 and not (ctx[d, KIND] == TLV_ITEM and ctx[d, SHORT]):
                        d -= 1
                    if d > 0:  # an item cut off by the end of a list that may be cut
                        reason = np.int64(0)
                        for j in range(undos - ctx[d, UNDO]):
                            i = undos - 1 - j
                            value[undo_at[i, 0], undo_at[i, 1]] = undo_value[i]
                            kind[undo_at[i, 0], undo_at[i, 1]] = undo_at[i, 2]
                        undos = ctx[d, UNDO]
                        rows = ctx[d, ROWS]
                        row_ts[ctx[d, ROW]] = ctx[d, REF]
                        row_source[ctx[d, ROW]] = ctx[d, STEP]
                        for i in range(shape[3]):
                            counters[i] = saved[d, i]
                        undoing = np.int64(0)
                        for i in range(d):
                            if ctx[i, KIND] == TLV_ITEM and ctx[i, SHORT]:
                                undoing += 1
                        depth = d - 1
                        pc = ctx[depth, EXIT]
                        continue
                break
        if full:
            rows = rows0
            texts = texts0
            text_end = text0
            misses = misses0
            traced = traced0
            break
        if reason != 0:
            status[frame] = reason
            place[frame] = where if reason > 0 else -1
            rows = rows0
            misses = misses0
            traced = traced0
        else:
            some = False
            for i in range(metrics):
                if kind[rows0, i] != 0:
                    some = True
                    break
            row_frame[rows0] = frame if some else -1
            row_index[rows0] = 0
            index = np.int64(1 if some else 0)
            for row in range(rows0 + 1, rows):
                row_frame[row] = frame
                row_index[row] = index
                index += 1
            if doubtful:
                for row in range(rows0, rows):
                    row_flag[row] = 1
            if not some and rows == rows0 + 1:
                rows = rows0
        frame += 1
    result[0] = frame
    result[1] = rows
    result[2] = texts
    result[3] = text_end
    result[4] = misses
    result[5] = traced


def warm_up() -> None:
    """Compile the kernel, and those that it calls."""
    from operators.decode.binary_decoder import warm_up_decoder

    warm_up_decoder()
