"""JSON bytes -> columns: one walk over the bytes of every frame, steered by a table of paths.

The table (`operators.decode.json_spec.PathTable`) is a tree of the members and array places that a
product names, in preorder, so that what stands below a node is a range of nodes. Members are
compared with the one that followed last time first, so in a steady stream a key costs one
comparison; the guess never changes a result.

Numbers are correctly rounded: exactly by one multiplication or division where both sides are
exact doubles (Clinger 1990), else by the 128-bit product of Eisel and Lemire (Lemire, "Number
parsing at a gigabyte per second", 2021), else by Python's `float`, named in `events`.
"""

# numba's integers are Python's and NumPy's at once
# mypy: disable-error-code="assignment, arg-type, return-value, no-any-return"

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import ABSENT, BAD, GOOD, TYPE_BREACH, Bytes, Float64, Int32, Int64, UInt64
from operators.jit import inline, kernel
from operators.rejects import Reason
from operators.text import hash_bytes

# columns of the node table
KEY_AT, KEY_LEN, INDEX, CHILD, NEXT, END, ACT, ACT_END, CONTAINER, PLAIN = range(10)
NODE_WIDTH: Final = 10

# what is done with the value at a node: (action, argument)
METRIC, TIME, SPAN = range(3)  # argument: column | 0 device, 1 hub | 0 device's name, 1 binary

# what a column takes
NUMBER, INTEGER, BOOLEAN, STRING, ANY = range(5)  # ANY: numbers, and booleans as 0 and 1

# what a span is
SPAN_SCALAR, SPAN_TEXT, SPAN_ESCAPED = range(3)

# units of a time given as a number
UNIT_AUTO, UNIT_S, UNIT_MS, UNIT_US, UNIT_NS = range(5)

# state of a time in a frame
TIME_NONE, TIME_GOOD, TIME_BAD, TIME_SLOW = range(4)

# events: what Python finishes, (kind, frame, argument, first byte, byte after the last)
SLOW_NUMBER, SLOW_TIME, OVERFLOW, NEW_TEXT, ESCAPED_TEXT = range(5)
SLOW: Final = 255  # quality of a cell that a SLOW_NUMBER or ESCAPED_TEXT event will fill

# sentences of `why`
WHY: Final = (
    "",
    "the frame ends where a value is expected",
    "a value is expected",
    "a member's name in double quotes is expected",
    "':' is expected",
    "',' or '}' is expected",
    "',' or ']' is expected",
    "nothing more is expected",
    "the frame ends within a text",
    "a control character in a text",
    "a wrong escape in a text",
    "a number is written wrong",
    "NaN or infinity, which is no JSON number,",
    "a number beyond the range of a double",
    "an object is expected",
    "half of a surrogate pair, alone in an escape,",
    "not valid UTF-8",
    "a time as a number or an ISO 8601 text is expected",
    "nested too deep",
)
(
    W_NONE,
    W_END,
    W_VALUE,
    W_KEY,
    W_COLON,
    W_OBJECT,
    W_ARRAY,
    W_MORE,
    W_QUOTE,
    W_CONTROL,
    W_ESCAPE,
    W_NUMBER,
    W_NAN,
    W_OVERFLOW,
    W_NO_OBJECT,
    W_SURROGATE,
    W_UTF8,
    W_TIME,
    W_DEEP,
) = range(19)

U: Final = np.uint64  # of an index in the hot path: no branch for a negative one (1.6 times as fast)
SEEN: Final = 1024  # texts remembered within one call, a power of two
UNKNOWN: Final = 256  # different names of undeclared metrics counted in one call
EVENTS: Final = 16384
WORDS: Final = np.frombuffer(b"truefalsenullNaNInfinity", np.uint8)  # `words` of the walk

# cells of `counters`
N_EVENTS, STAMP, N_UNKNOWN = range(3)

LATEST_NS: Final = 9_000_000_000_000_000_000  # times are kept within 1843..2255, so that their
EARLIEST_NS: Final = -4_000_000_000_000_000_000  # differences never overflow

_MALFORMED = int(Reason.malformed)
_TOO_DEEP = int(Reason.too_deep)
_EMPTY = int(Reason.empty)
_ENCODING = int(Reason.encoding)
_BAD_NUMBER = int(Reason.bad_number)

_MIN_POWER: Final = -342
_MAX_POWER: Final = 308


