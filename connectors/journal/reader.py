"""Reads a journal from any process, while it is written, without a transaction across calls."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import lmdb
import msgspec

from connectors.errors import JournalError, JournalGap
from connectors.journal.entries import FRAMES, HEADER_BYTES, Entry, decode_entry
from connectors.journal.environment import Environment
from connectors.journal.store import IDENTITY, KEY, STATE
from operators.batch import Control


class Head(NamedTuple):
    """What an entry's header says, and how many bytes the whole entry has."""

    number: int
    kind: int
    frames: int
    ms: int
    position: int
    size: int


class Applied(NamedTuple):
    """That a plant was applied: at journal entry `entry`, when (ms since 1970), by whom and why.
    apply_id: 32 hex digits, "" of what an earlier version applied."""

    entry: int
    sha256: str
    ms: int
    apply_id: str
    by: str
    why: str


class AppliedPlant(NamedTuple):
    """A plant that was applied, at journal entry `entry`."""

    sha256: str
    files: dict[str, bytes]
    entry: int


class JournalReader:
    """A read-only view of the journal of a data directory; sees what was committed before each call."""

    def __init__(self, path: Path) -> None:
        """path: the journal's folder (DATA/journal). Raises JournalError where there is none."""
        self.path = path
        self._environment = Environment(path)
        self._db = self._environment.databases

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(
        self, from_entry: int, max_rows: int, max_bytes: int, stop_at_entry: int | None = None
    ) -> list[Entry]:
        """The entries from `from_entry` on, at least one if there is one, then as many as stay
        within `max_rows` frames and `max_bytes`, none beyond `stop_at_entry`.

        Raises JournalGap where `from_entry` has been trimmed, or lies beyond a journal that was
        made anew.
        """
        found: list[Entry] = []
        rows = size = 0
        with self._begin() as txn:
            cursor = txn.cursor(self._db[b"entries"])
            if not cursor.set_range(KEY.pack(from_entry)):
                self._check_gap(txn, from_entry, None)
                return []
            first = KEY.unpack(cursor.key())[0]
            if first != from_entry:
                self._check_gap(txn, from_entry, first)
            for key, data in cursor.iternext():
                number = KEY.unpack(key)[0]
                if stop_at_entry is not None and number > stop_at_entry:
                    break
                entry = decode_entry(number, data)
                if entry.kind == FRAMES:
                    rows += entry.count
                size += len(data)
                if found and (rows > max_rows or size > max_bytes):
                    break
                found.append(entry)
            cursor.close()
        return found

    def heads(self, from_entry: int, limit: int) -> list[Head]:
        """The heads of at most `limit` entries from `from_entry` on; the entries are not copied.

        Raises JournalGap as `read` does.
        """
        found: list[Head] = []
        with self._begin(buffers=True) as txn, txn.cursor(db=self._db[b"entries"]) as cursor:
            if not cursor.set_range(KEY.pack(from_entry)):
                self._check_gap(txn, from_entry, None)
                return []
            first = KEY.unpack(cursor.key())[0]
            if first != from_entry:
                self._check_gap(txn, from_entry, first)
            for key, data in cursor.iternext():
                number = KEY.unpack(key)[0]
                entry = decode_entry(number, bytes(data[:HEADER_BYTES]))
                found.append(Head(number, entry.kind, entry.count, entry.ms, entry.position, len(data)))
                if len(found) >= limit:
                    break
        return found

    def identity(self) -> str:
        """16 hex digits that tell this journal from any other; "" of one that an earlier version
        made and this one has not written yet."""
        with self._begin() as txn:
            return (txn.get(IDENTITY, db=self._db[b"meta"]) or b"").hex()

    def control(self, entry: Entry) -> Control:
        """The control of an entry, a plant's with its `files`."""
        control = entry.control()
        if control.kind != "plant":
            return control
        files = self.bundle(control.data["sha256"])
        return control._replace(data={**control.data, "files": files})

    def bundle(self, sha256: str) -> dict[str, bytes]:
        """The files of an applied plant; raises JournalError for one that never was."""
        with self._begin() as txn:
            packed = txn.get(sha256.encode(), db=self._db[b"bundles"])
        if packed is None:
            raise JournalError(f"the journal holds no plant {sha256}")
        return dict(msgspec.msgpack.decode(packed, type=dict[str, bytes]))

    def last_plant(self, before_entry: int | None = None) -> AppliedPlant | None:
        """The newest plant applied before `before_entry` (None: of all), trimmed or not."""
        with self._begin() as txn:
            cursor = txn.cursor(self._db[b"plants"])
            if before_entry is None or not cursor.set_range(KEY.pack(before_entry)):
                found = cursor.last()
            else:
                found = cursor.prev()
            applied = self._applied(txn, cursor) if found else None
            cursor.close()
        return applied

    def first_plant(self) -> AppliedPlant | None:
        """The plant in force before the oldest entry that is left; the first ever where none was."""
        before = self.last_plant(self.oldest())
        if before is not None:
            return before
        with self._begin() as txn:
            cursor = txn.cursor(self._db[b"plants"])
            applied = self._applied(txn, cursor) if cursor.first() else None
            cursor.close()
        return applied

    def history(self) -> list[Applied]:
        """Every plant that was ever applied, oldest first; trimming takes none away."""
        with self._begin() as txn, txn.cursor(db=self._db[b"plants"]) as cursor:
            return [_applied(key, value) for key, value in cursor]

    def newest_applied(self) -> Applied | None:
        """The newest of `history`; cheap enough to ask for many times a second."""
        with self._begin() as txn, txn.cursor(db=self._db[b"plants"]) as cursor:
            return _applied(cursor.key(), cursor.value()) if cursor.last() else None

    def _applied(self, txn: Any, cursor: Any) -> AppliedPlant:
        sha256 = _applied(cursor.key(), cursor.value()).sha256.encode()
        files = msgspec.msgpack.decode(txn.get(sha256, db=self._db[b"bundles"]), type=dict[str, bytes])
        return AppliedPlant(sha256.decode(), files, KEY.unpack(cursor.key())[0])

    def oldest(self) -> int:
        """The oldest entry; one beyond the last where there is none."""
        with self._begin() as txn:
            cursor = txn.cursor(self._db[b"entries"])
            number = KEY.unpack(cursor.key())[0] if cursor.first() else self._next(txn)[0]
            cursor.close()
        return int(number)

    def last(self) -> int:
        """The last entry that was ever written, trimmed or not; 0 before the first."""
        with self._begin() as txn:
            return self._next(txn)[0] - 1

    def next_position(self) -> int:
        """Ordinal of the next frame."""
        with self._begin() as txn:
            return self._next(txn)[1]

    def close(self) -> None:
        """Let go of the journal."""
        self._environment.close()

    def _begin(self, *, buffers: bool = False) -> Any:
        try:
            return self._environment.env.begin(buffers=buffers)
        except lmdb.MapResizedError:  # the journal was restarted with a larger cap
            self._environment.env.set_mapsize(0)
            return self._environment.env.begin(buffers=buffers)

    def _next(self, txn: Any) -> tuple[int, int]:
        state = txn.get(b"state", db=self._db[b"meta"])
        return STATE.unpack(state)[:2] if state else (1, 0)

    def _check_gap(self, txn: Any, wanted: int, first: int | None) -> None:
        following = self._next(txn)[0]
        if first is not None or wanted < following:
            raise JournalGap(
                f"journal entry {wanted} has been trimmed; the oldest is {first if first else following}"
            )
        if wanted > following:
            raise JournalGap(
                f"journal entry {wanted} was asked for, but the journal ends at {following - 1}: "
                f"it is not the journal that this state was made from"
            )


def _applied(key: bytes, value: bytes) -> Applied:
    sha256, _, packed = bytes(value).partition(b"\0")
    about = msgspec.msgpack.decode(packed) if packed else {}
    return Applied(
        KEY.unpack(key)[0],
        sha256.decode(),
        int(about.get("ms", 0)),
        str(about.get("apply_id", "")),
        str(about.get("by", "")),
        str(about.get("why", "")),
    )
