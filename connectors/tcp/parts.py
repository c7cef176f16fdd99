"""What a framer gives, and how text of the configuration becomes stream bytes."""

from __future__ import annotations

from typing import Final, NamedTuple

from connectors.errors import ConfigError

HEAD: Final = 4096  # bytes kept of garbage


class Part(NamedTuple):
    """A frame, or with `why` the beginning of bytes that are none."""

    payload: bytes
    why: str = ""
    port: int = -1


def stream_bytes(key: str, text: str) -> bytes:
    """Text of the configuration as stream bytes: each character is one byte, up to U+00FF."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"framing.{key}: {text!r} holds a character beyond U+00FF; write bytes as \\xNN"
        ) from error
