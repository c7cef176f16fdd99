"""Payloads that Eclipse Tahu compresses: one whose `uuid` says so, a metric `algorithm` that says how, and in
`body` the payload that it stands for."""

from __future__ import annotations

import zlib
from typing import Final

from connectors.mqtt.sparkplug.sparkplug_b_pb2 import Payload
from connectors.mqtt.sparkplug.values import TooLargeError, UnreadableError, read_payload

UUID: Final = "SPBV1.0_COMPRESSED"
_WINDOWS: Final = {"DEFLATE": 15, "GZIP": 31, "": 47}  # of zlib; without a word either is recognized


def read_message(data: bytes, cap: int) -> Payload:
    """A payload, compressed or not. cap: bytes of one that is unpacked. Raises `UnreadableError`."""
    payload = read_payload(data)
    if not payload.HasField("uuid") or payload.uuid != UUID:
        return payload
    inner = read_payload(_unpacked(payload, cap))
    if inner.uuid == UUID:
        raise UnreadableError("its body is compressed within a compressed body")
    for field in ("seq", "timestamp"):  # some tell them outside alone
        if payload.HasField(field) and not inner.HasField(field):
            setattr(inner, field, getattr(payload, field))
    return inner


def _unpacked(payload: Payload, cap: int) -> bytes:
    """The payload within, at most `cap` bytes of it are ever made. Raises `UnreadableError`."""
    algorithm = next((one.string_value for one in payload.metrics if one.name == "algorithm"), "")
    if algorithm not in _WINDOWS:
        raise UnreadableError(f"its body is compressed as {algorithm!r}; DEFLATE and GZIP are read")
    unpacking = zlib.decompressobj(_WINDOWS[algorithm])
    try:
        data = unpacking.decompress(payload.body, cap + 1)
    except zlib.error as error:
        raise UnreadableError(f"its body is not compressed as {algorithm or 'DEFLATE or GZIP'}") from error
    if len(data) > cap:
        raise TooLargeError(f"more than {cap} bytes when its body is unpacked; max_payload allows no more")
    if not unpacking.eof:
        raise UnreadableError("its compressed body ends too early")
    if unpacking.unused_data:
        raise UnreadableError(f"{len(unpacking.unused_data)} bytes stand behind its compressed body")
    return data
