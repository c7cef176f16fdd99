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

import logging
import os
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from connectors.errors import JournalError, JournalFull
from connectors.journal import entries
from connectors.journal.clock import JournalClock
from connectors.journal.environment import Environment, wants_room
from connectors.journal.transaction import (
    KEY,
    REFUSE_AT,
    STATE,
    TICKS_UNTIL,
    Append,
    Arrival,
    Jump,
    Place,
    Session,
    Transaction,
)

__all__ = ["IDENTITY", "KEY", "REFUSE_AT", "STATE", "Append", "JournalStore", "Jump", "Place"]

IDENTITY: Final = b"identity"  # 8 random bytes that tell journals apart; they reach no output
PARTITION: Final = b"partition"
SESSION_KEPT_MS: Final = 86_400_000
SESSION_RECENT_MS: Final = 3_600_000
SESSIONS_TOLD: Final = 1024
TRIM_ENTRIES: Final = 4096  # deleted in one transaction
TRIM_BYTES: Final = 64 << 20

log = logging.getLogger("journal")


class JournalStore:
    """The one writer. Not thread-safe: one thread commits and trims."""

    def __init__(self, path: Path, max_bytes: int, clock: JournalClock | None = None) -> None:
        """Opens, or makes, the journal at `path`; goes on after its last entry, its clock not below
        that entry's. Raises JournalError."""
        self._environment = Environment(path, map_bytes=max_bytes)
        self._env = self._environment.env
        self.databases = self._environment.databases
        self.map_bytes = max_bytes
        self.sessions: dict[bytes, Session] = {}
        with self._env.begin() as txn:
            state = txn.get(b"state", db=self.databases[b"meta"])
            self.next_entry, self.next_position, last_ms, self.last_tick_ms = (
                STATE.unpack(state) if state else (1, 0, 0, 0)
            )
            self.last_ms = last_ms  # the clock of the last entry
            self.partition_mark = txn.get(PARTITION, db=self.databases[b"meta"])
            self.used_bytes = self.used(txn)
            last = txn.get(KEY.pack(self.next_entry - 1), db=self.databases[b"entries"])
            self.identity: bytes = txn.get(IDENTITY, db=self.databases[b"meta"]) or b""
        if not self.identity:
            self.identity = os.urandom(8)
            with self._env.begin(write=True) as txn:
                txn.put(IDENTITY, self.identity, db=self.databases[b"meta"])
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
                batch = Transaction(self, txn, now)
                if now // 1000 * 1000 > self.last_tick_ms:
                    batch.tick(now // 1000 * 1000)
                places = [batch.append(append) for append in appends]
                batch.finish()
        except lmdb.Error as error:
            if not wants_room(error, self._environment.path):
                raise JournalError(f"cannot write the journal: {error}") from error
            if not self.full:
                log.warning("the journal is full: %s", error)
            self.totals["refused"] += len(appends)
            self.full = True
            return [None] * len(appends)
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
                batch = Transaction(self, txn, self.last_ms, follows=True)
                if jump is not None:
                    batch.jump(jump)
                for arrival in arrivals:
                    batch.reach(arrival.ms, arrival.append)
                    if arrival.append is not None and arrival.known > batch.last_of(arrival.append.session):
                        batch.adopt(arrival.append.session, arrival.known)
                    places.append(batch.append(arrival.append) if arrival.append is not None else None)
                batch.finish()
                txn.put(PARTITION, mark, db=self.databases[b"meta"])
        except lmdb.Error as error:
            if not wants_room(error, self._environment.path):
                raise JournalError(f"cannot write the journal: {error}") from error
            if not self.full:
                log.warning("the journal is full: %s", error)
            self.full = True
            raise JournalFull(f"cannot write the copy of the partition: {error}") from error
        batch.publish()
        self.partition_mark = mark
        self.totals["commits"] += 1
        self.commit_seconds.append(time.perf_counter() - began)
        return places

    def recent_sessions(self) -> dict[bytes, int]:
        """The last number of each session that appended within an hour, at most 1,024: the newest."""
        after = self.last_ms - SESSION_RECENT_MS
        recent = [(one.at_ms, name, one.last) for name, one in self.sessions.items() if one.at_ms > after]
        return {name: last for _, name, last in sorted(recent)[-SESSIONS_TOLD:]}

    def load_sessions(self) -> None:
        """Have every session at hand, for `recent_sessions`."""
        with self._env.begin() as txn, txn.cursor(db=self.databases[b"sessions"]) as cursor:
            for name in [bytes(key) for key, _ in cursor]:
                self.session(txn, name)

    def is_stopped(self) -> bool:
        """Whether nothing was written yet, or the last entry is `stopped`."""
        with self._env.begin() as txn:
            last = txn.get(KEY.pack(self.next_entry - 1), db=self.databases[b"entries"])
        return self.next_entry == 1 or (last is not None and _is_stopped(last))

    def known_sequence(self, session: bytes) -> int:
        """As `last_sequence`, of what is at hand: 0 where nothing of the session is. From any thread."""
        known = self.sessions.get(session)
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
            return self.session(txn, session, keep=False).last

    def trim(self, durable: int) -> bool:
        """Delete entries up to and including `durable`, a bounded number at a time; returns whether
        there are more. Works on a full journal: what it needs was kept free."""
        durable = min(durable, self.next_entry - 1)
        count = size = 0
        more = False
        try:
            with self._env.begin(write=True) as txn:
                cursor = txn.cursor(self.databases[b"entries"])
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
                self.used_bytes = self.used(txn)
            if count and not more:
                # LMDB uses freed pages again only when a later transaction has been committed
                with self._env.begin(write=True) as txn:
                    txn.put(b"trimmed", KEY.pack(self.trimmed_to), db=self.databases[b"meta"])
            self.full = self.full and not count
        except lmdb.Error as error:
            raise JournalError(f"cannot trim the journal: {error}") from error
        return more

    def sweep(self) -> int:
        """Free the slots of readers that died; returns how many."""
        return int(self._env.reader_check())

    def forget_sessions(self, connected: Collection[bytes] = ()) -> None:
        """Drop what is remembered of sessions that have not appended for a day and are not connected."""
        before = self.clock.now_ms() - SESSION_KEPT_MS
        with self._env.begin(write=True) as txn:
            cursor = txn.cursor(self.databases[b"sessions"])
            found = cursor.first()
            while found:
                old = bytes(cursor.key()) not in connected
                old = old and msgspec.msgpack.decode(cursor.value())[1] < before
                if old:
                    self.sessions.pop(cursor.key(), None)
                found = (cursor.delete() and bool(cursor.key())) if old else cursor.next()
            cursor.close()

    def metrics(self) -> dict[str, float]:
        """Numbers for the status file."""
        with self._env.begin() as txn:
            cursor = txn.cursor(self.databases[b"entries"])
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

    def used(self, txn: Any) -> int:
        """Bytes of pages in use; pages that were freed and will be used again do not count."""
        pages = 0
        for database in self.databases.values():
            stat = txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * stat["psize"])

    def _reader_lag(self) -> int:
        """Transactions since the snapshot that the oldest reader holds; it keeps pages from use."""
        last = int(self._env.info()["last_txnid"])
        held = [line.split()[2] for line in self._env.readers().splitlines()[1:] if len(line.split()) == 3]
        return max((last - int(number) for number in held if number.isdigit()), default=0)

    def session(self, txn: Any, session: bytes, keep: bool = True) -> Session:
        """What is remembered of a session; of an unknown one, nothing."""
        known = self.sessions.get(session)
        if known is None:
            packed = txn.get(session, db=self.databases[b"sessions"])
            last, at_ms, recent = msgspec.msgpack.decode(packed) if packed else (0, 0, [])
            known = Session(last, at_ms, [tuple(place) for place in recent])
            if keep:
                self.sessions[session] = known
        return known


def _is_stopped(data: bytes) -> bool:
    entry = entries.decode_entry(0, data)
    return entry.kind == entries.CONTROL and entry.control().kind == "stopped"
