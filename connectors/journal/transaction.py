"""One commit of a journal: what an append, a tick and a message of a partition become in it.

The rules stand here, the store (`connectors.journal.store`) keeps what they decide.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from connectors.journal import entries
from connectors.journal.wire import WINDOW
from operators.batch import FRAME_QUARANTINED, Control

if TYPE_CHECKING:
    from connectors.journal.store import JournalStore

KEY: Final = struct.Struct(">Q")
STATE: Final = struct.Struct("<qqqq")
PLACE: Final = struct.Struct("<qq")
REFUSE_AT: Final = 0.80  # of the map: clients' appends
TICKS_UNTIL: Final = 0.90  # of the map: the journal's own entries; the rest is for trimming
KEYS_KEPT: Final = 1_000_000


@dataclass(slots=True, eq=False)
class Append:
    """One append of a client: a packed entry, to be stamped in place.

    session: b"" for the journal's own, else the client's; sequence rises by one in a session.
    key: an append with a key that is in the journal already is answered with its place there.
    bundle: of a plant entry, (sha256, packed files).
    """

    session: bytes
    sequence: int
    body: bytearray | memoryview
    key: bytes = b""
    bundle: tuple[bytes, bytes] | None = None


class Arrival(Protocol):
    """What came from a partition, see `connectors.journal.kafka_messages`."""

    ms: int
    append: Append | None
    known: int


@dataclass(frozen=True, slots=True)
class Jump:
    """A follower's place that is not behind this copy's last one: next entry and position, clock and last
    tick, last numbers of sessions; told: of the control `gap`, or None where nothing is missing."""

    entry: int
    position: int
    ms: int
    tick_ms: int
    sessions: Mapping[bytes, int]
    told: Mapping[str, Any] | None = None


class Place(NamedTuple):
    """Where an append went: ordinal of its first frame (or of the next, for a control), entry."""

    position: int
    entry: int


@dataclass(slots=True)
class Session:
    """What the journal remembers of a client's session: its last number, when that was, and where its
    last appends went (sequence, position, entry)."""

    last: int
    at_ms: int
    recent: list[tuple[int, int, int]]


class Transaction:
    """What one commit does; the store itself changes only after it (`publish`)."""

    def __init__(self, store: JournalStore, txn: Any, now: int, *, follows: bool = False) -> None:
        """follows: what is appended stands in a partition already and cannot be refused."""
        self.store = store
        self.follows = follows
        self.txn = txn
        self.now = now
        self.db = store.databases
        self.entry = store.next_entry
        self.position = store.next_position
        self.tick_ms = store.last_tick_ms
        self.used = store.used_bytes
        self.sessions: dict[bytes, Session] = {}
        self.counted = {"appends": 0, "frames": 0, "refused": 0, "ticks": 0}
        self.refusing = False
        self.wrote = False

    def tick(self, ms: int) -> None:
        """The clock passed a whole second (if several, the last stands for all)."""
        self.tick_ms = ms
        if self.follows or self.used < self.store.map_bytes * TICKS_UNTIL:
            self._put(entries.pack_tick(ms, self.position))
            self.counted["ticks"] += 1

    def reach(self, ms: int, append: Append | None) -> None:
        """The clock of the next append or tick, and the tick that is due before it. At `started` there
        is none: see `JournalStore.begin`."""
        self.now = max(self.now, ms)
        second = self.now // 1000 * 1000
        if append is not None and _control_kind(append.body) == "started":
            self.tick_ms = max(self.tick_ms, second)
        elif second > self.tick_ms:
            self.tick(second)

    def jump(self, jump: Jump) -> None:
        """Go on where another follower was. An entry tells of what is missing in between, if that is
        known to be anything; without one before it, a copy goes on with the other's entries, too."""
        begins = self.entry == 1
        self.now = max(self.now, jump.ms)
        self.tick_ms = max(self.tick_ms, jump.tick_ms)
        if jump.told is not None:
            self._put(entries.pack_control("gap", jump.told, self.now, self.position))
        self.position = max(self.position, jump.position)
        if begins and jump.told is None:
            self.entry = jump.entry
        for session, last in jump.sessions.items():
            if last > self.last_of(session):
                self.adopt(session, last)

    def last_of(self, session: bytes) -> int:
        """The last number of a session that is in the journal."""
        return self._session(session).last

    def adopt(self, session: bytes, last: int) -> None:
        """Numbers of a session up to `last` stand in the partition, though not in this copy."""
        known = self._session(session)
        known.last, known.at_ms = last, self.now

    def append(self, append: Append) -> Place | None:
        own = not append.session
        session = None if own else self._session(append.session)
        if session is not None and append.sequence <= session.last:
            return next((Place(p, e) for s, p, e in session.recent if s == append.sequence), Place(-1, -1))
        if session is not None and append.sequence != session.last + 1:
            self.counted["refused"] += 1
            return None
        digest = hashlib.blake2b(append.key, digest_size=16).digest() if append.key else b""
        known = self.txn.get(digest, db=self.db[b"keys"]) if digest else None
        if known is not None:
            place = Place(*PLACE.unpack(known))
        else:
            if not self.follows and self._is_full(append, own):
                self.refusing = True
                self.counted["refused"] += 1
                return None
            place = self._write(append)
            if digest:
                self._remember_key(digest, place)
        if session is not None:
            session.last, session.at_ms = append.sequence, self.now
            session.recent = [*session.recent[1 - WINDOW :], (append.sequence, *place)]
        return place

    def finish(self) -> None:
        """The last puts of the transaction."""
        for name, session in self.sessions.items():
            if session.last == self.store.sessions[name].last:
                continue
            packed = msgspec.msgpack.encode([session.last, session.at_ms, session.recent])
            self.wrote |= self.txn.put(name, packed, db=self.db[b"sessions"])
        if self.wrote or self.follows:  # the clock of a repeat counts for what stands behind it
            state = STATE.pack(self.entry, self.position, self.now, self.tick_ms)
            self.txn.put(b"state", state, db=self.db[b"meta"])
            self.used = self.store.used(self.txn)

    def publish(self) -> None:
        store = self.store
        store.next_entry, store.next_position = self.entry, self.position
        store.last_tick_ms, store.used_bytes = self.tick_ms, self.used
        store.last_ms = self.now if self.wrote or self.follows else store.last_ms
        store.full = self.refusing or (store.full and not self.counted["appends"])
        store.sessions.update(self.sessions)
        for name, count in self.counted.items():
            store.totals[name] += count

    def _session(self, name: bytes) -> Session:
        session = self.sessions.get(name)
        if session is None:
            known = self.store.session(self.txn, name)
            session = self.sessions[name] = Session(known.last, known.at_ms, known.recent)
        return session

    def _is_full(self, append: Append, own: bool) -> bool:
        if own:
            return self.used >= self.store.map_bytes * TICKS_UNTIL
        return self.refusing or self.used + len(append.body) > self.store.map_bytes * REFUSE_AT

    def _write(self, append: Append) -> Place:
        body = append.body
        entries.stamp(body, self.now, self.position)
        if append.bundle is not None:
            sha, files = append.bundle
            about = {**entries.decode_entry(self.entry, bytes(body)).control().data, "ms": self.now}
            del about["sha256"]
            self.txn.put(sha, files, db=self.db[b"bundles"], overwrite=False)
            applied = sha + b"\0" + msgspec.msgpack.encode(about)
            self.txn.put(KEY.pack(self.entry), applied, db=self.db[b"plants"])
            self.used += len(files)
        place = Place(self.position, self.entry)
        head = entries.decode_entry(self.entry, bytes(body[: entries.HEADER_BYTES]))
        count = head.count
        if head.kind == entries.CONTROL:
            self._quarantine(entries.decode_entry(self.entry, bytes(body)).control())
        self._put(body)
        self.position += count
        self.counted["appends"] += 1
        self.counted["frames"] += count
        return place

    def _quarantine(self, control: Control) -> None:
        """Mark the frame that the control names, in the transaction of the control itself: whoever
        reads the frame from then on reads the mark."""
        if control.kind != "quarantine":
            return
        key = KEY.pack(control.data["entry"])
        packed = self.txn.get(key, db=self.db[b"entries"])
        body = bytearray(packed or b"")
        if packed and entries.mark_frame(body, control.data["position"], FRAME_QUARANTINED):
            self.txn.put(key, body, db=self.db[b"entries"])
        elif self.follows:  # in a copy that begins in the partition's middle entries may have other numbers
            self._quarantine_at(control.data["position"])

    def _quarantine_at(self, position: int) -> None:
        cursor = self.txn.cursor(self.db[b"entries"])
        found = cursor.last()
        while found:
            entry = entries.decode_entry(0, cursor.value()[: entries.HEADER_BYTES])
            if entry.kind == entries.FRAMES and entry.position <= position:
                body = bytearray(cursor.value())
                if entries.mark_frame(body, position, FRAME_QUARANTINED):
                    self.txn.put(bytes(cursor.key()), body, db=self.db[b"entries"])
                break
            found = cursor.prev()
        cursor.close()

    def _put(self, body: bytes | bytearray | memoryview) -> None:
        self.txn.put(KEY.pack(self.entry), body, db=self.db[b"entries"], append=True)
        self.entry += 1
        self.used += len(body)
        self.wrote = True

    def _remember_key(self, digest: bytes, place: Place) -> None:
        self.txn.put(digest, PLACE.pack(*place), db=self.db[b"keys"])
        order = self.db[b"key_order"]
        cursor = self.txn.cursor(order)
        number = KEY.unpack(cursor.key())[0] + 1 if cursor.last() else 0
        self.txn.put(KEY.pack(number), digest, db=order, append=True)
        if self.txn.stat(order)["entries"] > KEYS_KEPT and cursor.first():
            self.txn.delete(cursor.value(), db=self.db[b"keys"])
            cursor.delete()
        cursor.close()


def _control_kind(body: bytearray | memoryview) -> str:
    """Of a packed entry; "" of one that is no control."""
    if entries.decode_entry(0, bytes(body[: entries.HEADER_BYTES])).kind != entries.CONTROL:
        return ""
    return entries.decode_entry(0, bytes(body)).control().kind
