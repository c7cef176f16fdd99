"""Framings that find their way back after garbage: fixed sizes, STX ... ETX, Modbus TCP.

Where no frame can begin they go on at the next byte. All bytes that were passed over between two
frames are one `Part` with the reason and the first of them, however the stream was cut.
"""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from collections.abc import Callable
from functools import reduce
from operator import xor
from typing import Final

import numpy as np

from connectors.errors import ConfigError
from connectors.tcp.config import CHECK_BYTES, Fixed, ModbusTcp, StxEtx
from connectors.tcp.parts import HEAD, Part, stream_bytes

LONGEST_TRAILER: Final = 16
MBAP: Final = struct.Struct(">HHHB")  # transaction, protocol (0), length of unit and PDU, unit
MODBUS_LENGTHS: Final = range(2, 255)  # MODBUS Application Protocol V1.1b3, 4.1: a PDU has at most 253 bytes


class Garbage:
    """Bytes in a row that belong to no frame, told once: when a frame follows, when the connection
    ends, or when HEAD of them are there."""

    def __init__(self, why: str) -> None:
        self._why = why
        self._head = bytearray()
        self._told = False

    def take(self, data: bytes | bytearray, parts: list[Part]) -> None:
        """More of it."""
        if self._told:
            return
        self._head += data[: HEAD - len(self._head)]
        if len(self._head) == HEAD:
            self._tell(parts)

    def over(self, parts: list[Part]) -> None:
        """A frame stands here, or the end."""
        if self._head and not self._told:
            self._tell(parts)
        self._head.clear()
        self._told = False

    def _tell(self, parts: list[Part]) -> None:
        parts.append(Part(bytes(self._head), self._why))
        self._told = True


class _Synchronising:
    """What they share: the buffer, its end, and that no garbage ends a connection."""

    def __init__(self, why: str) -> None:
        self._buffer = bytearray()
        self._garbage = Garbage(why)
        self.broken = False

    @property
    def partial(self) -> int:
        return len(self._buffer)

    def end(self, why: str) -> list[Part]:
        parts: list[Part] = []
        self._garbage.over(parts)
        left, self._buffer = self._buffer, bytearray()
        if left:
            parts.append(Part(bytes(left[:HEAD]), f"{why} after {len(left)} bytes of a frame"))
        return parts


class FixedFramer(_Synchronising):
    """Frames of one size. With `sync` a frame begins with these bytes, with `check` its last bytes
    are a checksum of all before them; without both, nothing can be noticed."""

    def __init__(self, config: Fixed, cap: int) -> None:
        super().__init__("no frame begins here")
        self._size = config.size
        try:
            self._sync = bytes.fromhex(config.sync or "")
        except ValueError as error:
            raise ConfigError('framing.sync: bytes in hex are expected, e.g. "AA55"') from error
        least = max(1, len(self._sync) + CHECK_BYTES.get(config.check or "", 0))
        if not least <= self._size <= cap:
            raise ConfigError(f"framing.size: a number from {least} to {cap} is expected")
        self._good: Callable[[bytearray, int], bool] | None = None
        if config.check is not None:
            self._good = _Check(config.check, config.size, config.check_order).good

    def feed(self, data: bytes) -> list[Part]:
        buffer, size, sync, garbage = self._buffer, self._size, self._sync, self._garbage
        buffer += data
        parts: list[Part] = []
        at = 0
        while True:
            if sync and not buffer.startswith(sync, at):
                found = buffer.find(sync, at)
                # the last bytes may be the first of `sync`
                until = found if found >= 0 else max(at, len(buffer) - len(sync) + 1)
                garbage.take(buffer[at:until], parts)
                at = until
                if found < 0:
                    break
            if len(buffer) - at < size:
                break
            if self._good is not None and not self._good(buffer, at):
                garbage.take(buffer[at : at + 1], parts)
                at += 1
                continue
            garbage.over(parts)
            parts.append(Part(bytes(buffer[at : at + size])))
            at += size
        del buffer[:at]
        return parts


class _Check:
    """A checksum at the end of `size` bytes, over all before it."""

    def __init__(self, kind: str, size: int, order: str) -> None:
        self._bytes = CHECK_BYTES[kind]
        self._order = order
        self._body = size - self._bytes
        self._sum: Callable[[bytearray, int], int] = {
            "sum8": lambda buffer, at: sum(buffer[at : at + self._body]) & 0xFF,
            "xor8": lambda buffer, at: int(
                np.bitwise_xor.reduce(np.frombuffer(bytes(buffer[at : at + self._body]), np.uint8))
            ),
            "crc16_ccitt": lambda buffer, at: binascii.crc_hqx(buffer[at : at + self._body], 0xFFFF),
            "crc16_modbus": self._rolling,
            "crc32": lambda buffer, at: zlib.crc32(buffer[at : at + self._body]),
        }[kind]
        if kind == "crc16_modbus":
            # sliding one byte on costs one step and not a window: the CRC is linear, so what the byte
            # that leaves has done to it can be taken away
            zeros = bytes(self._body)
            bits = [_crc16(bytes([1 << bit]) + zeros, 0) for bit in range(8)]
            self._leaves = [
                reduce(xor, (bits[bit] for bit in range(8) if byte >> bit & 1), 0) for byte in range(256)
            ]
            self._begin = _crc16(zeros, 0xFFFF)
            self._last: tuple[int, bytes] | None = None  # the last window's CRC from 0, and the window

    def good(self, buffer: bytearray, at: int) -> bool:
        """Whether the window at `at`, which is whole, ends with its checksum."""
        told = buffer[at + self._body : at + self._body + self._bytes]
        return int.from_bytes(told, "little" if self._order == "le" else "big") == self._sum(buffer, at)

    def _rolling(self, buffer: bytearray, at: int) -> int:
        body = bytes(buffer[at : at + self._body])
        last = self._last
        if last is not None and last[1][1:] == body[:-1]:
            crc = last[0]
            crc = (crc >> 8) ^ _CRC16[(crc ^ body[-1]) & 0xFF] ^ self._leaves[last[1][0]]
        else:
            crc = _crc16(body, 0)
        self._last = crc, body
        return crc ^ self._begin


