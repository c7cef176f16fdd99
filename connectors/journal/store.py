"""The journal's store: what one writer keeps in LMDB, and its rules. No sockets, no processes.

Sub-databases, keys big endian so that they sort:

    entries    entry number u64 -> entry (connectors.journal.entries)
    meta       "state" -> next entry, next position, clock ms, last tick ms; "trimmed" -> entry;
               "partition" -> of a copy of a Kafka partition, what it is a copy of, and up to where
    plants     entry number u64 -> sha256 of the plant applied there, NUL, MessagePack of when (ms) and
               what the entry says beside it (apply_id, by, why); outlives trimming
    bundles    sha256 -> MessagePack {path: bytes}; outlives trimming
    sessions   session -> last sequence, clock ms, and where its last appends went
    keys       digest of an append's own key -> position, entry;   key_order: the oldest are forgotten

Everything that one `commit` puts, is one transaction, on disk (fdatasync) when it returns; a crash
at any moment leaves all or nothing of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import lmdb
import msgspec

from connectors.errors import JournalError, JournalFull
from connectors.journal import entries
from connectors.journal.clock import JournalClock
from connectors.journal.environment import Environment
from connectors.journal.wire import WINDOW
from operators.batch import FRAME_QUARANTINED, Control

KEY: Final = struct.Struct(">Q")
STATE: Final = struct.Struct("<qqqq")
PLACE: Final = struct.Struct("<qq")
IDENTITY: Final = b"identity"  # 8 random bytes that tell journals apart; they reach no output
PARTITION: Final = b"partition"
REFUSE_AT: Final = 0.80  # of the map: clients' appends
TICKS_UNTIL: Final = 0.90  # of the map: the journal's own entries; the rest is for trimming
KEYS_KEPT: Final = 1_000_000
SESSION_KEPT_MS: Final = 86_400_000
SESSION_RECENT_MS: Final = 3_600_000
SESSIONS_TOLD: Final = 1024
TRIM_ENTRIES: Final = 4096  # deleted in one transaction
TRIM_BYTES: Final = 64 << 20

log = logging.getLogger("journal")


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
class _Session:
    last: int
    at_ms: int
    recent: list[tuple[int, int, int]]


class JournalStore:
    """The one writer. Not thread-safe: one thread commits and trims."""

    def __init__(self, path: Path, max_bytes: int, clock: JournalClock | None = None) -> None:
        """Opens, or makes, the journal at `path`; goes on after its last entry, its clock not below
        that entry's. Raises JournalError."""
        self._environment = Environment(path, map_bytes=max_bytes)
        self._env = self._environment.env
        self._db = self._environment.databases
        self.map_bytes = max_bytes
        self._sessions: dict[bytes, _Session] = {}
        with self._env.begin() as txn:
            state = txn.get(b"state", db=self._db[b"meta"])
            self.next_entry, self.next_position, last_ms, self.last_tick_ms = (
                STATE.unpack(state) if state else (1, 0, 0, 0)
            )
            self.last_ms = last_ms  # the clock of the last entry
            self.partition_mark = txn.get(PARTITION, db=self._db[b"meta"])
            self.used_bytes = self._used(txn)
            last = txn.get(KEY.pack(self.next_entry - 1), db=self._db[b"entries"])
            has_identity = txn.get(IDENTITY, db=self._db[b"meta"]) is not None
        if not has_identity:
            with self._env.begin(write=True) as txn:
                txn.put(IDENTITY, os.urandom(8), db=self._db[b"meta"])
        self.stopped_cleanly = state is None or (last is not None and _is_stopped(last))
        self.clock = clock or JournalClock(last_ms)
        self.full = False  # an append was refused, and nothing has been trimmed or taken since
        self.trimmed_to = 0
        self.totals = {"appends": 0, "frames": 0, "commits": 0, "refused": 0, "ticks": 0}
        self.commit_seconds: deque[float] = deque(maxlen=1024)

    def commit(self, appends: Sequence[Append]) -> list[Place | None]:
        """Put appends, and the tick that is due before them, in one durable transaction.

        Returns for each its place, or None where it is refused because the journal is at its cap
        or because an earlier append of its session was. All stamped with one clock.
        """
        began = time.perf_counter()
        now = self.clock.now_ms()
        try:
            with self._env.begin(write=True) as txn:
                batch = _Transaction(self, txn, now)
                if now // 1000 * 1000 > self.last_tick_ms:
                    batch.tick(now // 1000 * 1000)
                places = [batch.append(append) for append in appends]
                batch.finish()
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            if not self.full:
                log.warning("the journal is full: %s", error)
            self.totals["refused"] += len(appends)
            self.full = True
            return [None] * len(appends)
        except lmdb.Error as error:
            raise JournalError(f"cannot write the journal: {error}") from error
        batch.publish()
        if batch.wrote:
            self.totals["commits"] += 1
            self.commit_seconds.append(time.perf_counter() - began)
        return places

    def replicate(
        self, arrivals: Sequence[Arrival], mark: bytes, jump: Jump | None = None
    ) -> list[Place | None]:
        """Put what stands in a Kafka partition, in its order and each with its own stamp, in one durable
        transaction with `mark`: what is put is a function of the partition alone.

        Returns for each its place; None for a tick, and for an append that has to wait for one of its
        session before it (it comes again). jump: what goes before them all. Raises JournalFull, and
        has done nothing, where the map is nearly full.
        """
        began = time.perf_counter()
        if self.used_bytes >= self.map_bytes * TICKS_UNTIL:
            self.full = True
            raise JournalFull("the copy of the partition is at its cap")
        places: list[Place | None] = []
        try:
            with self._env.begin(write=True) as txn:
                batch = _Transaction(self, txn, self.last_ms, follows=True)
                if jump is not None:
                    batch.jump(jump)
                for arrival in arrivals:
                    batch.reach(arrival.ms, arrival.append)
                    if arrival.append is not None and arrival.known > batch.last_of(arrival.append.session):
                        batch.adopt(arrival.append.session, arrival.known)
                    places.append(batch.append(arrival.append) if arrival.append is not None else None)
                batch.finish()
                txn.put(PARTITION, mark, db=self._db[b"meta"])
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            if not self.full:
                log.warning("the journal is full: %s", error)
            self.full = True
            raise JournalFull(f"cannot write the copy of the partition: {error}") from error
        except lmdb.Error as error:
            raise JournalError(f"cannot write the journal: {error}") from error
        batch.publish()
        self.partition_mark = mark
        self.totals["commits"] += 1
        self.commit_seconds.append(time.perf_counter() - began)
        return places

    def recent_sessions(self) -> dict[bytes, int]:
        """The last number of each session that appended within an hour, at most 1,024: the newest."""
        after = self.last_ms - SESSION_RECENT_MS
        recent = [(one.at_ms, name, one.last) for name, one in self._sessions.items() if one.at_ms > after]
        return {name: last for _, name, last in sorted(recent)[-SESSIONS_TOLD:]}

    def load_sessions(self) -> None:
        """Have every session at hand, for `recent_sessions`."""
        with self._env.begin() as txn, txn.cursor(db=self._db[b"sessions"]) as cursor:
            for name in [bytes(key) for key, _ in cursor]:
                self._session(txn, name)

    def is_stopped(self) -> bool:
        """Whether nothing was written yet, or the last entry is `stopped`."""
        with self._env.begin() as txn:
            last = txn.get(KEY.pack(self.next_entry - 1), db=self._db[b"entries"])
        return self.next_entry == 1 or (last is not None and _is_stopped(last))

    def known_sequence(self, session: bytes) -> int:
        """As `last_sequence`, of what is at hand: 0 where nothing of the session is. From any thread."""
        known = self._sessions.get(session)
        return known.last if known is not None else 0

    def begin(self) -> Place | None:
        """The entry `started`. Seconds at which no journal ran have no tick, so that silence before
        `started` is not taken for silence of the devices."""
        self.last_tick_ms = max(self.last_tick_ms, self.clock.now_ms() // 1000 * 1000)
        return self.control("started", {"clean": self.stopped_cleanly})

    def control(self, kind: str, data: Mapping[str, Any]) -> Place | None:
        """A control entry of the journal's own."""
        return self.commit([Append(b"", 0, entries.pack_control(kind, data))])[0]

    def last_sequence(self, session: bytes) -> int:
        """Of a session: its last append that is in the journal; 0 for an unknown one."""
        with self._env.begin() as txn:
            return self._session(txn, session, keep=False).last

    def trim(self, durable: int) -> bool:
        """Delete entries up to and including `durable`, a bounded number at a time; returns whether
        there are more. Works on a full journal: what it needs was kept free."""
        durable = min(durable, self.next_entry - 1)
        count = size = 0
        more = False
        try:
            with self._env.begin(write=True) as txn:
                cursor = txn.cursor(self._db[b"entries"])
                found = cursor.first()
                while found and (number := KEY.unpack(cursor.key())[0]) <= durable:
                    if count >= TRIM_ENTRIES or size >= TRIM_BYTES:
                        more = True
                        break
                    size += len(cursor.value())
                    found = cursor.delete() and bool(cursor.key())  # true at the end as well
                    count += 1
                    self.trimmed_to = number
                cursor.close()
                self.used_bytes = self._used(txn)
            if count and not more:
                # LMDB uses freed pages again only when a later transaction has been committed
                with self._env.begin(write=True) as txn:
                    txn.put(b"trimmed", KEY.pack(self.trimmed_to), db=self._db[b"meta"])
            self.full = self.full and not count
        except lmdb.Error as error:
            raise JournalError(f"cannot trim the journal: {error}") from error
        return more

    def sweep(self) -> int:
        """Free the slots of readers that died; returns how many."""
        return int(self._env.reader_check())

    def forget_sessions(self) -> None:
        """Drop what is remembered of sessions that have not appended for a day."""
        before = self.clock.now_ms() - SESSION_KEPT_MS
        with self._env.begin(write=True) as txn:
            cursor = txn.cursor(self._db[b"sessions"])
            found = cursor.first()
            while found:
                old = msgspec.msgpack.decode(cursor.value())[1] < before
                if old:
                    self._sessions.pop(cursor.key(), None)
                found = (cursor.delete() and bool(cursor.key())) if old else cursor.next()
            cursor.close()

    def metrics(self) -> dict[str, float]:
        """Numbers for the status file."""
        with self._env.begin() as txn:
            cursor = txn.cursor(self._db[b"entries"])
            oldest = KEY.unpack(cursor.key())[0] if cursor.first() else self.next_entry
            cursor.close()
        spent = sorted(self.commit_seconds) or [0.0]
        return {
            "journal_bytes": self.used_bytes,
            "journal_map_bytes": self.map_bytes,
            "journal_full": float(self.full),
            "journal_oldest_entry": oldest,
            "journal_last_entry": self.next_entry - 1,
            "journal_next_position": self.next_position,
            "journal_clock_ms": self.clock.now_ms(),
            "journal_reader_lag_transactions": self._reader_lag(),
            **{f"journal_{name}_total": count for name, count in self.totals.items()},
            "commit_seconds_p50": spent[len(spent) // 2],
            "commit_seconds_p99": spent[len(spent) * 99 // 100],
        }

    def close(self) -> None:
        """Let go of the store; nothing is pending, everything committed is on disk."""
        self._environment.close()

    def _used(self, txn: Any) -> int:
        """Bytes of pages in use; pages that were freed and will be used again do not count."""
        pages = 0
        for database in self._db.values():
            stat = txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * stat["psize"])

    def _reader_lag(self) -> int:
        """Transactions since the snapshot that the oldest reader holds; it keeps pages from use."""
        last = int(self._env.info()["last_txnid"])
        held = [line.split()[2] for line in self._env.readers().splitlines()[1:] if len(line.split()) == 3]
        return max((last - int(number) for number in held if number.isdigit()), default=0)

    def _session(self, txn: Any, session: bytes, keep: bool = True) -> _Session:
        known = self._sessions.get(session)
        if known is None:
            packed = txn.get(session, db=self._db[b"sessions"])
            last, at_ms, recent = msgspec.msgpack.decode(packed) if packed else (0, 0, [])
            known = _Session(last, at_ms, [tuple(place) for place in recent])
            if keep:
                self._sessions[session] = known
        return known


class _Transaction:
    """What one commit does; the store itself changes only after it (`publish`)."""

    def __init__(self, store: JournalStore, txn: Any, now: int, *, follows: bool = False) -> None:
        """follows: what is appended stands in a partition already and cannot be refused."""
        self.store = store
        self.follows = follows
        self.txn = txn
        self.now = now
        self.db = store._db
        self.entry = store.next_entry
        self.position = store.next_position
        self.tick_ms = store.last_tick_ms
        self.used = store.used_bytes
        self.sessions: dict[bytes, _Session] = {}
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
            if session.last == self.store._sessions[name].last:
                continue
            packed = msgspec.msgpack.encode([session.last, session.at_ms, session.recent])
            self.wrote |= self.txn.put(name, packed, db=self.db[b"sessions"])
        if self.wrote or self.follows:  # the clock of a repeat counts for what stands behind it
            state = STATE.pack(self.entry, self.position, self.now, self.tick_ms)
            self.txn.put(b"state", state, db=self.db[b"meta"])
            self.used = self.store._used(self.txn)

    def publish(self) -> None:
        store = self.store
        store.next_entry, store.next_position = self.entry, self.position
        store.last_tick_ms, store.used_bytes = self.tick_ms, self.used
        store.last_ms = self.now if self.wrote or self.follows else store.last_ms
        store.full = self.refusing or (store.full and not self.counted["appends"])
        store._sessions.update(self.sessions)
        for name, count in self.counted.items():
            store.totals[name] += count

    def _session(self, name: bytes) -> _Session:
        session = self.sessions.get(name)
        if session is None:
            known = self.store._session(self.txn, name)
            session = self.sessions[name] = _Session(known.last, known.at_ms, known.recent)
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


def _is_stopped(data: bytes) -> bool:
    entry = entries.decode_entry(0, data)
    return entry.kind == entries.CONTROL and entry.control().kind == "stopped"
