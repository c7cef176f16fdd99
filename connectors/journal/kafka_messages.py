"""An entry of the journal as a message of a Kafka partition, version 1.

The value is the packed entry (`connectors.journal.entries`) with the sender's clock as its `ms` and
0 as its position: where it stands in the partition decides those. The message has no key; its
headers are

    penstock-entry    "1", the version of all this. A message without it is nobody's entry
    penstock-from     session 16 bytes | sequence u64 | known u64, big endian: the append's number in its
                      client's session, and up to which number the sender knew the session's appends
                      to stand in the partition. Absent from ticks
    penstock-key      the append's own key, where it has one
    penstock-bundle   of a plant: size of the entry u32, big endian | sha256 as a text; the plant's files
                      (MessagePack) stand behind the entry in the value
    penstock-reached  of a tick: MessagePack of `Reached`, from which a follower without a copy begins
    penstock-by       of a tick, of `started` and of `stopped`: MessagePack of `By`, who runs the shard

A message may stand in the partition twice, or after one that was sent later: whoever sends tries
again with another producer. Of a session only the number after its last one counts; every follower
decides the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from connectors.errors import JournalError
from connectors.journal import entries
from connectors.journal.store import Append

VERSION: Final = b"1"
ENTRY: Final = "penstock-entry"
FROM: Final = "penstock-from"
KEY: Final = "penstock-key"
BUNDLE: Final = "penstock-bundle"
REACHED: Final = "penstock-reached"
BY: Final = "penstock-by"

_FROM: Final = struct.Struct(">16sQQ")
_SIZE: Final = struct.Struct(">I")

Headers = list[tuple[str, bytes]]


class By(msgspec.Struct, array_like=True, frozen=True):
    """Who runs a shard: the identity of its copy of the partition, its machine's name, its process. It is
    told apart by the first two; none of it is in an entry."""

    copy: bytes
    host: str
    pid: int

    def is_another(self, other: By | None) -> bool:
        """Whether `other` is somebody, and not this one."""
        return other is not None and (other.copy, other.host) != (self.copy, self.host)


class Reached(msgspec.Struct, array_like=True):
    """The state of a follower before the message at `offset`: next entry and position, clock and last
    tick (ms), and the last number of every session of the last hour."""

    offset: int
    entry: int
    position: int
    ms: int
    tick_ms: int
    sessions: dict[bytes, int]


@dataclass(slots=True, eq=False)
class Arrival:
    """A message as it stands in the partition. append: None of a tick. known: see the module. claims: of
    `started`, who runs the shard from here on."""

    offset: int
    ms: int
    append: Append | None
    known: int = 0
    claims: By | None = None


def append_message(append: Append, ms: int, known: int, by: By | None = None) -> tuple[bytes, Headers]:
    """Value and headers of an append, its session and sequence given. by: of `started` and `stopped`."""
    entries.stamp(append.body, ms, 0)
    headers = [(ENTRY, VERSION), (FROM, _FROM.pack(append.session, append.sequence, known))]
    if by is not None:
        headers.append((BY, msgspec.msgpack.encode(by)))
    if append.key:
        headers.append((KEY, append.key))
    if append.bundle is None:
        return bytes(append.body), headers
    sha256, files = append.bundle
    headers.append((BUNDLE, _SIZE.pack(len(append.body)) + sha256))
    return bytes(append.body) + files, headers


def tick_message(ms: int, reached: Reached, by: By) -> tuple[bytes, Headers]:
    """Value and headers of a tick."""
    told = [(REACHED, msgspec.msgpack.encode(reached)), (BY, msgspec.msgpack.encode(by))]
    return entries.pack_tick(ms, 0), [(ENTRY, VERSION), *told]


def by_of(headers: Sequence[tuple[str, bytes]] | None) -> By | None:
    """Who runs the shard, as a message says that is a tick, `started` or `stopped`; None of any other."""
    packed = dict(headers or ()).get(BY)
    try:
        return msgspec.msgpack.decode(packed, type=By) if packed is not None else None
    except msgspec.MsgspecError:
        return None


def is_stopped(value: bytes | None) -> bool:
    """Whether a message of which `by_of` is somebody is the last one that it sends."""
    try:
        entry = entries.decode_entry(0, value or b"")
        return entry.kind == entries.CONTROL and entry.control().kind == "stopped"
    except (ValueError, struct.error, msgspec.MsgspecError, JournalError):
        return False


def reached_of(headers: Sequence[tuple[str, bytes]] | None) -> Reached | None:
    """What a tick says that its sender had reached; None of any other message."""
    packed = dict(headers or ()).get(REACHED)
    try:
        return msgspec.msgpack.decode(packed, type=Reached) if packed is not None else None
    except msgspec.MsgspecError:
        return None


def arrival_of(
    offset: int,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] | None,
    known: entries.Addresses,
) -> Arrival | None:
    """The entry in a message; None where a stranger wrote it, or where it is broken. Raises
    JournalError for one of a later version: to pass over it would be to lose it."""
    told = dict(headers or ())
    version = told.get(ENTRY)
    if version is None or value is None:
        return None
    if version != VERSION:
        raise JournalError(
            f"the message at offset {offset} has the format {version.decode('ascii', 'replace')}; this"
            f" version reads {VERSION.decode()}"
        )
    try:
        return _arrival(offset, value, told, known)
    except (ValueError, struct.error, msgspec.MsgspecError, JournalError):
        return None


def _arrival(offset: int, value: bytes, told: dict[str, bytes], known: entries.Addresses) -> Arrival:
    head = entries.decode_entry(0, value)
    if head.kind == entries.TICK:
        return Arrival(offset, head.ms, None)
    session, sequence, reached = _FROM.unpack(told[FROM]) if FROM in told else (b"", 0, 0)
    if not session or sequence < 1 or head.ms < 0:
        raise ValueError("no session")
    bundle = claims = None
    if BUNDLE in told:
        (size,) = _SIZE.unpack_from(told[BUNDLE])
        bundle = (told[BUNDLE][_SIZE.size :], value[size:])
        value = value[:size]
    body = bytearray(value)
    if head.kind == entries.FRAMES:
        entries.check_frames(body, known)
    else:
        control = entries.decode_entry(0, value).control()
        if control.kind not in entries.CONTROL_KINDS or not isinstance(control.data, dict):
            raise ValueError("no control")
        if (control.kind == "plant") != (bundle is not None):
            raise ValueError("a plant without its files, or files without a plant")
        claims = by_of([(BY, told[BY])]) if control.kind == "started" and BY in told else None
    append = Append(session, sequence, body, told.get(KEY, b""), bundle)
    return Arrival(offset, head.ms, append, reached, claims)