class StxEtxFramer(_Synchronising):
    """Frames between two bytes. A new STX before ETX begins again; the byte behind an escape is itself."""

    def __init__(self, config: StxEtx, cap: int) -> None:
        super().__init__("bytes outside of STX and ETX, or without an ETX")
        marks = [stream_bytes("stx", config.stx), stream_bytes("etx", config.etx)]
        escape = b"" if config.escape is None else stream_bytes("escape", config.escape)
        self._stx, self._etx = marks
        if any(len(mark) != 1 for mark in (*marks, escape or b"\0")) or len({*marks, escape}) < 3:
            raise ConfigError("framing: stx, etx and escape are one byte each, and differ")
        if not 0 <= config.trailer <= LONGEST_TRAILER:
            raise ConfigError(f"framing.trailer: a number from 0 to {LONGEST_TRAILER} is expected")
        either = b"|".join(map(re.escape, marks))
        escaped = re.escape(escape) + b"." if escape else b""
        self._tokens = re.compile(b"(?s)" + (escaped + b"|" if escape else b"") + either)
        self._unescape = re.compile(b"(?s)" + re.escape(escape) + b"(.)") if escape else None
        self._hold = 1 if escape else 0
        self._between = stream_bytes("between", config.between)
        self._trailer, self._keep = config.trailer, config.keep
        self._cap = cap
        self._raw_cap = cap * 2 if escape else cap
        self._inside = False
        self._scanned = 0

    @property
    def partial(self) -> int:
        return len(self._buffer) if self._inside else 0

    def feed(self, data: bytes) -> list[Part]:
        buffer, garbage = self._buffer, self._garbage
        buffer += data
        parts: list[Part] = []
        at = 0  # of the STX, while inside
        while True:
            if not self._inside:
                found = buffer.find(self._stx, at)
                until = found if found >= 0 else len(buffer)
                garbage.take(bytes(buffer[at:until]).translate(None, self._between), parts)
                at = until
                if found < 0:
                    break
                self._inside, self._scanned = True, at + 1
            token = self._tokens.search(buffer, self._scanned)
            most = at + 1 + self._raw_cap
            if (len(buffer) if token is None else token.start()) > most:
                garbage.take(buffer[at:most], parts)
                self._inside, at = False, most
                continue
            if token is None:
                self._scanned = max(self._scanned, len(buffer) - self._hold)
                break
            place = token.start()
            if buffer.startswith(self._stx, place):
                garbage.take(buffer[at:place], parts)
                at, self._scanned = place, place + 1
            elif buffer.startswith(self._etx, place):
                behind = place + 1 + self._trailer
                if len(buffer) < behind:
                    self._scanned = place
                    break
                self._frame(buffer, at, place, behind, parts)
                self._inside, at = False, behind
            else:
                self._scanned = token.end()
        del buffer[:at]
        self._scanned -= at
        return parts

    def _frame(self, buffer: bytearray, at: int, etx: int, behind: int, parts: list[Part]) -> None:
        inner = bytes(buffer[at + 1 : etx])
        if self._unescape is not None:
            inner = self._unescape.sub(rb"\1", inner)
        trailer = bytes(buffer[etx + 1 : behind])
        payload = self._stx + inner + self._etx + trailer if self._keep else inner + trailer
        if len(inner) > self._cap:
            self._garbage.take(buffer[at:behind], parts)
            return
        self._garbage.over(parts)
        parts.append(Part(payload))


class ModbusFramer(_Synchronising):
    """Modbus TCP: the header names the length; the unit is the frame's port, the PDU its payload."""

    def __init__(self, config: ModbusTcp) -> None:
        super().__init__("no Modbus TCP header")
        self._header = config.header

    def feed(self, data: bytes) -> list[Part]:
        buffer, garbage = self._buffer, self._garbage
        buffer += data
        parts: list[Part] = []
        at = 0
        while len(buffer) - at >= MBAP.size:
            _, protocol, length, unit = MBAP.unpack_from(buffer, at)
            if protocol != 0 or length not in MODBUS_LENGTHS:
                garbage.take(buffer[at : at + 1], parts)
                at += 1
                continue
            behind = at + 6 + length
            if len(buffer) < behind:
                break
            garbage.over(parts)
            start = at if self._header else at + MBAP.size
            parts.append(Part(bytes(buffer[start:behind]), port=unit))
            at = behind
        del buffer[:at]
        return parts


def _crc16(data: bytes, crc: int) -> int:
    """CRC-16/MODBUS of `data` from a register (0xFFFF to begin with)."""
    for byte in data:
        crc = (crc >> 8) ^ _CRC16[(crc ^ byte) & 0xFF]
    return crc


def _table() -> list[int]:
    """Of the reflected polynomial 0xA001 (MODBUS over Serial Line V1.02, 6.2.2)."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC16: Final = _table()
