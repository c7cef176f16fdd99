"""Bytes and bits -> raw values and texts: the reads of `binary_kernels`.

Small and stable, so the kernel of another file calls them (see `operators.jit`). None of them
checks a bound: who calls has done so.
"""

# numba's integers are of one kind, mypy's int and numpy's int64 are two
# mypy: disable-error-code="assignment, arg-type, return-value, no-any-return"

from __future__ import annotations

import math
from typing import Any

import numpy as np

from operators.batch import Bytes, Int64
from operators.decode.exact import ten_to
from operators.jit import inline


@inline
def load(buf: Bytes, at: int, size: int, order: int) -> Any:
    """`size` (1..8) bytes as an unsigned number, in the bits of an int64. order: BE, LE, WS, WSLE."""
    raw = np.uint64(0)
    for j in range(size):
        if order == 0:
            i = j
        elif order == 1:
            i = size - 1 - j
        elif order == 2:
            i = size - 2 - (j & ~1) + (j & 1)
        else:
            i = (j & ~1) + 1 - (j & 1)
        raw = (raw << np.uint64(8)) | np.uint64(buf[at + i])
    return np.int64(raw)


@inline
def load_bits(buf: Bytes, first: int, width: int, lsb: int) -> Any:
    """`width` (1..64) bits from bit `first` of the stream (docs/decode.md, bits)."""
    raw = np.uint64(0)
    if lsb:
        for j in range(width):
            bit = first + j
            raw |= np.uint64((buf[bit >> 3] >> (bit & 7)) & 1) << np.uint64(j)
    else:
        bit = first
        left = width
        while left > 0:
            room = 8 - (bit & 7)
            take = room if room < left else left
            part = (np.int64(buf[bit >> 3]) >> (room - take)) & ((1 << take) - 1)
            raw = (raw << np.uint64(take)) | np.uint64(part)
            bit += take
            left -= take
    return np.int64(raw)


@inline
def as_float(raw: int, size: int) -> float:
    """The value of an IEEE 754 binary16, 32 or 64 whose bits are `raw`."""
    exponent_bits = 5 if size == 2 else (8 if size == 4 else 11)
    fraction_bits = size * 8 - 1 - exponent_bits
    top = (1 << exponent_bits) - 1
    mantissa = raw & ((1 << fraction_bits) - 1)
    exponent = (raw >> fraction_bits) & top
    bias = (top >> 1) + fraction_bits
    if exponent == top:
        return np.nan
    if exponent == 0:
        value = math.ldexp(float(mantissa), int(1 - bias))
    else:
        value = math.ldexp(float(mantissa | (1 << fraction_bits)), int(exponent - bias))
    return -value if (raw >> (size * 8 - 1)) & 1 else value


@inline
def signed_of(raw: int, width: int) -> Any:
    """Two's complement of `width` bits."""
    shift = 64 - width
    return (raw << shift) >> shift


@inline
def unsigned_float(raw: int) -> float:
    """The double nearest to the unsigned number in these 64 bits."""
    if raw >= 0:
        return float(raw)
    return float((raw >> 1) & 0x7FFFFFFFFFFFFFFF | (raw & 1)) * 2.0


@inline
def read_bcd(buf: Bytes, at: int, size: int, order: int) -> float:
    """Two digits a byte, high one first; NaN for a digit above 9. size: at most 9."""
    value = np.int64(0)
    for j in range(size):
        byte = np.int64(buf[at + (size - 1 - j if order == 1 else j)])
        if (byte >> 4) > 9 or (byte & 15) > 9:
            return np.nan
        value = value * 100 + (byte >> 4) * 10 + (byte & 15)
    return float(value)


