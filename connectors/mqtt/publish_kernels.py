"""PUBLISH packets (MQTT 3.1.1 and 5, section 3.3 of each) out of a socket's bytes, as columns."""

from __future__ import annotations

import numpy as np

from connectors.journal.merge_kernels import packed_hash
from operators.batch import Bytes, Int32, Int64, UInt32, UInt64
from operators.jit import inline, kernel

# places of `state` in `split_publishes`
AT, NEED, ROWS, PAYLOAD, ACKS, HERE, KNOWN, ARENA_USED, REPEATS = range(9)
PLACES = 9

# what `split_publishes` stops at
MORE = 0  # a packet that is not whole; state[NEED]: its bytes, 0 where not known yet
OTHER = 1  # a whole packet of another type; state[NEED]: its bytes
SINGLE = 2  # a PUBLISH that is not for the kernel: large, or an address of its own size
FULL = 3  # a column or the table of addresses is full
MALFORMED = 4

PUBLISH = 3
FLAG_RETAIN = 1
_CONTENT_TYPE = 0x03
_USER_PROPERTY = 0x26
_TOPIC_ALIAS = 0x23
KEY_BYTES = 60_000  # of an address; longer ones are rare enough for Python


@inline
def property_end(data: Bytes, at: int, end: int) -> int:
    """Where the property at `at` ends; -1 where it is none of a PUBLISH, or cut."""
    code = data[at]
    at += 1
    if code == 0x01:
        at += 1
    elif code == _TOPIC_ALIAS:
        at += 2
    elif code == 0x02:
        at += 4
    elif code == 0x0B:
        for n in range(4):
            if at >= end:
                return -1
            at += 1
            if data[at - 1] < 128:
                break
            if n == 3:
                return -1
    elif code in (_CONTENT_TYPE, 0x08, 0x09, _USER_PROPERTY):
        for _ in range(2 if code == _USER_PROPERTY else 1):
            if at + 2 > end:
                return -1
            at += 2 + (int(data[at]) << 8 | int(data[at + 1]))
    else:
        return -1
    return at if at <= end else -1


@inline
def address_number(
    data: Bytes,
    start: np.int64,
    size: np.int64,
    code: np.uint64,
    slots: Int32,
    hashes: UInt64,
    ends: Int64,
    arena: Bytes,
    state: Int64,
) -> int:
    """The number of the address in data[start:start + size], a new one if need be; -1: no room."""
    mask = len(slots) - 1
    slot = np.int64(code & np.uint64(mask))
    number = np.int64(slots[slot])
    while number >= 0:
        if hashes[number] == code and ends[number + 1] - ends[number] == size:
            same = True
            base = ends[number]
            for n in range(size):
                if data[start + n] != arena[base + n]:
                    same = False
                    break
            if same:
                return int(number)
        slot = (slot + 1) & mask
        number = np.int64(slots[slot])
    number = state[KNOWN]
    used = state[ARENA_USED]
    if number == len(hashes) or used + size > len(arena):
        return -1
    slots[slot] = number
    hashes[number] = code
    arena[used : used + size] = data[start : start + size]
    ends[number + 1] = used + size
    state[KNOWN] = number + 1
    state[ARENA_USED] = used + size
    return int(number)


