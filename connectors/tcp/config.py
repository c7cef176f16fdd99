"""Keys of a source of kind tcp."""

from __future__ import annotations

from typing import Literal

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


class TcpConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="tcp"):
    """A TCP server that devices or gateways connect to."""

    listen: str
    framing: LengthPrefix | Delimiter
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
