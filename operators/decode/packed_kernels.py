"""Whether a frame is one whole MessagePack or CBOR value that a decoder may be given: lengths within
the frame, nesting within bounds, keys that JSON has, numbers that are numbers.

MessagePack: the format's specification (github.com/msgpack/msgpack/blob/master/spec.md); CBOR: RFC 8949.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from operators.batch import Bytes, Int32, Int64
from operators.jit import inline, kernel

# what is wrong with a frame
CUT, DEEP, BEHIND, NO_VALUE, NO_KEY, NO_NUMBER, NO_TAG, CHUNK = 1, 2, 3, 4, 5, 6, 7, 8
WHY: Final = (
    "",
    "the frame ends within the value that begins",
    "nested too deeply",
    "the value is over, but bytes follow",
    "no value begins",
    "a map's key is neither a text nor a whole number,",
    "NaN, an infinity or a number beyond a double",
    "a tagged time or number is not what its tag says",
    "a string's part is no string of its kind",
)

LONGEST_NUMBER = 128  # bytes of a big number: 2**1024 is beyond a double
MAP = np.int64(1) << np.int64(62)  # flag in a stack's count: keys and values in turn
OPEN = np.int64(1) << np.int64(61)  # flag: of unknown length, until a break
COUNT = OPEN - np.int64(1)


@inline
def big_endian(payload: Bytes, at: int, size: int) -> np.uint64:
    """`size` bytes as an unsigned number."""
    value = np.uint64(0)
    for i in range(size):
        value = value << np.uint64(8) | np.uint64(payload[at + i])
    return value


@inline
def endless(payload: Bytes, at: int, size: int) -> bool:
    """Whether the IEEE 754 number of 2, 4 or 8 bytes is NaN or infinite."""
    if size == 2:
        return bool(payload[at] & 0x7C == 0x7C)
    if size == 4:
        return bool(payload[at] & 0x7F == 0x7F and payload[at + 1] & 0x80 != 0)
    return bool(payload[at] & 0x7F == 0x7F and payload[at + 1] & 0xF0 == 0xF0)


@kernel
def scan_msgpack(
    payload: Bytes,
    offset: Int64,
    length: Int64,
    depth: int,
    stack: Int64,
    why: Bytes,
    place: Int64,
    odd: Bytes,
) -> None:
    """Look through R frames of MessagePack.

    payload: uint8[B]; offset, length: int64[R]; depth: containers within one another that are allowed;
    stack: int64[depth + 1]. why: uint8[R] 0 or one of the codes above; place: int64[R] the byte of
    the frame where; odd: uint8[R] 1 where a value stands in it that JSON does not have.
    """
    for row in range(offset.shape[0]):
        first, stop = offset[row], offset[row] + length[row]
        at, top = first, 0
        stack[0] = np.int64(1)
        wrong = 0
        odd[row] = 0
        here = at
        while top >= 0:
            left = stack[top] & COUNT
            if left == 0:
                top -= 1
                continue
            is_key = stack[top] & MAP != 0 and left % 2 == 0
            stack[top] -= 1
            here = at
            if at >= stop:
                wrong = CUT
                break
            code = payload[at]
            at += 1
            size = np.int64(0)  # bytes that follow
            items = np.int64(-1)  # of a container
            mapped = False
            keyed = False
            header = 0  # bytes of the length
            if code <= 0x7F or code >= 0xE0:
                keyed = True
            elif code <= 0x8F:
                items, mapped = np.int64(code & 0x0F), True
            elif code <= 0x9F:
                items = np.int64(code & 0x0F)
            elif code <= 0xBF:
                size, keyed = np.int64(code & 0x1F), True
            elif code == 0xC1:
                wrong = NO_VALUE
                break
            elif code <= 0xC3:
                pass
            elif code <= 0xC9:
                header = 1 << (code - 0xC4) % 3
                odd[row] = 1
            elif code <= 0xCB:
                size = np.int64(4 if code == 0xCA else 8)
            elif code <= 0xD3:
                size, keyed = np.int64(1 << (code & 3)), True
            elif code <= 0xD8:
                size = np.int64(1 + (1 << (code - 0xD4)))
                odd[row] = 1
            elif code <= 0xDB:
                header, keyed = 1 << (code - 0xD9), True
            else:
                header = 2 << (code & 1)
            if header:
                if at + header > stop:
                    wrong = CUT
                    break
                number = np.int64(big_endian(payload, at, header))
                at += header
                if code >= 0xDC:
                    items, mapped = number, code >= 0xDE
                else:
                    size = number + (1 if 0xC7 <= code <= 0xC9 else 0)
            if size > stop - at:
                wrong = CUT
                break
            if (code == 0xCA or code == 0xCB) and endless(payload, at, int(size)):
                wrong = NO_NUMBER
                break
            if is_key and not keyed:
                wrong = NO_KEY
                break
            at += size
            if items >= 0:
                if items * (2 if mapped else 1) > stop - at:
                    wrong = CUT
                    break
                if top >= depth:
                    wrong = DEEP
                    break
                top += 1
                stack[top] = items * 2 | MAP if mapped else items
        if wrong == 0 and at < stop:
            wrong, here = BEHIND, at
        why[row] = wrong
        place[row] = here - first if wrong else -1


@kernel
def scan_cbor(
    payload: Bytes,
    offset: Int64,
    length: Int64,
    depth: int,
    stack: Int64,
    why: Bytes,
    place: Int64,
    odd: Bytes,
    out: Bytes,
    out_length: Int32,
) -> None:
    """Look through R frames of CBOR; arguments as of `scan_msgpack`.

    out: uint8[sum of length], out_length: int32[R]: the frames one behind the other, without the tags
    that say nothing here. Tags that stay: 1 (time since 1970), 2 and 3 (big numbers), 4 (decimal fraction).
    """
    to = 0
    for row in range(offset.shape[0]):
        first, stop = offset[row], offset[row] + length[row]
        at, top = first, 0
        began = to
        stack[0] = np.int64(1)
        wrong = 0
        odd[row] = 0
        here = at
        while top >= 0:
            left = stack[top] & COUNT
            is_open = stack[top] & OPEN != 0
            if left == 0 and not is_open:
                top -= 1
                continue
            here = at
            if at >= stop:
                wrong = CUT
                break
            if is_open and payload[at] == 0xFF:
                if stack[top] & MAP and left & 1:
                    wrong = NO_VALUE  # a key without a value
                    break
                out[to] = 0xFF
                to += 1
                at += 1
                top -= 1
                continue
            is_key = stack[top] & MAP != 0 and left % 2 == 0
            if is_open:  # counts up, 0 and 1 in turn
                stack[top] ^= np.int64(1)
            else:
                stack[top] -= 1

            tag = 0  # the one that stays
            tagged = False
            major, info, number = 0, 0, np.uint64(0)
            begin = at
            while True:  # tags, then the head of what they are of
                begin = at
                if at >= stop:
                    wrong = CUT
                    break
                major, info = payload[at] >> 5, payload[at] & 0x1F
                at += 1
                number = np.uint64(info)
                if 24 <= info <= 27:
                    size = 1 << (info - 24)
                    if size > stop - at:
                        wrong = CUT
                        break
                    number = big_endian(payload, at, size)
                    at += size
                elif info > 27 and (info != 31 or major < 2 or major > 5):
                    wrong = NO_VALUE
                    break
                if major != 6:
                    break
                if tagged:  # a time or a number has no further tag of its own
                    wrong = NO_TAG
                    break
                if np.uint64(1) <= number <= np.uint64(4):
                    tag, tagged = int(number), True
                    for i in range(begin, at):
                        out[to] = payload[i]
                        to += 1
            if wrong:
                break
            if tagged:
                odd[row] = 1
                fits = (
                    (tag == 1 and (major <= 1 or (major == 7 and 25 <= info <= 27)))
                    or (tag <= 3 and tag >= 2 and major == 2 and info != 31)
                    or (tag == 4 and major == 4 and info == 2)
                )
                if not fits:
                    wrong = NO_TAG
                    break
                if (tag == 2 or tag == 3) and number > np.uint64(LONGEST_NUMBER):
                    wrong = NO_NUMBER
                    break
            if is_key and (tagged or (major != 3 and major > 1)):
                wrong = NO_KEY
                break
            size = np.int64(0)
            items = np.int64(-1)
            if major == 2 or major == 3:
                odd[row] |= major == 2
                if info == 31:
                    end = at  # parts of the same kind, of known length, and a break
                    while True:
                        here = end
                        if end >= stop:
                            wrong = CUT
                            break
                        head = payload[end]
                        end += 1
                        if head == 0xFF:
                            break
                        if head >> 5 != major or head & 0x1F > 27:
                            wrong = CHUNK
                            break
                        part = np.uint64(head & 0x1F)
                        if part >= np.uint64(24):
                            wide = 1 << (int(part) - 24)
                            if wide > stop - end:
                                wrong = CUT
                                break
                            part = big_endian(payload, end, wide)
                            end += wide
                        if part > np.uint64(stop - end):
                            wrong = CUT
                            break
                        end += np.int64(part)
                    if wrong:
                        break
                    here = begin
                    size = end - at
                elif number > np.uint64(stop - at):
                    wrong = CUT
                    break
                else:
                    size = np.int64(number)
            elif major == 4 or major == 5:
                if top >= depth:
                    wrong = DEEP
                    break
                if info == 31:
                    items = OPEN
                else:
                    most = (stop - at) // (2 if major == 5 else 1)
                    if number > np.uint64(most):
                        wrong = CUT
                        break
                    items = np.int64(number) * (2 if major == 5 else 1)
                if major == 5:
                    items |= MAP
            elif major == 7:
                if 25 <= info <= 27:
                    if endless(payload, begin + 1, 1 << (info - 24)):
                        wrong = NO_NUMBER
                        break
                elif info < 20 or info > 23:
                    wrong = NO_VALUE
                    break
                odd[row] |= info == 23
            for i in range(begin, at + size):
                out[to] = payload[i]
                to += 1
            at += size
            if items >= 0:
                top += 1
                stack[top] = items
        if wrong == 0 and at < stop:
            wrong, here = BEHIND, at
        why[row] = wrong
        place[row] = here - first if wrong else -1
        if wrong:
            to = began
        out_length[row] = to - began


def warm_up() -> None:
    """Compile the kernels with the types of the hot path."""
    payload: Bytes = np.zeros(1, np.uint8)
    offset: Int64 = np.zeros(1, np.int64)
    length, stack, place = np.ones(1, np.int64), np.zeros(2, np.int64), np.zeros(1, np.int64)
    why, odd = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
    scan_msgpack(payload, offset, length, 1, stack, why, place, odd)
    out, out_length = np.zeros(1, np.uint8), np.zeros(1, np.int32)
    scan_cbor(payload, offset, length, 1, stack, why, place, odd, out, out_length)