@kernel
def split_publishes(
    data: Bytes,
    end: int,
    version5: bool,
    limit: int,
    largest: int,
    held: UInt64,
    aliases: Bytes,
    alias_size: Int64,
    slots: Int32,
    hashes: UInt64,
    ends: Int64,
    arena: Bytes,
    local: Int32,
    numbers: Int64,
    scratch: Bytes,
    payload: Bytes,
    lengths: UInt32,
    where: UInt32,
    flags: Bytes,
    mids: Int64,
    marks: UInt64,
    of_row: Int64,
    state: Int64,
) -> int:
    """Take whole PUBLISH packets of data[state[AT]:end] and stop at what is none, with the reason
    (see above); state[AT] is then the beginning of the first packet not taken.

    limit: bytes of a payload, largest: of a packet; what is larger is SINGLE.
    held: uint64[65536] content mark by packet id of the messages that were taken and are not
    acknowledged, 0 for none; a repeat (DUP) of one becomes no row, only its id again.
    aliases: 65536 bytes for each topic alias from 1, alias_size int64[aliases + 1], -1 for none.
    Addresses: as 2 bytes of topic length, topic, then the properties that are headers; slots
    int32[2^k] (-1 free), hashes, ends, arena by number, local int32 of -1, numbers: those of the batch.
    Out, from state[ROWS] and state[ACKS] on: payload (back to back), lengths, where (into numbers),
    flags by row; packet ids and content marks of what is to be acknowledged, and its row, -1 for a repeat.
    """
    while True:
        at = state[AT]
        state[NEED] = 0
        if end - at < 2:
            return MORE
        kind = data[at]
        remaining = np.int64(0)
        body = at + 1
        shift = 0
        whole = False
        while body < end and shift < 28:
            byte = np.int64(data[body])
            remaining |= (byte & 127) << shift
            shift += 7
            body += 1
            if byte < 128:
                whole = True
                break
        if not whole:
            return MALFORMED if shift == 28 else MORE
        stop = body + remaining
        state[NEED] = stop - at
        if kind >> 4 != PUBLISH:
            return OTHER if stop <= end else MORE
        if stop - at > largest:
            return SINGLE
        if stop > end:
            return MORE
        qos = kind >> 1 & 3
        if qos > 1 or remaining < 2:
            return MALFORMED
        topic_size = np.int64(data[body]) << 8 | np.int64(data[body + 1])
        begin = body + 2 + topic_size
        if begin + 2 * qos > stop:
            return MALFORMED
        mid = np.int64(0)
        if qos == 1:
            mid = np.int64(data[begin]) << 8 | np.int64(data[begin + 1])
            begin += 2
            if mid == 0:
                return MALFORMED
        key, key_size = np.int64(body), np.int64(2) + topic_size
        slow = False
        if version5:
            if begin >= stop:
                return MALFORMED
            size = np.int64(0)
            shift = 0
            whole = False
            while begin < stop and shift < 28:
                byte = np.int64(data[begin])
                size |= (byte & 127) << shift
                shift += 7
                begin += 1
                if byte < 128:
                    whole = True
                    break
            properties_end = begin + size
            if not whole or properties_end > stop:
                return MALFORMED
            if size or topic_size == 0:
                alias = np.int64(0)
                kept = 0
                place = begin
                while place < properties_end:
                    following = property_end(data, place, properties_end)
                    if following < 0:
                        return MALFORMED
                    if data[place] == _TOPIC_ALIAS:
                        alias = np.int64(data[place + 1]) << 8 | np.int64(data[place + 2])
                        if alias == 0 or alias >= len(alias_size):
                            return MALFORMED
                    elif data[place] == _CONTENT_TYPE or data[place] == _USER_PROPERTY:
                        kept += following - place
                    place = following
                if alias > 0 and topic_size > 0:
                    alias_size[alias] = topic_size
                    base = (alias - 1) * 65536
                    aliases[base : base + topic_size] = data[body + 2 : body + 2 + topic_size]
                if topic_size == 0:
                    if alias == 0 or alias_size[alias] < 0:
                        return MALFORMED
                    topic_size = alias_size[alias]
                    slow = True
                if 2 + topic_size + kept > KEY_BYTES:
                    return SINGLE
                if slow or kept:
                    slow = True
                    scratch[0], scratch[1] = topic_size >> 8, topic_size & 255
                    if alias > 0:
                        base = (alias - 1) * 65536
                        scratch[2 : 2 + topic_size] = aliases[base : base + topic_size]
                    else:
                        scratch[2 : 2 + topic_size] = data[body + 2 : body + 2 + topic_size]
                    key_size = 2 + topic_size
                    place = begin
                    while place < properties_end:
                        following = property_end(data, place, properties_end)
                        if data[place] == _CONTENT_TYPE or data[place] == _USER_PROPERTY:
                            for n in range(place, following):
                                scratch[key_size] = data[n]
                                key_size += 1
                        place = following
            begin = properties_end
        elif topic_size == 0:
            return MALFORMED
        if key_size > KEY_BYTES or stop - begin > limit:
            return SINGLE
        length = stop - begin
        row, used, acks = state[ROWS], state[PAYLOAD], state[ACKS]
        if row == len(lengths) or acks == len(mids) or (row > 0 and used + length > len(payload)):
            return FULL
        if slow:
            code = packed_hash(scratch, np.int64(0), key_size, np.uint64(0x5EED))
        else:
            code = packed_hash(data, key, key_size, np.uint64(0x5EED))
        if qos == 1:
            mark = packed_hash(data, begin, length, code) | np.uint64(1)
            if kind & 8 and held[mid] == mark:
                mids[acks], marks[acks], of_row[acks] = mid, mark, -1
                state[ACKS] = acks + 1
                state[REPEATS] += 1
                state[AT] = stop
                continue
        if slow:
            number = address_number(scratch, np.int64(0), key_size, code, slots, hashes, ends, arena, state)
        else:
            number = address_number(data, key, key_size, code, slots, hashes, ends, arena, state)
        if number < 0:
            return FULL
        if local[number] < 0:
            local[number] = state[HERE]
            numbers[state[HERE]] = number
            state[HERE] += 1
        if qos == 1:
            mids[acks], marks[acks], of_row[acks] = mid, mark, row
            state[ACKS] = acks + 1
            held[mid] = mark
        payload[used : used + length] = data[begin:stop]
        lengths[row] = length
        where[row] = local[number]
        flags[row] = kind & FLAG_RETAIN
        state[ROWS] = row + 1
        state[PAYLOAD] = used + length
        state[AT] = stop