def power_table() -> tuple[UInt64, Float64]:
    """Powers of five as 128-bit fractions, uint64[651, 2] (high, low) for 10**-342..10**308, cut
    down for powers >= 0 and rounded up below (Lemire 2021, section 5); exact doubles 10**0..22."""
    table = np.empty((_MAX_POWER - _MIN_POWER + 1, 2), np.uint64)
    for q in range(_MIN_POWER, _MAX_POWER + 1):
        power = 5 ** abs(q)
        if q < 0:
            bits = (power - 1).bit_length()
            shift = bits + 127 if q >= -27 else 2 * bits + 128
            fraction = (1 << shift) // power + 1
        else:
            fraction = power << max(0, 128 - power.bit_length())
        fraction >>= max(0, fraction.bit_length() - 128)
        table[q - _MIN_POWER] = fraction >> 64, fraction & 0xFFFFFFFFFFFFFFFF
    return table, np.array([10.0**q for q in range(23)])


@inline
def _multiply(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The 128-bit product of two uint64: (high, low)."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    a_low, a_high = a & mask, a >> half
    b_low, b_high = b & mask, b >> half
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)
    other = a_low * b_high + (middle & mask)
    return a_high * b_high + (middle >> half) + (other >> half), (other << half) | (low & mask)


@inline
def _bits_as_double(bits: np.uint64, one: UInt64) -> float:
    """one: uint64[1] scratch."""
    one[0] = bits
    return one.view(np.float64)[0]


@inline
def eisel_lemire(digits: int, power: int, table: UInt64, one: UInt64) -> float:
    """digits * 10**power as the nearest double, digits in 1..10**18; NaN where this method cannot
    tell (subnormal, overflow, beyond the table)."""
    if power < _MIN_POWER or power > _MAX_POWER:
        return np.nan
    w = np.uint64(digits)
    lead = 0
    step = 32
    while step > 0:
        if (w >> np.uint64(64 - step)) == np.uint64(0):
            w <<= np.uint64(step)
            lead += step
        step >>= 1
    row = power - _MIN_POWER
    high, low = _multiply(w, table[row, 0])
    mask = np.uint64(0x1FF)
    if (high & mask) == mask:
        second, _ = _multiply(w, table[row, 1])
        low += second
        if second > low:
            high += np.uint64(1)
        if low == np.uint64(0xFFFFFFFFFFFFFFFF) and (power < -27 or power > 55):
            return np.nan
    upper = np.int64(high >> np.uint64(63))
    mantissa = high >> np.uint64(upper + 9)
    exponent = (((152170 + 65536) * power) >> 16) + 63 + upper - lead + 1023
    if exponent <= 0:
        return np.nan
    if (
        low <= np.uint64(1)
        and -4 <= power <= 23
        and (mantissa & np.uint64(3)) == np.uint64(1)
        and (mantissa << np.uint64(upper + 9)) == high
    ):
        mantissa &= ~np.uint64(1)  # exactly between two doubles: to even
    mantissa += mantissa & np.uint64(1)
    mantissa >>= np.uint64(1)
    if mantissa >= np.uint64(1 << 53):
        mantissa = np.uint64(1 << 52)
        exponent += 1
    if exponent >= 0x7FF:
        return np.nan
    return _bits_as_double(
        (mantissa & np.uint64((1 << 52) - 1)) | (np.uint64(exponent) << np.uint64(52)), one
    )


