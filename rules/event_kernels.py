"""Kernels that write plain events: their hashes, their times and their JSON, a batch at a time.

What an event repeats lies ready in a pool of pieces (`rules.event_pieces`); a kernel puts them one
behind the other, with the times, numbers and hashes in between. Texts are bytes throughout.
"""

from __future__ import annotations

import numpy as np

from operators.batch import Bytes, Int32, Int64, UInt32
from operators.jit import inline, kernel

RAISED, CLEARED, CLOSED = range(3)

# pieces of the plant, in this order, first in the pool ...
(
    HEAD,  # up to the id
    SEAT,  # plant and shard, as the id's hash takes them
    TYPE,  # up to the transition's name
    SOURCE,  # up to the subject's name
    TIME,
    SEQUENCE,
    KEY,
    DATA,  # up to alarm_id
    TRANSITION,
    ONSET,  # up to onset_time
    EVENT_TIME,
    INGEST_TIME,
    STATE,
    QUALITY,
    POSITION,
    MESSAGE,
    END,
    INTERVAL_HEAD,
    INTERVAL_SUBJECT,
    INTERVAL_RAISED,
    INTERVAL_CLEARED,
    INTERVAL_NULL,
    INTERVAL_POSITION,
) = range(23)
# ... those of an alarm, from its own first one on ...
RULE_NAME, RULE_SHOWN, RULE_ID, RULE_FACTS, RULE_SEVERITY, RULE_EVIDENCE, RULE_MESSAGE, RULE_KEYS = range(8)
# ... and those of a device
WHO_NAME, WHO_SHOWN, WHO_FACTS, WHO_INTERVAL = range(4)
WHO_PIECES = 4

ID = 32  # length of an id
STAMP = 24  # of a time

K = np.array(
    [
        *(0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5),
        *(0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174),
        *(0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA),
        *(0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967),
        *(0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85),
        *(0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070),
        *(0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3),
        *(0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2),
    ],
    np.uint32,
)
"""Round constants of SHA-256 (FIPS 180-4, section 4.2.2)."""


@inline
def _piece(pool: Bytes, bounds: Int64, number: int, out: Bytes, at: int) -> int:
    """Copy one piece of the pool; where it ends in `out`."""
    for i in range(bounds[number], bounds[number + 1]):
        out[at] = pool[i]
        at += 1
    return at


@inline
def _element(text: Bytes, bounds: Int64, number: int, out: Bytes, at: int) -> int:
    """Copy one element of a JSON array (`split_values`); where it ends in `out`."""
    for i in range(bounds[number], bounds[number + 1] - 1):
        out[at] = text[i]
        at += 1
    return at


@inline
def _digits(out: Bytes, at: int, value: int, width: int) -> int:
    """`value` >= 0 in `width` digits."""
    for i in range(at + width - 1, at - 1, -1):
        tens = value // 10
        out[i] = 48 + value - tens * 10
        value = tens
    return at + width


@inline
def _number(out: Bytes, at: int, value: int) -> int:
    """`value` >= 0 in as many digits as it has."""
    width, rest = 1, value // 10
    while rest:
        width += 1
        rest //= 10
    return _digits(out, at, value, width)


