"""The packets of a session around its messages (MQTT 3.1.1 and 5), by paho's encoders of
properties and reason codes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
from paho.mqtt import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from operators.batch import Int64

CONNACK: Final = 2
PUBACK: Final = 4
SUBACK: Final = 9
PINGRESP: Final = 13
DISCONNECT: Final = 14
PINGREQ_PACKET: Final = b"\xc0\x00"
DISCONNECT_PACKET: Final = b"\xe0\x00"
_REASON_LENGTH: Final = 200  # of a broker's own words, which nobody limits
_WILL: Final = 0x04 | 1 << 3 | 0x20  # with QoS 1, retained
# MQTT 3.1.1, table 3.1; the words of protocol 5's codes of the same meaning
_REFUSALS: Final = {
    1: "Unsupported protocol version",
    2: "Client identifier not valid",
    3: "Server unavailable",
    4: "Bad user name or password",
    5: "Not authorized",
}


def connect(
    client_id: str,
    version5: bool,
    keep_alive: int,
    username: str | None,
    password: str | None,
    session_expiry: int,
    receive_maximum: int,
    aliases: int,
    will: tuple[str, bytes] | None = None,
) -> bytes:
    """CONNECT that continues a session, or begins one that is kept. will: topic and payload of what
    the broker says (QoS 1, retained) when the connection ends without a DISCONNECT."""
    flags = (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    flags |= _WILL if will is not None else 0
    body = b"\x00\x04MQTT" + struct.pack(">BBH", 5 if version5 else 4, flags, keep_alive)
    if version5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        properties.SessionExpiryInterval = session_expiry
        properties.ReceiveMaximum = receive_maximum
        properties.TopicAliasMaximum = aliases
        body += properties.pack()  # type: ignore[no-untyped-call]
    body += _text(client_id)
    if will is not None:
        body += (b"\x00" if version5 else b"") + _text(will[0]) + len(will[1]).to_bytes(2, "big") + will[1]
    for text in (username, password):
        if text is not None:
            body += _text(text)
    return _packet(0x10, body)


def publish(topic: str, payload: bytes, version5: bool, *, retained_as: int = 0) -> bytes:
    """PUBLISH with QoS 0; with a packet id (`retained_as`) QoS 1, retained."""
    body = _text(topic) + (retained_as.to_bytes(2, "big") if retained_as else b"")
    return _packet(0x33 if retained_as else 0x30, body + (b"\x00" if version5 else b"") + payload)


def subscribe(topics: Sequence[str], qos: int, version5: bool, number: int = 1) -> bytes:
    """SUBSCRIBE; protocol 5's options are the defaults: retained messages come, flagged."""
    body = number.to_bytes(2, "big") + (b"\x00" if version5 else b"")
    return _packet(0x82, body + b"".join(_text(topic) + bytes([qos]) for topic in topics))


def pubacks(mids: Int64) -> bytes:
    """PUBACKs of these packet ids, in their order; a success needs no reason code."""
    packets = np.empty((len(mids), 4), np.uint8)
    packets[:, 0], packets[:, 1] = 0x40, 2
    packets[:, 2], packets[:, 3] = mids >> 8, mids & 255
    return packets.tobytes()


def refusal(body: bytes, version5: bool) -> str | None:
    """What a CONNACK says; None for welcome."""
    code = body[1]
    if code == 0:
        return None
    if not version5:
        return _REFUSALS.get(code, f"code {code}")
    return _reason(PacketTypes.CONNACK, code) + _own_words(_properties(PacketTypes.CONNACK, body[2:]))


class Terms(NamedTuple):
    """What a broker of protocol 5 sets in place of what was asked for, in seconds; None: nothing."""

    keep_alive: int | None
    session_expiry: int | None


def terms(body: bytes) -> Terms:
    """Those of a CONNACK of protocol 5."""
    told = _properties(PacketTypes.CONNACK, body[2:])
    return Terms(getattr(told, "ServerKeepAlive", None), getattr(told, "SessionExpiryInterval", None))


def refused_topics(body: bytes, topics: Sequence[str], qos: int, version5: bool) -> list[str]:
    """The subscriptions that a SUBACK refuses, or grants with less than `qos`, each with why."""
    at = 2 + (_properties_size(body[2:]) if version5 else 0)
    said = _own_words(_properties(PacketTypes.SUBACK, body[2:])) if version5 else ""
    found = []
    for topic, code in zip(topics, body[at:], strict=False):
        if code >= 128:
            found.append(f"{topic}: {_reason(PacketTypes.SUBACK, code)}{said}")
        elif code < qos:
            found.append(f"{topic} with QoS {qos}: it grants {code} alone")
    return found


def farewell(body: bytes) -> str:
    """Why a broker of protocol 5 ended the connection."""
    said = _own_words(_properties(PacketTypes.DISCONNECT, body[1:]))
    return _reason(PacketTypes.DISCONNECT, body[0] if body else 0) + said


def _reason(kind: int, code: int) -> str:
    try:
        return str(ReasonCode(kind, identifier=code))
    except (KeyError, AssertionError):
        return f"code {code}"


def _properties(kind: int, data: bytes) -> Properties:
    """The properties that `data` begins with; none where they are none."""
    found = Properties(kind)  # type: ignore[no-untyped-call]  # paho's
    with suppress(MQTTException, IndexError, KeyError, UnicodeDecodeError, struct.error):
        found.unpack(data)  # type: ignore[no-untyped-call]
        return found
    return Properties(kind)  # type: ignore[no-untyped-call]


def _own_words(told: Any) -> str:
    """What a broker adds to a code."""
    names = ("ReasonString", "ServerReference")
    words = ", ".join(getattr(told, name)[:_REASON_LENGTH] for name in names if getattr(told, name, ""))
    return f" ({''.join(one if one.isprintable() else '?' for one in words)})" if words else ""


def _properties_size(data: bytes) -> int:
    size = shift = 0
    for at, byte in enumerate(data[:4]):
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return at + 1 + size
    return len(data)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(kind: int, body: bytes) -> bytes:
    size, head = len(body), bytearray([kind])
    while True:
        head.append(size & 127 | (128 if size > 127 else 0))
        size >>= 7
        if not size:
            return bytes(head) + body