@inline
def _civil_days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a date of the Gregorian calendar (Hinnant, "chrono-compatible
    low-level date algorithms", days_from_civil)."""
    y = year - 1 if month <= 2 else year
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@inline
def _two(payload: Bytes, at: int) -> int:
    """Two decimal digits; -1 if they are none."""
    a = np.int64(payload[at]) - 48
    b = np.int64(payload[at + 1]) - 48
    return a * 10 + b if 0 <= a <= 9 and 0 <= b <= 9 else -1


@inline
def iso_time(payload: Bytes, start: int, stop: int) -> tuple[bool, int]:
    """An ISO 8601 text `YYYY-MM-DD[T|blank]HH:MM[:SS[.fraction]][Z|+HH[[:]MM]]` as nanoseconds since
    1970 (digits beyond the ninth of a fraction are cut); without a zone it is UTC. A second of 60
    is taken as the next minute's first. (False, 0) where it is none."""
    if stop - start < 16:
        return False, 0
    century, rest = _two(payload, start), _two(payload, start + 2)
    month, day = _two(payload, start + 5), _two(payload, start + 8)
    hour, minute = _two(payload, start + 11), _two(payload, start + 14)
    between = payload[start + 10]
    if (
        min(century, rest, month, day, hour, minute) < 0
        or payload[start + 4] != 45
        or payload[start + 7] != 45
        or payload[start + 13] != 58
        or not (between == 84 or between == 116 or between == 32)
    ):
        return False, 0
    year = century * 100 + rest
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = 31 - (month == 4 or month == 6 or month == 9 or month == 11)
    if month == 2:
        longest = 29 if leap else 28
    if month < 1 or month > 12 or day < 1 or day > longest or hour > 23 or minute > 59:
        return False, 0
    at = start + 16
    second, nano = 0, 0
    if at < stop and payload[at] == 58:
        if stop - at < 3:
            return False, 0
        second = _two(payload, at + 1)
        if second < 0 or second > 60:
            return False, 0
        at += 3
        if at < stop and (payload[at] == 46 or payload[at] == 44):
            at += 1
            begin = at
            weight = 100_000_000
            while at < stop and 48 <= payload[at] <= 57:
                nano += (np.int64(payload[at]) - 48) * weight
                weight //= 10
                at += 1
            if at == begin:
                return False, 0
    zone = 0
    if at < stop:
        sign = payload[at]
        if sign == 90 or sign == 122:
            at += 1
        elif (sign == 43 or sign == 45) and stop - at >= 3:
            hours, minutes = _two(payload, at + 1), 0
            at += 3
            if at < stop:
                if payload[at] == 58:
                    at += 1
                if stop - at < 2:
                    return False, 0
                minutes = _two(payload, at)
                at += 2
            if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
                return False, 0
            zone = (hours * 60 + minutes) * (60 if sign == 43 else -60)
    if at != stop:
        return False, 0
    seconds = _civil_days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone
    if seconds > LATEST_NS // 1_000_000_000:
        return True, LATEST_NS
    if seconds < EARLIEST_NS // 1_000_000_000:
        return True, EARLIEST_NS
    return True, seconds * 1_000_000_000 + nano


@inline
def number_time(negative: bool, digits: int, power: int, unit: int) -> int:
    """digits * 10**power in a unit as nanoseconds since 1970, cut down, kept within
    EARLIEST_NS..LATEST_NS. UNIT_AUTO goes by size: below 1e11 seconds, 1e14 milliseconds, 1e17
    microseconds, else nanoseconds."""
    if unit == UNIT_MS and power == 0 and digits < 9_000_000_000_000 and not negative:
        return digits * 1_000_000
    if unit == UNIT_AUTO:
        size = np.float64(digits) * 10.0 ** max(-400, min(400, power))
        unit = UNIT_S if size < 1e11 else UNIT_MS if size < 1e14 else UNIT_US if size < 1e17 else UNIT_NS
    shift = power + (9 if unit == UNIT_S else 6 if unit == UNIT_MS else 3 if unit == UNIT_US else 0)
    ns = digits
    while shift > 0 and ns != 0:
        if ns > LATEST_NS // 10:
            return EARLIEST_NS if negative else LATEST_NS
        ns *= 10
        shift -= 1
    left = 0
    while shift < 0 and (ns != 0 or left != 0):
        left |= ns % 10
        ns //= 10
        shift += 1
        if ns == 0:
            break
    if negative:
        return max(EARLIEST_NS, -ns - (1 if left else 0))
    return min(LATEST_NS, ns)


@inline
def invalid_utf8(payload: Bytes, start: int, stop: int) -> int:
    """Offset of the first byte that is not valid UTF-8 (RFC 3629: shortest form, no surrogates,
    at most U+10FFFF); -1 if all are."""
    at = start
    while at < stop:
        first = payload[at]
        if first < 0x80:
            at += 1
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            if first == 0xE0:
                low = 0xA0
            elif first == 0xED:
                high = 0x9F
        elif 0xF0 <= first <= 0xF4:
            more = 3
            if first == 0xF0:
                low = 0x90
            elif first == 0xF4:
                high = 0x8F
        else:
            return at
        if at + more >= stop:
            return at
        if payload[at + 1] < low or payload[at + 1] > high:
            return at
        for k in range(2, more + 1):
            if payload[at + k] < 0x80 or payload[at + k] > 0xBF:
                return at
        at += more + 1
    return -1


@inline
def _hex4(payload: Bytes, at: int, stop: int) -> int:
    """Four hexadecimal digits; -1 if they are none."""
    if at + 4 > stop:
        return -1
    code = 0
    for k in range(4):
        c = np.int64(payload[at + k])
        if 48 <= c <= 57:
            code = code * 16 + c - 48
        elif 97 <= (c | 32) <= 102:
            code = code * 16 + (c | 32) - 87
        else:
            return -1
    return code


@inline
def _scan_text(payload: Bytes, at: int, stop: int) -> tuple[int, int, int]:
    """A text whose first byte behind the quote is `at`: (its closing quote, 1 if it has escapes, 0),
    or (place, -1, why) where it is wrong."""
    escaped = 0
    while at < stop:
        c = payload[U(at)]
        if c == 34:
            return at, escaped, 0
        if c < 32:
            return at, -1, W_CONTROL
        if c != 92:
            at += 1
            continue
        escaped = 1
        if at + 1 >= stop:
            break
        c = payload[U(at + 1)]
        if c == 117:
            code = _hex4(payload, at + 2, stop)
            if code < 0:
                return at, -1, W_ESCAPE
            if 0xDC00 <= code <= 0xDFFF:
                return at, -1, W_SURROGATE
            if 0xD800 <= code <= 0xDBFF:
                second = -1
                if at + 7 < stop and payload[U(at + 6)] == 92 and payload[U(at + 7)] == 117:
                    second = _hex4(payload, at + 8, stop)
                if second < 0xDC00 or second > 0xDFFF:
                    return at, -1, W_SURROGATE
                at += 6
            at += 6
        elif c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116:
            at += 2
        else:
            return at, -1, W_ESCAPE
    return stop, -1, W_QUOTE


@inline
def _unescape(payload: Bytes, at: int, stop: int, out: Bytes) -> int:
    """The UTF-8 bytes of a text with (valid) escapes, into `out`; how many, or -1 where `out` is
    too small."""
    n = 0
    while at < stop:
        if n + 4 > out.shape[0]:
            return -1
        c = np.int64(payload[at])
        at += 1
        if c == 92:
            c = np.int64(payload[at])
            at += 1
            if c == 117:
                c = _hex4(payload, at, stop)
                at += 4
                if 0xD800 <= c <= 0xDBFF:
                    c = 0x10000 + ((c - 0xD800) << 10) + _hex4(payload, at + 2, stop) - 0xDC00
                    at += 6
                if c >= 0x10000:
                    out[n] = 0xF0 | (c >> 18)
                    out[n + 1] = 0x80 | ((c >> 12) & 63)
                    out[n + 2] = 0x80 | ((c >> 6) & 63)
                    out[n + 3] = 0x80 | (c & 63)
                    n += 4
                    continue
                if c >= 0x800:
                    out[n] = 0xE0 | (c >> 12)
                    out[n + 1] = 0x80 | ((c >> 6) & 63)
                    out[n + 2] = 0x80 | (c & 63)
                    n += 3
                    continue
                if c >= 0x80:
                    out[n] = 0xC0 | (c >> 6)
                    out[n + 1] = 0x80 | (c & 63)
                    n += 2
                    continue
            elif c == 98:
                c = 8
            elif c == 102:
                c = 12
            elif c == 110:
                c = 10
            elif c == 114:
                c = 13
            elif c == 116:
                c = 9
        out[n] = c
        n += 1
    return n


@inline
def _blank(c: int) -> bool:
    return c <= 32 and (c == 32 or c == 10 or c == 13 or c == 9)


@inline
def _is(payload: Bytes, at: int, end: int, word: Bytes) -> bool:
    """Whether these bytes stand at `at`."""
    if end - at < word.shape[0]:
        return False
    for k in range(word.shape[0]):  # noqa: SIM110 (numba has no all() of a generator)
        if payload[at + k] != word[k]:
            return False
    return True


@inline
def _member(text: Bytes, at: int, length: int, parent: int, nodes: Int32, keys: Bytes) -> int:
    """The child of `parent` with this name; -1 if there is none."""
    child = np.int64(nodes[parent, CHILD])
    while child >= 0:
        if nodes[child, KEY_LEN] == length:
            begin = np.int64(nodes[child, KEY_AT])
            same = True
            for k in range(length):
                if keys[begin + k] != text[at + k]:
                    same = False
                    break
            if same:
                return child
        child = np.int64(nodes[child, NEXT])
    return -1


@inline
def _element(parent: int, index: int, nodes: Int32) -> int:
    """The child of `parent` that stands for this place of an array; -1 if there is none."""
    if parent < 0:
        return -1
    child = np.int64(nodes[parent, CHILD])
    while child >= 0:
        if nodes[child, INDEX] == index:
            return child
        child = np.int64(nodes[child, NEXT])
    return -1


@inline
def _event(events: Int64, counters: Int64, kind: int, row: int, argument: int, start: int, stop: int) -> None:
    n = counters[N_EVENTS]
    events[n, 0], events[n, 1], events[n, 2], events[n, 3], events[n, 4] = kind, row, argument, start, stop
    counters[N_EVENTS] = n + 1


@inline
def _clear(
    node: int,
    row: int,
    nodes: Int32,
    actions: Int32,
    value: Float64,
    quality: Bytes,
    time_state: Bytes,
    spans: Int64,
) -> None:
    """Forget what a frame said so far at a node and below: its member stands a second time."""
    for a in range(nodes[node, ACT], nodes[nodes[node, END] - 1, ACT_END]):
        argument = actions[a, 1]
        if actions[a, 0] == METRIC:
            value[argument, row] = np.nan
            quality[argument, row] = ABSENT
        elif actions[a, 0] == TIME:
            time_state[argument, row] = TIME_NONE
        else:
            spans[argument, row, 0] = -1


@inline
def _unknown(
    payload: Bytes, start: int, stop: int, escaped: int, row: int, unknown: Int64, counters: Int64
) -> None:
    """Count an undeclared metric; unknown: int64[UNKNOWN + 1, 6] of (hash, count, start, stop,
    last frame, escaped), the last row for what finds no place."""
    code = hash_bytes(payload, start, stop)
    at = code & (UNKNOWN - 1)
    for _ in range(UNKNOWN):
        if unknown[at, 1] == 0:
            unknown[at, 0], unknown[at, 2], unknown[at, 3] = code, start, stop
            unknown[at, 4], unknown[at, 5] = -1, escaped
            counters[N_UNKNOWN] += 1
        if unknown[at, 0] == code:
            break
        at = (at + 1) & (UNKNOWN - 1)
    if unknown[at, 0] != code:
        at = UNKNOWN
    if unknown[at, 4] != row or unknown[at, 1] == 0:
        unknown[at, 1] += 1
        unknown[at, 4] = row


@kernel
def walk(
    payload: Bytes,
    offset: Int64,
    length: Int64,
    begin: int,
    nodes: Int32,
    keys: Bytes,
    actions: Int32,
    guess: Int32,
    column_type: Bytes,
    time_unit: Bytes,
    depth_limit: int,
    most: int,
    powers: UInt64,
    tens: Float64,
    words: Bytes,
    value: Float64,
    quality: Bytes,
    times: Int64,
    time_state: Bytes,
    time_place: Int64,
    spans: Int64,
    status: Int32,
    place: Int64,
    why: Bytes,
    unknown_frame: Bytes,
    events: Int64,
    counters: Int64,
    seen: Int64,
    unknown: Int64,
    stamps: Int64,
    stack: Int64,
    scratch: Bytes,
    one: UInt64,
) -> int:
    """Walk the frames begin..R; returns the first frame not walked (R, or where `events` is nearly
    full: handle the events, set N_EVENTS to 0, and call again).

    payload uint8[B]; offset, length int64[R]. nodes int32[K, NODE_WIDTH], keys uint8, actions
    int32[A, 2] (grouped by node, in preorder), guess int32[K, 2] (first child, next sibling that
    came last time; changed here). most: the largest number of actions of one node, at least 1; `events`
    has room for one frame's values times that. column_type uint8[C]; time_unit uint8[2].
    Out: value float64[C, R] (to be given as NaN), quality uint8[C, R] (as ABSENT); times int64[2, R]
    and time_state uint8[2, R] (as TIME_NONE), time_place int64[2, R]; spans int64[2, R, 3] first
    byte (as -1), byte after the last, SPAN_*;
    status int32[R] (as 0), place int64[R] (as -1), why uint8[R] into WHY;
    unknown_frame uint8[R] (as 0). counters int64[3]; seen int64[SEEN] (as -1) texts already told;
    stamps int64[K] (as 0 once); stack int64[depth_limit + 2, 3]; scratch uint8[S] for names.

    What every frame meets is written out here and not in helpers: a call that takes arrays counts
    references to each of them, atomically, which made numbers alone twice as dear as the rest.
    """
    rows = offset.shape[0]
    for row in range(begin, rows):
        if counters[N_EVENTS] + (length[row] // 2 + 2) * most > events.shape[0]:
            return row
        start = offset[row]
        end = start + length[row]
        if end == start:
            status[row] = _EMPTY
            continue
        high = np.uint8(0)
        for k in range(start, end):
            high |= payload[U(k)]
        if high >= 0x80:
            wrong = invalid_utf8(payload, start, end)
            if wrong >= 0:
                status[row], place[row], why[row] = _ENCODING, wrong - start, W_UTF8
                continue
        counters[STAMP] += 1
        stamp = counters[STAMP]
        p = start
        depth = 0
        node = 0
        expected = -1
        in_object = False
        no_object = -1
        bad = 0
        reason = _MALFORMED
        while p < end and _blank(payload[U(p)]):
            p += 1
        while True:
            if in_object:  # a name, ':' and blanks
                if p >= end or payload[U(p)] != 34:
                    bad = W_KEY
                    break
                p += 1
                parent = stack[U(depth), 0]
                node = -1
                if parent >= 0:
                    if expected >= 0:
                        size = np.int64(nodes[U(expected), KEY_LEN])
                        if p + size < end and payload[U(p + size)] == 34:
                            first = np.int64(nodes[U(expected), KEY_AT])
                            k = 0
                            while k < size and payload[U(p + k)] == keys[U(first + k)]:
                                k += 1
                            if k == size:
                                node = expected
                                p += size + 1
                    if node < 0:
                        stop, escaped, wrong = _scan_text(payload, p, end)
                        if escaped < 0:
                            p, bad = stop, wrong
                            break
                        if escaped == 0:
                            node = _member(payload, p, stop - p, parent, nodes, keys)
                        else:
                            size = _unescape(payload, p, stop, scratch)
                            node = _member(scratch, 0, size, parent, nodes, keys) if size >= 0 else -1
                        if node >= 0:
                            learned = node if nodes[U(node), PLAIN] != 0 else -1
                            if stack[U(depth), 2] >= 0:
                                guess[stack[U(depth), 2], 1] = learned
                            else:
                                guess[parent, 0] = learned
                        elif nodes[U(parent), CONTAINER] != 0:
                            _unknown(payload, p, stop, escaped, row, unknown, counters)
                            unknown_frame[row] = 1
                        p = stop + 1
                    if node >= 0:
                        stack[U(depth), 2] = node
                        expected = np.int64(guess[node, 1])
                        if stamps[node] == stamp:
                            _clear(node, row, nodes, actions, value, quality, time_state, spans)
                        stamps[node] = stamp
                else:
                    stop, escaped, wrong = _scan_text(payload, p, end)
                    if escaped < 0:
                        p, bad = stop, wrong
                        break
                    p = stop + 1
                while p < end and _blank(payload[U(p)]):
                    p += 1
                if p >= end or payload[U(p)] != 58:
                    bad = W_COLON
                    break
                p += 1
                while p < end and _blank(payload[U(p)]):
                    p += 1
            # a value
            if p >= end:
                bad = W_END
                break
            c = payload[U(p)]
            at = p
            act, act_end = 0, 0
            if node >= 0:
                act, act_end = np.int64(nodes[U(node), ACT]), np.int64(nodes[U(node), ACT_END])
            if 48 <= c <= 57 or c == 45:
                negative = c == 45
                if negative:
                    p += 1
                    if p >= end or payload[U(p)] < 48 or payload[U(p)] > 57:
                        bad = W_NUMBER
                        if _is(payload, p, end, words[16:24]):
                            bad, reason, p = W_NAN, _BAD_NUMBER, at
                        break
                digits = np.int64(0)
                count = 0
                power = 0
                zero = payload[U(p)] == 48
                while p < end and 48 <= payload[U(p)] <= 57:
                    if count < 18:
                        digits = digits * 10 + (np.int64(payload[U(p)]) - 48)
                        if digits != 0:
                            count += 1
                    else:
                        count += 1
                        power += 1
                    p += 1
                if zero and p - at - (1 if negative else 0) > 1:
                    bad, p = W_NUMBER, at
                    break
                if p < end and payload[U(p)] == 46:
                    p += 1
                    first = p
                    while p < end and 48 <= payload[U(p)] <= 57:
                        if count < 18:
                            digits = digits * 10 + (np.int64(payload[U(p)]) - 48)
                            if digits != 0:
                                count += 1
                            power -= 1
                        else:
                            count += 1
                        p += 1
                    if p == first:
                        bad, p = W_NUMBER, at
                        break
                if p < end and (payload[U(p)] | 32) == 101:
                    p += 1
                    minus = False
                    if p < end and (payload[U(p)] == 43 or payload[U(p)] == 45):
                        minus = payload[U(p)] == 45
                        p += 1
                    first = p
                    exponent = np.int64(0)
                    while p < end and 48 <= payload[U(p)] <= 57:
                        if exponent < 1_000_000_000:
                            exponent = exponent * 10 + (np.int64(payload[U(p)]) - 48)
                        p += 1
                    if p == first:
                        bad, p = W_NUMBER, at
                        break
                    power += -exponent if minus else exponent
                if digits != 0 and min(count, 18) + power > 309:
                    bad, reason, p = W_OVERFLOW, _BAD_NUMBER, at
                    break
                if act == act_end:
                    if digits != 0 and min(count, 18) + power > 300:
                        _event(events, counters, OVERFLOW, row, 0, at, p)
                else:
                    number = np.nan
                    if digits == 0:
                        number = 0.0
                    elif count <= 18:
                        if digits <= 9007199254740992 and -22 <= power <= 22:
                            if power < 0:
                                number = np.float64(digits) / tens[-power]
                            else:
                                number = np.float64(digits) * tens[power]
                        else:
                            number = eisel_lemire(digits, power, powers, one)
                    if negative:
                        number = -number
                    for a in range(act, act_end):
                        argument = np.int64(actions[a, 1])
                        if actions[a, 0] == METRIC:
                            takes = column_type[argument]
                            if takes in (BOOLEAN, STRING):
                                quality[argument, row] = TYPE_BREACH
                                if number != number:
                                    _event(events, counters, OVERFLOW, row, 0, at, p)
                            elif number != number:
                                quality[argument, row] = SLOW
                                _event(events, counters, SLOW_NUMBER, row, argument, at, p)
                            else:
                                value[argument, row] = number
                                quality[argument, row] = GOOD
                        elif actions[a, 0] == TIME:
                            if number != number:
                                _event(events, counters, OVERFLOW, row, 0, at, p)
                            if count > 18:
                                _event(events, counters, SLOW_TIME, row, argument, at, p)
                                time_state[argument, row] = TIME_SLOW
                            else:
                                times[argument, row] = number_time(
                                    negative, digits, power, np.int64(time_unit[argument])
                                )
                                time_state[argument, row] = TIME_GOOD
                        else:
                            if number != number:
                                _event(events, counters, OVERFLOW, row, 0, at, p)
                            spans[argument, row, 0], spans[argument, row, 1] = at, p
                            spans[argument, row, 2] = SPAN_SCALAR
            elif c == 34:
                p += 1
                stop, escaped = p, 0
                while (
                    stop < end
                    and payload[U(stop)] >= 32
                    and payload[U(stop)] != 34
                    and payload[U(stop)] != 92
                ):
                    stop += 1
                if stop >= end or payload[U(stop)] != 34:
                    stop, escaped, wrong = _scan_text(payload, p, end)
                    if escaped < 0:
                        p, bad = stop, wrong
                        break
                for a in range(act, act_end):
                    argument = np.int64(actions[a, 1])
                    if actions[a, 0] == METRIC:
                        if column_type[argument] != STRING:
                            quality[argument, row] = TYPE_BREACH
                        elif escaped:
                            quality[argument, row] = SLOW
                            _event(events, counters, ESCAPED_TEXT, row, argument, at, stop + 1)
                        else:
                            code = hash_bytes(payload, p, stop)
                            value[argument, row] = np.float64(code)
                            quality[argument, row] = GOOD
                            if seen[code & (SEEN - 1)] != code:
                                seen[code & (SEEN - 1)] = code
                                _event(events, counters, NEW_TEXT, row, argument, p, stop)
                    elif actions[a, 0] == TIME:
                        good, ns = iso_time(payload, p, stop)
                        times[argument, row] = ns
                        time_state[argument, row] = TIME_GOOD if good else TIME_BAD
                        time_place[argument, row] = at - start
                    else:
                        spans[argument, row, 0], spans[argument, row, 1] = p, stop
                        spans[argument, row, 2] = SPAN_TEXT + escaped
                p = stop + 1
            elif c == 123 or c == 91:
                if depth >= depth_limit:
                    bad, reason = W_DEEP, _TOO_DEEP
                    break
                if node >= 0:
                    if (
                        c == 91
                        and no_object < 0
                        and (
                            nodes[U(node), CONTAINER] != 0
                            or (
                                depth == 0
                                and nodes[U(0), CHILD] >= 0
                                and nodes[nodes[U(0), CHILD], INDEX] < 0
                            )
                        )
                    ):
                        no_object = at
                    for a in range(act, act_end):
                        argument = np.int64(actions[a, 1])
                        if actions[a, 0] == METRIC:
                            quality[argument, row] = TYPE_BREACH
                        elif actions[a, 0] == TIME:
                            time_state[argument, row] = TIME_BAD
                            time_place[argument, row] = at - start
                depth += 1
                stack[U(depth), 0] = node
                stack[U(depth), 2] = -1
                p += 1
                while p < end and _blank(payload[U(p)]):
                    p += 1
                if c == 123:
                    stack[U(depth), 1] = -1
                    if p >= end or payload[U(p)] != 125:
                        in_object = True
                        expected = np.int64(guess[node, 0]) if node >= 0 else -1
                        continue
                else:
                    stack[U(depth), 1] = 0
                    if p >= end or payload[U(p)] != 93:
                        in_object = False
                        node = _element(node, 0, nodes)
                        continue
            else:
                if c == 116 and _is(payload, p, end, words[0:4]):
                    p += 4
                    truth = 1.0
                elif c == 102 and _is(payload, p, end, words[4:9]):
                    p += 5
                    truth = 0.0
                elif c == 110 and _is(payload, p, end, words[9:13]):
                    p += 4
                    truth = np.nan
                else:
                    bad = W_VALUE
                    if _is(payload, p, end, words[13:16]) or _is(payload, p, end, words[16:24]):
                        bad, reason = W_NAN, _BAD_NUMBER
                    break
                for a in range(act, act_end):
                    argument = np.int64(actions[a, 1])
                    if actions[a, 0] == METRIC:
                        if truth != truth:
                            quality[argument, row] = BAD
                        elif column_type[argument] == BOOLEAN or column_type[argument] == ANY:
                            value[argument, row] = truth
                            quality[argument, row] = GOOD
                        else:
                            quality[argument, row] = TYPE_BREACH
                    elif actions[a, 0] == TIME and truth == truth:
                        time_state[argument, row] = TIME_BAD
                        time_place[argument, row] = at - start
            # behind a value
            if (
                c != 123
                and no_object < 0
                and (
                    (node >= 0 and c != 91 and c != 110 and nodes[U(node), CONTAINER] != 0)
                    or (depth == 0 and nodes[0, CHILD] >= 0)
                )
            ):
                no_object = at
            done = False
            while True:
                while p < end and _blank(payload[U(p)]):
                    p += 1
                if depth == 0:
                    done = True
                    if p < end:
                        bad = W_MORE
                    break
                in_object = stack[U(depth), 1] < 0
                if p < end and payload[U(p)] == 44:
                    p += 1
                    while p < end and _blank(payload[U(p)]):
                        p += 1
                    if not in_object:
                        stack[U(depth), 1] += 1
                        node = _element(stack[U(depth), 0], stack[U(depth), 1], nodes)
                    break
                if p >= end or payload[U(p)] != (125 if in_object else 93):
                    done = True
                    bad = W_OBJECT if in_object else W_ARRAY
                    break
                p += 1
                depth -= 1
                if depth > 0 and stack[U(depth), 1] < 0:
                    expected = np.int64(guess[stack[U(depth), 2], 1]) if stack[U(depth), 2] >= 0 else -1
            if done:
                break
        if bad == 0 and no_object >= 0:
            bad, p = W_NO_OBJECT, no_object
        if bad != 0:
            if bad == W_SURROGATE:
                reason = _ENCODING
            status[row], place[row], why[row] = reason, p - start, bad
    return rows


@kernel
def read_iso_time(text: Bytes) -> tuple[bool, int]:
    """`iso_time` of a whole text, uint8[B]."""
    return iso_time(text, 0, text.shape[0])