@inline
def stamp(out: Bytes, at: int, ns: int) -> int:
    """`2026-03-01T09:00:00.000Z` of a time from 1970 on, cut down to milliseconds."""
    ms = ns // 1_000_000
    day = ms // 86_400_000
    ms -= day * 86_400_000
    # civil date of a day number: eras of 400 years that begin on 1 March of year 0
    day += 719_468
    era = day // 146_097
    of_era = day - era * 146_097
    years = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * years + years // 4 - years // 100)
    month = (5 * of_year + 2) // 153
    at = _digits(out, at, years + era * 400 + (1 if month >= 10 else 0), 4)
    out[at] = 45
    at = _digits(out, at + 1, month - 9 if month >= 10 else month + 3, 2)
    out[at] = 45
    at = _digits(out, at + 1, of_year - (153 * month + 2) // 5 + 1, 2)
    out[at] = 84
    at = _digits(out, at + 1, ms // 3_600_000, 2)
    out[at] = 58
    at = _digits(out, at + 1, ms // 60_000 % 60, 2)
    out[at] = 58
    at = _digits(out, at + 1, ms // 1000 % 60, 2)
    out[at] = 46
    at = _digits(out, at + 1, ms % 1000, 3)
    out[at] = 90
    return at + 1


@inline
def sha256(text: Bytes, length: int, k: UInt32, w: UInt32, out: Bytes, at: int) -> int:
    """The first 32 hex digits of SHA-256 (FIPS 180-4) of text[:length]; `text` has room for its padding,
    72 bytes more. w: uint32[72] scratch."""
    blocks = (length + 8) // 64 + 1
    text[length] = 0x80
    for i in range(length + 1, blocks * 64 - 8):
        text[i] = 0
    bits = length * 8
    for i in range(8):
        text[blocks * 64 - 1 - i] = (bits >> (8 * i)) & 0xFF
    w[64], w[65], w[66], w[67] = 0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A
    w[68], w[69], w[70], w[71] = 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19
    for block in range(blocks):
        start = block * 64
        for i in range(16):
            j = start + 4 * i
            w[i] = (
                (np.uint32(text[j]) << np.uint32(24))
                | (np.uint32(text[j + 1]) << np.uint32(16))
                | (np.uint32(text[j + 2]) << np.uint32(8))
                | np.uint32(text[j + 3])
            )
        for i in range(16, 64):
            x, y = np.uint32(w[i - 15]), np.uint32(w[i - 2])
            s = np.uint32((x >> 7) | (x << 25)) ^ np.uint32((x >> 18) | (x << 14)) ^ np.uint32(x >> 3)
            z = np.uint32((y >> 17) | (y << 15)) ^ np.uint32((y >> 19) | (y << 13)) ^ np.uint32(y >> 10)
            w[i] = np.uint32(np.uint32(s) + np.uint32(z) + w[i - 16] + w[i - 7])
        a, b, c, d = np.uint32(w[64]), np.uint32(w[65]), np.uint32(w[66]), np.uint32(w[67])
        e, f, g, h = np.uint32(w[68]), np.uint32(w[69]), np.uint32(w[70]), np.uint32(w[71])
        for i in range(64):
            s = np.uint32((e >> 6) | (e << 26)) ^ np.uint32((e >> 11) | (e << 21))
            s = np.uint32(s) ^ np.uint32((e >> 25) | (e << 7))
            one = np.uint32(np.uint32(s) + np.uint32((e & f) ^ (~e & g)) + h + k[i] + w[i])
            z = np.uint32((a >> 2) | (a << 30)) ^ np.uint32((a >> 13) | (a << 19))
            z = np.uint32(z) ^ np.uint32((a >> 22) | (a << 10))
            two = np.uint32(np.uint32(z) + np.uint32((a & b) ^ (a & c) ^ (b & c)))
            h, g, f, e = g, f, e, np.uint32(d + one)
            d, c, b, a = c, b, a, np.uint32(one + two)
        w[64], w[65], w[66], w[67] = w[64] + a, w[65] + b, w[66] + c, w[67] + d
        w[68], w[69], w[70], w[71] = w[68] + e, w[69] + f, w[70] + g, w[71] + h
    for i in range(4):
        word = w[64 + i]
        for j in range(8):
            digit = (word >> np.uint32(28 - 4 * j)) & np.uint32(15)
            out[at + 8 * i + j] = digit + (48 if digit < 10 else 87)
    return at + 32


@kernel
def write_events(
    pool: Bytes,
    bounds: Int64,
    transitions: Int32,
    states: Int32,
    qualities: Int32,
    alarm_piece: Int32,
    alarm_values: Int64,
    who_piece: Int32,
    kind: Bytes,
    flags: Bytes,
    quality: Bytes,
    time_ns: Int64,
    onset_ns: Int64,
    ingest_ns: Int64,
    position: Int64,
    sequence: Int64,
    token: Int64,
    tokens: Bytes,
    token_bounds: Int64,
    own_message: Int32,
    messages: Bytes,
    message_bounds: Int64,
    raised: Bytes,
    k: UInt32,
    scratch: Bytes,
    alarm_id: Bytes,
    stamps: Bytes,
    out: Bytes,
    ends: Int64,
) -> None:
    """The lines of events, and of the interval that each begins or ends.

    pool: uint8, bounds: int64[P + 1]: the pieces. transitions, states, qualities: int32, the pieces of the
    transitions' names, of the state for each flags of `rules.lifecycle_table` and of the qualities.
    Of R events: alarm_piece: int32, first piece of the alarm, alarm_values: int64, how many metrics its
    condition has; who_piece: int32, first piece of the device; kind: uint8 (RAISED, CLEARED, CLOSED);
    flags, quality: uint8; time_ns, onset_ns, ingest_ns, position: int64; sequence: int64, position x 2^16
    + n; token: int64, the first of its values among tokens: uint8, token_bounds: int64[V + 1];
    own_message: int32, its row among messages: uint8, message_bounds: int64[M + 1], or -1: its rule's (both
    as `split_values` cuts them);
    raised: uint8[R, 24], raised_time of the interval, all 0 where it has none (ignored for RAISED).
    k: `K`; scratch: uint8, at least 128 longer than any text that is hashed.
    alarm_id: uint8[R, 32], given, but for RAISED, where it is written. stamps: uint8[R, 24], receives the
    event times. out: uint8, ends: int64[2 R]: the event's line and the interval's, each without newline, end
    there.
    """
    w = np.empty(72, np.uint32)
    at = 0
    for row in range(kind.shape[0]):
        alarm, who = alarm_piece[row], who_piece[row]
        length = 0
        if kind[row] == RAISED:
            length = _piece(pool, bounds, alarm + RULE_ID, scratch, 0)
            scratch[length] = 0x1F
            length = _piece(pool, bounds, who + WHO_NAME, scratch, length + 1)
            length = _piece(pool, bounds, alarm + RULE_NAME, scratch, length)
            scratch[length] = 0x1F
            length = _number(scratch, length + 1, onset_ns[row] // 1_000_000)
            sha256(scratch, length, k, w, alarm_id[row], 0)
        length = _piece(pool, bounds, SEAT, scratch, 0)
        length = _piece(pool, bounds, who + WHO_NAME, scratch, length)
        length = _piece(pool, bounds, alarm + RULE_NAME, scratch, length)
        scratch[length] = 0x1F
        length = _digits(scratch, length + 1, sequence[row], 20)
        at = _piece(pool, bounds, HEAD, out, at)
        at = sha256(scratch, length, k, w, out, at)
        at = _piece(pool, bounds, TYPE, out, at)
        at = _piece(pool, bounds, transitions[kind[row]], out, at)
        at = _piece(pool, bounds, SOURCE, out, at)
        at = _piece(pool, bounds, who + WHO_SHOWN, out, at)
        at = _piece(pool, bounds, alarm + RULE_SHOWN, out, at)
        at = _piece(pool, bounds, TIME, out, at)
        time_at = at
        at = stamp(out, at, time_ns[row])
        for i in range(STAMP):
            stamps[row, i] = out[time_at + i]
        at = _piece(pool, bounds, SEQUENCE, out, at)
        at = _digits(out, at, sequence[row], 20)
        at = _piece(pool, bounds, KEY, out, at)
        at = _piece(pool, bounds, who + WHO_SHOWN, out, at)
        at = _piece(pool, bounds, alarm + RULE_SHOWN, out, at)
        at = _piece(pool, bounds, DATA, out, at)
        for i in range(ID):
            out[at + i] = alarm_id[row, i]
        at = _piece(pool, bounds, alarm + RULE_FACTS, out, at + ID)
        at = _piece(pool, bounds, who + WHO_FACTS, out, at)
        at = _piece(pool, bounds, TRANSITION, out, at)
        at = _piece(pool, bounds, transitions[kind[row]], out, at)
        at = _piece(pool, bounds, alarm + RULE_SEVERITY, out, at)
        at = _piece(pool, bounds, ONSET, out, at)
        onset_at = at
        at = stamp(out, at, onset_ns[row])
        at = _piece(pool, bounds, EVENT_TIME, out, at)
        for i in range(STAMP):
            out[at + i] = out[time_at + i]
        at = _piece(pool, bounds, INGEST_TIME, out, at + STAMP)
        at = stamp(out, at, ingest_ns[row])
        at = _piece(pool, bounds, STATE, out, at)
        at = _piece(pool, bounds, states[flags[row]], out, at)
        at = _piece(pool, bounds, alarm + RULE_EVIDENCE, out, at)
        for value in range(alarm_values[row]):
            at = _piece(pool, bounds, alarm + RULE_KEYS + value, out, at)
            at = _element(tokens, token_bounds, token[row] + value, out, at)
        at = _piece(pool, bounds, QUALITY, out, at)
        at = _piece(pool, bounds, qualities[quality[row]], out, at)
        at = _piece(pool, bounds, POSITION, out, at)
        at = _number(out, at, position[row])
        at = _piece(pool, bounds, MESSAGE, out, at)
        if own_message[row] >= 0:
            at = _element(messages, message_bounds, own_message[row], out, at)
        else:
            at = _piece(pool, bounds, alarm + RULE_MESSAGE, out, at)
        at = _piece(pool, bounds, END, out, at)
        ends[2 * row] = at
        if kind[row] == RAISED or raised[row, 0]:
            at = _piece(pool, bounds, INTERVAL_HEAD, out, at)
            for i in range(ID):
                out[at + i] = alarm_id[row, i]
            at = _piece(pool, bounds, alarm + RULE_FACTS, out, at + ID)
            at = _piece(pool, bounds, INTERVAL_SUBJECT, out, at)
            at = _piece(pool, bounds, who + WHO_SHOWN, out, at)
            at = _piece(pool, bounds, alarm + RULE_SHOWN, out, at)
            at = _piece(pool, bounds, who + WHO_INTERVAL, out, at)
            at = _piece(pool, bounds, alarm + RULE_SEVERITY, out, at)
            at = _piece(pool, bounds, ONSET, out, at)
            for i in range(STAMP):
                out[at + i] = out[onset_at + i]
            at = _piece(pool, bounds, INTERVAL_RAISED, out, at + STAMP)
            for i in range(STAMP):
                out[at + i] = out[time_at + i] if kind[row] == RAISED else raised[row, i]
            if kind[row] == RAISED:
                at = _piece(pool, bounds, INTERVAL_NULL, out, at + STAMP)
            else:
                at = _piece(pool, bounds, INTERVAL_CLEARED, out, at + STAMP)
                for i in range(STAMP):
                    out[at + i] = out[time_at + i]
                out[at + STAMP] = 34
                at += STAMP + 1
            at = _piece(pool, bounds, INTERVAL_POSITION, out, at)
            at = _number(out, at, position[row])
            out[at] = 125
            at += 1
        ends[2 * row + 1] = at


@kernel
def split_values(text: Bytes, bounds: Int64) -> int:
    """Where the elements of a JSON array of plain values lie: the n-th in text[bounds[n]:bounds[n + 1] - 1],
    so bounds: int64[N + 1] takes `[`'s end first. Returns N; without an element 0."""
    count, inside, at = 0, False, 1
    bounds[0] = 1
    while at < text.shape[0]:
        if inside:
            if text[at] == 92:  # a backslash: what follows is no quote
                at += 1
            elif text[at] == 34:
                inside = False
        elif text[at] == 34:
            inside = True
        elif text[at] == 44 or text[at] == 93:
            count += 1
            bounds[count] = at + 1
        at += 1
    return count


def warm_up() -> None:
    """Compile the kernels for the types of the hot path."""
    text: Bytes = np.frombuffer(b"[1]", np.uint8)
    one: Int64 = np.zeros(0, np.int64)
    i32: Int32 = np.zeros(0, np.int32)
    u8: Bytes = np.zeros(0, np.uint8)
    split_values(text, np.zeros(2, np.int64))
    write_events(
        u8,
        one,
        i32,
        i32,
        i32,
        i32,
        one,
        i32,
        u8,
        u8,
        u8,
        one,
        one,
        one,
        one,
        one,
        one,
        text,
        one,
        i32,
        text,
        one,
        np.frombuffer(b"", np.uint8).reshape(0, STAMP),
        K,
        u8,
        np.zeros((0, ID), np.uint8),
        np.zeros((0, STAMP), np.uint8),
        u8,
        one,
    )