@inline
def read_number(buf: Bytes, at: int, size: int, hexadecimal: int) -> tuple[float, int]:
    """(value, whole) of a number in ASCII with blanks or NULs around it; NaN if it is none."""
    stop = at + size
    while at < stop and (buf[at] == 32 or buf[at] == 0 or (9 <= buf[at] <= 13)):
        at += 1
    while at < stop and (buf[stop - 1] == 32 or buf[stop - 1] == 0 or (9 <= buf[stop - 1] <= 13)):
        stop -= 1
    negative = False
    if at < stop and hexadecimal == 0 and (buf[at] == 43 or buf[at] == 45):
        negative = buf[at] == 45
        at += 1
    mantissa = np.uint64(0)
    digits = 0
    power = 0
    seen_point = False
    whole = 1
    while at < stop:
        c = np.int64(buf[at])
        if c == 46 and not seen_point and hexadecimal == 0:
            seen_point = True
            whole = 0
            at += 1
            continue
        digit = -1
        if 48 <= c <= 57:
            digit = c - 48
        elif hexadecimal == 1 and 65 <= (c & ~32) <= 70:
            digit = (c & ~32) - 55
        if digit < 0:
            break
        digits += 1
        if mantissa < np.uint64(100000000000000000):
            mantissa = mantissa * np.uint64(16 if hexadecimal == 1 else 10) + np.uint64(digit)
            if seen_point:
                power -= 1
        elif hexadecimal == 1:
            return np.nan, 0
        elif not seen_point:
            power += 1
        at += 1
    if digits == 0:
        return np.nan, 0
    if at < stop and hexadecimal == 0 and (buf[at] == 69 or buf[at] == 101):
        at += 1
        sign = 1
        if at < stop and (buf[at] == 43 or buf[at] == 45):
            sign = -1 if buf[at] == 45 else 1
            at += 1
        exponent = 0
        some = False
        while at < stop and 48 <= buf[at] <= 57:
            if exponent < 10000:
                exponent = exponent * 10 + np.int64(buf[at]) - 48
            some = True
            at += 1
        if not some:
            return np.nan, 0
        power += sign * exponent
        whole = 0
    if at < stop:
        return np.nan, 0
    value = float(mantissa)
    if power > 0:
        value = value * ten_to(power) if power <= 22 else value * 10.0 ** float(power)
    elif power < 0:
        value = value / ten_to(-power) if power >= -22 else value * 10.0 ** float(power)
    return (-value if negative else value), whole


@inline
def make_text(buf: Bytes, at: int, size: int, kind: int, order: int, out: Bytes, start: int) -> int:
    """Write the text (UTF-8) of a field to out[start:]; returns its end, -1 = null, -2 = no room.

    kind 7 hex, 8 ascii (bytes above 127 are Latin-1), 9 dec, 10 bcd.
    """
    if start + 3 * size + 32 > out.shape[0]:
        return -2
    end = start
    if kind == 7:
        for j in range(size):
            byte = np.int64(buf[at + (size - 1 - j if order == 1 else j)])
            for nibble in (byte >> 4, byte & 15):
                out[end] = nibble + 48 if nibble < 10 else nibble + 87
                end += 1
    elif kind == 8:
        for j in range(size):
            byte = np.int64(buf[at + j])
            if byte == 0:
                break
            if byte < 128:
                out[end] = byte
                end += 1
            else:
                out[end] = 0xC0 | (byte >> 6)
                out[end + 1] = 0x80 | (byte & 63)
                end += 2
        while end > start and (out[end - 1] == 32 or 9 <= out[end - 1] <= 13):
            end -= 1
    elif kind == 10:
        done = False
        for j in range(size):
            byte = np.int64(buf[at + (size - 1 - j if order == 1 else j)])
            for nibble in (byte >> 4, byte & 15):
                if nibble == 15:
                    done = True
                if done:
                    break
                if nibble > 9:
                    return -1
                out[end] = nibble + 48
                end += 1
            if done:
                break
    else:
        if size > 64:
            return -1
        number = np.empty(64, np.int64)
        for j in range(size):
            number[j] = buf[at + (size - 1 - j if order == 1 else j)]
        reversed_digits = np.empty(160, np.uint8)
        count = 0
        first = 0
        while True:
            while first < size and number[first] == 0:
                first += 1
            if first == size and count > 0:
                break
            rest = 0
            for j in range(first, size):
                rest = rest * 256 + number[j]
                number[j] = rest // 10
                rest %= 10
            reversed_digits[count] = 48 + rest
            count += 1
        for j in range(count):
            out[end] = reversed_digits[count - 1 - j]
            end += 1
    return end


@inline
def crc_of(buf: Bytes, start: int, stop: int, table: Int64, width: int, reflect: int, init: int) -> Any:
    """The CRC register after bytes start..stop, table-driven (R. Williams, "A painless guide to
    CRC error detection algorithms", 1993); `init` already reflected where `reflect`."""
    crc = np.int64(init)
    if reflect:
        for i in range(start, stop):
            crc = (crc >> 8) ^ table[(crc ^ buf[i]) & 0xFF]
    else:
        mask = (1 << width) - 1
        for i in range(start, stop):
            crc = ((crc << 8) & mask) ^ table[((crc >> (width - 8)) ^ buf[i]) & 0xFF]
    return crc
