"""The `decode:` and `metrics:` of a binary sample: every byte a field, with what else it could be."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

MOST_BYTES: Final = 128
_WIDTHS: Final = {"crc8": 1, "crc16": 2, "crc32": 4, "sum8": 1, "xor8": 1}


class Check(NamedTuple):
    """A check that is in use. Parameters as the decode language has them (CRC catalogue of
    G. Cook, reveng.sourceforge.io: poly in normal form, reflect = in and out)."""

    name: str
    kind: str
    poly: int = 0
    init: int = 0
    xor: int = 0
    reflect: bool = False


CHECKS: Final = (
    Check("CRC-32", "crc32", 0x04C11DB7, 0xFFFFFFFF, 0xFFFFFFFF, True),
    Check("CRC-32/BZIP2", "crc32", 0x04C11DB7, 0xFFFFFFFF, 0xFFFFFFFF),
    Check("CRC-32/MPEG-2", "crc32", 0x04C11DB7, 0xFFFFFFFF),
    Check("CRC-32C", "crc32", 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, True),
    Check("Modbus", "crc16", 0x8005, 0xFFFF, 0, True),
    Check("CRC-16/ARC", "crc16", 0x8005, 0, 0, True),
    Check("CRC-16/USB", "crc16", 0x8005, 0xFFFF, 0xFFFF, True),
    Check("CRC-16/UMTS", "crc16", 0x8005),
    Check("CCITT-FALSE", "crc16", 0x1021, 0xFFFF),
    Check("XMODEM", "crc16", 0x1021),
    Check("KERMIT", "crc16", 0x1021, 0, 0, True),
    Check("X.25", "crc16", 0x1021, 0xFFFF, 0xFFFF, True),
    Check("AUG-CCITT", "crc16", 0x1021, 0x1D0F),
    Check("GENIBUS", "crc16", 0x1021, 0xFFFF, 0xFFFF),
    Check("DNP", "crc16", 0x3D65, 0, 0xFFFF, True),
    Check("EN 13757", "crc16", 0x3D65, 0, 0xFFFF),
    Check("CRC-8", "crc8", 0x07),
    Check("CRC-8/MAXIM", "crc8", 0x31, 0, 0, True),
    Check("CRC-8/SAE-J1850", "crc8", 0x1D, 0xFF, 0xFF),
    Check("CRC-8/NRSC-5", "crc8", 0x31, 0xFF),
    Check("sum of bytes", "sum8"),
    Check("XOR of bytes", "xor8"),
)


def binary_section(payload: bytes, port: int, others: Sequence[bytes] = ()) -> str:
    """`decode:` and `metrics:` for a fixed layout of this length. others: more frames of it, which a
    check has to fit too."""
    end = len(payload)
    lines = [
        "decode:",
        "  format: binary",
        "  order: be                      # or le: the low byte first",
    ]
    if (found := find_check(payload, others)) is not None:
        check, order, told = found
        lines += [f"  # {told}", f"  check: {check}"]
        end -= _WIDTHS[check[1:].partition(":")[0]]
        del order
    else:
        lines.append(
            "  # No check was found; one is written: check: {crc16: {poly: 0x8005, init: 0xFFFF, at: -2}}"
        )
    when = f"length: {len(payload)}" + (f", port: {port}" if port >= 0 else "")
    lines += [
        "  cases:",
        f"    - when: {{{when}}}            # other lengths are rejects",
        "      fields:",
        "        # Every byte is a field to start with. Name fields, join bytes (as: u16, s16, f32, ..),",
        "        # add scale and offset, and leave out what you don't need. What else the bytes could be:",
    ]
    shown = min(end, MOST_BYTES)
    width = len(str(max(shown - 1, 0)))
    for at in range(shown):
        name, where = f"byte{at:0{width}}:", f"{{at: {at}}}"
        lines.append(f"        {name:<9} {where:<10}  # {_readings(payload[:end], at)}")
    if end > shown:
        lines.append(f"        rest:     {{at: {shown}, text: hex, size: {end - shown}}}")
    lines += [
        "    - else: reject",
        "",
        "metrics:                         # add unit (UCUM, e.g. Cel, bar, kW), range, required",
    ]
    lines += [f"  byte{at:0{width}}: {{type: integer, range: [0, 255]}}" for at in range(shown)]
    if end > shown:
        lines.append("  rest: {type: string}")
    return "\n".join([*lines, ""])


def _readings(payload: bytes, at: int) -> str:
    """The byte in hex and in decimal, as a character, and the larger numbers that begin here."""
    byte = payload[at]
    parts = [f"0x{byte:02X} = {byte}"]
    if 33 <= byte < 127:
        parts.append(f"'{chr(byte)}'")
    two, four = payload[at : at + 2], payload[at : at + 4]
    if len(two) == 2:
        parts.append(f"s16 {_number('>h', two)} | le {_number('<h', two)}")
    if len(four) == 4:
        swapped = four[2:] + four[:2]
        floats = (
            ("f32", ">f", four),
            ("f32le", "<f", four),
            ("f32ws", ">f", swapped),
            ("f32wsle", "<f", swapped),
        )
        for name, code, data in floats:
            if 1e-3 <= abs(value := _number(code, data)) < 1e7:
                parts.append(f"{name} {value:.6g}")
    return "; ".join(parts)


def _number(code: str, data: bytes) -> float:
    return float(struct.unpack(code, data)[0]) if code[1] == "f" else int(struct.unpack(code, data)[0])


def find_check(payload: bytes, others: Sequence[bytes] = ()) -> tuple[str, str, str] | None:
    """A check at the end of the frame, and of all others, that fits: its YAML, the byte order, and a
    sentence.

    A single byte fits one of six by chance in one frame of forty, so that it is told as doubtful.
    """
    for check in CHECKS:
        size = _WIDTHS[check.kind]
        for start in (0, 1):
            body, tail = payload[start:-size], payload[-size:]
            if len(body) < max(2, size) or not any(body):
                continue
            wanted = value_of(check, body)
            for order in ("be", "le") if size > 1 else ("be",):
                way: Literal["big", "little"] = "big" if order == "be" else "little"
                if int.from_bytes(tail, way) == wanted and all(
                    value_of(check, one[start:-size]) == int.from_bytes(one[-size:], way) for one in others
                ):
                    return _yaml(check, start, size, order), order, _sentence(check, size)
    return None


def _sentence(check: Check, size: int) -> str:
    what = f"{check.name} fits the last {size} bytes" if size > 1 else f"{check.name} fits the last byte"
    return what + ("." if size > 1 else ", maybe by chance; try another frame, or remove it.")


def _yaml(check: Check, start: int, size: int, order: str) -> str:
    parts = [f"poly: 0x{check.poly:0{size * 2}X}"] if check.kind.startswith("crc") else []
    parts += [f"init: 0x{check.init:0{size * 2}X}"] if check.init else []
    parts += [f"xor: 0x{check.xor:0{size * 2}X}"] if check.xor else []
    parts += ["reflect: true"] if check.reflect else []
    parts += [f'over: "{start}..-{size + 1}"'] if start else []
    parts += [f"at: -{size}"]
    parts += [f"order: {order}"] if size > 1 and order == "le" else []
    return f"{{{check.kind}: {{{', '.join(parts)}}}}}"


def value_of(check: Check, data: bytes) -> int:
    """The check value of some bytes, bit by bit (Ross Williams' model)."""
    width = _WIDTHS[check.kind] * 8
    if check.kind == "sum8":
        return sum(data) & 0xFF
    register = check.init
    if check.kind == "xor8":
        for byte in data:
            register ^= byte
        return register
    top, mask = 1 << (width - 1), (1 << width) - 1
    for byte in data:
        register ^= (_reversed(byte, 8) if check.reflect else byte) << (width - 8)
        for _ in range(8):
            register = ((register << 1) ^ check.poly if register & top else register << 1) & mask
    return (_reversed(register, width) if check.reflect else register) ^ check.xor


def _reversed(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)
