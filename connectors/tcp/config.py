"""Keys of a source of kind tcp."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from operators.spec import MINUTE, SECOND, Duration, Size


class LengthPrefix(
    msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="length_prefix"
):
    """Each frame begins with its length."""

    size: Literal[1, 2, 4] = 2
    order: Literal["be", "le"] = "be"
    includes_header: bool = False
    max: Size = 65_535


class Delimiter(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="delimiter"):
    """Each frame ends with a delimiter, which is not part of it."""

    delimiter: str = "\n"
    escape: str | None = None
    max: Size = 65_535


class StxEtx(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="stx_etx"):
    """Each frame stands between two bytes; what stands outside is garbage."""

    stx: str = "\x02"
    etx: str = "\x03"
    escape: str | None = None
    trailer: int = 0  # bytes behind ETX that belong to the frame, such as a checksum
    keep: bool = False  # STX and ETX are part of the payload
    between: str = "\r\n"  # bytes that may stand between frames
    max: Size = 65_535


CHECK_BYTES: Final = {"sum8": 1, "xor8": 1, "crc16_modbus": 2, "crc16_ccitt": 2, "crc32": 4}


class Fixed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="fixed"):
    """Frames of one size."""

    size: int
    sync: str | None = None  # hex bytes that each frame begins with
    check: Literal["sum8", "xor8", "crc16_modbus", "crc16_ccitt", "crc32"] | None = None
    check_order: Literal["le", "be"] = "le"


class ModbusTcp(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="modbus_tcp"):
    """Modbus TCP: a frame is a PDU, its port the unit."""

    header: bool = False  # the header of 7 bytes is part of the payload


class JsonLines(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="json_lines"):
    """Each line is a frame."""

    max: Size = 65_535


Framing = LengthPrefix | Delimiter | StxEtx | Fixed | ModbusTcp | JsonLines


class TcpConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="tcp"):
    """A TCP server that devices or gateways connect to."""

    listen: str
    framing: Framing
    tls: bool = False
    cert_file: str | None = None
    key_file: str | None = None
    ca_file: str | None = None  # peers must show a certificate of this authority
    device: str = "peer"
    product: str | None = None
    topic: str | None = None
    acknowledge: str | None = None  # hex bytes sent after each commit, e.g. "06"
    acknowledge_each: Literal["frame", "commit"] = "frame"
    max_connections: int = 20_000
    max_connections_per_peer: int = 1_000
    idle_timeout: Duration = 10 * MINUTE  # a connection without a byte is closed
    frame_timeout: Duration = 30 * SECOND  # a begun frame must end within
    silent_after: Duration = 60 * SECOND
    max_frame: Size = 1_000_000


def listen_address(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:7001`, `[::1]:7001` or `:7001` (every interface).
    Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text!r} is no host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
