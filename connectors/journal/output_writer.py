"""The writer of the output log: what the flow found, durably and in order.

`OutputWriter` takes finished slices. Alarms, the ledger and the newest values are written at once;
telemetry, windows and rejects are gathered and cut into records of up to 50,000 rows or one second
of the journal's clock, so that a historian's inserts stay big. Each half keeps, in the transaction
of its data, the journal entry up to which it is applied, and ignores slices up to it; `boundaries`
are these entries, across which a source lets no slice reach.

Crash guarantees: every commit is an LMDB transaction with its fdatasync, so what a drainer can read
survives a loss of power. Rows that are still gathered live in memory and come again from the
journal; `flush`, which Bytewax's snapshot calls, writes everything, so that the journal may be
trimmed behind a committed epoch.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import lmdb
import msgspec

from connectors.journal.columns import (
    TelemetrySpec,
    encode_intervals,
    encode_rejects,
    encode_telemetry,
    encode_windows,
)
from connectors.journal.environment import Environment
from connectors.journal.output_store import (
    ANSWERS_KEPT,
    DATABASES,
    KINDS,
    NUMBER,
    RECORD,
    TALLY,
    OutputReader,
    backlog,
    read_cursors,
    record_key,
    text_key,
)
from operators.batch import (
    SEQ_PER_FRAME,
    AlarmEvent,
    AlarmInterval,
    Ledger,
    ReadingBatch,
    Slice,
    StateChanges,
    Waiting,
    WindowBatch,
)
from operators.master import MasterChanges
from operators.rejects import Reject
from operators.spec import SECOND

MAP_BYTES: Final = 32 << 30  # of address space; the file grows as it is needed
CUT_ROWS: Final = 50_000
CUT_REJECTS: Final = 10_000
CUT_NS: Final = SECOND  # of the journal's clock
COMMIT_S: Final = 0.05  # how long telemetry's share of the ledger may wait for its commit
STATE_SHARE: Final = 20  # newest values are written when that many times their cost has passed ...
STATE_S: Final = 0.5  # ... at the latest after so long
STATE_AT_ONCE: Final = 1 << 14  # of them
LOOK_S: Final = 1.0  # how often cursors are read and what all targets have is trimmed
TRIM_RECORDS: Final = 5_000  # a kind, a look
KEPT: Final = {"alarms": 10_000, "rejects": 100}  # newest records that stay for people to look at

Body = tuple[int, int, bytes]  # first position, last position, body


class Names(Protocol):
    """Device names by slot; see `operators.devices.Devices`."""

    @property
    def names(self) -> Sequence[str]: ...


class OutputWriter:
    """Writes slices to the output log at `path` (`DATA/output`). One thread.

    devices: names by slot. telemetry: what is written of each product; `use` changes it.
    state: gives the newest values that changed since it was last asked.
    """

    def __init__(
        self,
        path: Path,
        devices: Names,
        telemetry: Mapping[str, TelemetrySpec],
        *,
        state: Callable[[], StateChanges] = StateChanges,
        map_bytes: int = MAP_BYTES,
        cut_rows: int = CUT_ROWS,
    ) -> None:
        self.path = path
        self._devices = devices
        self._telemetry = telemetry
        self._state = state
        self._cut_rows = cut_rows
        self._environment = Environment(path, map_bytes=map_bytes, databases=DATABASES)
        self._env, self._databases = self._environment.env, self._environment.databases
        self._load()
        self._gathered = _Gathered()
        self._events: list[AlarmEvent] = []
        self._answers: list[dict[str, Any]] = []
        self._master: list[MasterChanges] = []
        self._held: Sequence[Waiting] | None = None
        self.reached = 0  # the last entry taken since the start
        self._clock = 0
        self._committed_at = 0.0
        self._state_at = 0.0
        self._state_cost = 0.0
        self._looked_at = 0.0
        self._is_state_due = False
        self._full: str | None = None
        self._waiting: dict[str, int] = {}
        self.commits = 0
        self.commit_seconds = 0.0

    def write(self, item: Slice) -> None:
        """Take a finished slice; `commit_due` writes. Its batches must not change afterwards."""
        entry = item.last_entry
        frames = item.frames
        if len(frames.ticks.ns):
            self._clock = max(self._clock, int(frames.ticks.ns[-1]))
        if len(frames):
            self._clock = max(self._clock, int(frames.ingest_ns[-1]))
        if entry > self.applied_bulk:
            self._gathered.take(item, self._clock)
        if entry > self.applied:
            self._events.extend(alarm for alarm in item.alarms if not alarm.shadow)  # nobody is told
            self._answers.extend(item.answers)
            if item.master is not None:
                self._master.append(item.master)
            if item.waiting is not None:
                self._held = item.waiting
            self._count(item)
        self._is_state_due = True
        self.reached = max(self.reached, entry)

    def use(self, telemetry: Mapping[str, TelemetrySpec]) -> None:
        """Another plant from the next slice on; what was gathered is written under the old one."""
        self.flush()
        self._telemetry = telemetry

    def commit_due(self) -> None:
        """Write what should not wait any longer."""
        bulk = self._gathered.is_due(self._clock, self._cut_rows)
        if self._events or self._answers:
            self._commit(False)  # before the rows of a second, which take as long as several slices
        if bulk:
            self._commit(True)
        elif self._master or self._is_overdue():
            self._commit(False)

    def flush(self) -> None:
        """Write everything; durable when it returns."""
        if self.reached > min(self.applied, self.applied_bulk) or self._is_state_due:
            self._commit(True, state=True)

    def boundaries(self) -> list[int]:
        """Entries up to which this store is applied, one for each half of it."""
        return [self.applied_bulk, self.applied]

    def backlog_full(self) -> str | None:
        """Which target's backlog is at its cap, in words, or None. The source asks before every
        read, so what is overdue is committed here when no slice comes by."""
        if self._is_overdue():
            self._commit(False)
        if time.monotonic() - self._looked_at >= LOOK_S:
            self.look()
        return self._full

    def look(self) -> None:
        """Read the targets' cursors: trim what all have, and see whose backlog is full."""
        self._looked_at = time.monotonic()
        cursors = read_cursors(self.path.parent, self.identity)
        self._full = None
        with self._env.begin(buffers=True) as txn:
            for name, cursor in cursors.items():
                waiting = sum(
                    backlog(txn, self._databases, kind, number)[1]
                    for kind, number in cursor.kinds.items()
                    if kind in KINDS
                )
                self._waiting[name] = waiting
                if waiting > cursor.backlog and self._full is None:
                    self._full = f"{name}: {waiting:,} bytes wait, its backlog is {cursor.backlog:,}"
        for gone in self._waiting.keys() - cursors.keys():
            del self._waiting[gone]
        upto = {}
        for kind in KINDS if cursors else ():
            wanted = [cursor.kinds[kind] for cursor in cursors.values() if kind in cursor.kinds]
            last = self._tallies[kind][0]
            upto[kind] = min([*wanted, last - KEPT.get(kind, 0)])
        self._trim(upto)

    def describe(self) -> dict[str, Any]:
        """Numbers for health and metrics; from any thread."""
        return {
            "applied": self.applied,
            "applied_bulk": self.applied_bulk,
            "commits_total": self.commits,
            "commit_seconds_total": round(self.commit_seconds, 6),
            "gathered_rows": self._gathered.rows,
            "records": {f"{kind}_total": tally[0] for kind, tally in self._tallies.items()},
            "bytes": {f"{kind}_total": tally[1] for kind, tally in self._tallies.items()},
            "backlog_bytes": dict(self._waiting),
            "full": self._full,
        }

    def close(self) -> None:
        """Let go of the environment; what was gathered comes again from the journal."""
        self._environment.close()

    def _load(self) -> None:
        with self._env.begin(write=True) as txn:
            meta = self._databases[b"meta"]
            if txn.get(b"identity", db=meta) is None:
                txn.put(b"identity", uuid.uuid4().hex.encode(), db=meta)
            self.identity = txn.get(b"identity", db=meta).decode()
            entries = [txn.get(key, db=meta) for key in (b"applied", b"applied_bulk")]
            self.applied, self.applied_bulk = (NUMBER.unpack(e)[0] if e else 0 for e in entries)
            self._tallies: dict[str, tuple[int, int]] = {}
            for kind in KINDS:
                tally = txn.get(b"kind:" + kind.encode(), db=meta)
                self._tallies[kind] = TALLY.unpack(tally) if tally else (0, 0)
        reader = OutputReader(self.path)
        self._ledger: Ledger = reader.ledger()
        self._reject_counts = reader.reject_counts()
        self._alarm_counts = reader.alarm_counts()
        reader.close()

    def _is_overdue(self) -> bool:
        waits = self.reached > self.applied or (self._is_state_due and self.reached == self.applied)
        return waits and time.monotonic() - self._committed_at >= COMMIT_S

    def _count(self, item: Slice) -> None:
        for key, terms in item.ledger.items():
            kept = self._ledger.setdefault(key, {})
            for term, count in terms.items():
                kept[term] = kept.get(term, 0) + count
        for reject in item.rejects:
            label = (reject.source, reject.productId, reject.reason.name)
            self._reject_counts[label] = self._reject_counts.get(label, 0) + 1
        for alarm in item.alarms:
            if alarm.shadow:
                continue
            transition = alarm.transition
            self._alarm_counts[transition] = self._alarm_counts.get(transition, 0) + 1

    def _commit(self, bulk: bool, *, state: bool = False) -> None:
        began = time.perf_counter()
        found = self._gathered.bodies(self._telemetry, self._devices.names) if bulk else []
        changes = StateChanges()
        now = time.monotonic()
        # below `applied` the stage is still catching up: its values are older than those written
        pause = min(STATE_SHARE * self._state_cost, STATE_S)
        if self._is_state_due and self.reached >= self.applied and (state or now - self._state_at >= pause):
            changes = self._state()
            self._is_state_due = False
            self._state_at, self._state_cost = now, time.monotonic() - now
        try:
            self._transact(found, changes, bulk)
        except lmdb.MapFullError:
            self._env.set_mapsize(2 * self._env.info()["map_size"])
            self._transact(found, changes, bulk)
        self._events = []
        self._answers, self._master, self._held = [], [], None
        self.applied = max(self.applied, self.reached)
        if bulk:
            self.applied_bulk = max(self.applied_bulk, self.reached)
            self._gathered = _Gathered()
        self._committed_at = time.monotonic()
        self.commits += 1
        self.commit_seconds += time.perf_counter() - began

    def _transact(self, found: Sequence[tuple[str, Body]], state: StateChanges, bulk: bool) -> None:
        meta = self._databases[b"meta"]
        tallies = dict(self._tallies)
        with self._env.begin(write=True) as txn:
            for kind, body in found:
                tallies[kind] = self._put(txn, kind, tallies[kind], body)
            for alarm in self._events:
                line = alarm.line
                body = (alarm.position, alarm.position, line)
                tallies["alarms"] = self._put(txn, "alarms", tallies["alarms"], body)
                subject = text_key(alarm.subject)
                if alarm.transition == "closed":
                    txn.delete(subject, db=self._databases[b"open_alarms"])
                else:
                    txn.put(subject, line, db=self._databases[b"open_alarms"])
            self._put_state(txn, state)
            for answer in self._answers:
                self._answer(txn, answer)
            for changes in self._master:
                self._put_master(txn, changes)
            if self._held is not None:
                txn.put(b"waiting", msgspec.msgpack.encode(self._held), db=meta)
            for kind, tally in tallies.items():
                if tally != self._tallies[kind]:
                    txn.put(b"kind:" + kind.encode(), TALLY.pack(*tally), db=meta)
            if self.reached > self.applied:
                txn.put(b"applied", NUMBER.pack(self.reached), db=meta)
                for name, value in self._totals():
                    txn.put(name, value, db=meta)
            if bulk and self.reached > self.applied_bulk:
                txn.put(b"applied_bulk", NUMBER.pack(self.reached), db=meta)
        self._tallies = tallies

    def _answer(self, txn: Any, answer: Mapping[str, Any]) -> None:
        """Keep an answer, and the parameter that it says is in force; the oldest is forgotten. Of an
        action that stands twice in the journal (its sender lost the connection) the first counts."""
        key = text_key(answer["id"])
        answers, order = self._databases[b"answers"], self._databases[b"answer_order"]
        if txn.put(key, msgspec.json.encode(answer), db=answers, overwrite=False):
            with txn.cursor(db=order) as cursor:
                number = NUMBER.unpack(cursor.key())[0] + 1 if cursor.last() else 1
            txn.put(NUMBER.pack(number), key, db=order, append=True)
            if txn.stat(order)["entries"] > ANSWERS_KEPT:
                with txn.cursor(db=order) as cursor:
                    cursor.first()
                    txn.delete(cursor.value(), db=answers)
                    cursor.delete()
        param = answer.get("param")
        if answer["accepted"] and param is not None:
            where = text_key(f"{param['device_id']}\0{param['param']}")
            if param["value"] is None:
                txn.delete(where, db=self._databases[b"params"])
            else:
                value = msgspec.json.encode({**param, "at_ms": answer["at_ms"]})
                txn.put(where, value, db=self._databases[b"params"])

    def _put_master(self, txn: Any, changes: MasterChanges) -> None:
        """Rows of master data that differ from the plant's files; `number` keeps the order in which they
        came to. A row that is the file's again stays: it says the same."""
        master, meta = self._databases[b"master"], self._databases[b"meta"]
        if changes.whole:
            txn.drop(master, delete=False)
        value = txn.get(b"master_rows", db=meta)
        number = NUMBER.unpack(value)[0] if value else 0
        for table, key, row, past in changes.rows:
            place = text_key(f"{table}\0{key}")
            known = txn.get(place, db=master)
            number += known is None
            at = number if known is None else msgspec.json.decode(known)["number"]
            body = {"number": at, "table": table, "key": key, "row": row, "past": past}
            txn.put(place, msgspec.json.encode(body), db=master)
        txn.put(b"master_rows", NUMBER.pack(number), db=meta)

    def _put_state(self, txn: Any, state: StateChanges) -> None:
        began = time.monotonic()
        made = ((record_key(device, product), value) for device, product, value in state.records)
        with txn.cursor(db=self._databases[b"state"]) as cursor:
            # neighbours in the tree, one after the other; not all devices' records at once
            while records := sorted(islice(made, STATE_AT_ONCE)):
                cursor.putmulti(records)
        for identifier, layout in state.layouts.items():
            txn.put(identifier, layout, db=self._databases[b"state_layouts"], overwrite=False)
        for code, text in state.texts.items():
            body = text.encode("utf-8", "surrogatepass")
            txn.put(NUMBER.pack(code), body, db=self._databases[b"state_texts"], overwrite=False)
        if state.records:
            self._state_cost += time.monotonic() - began  # they are made as they are put

    def _totals(self) -> list[tuple[bytes, bytes]]:
        encode = msgspec.msgpack.encode
        return [
            (b"ledger", encode([(*key, terms) for key, terms in self._ledger.items()])),
            (b"reject_counts", encode([(*key, count) for key, count in self._reject_counts.items()])),
            (b"alarm_counts", encode(self._alarm_counts)),
        ]

    def _put(self, txn: Any, kind: str, tally: tuple[int, int], body: Body) -> tuple[int, int]:
        first, last, data = body
        number, size = tally[0] + 1, RECORD.size + len(data)
        header = RECORD.pack(first, last, tally[1] + size)
        txn.put(NUMBER.pack(number), header + data, db=self._databases[kind.encode()], append=True)
        return number, tally[1] + size

    def _trim(self, upto: Mapping[str, int]) -> None:
        """Delete what is behind, of all kinds in one transaction: it is durable, and alarms wait for it."""
        due = {}
        with self._env.begin(buffers=True) as txn:
            for kind, last in upto.items():
                with txn.cursor(db=self._databases[kind.encode()]) as cursor:
                    if cursor.first() and NUMBER.unpack(bytes(cursor.key()))[0] <= last:
                        due[kind] = last
        if not due:
            return
        is_more = False
        with self._env.begin(write=True) as txn:
            for kind, last in due.items():
                with txn.cursor(db=self._databases[kind.encode()]) as cursor:
                    is_more |= not _delete_upto(cursor, last)
        if is_more:
            self._looked_at = 0.0  # look again at the next opportunity


def _delete_upto(cursor: Any, last: int) -> bool:
    """Delete the records up to that number, at most TRIM_RECORDS; whether that is all of them."""
    for _ in range(TRIM_RECORDS):
        if not cursor.first() or NUMBER.unpack(cursor.key())[0] > last:
            return True
        cursor.delete()
    return False


class _Gathered:
    """Rows of slices that are not in the log yet."""

    def __init__(self) -> None:
        self.rows = 0
        self.readings: dict[str, list[ReadingBatch]] = {}
        self.windows: dict[tuple[str, str, str, tuple[str, ...]], list[WindowBatch]] = {}
        self.rejects: list[Reject] = []
        self.events: list[AlarmEvent] = []
        self.intervals: list[AlarmInterval] = []
        self.since: int | None = None  # the journal's clock at the first of them

    def take(self, item: Slice, clock: int) -> None:
        for readings in item.readings:
            if len(readings):
                self.readings.setdefault(readings.productId, []).append(readings)
                self.rows += len(readings)
        for batch in item.windows:
            if len(batch):
                key = (batch.productId, batch.window, batch.by, tuple(batch.aggregates))
                self.windows.setdefault(key, []).append(batch)
                self.rows += len(batch)
        self.rejects.extend(item.rejects)
        self.events.extend(item.alarms)
        self.intervals.extend(item.intervals)
        if self.since is None and (self.rows or self.rejects or self.events or self.intervals):
            self.since = clock

    def is_due(self, clock: int, cut_rows: int) -> bool:
        if self.since is None:
            return False
        many = self.rows >= cut_rows or len(self.rejects) >= CUT_REJECTS
        return many or clock - self.since >= CUT_NS

    def bodies(self, telemetry: Mapping[str, TelemetrySpec], names: Sequence[str]) -> list[tuple[str, Body]]:
        made: list[tuple[str, Body]] = []
        for productId, batches in self.readings.items():
            first = int(batches[0].seq[0]) // SEQ_PER_FRAME
            last = int(batches[-1].seq[-1]) // SEQ_PER_FRAME
            made.append(("telemetry", (first, last, encode_telemetry(batches, telemetry[productId], names))))
        for (productId, *_), windows in self.windows.items():
            metrics = [name for name, _ in telemetry[productId].metrics]
            first = min(int(batch.position.min()) for batch in windows)
            last = max(int(batch.position.max()) for batch in windows)
            made.append(
                ("windows", (first, last, encode_windows(windows, metrics, windows[-1].names(names))))
            )
        for start in range(0, len(self.rejects), CUT_REJECTS):
            part = self.rejects[start : start + CUT_REJECTS]
            made.append(("rejects", (part[0].position, part[-1].position, encode_rejects(part))))
        for start in range(0, len(self.events), CUT_ROWS):
            events = self.events[start : start + CUT_ROWS]
            body = b"\n".join(
                one.line[:-1] + b',"shadow":true}' if one.shadow else one.line for one in events
            )
            made.append(("alarm_batches", (events[0].position, events[-1].position, body)))
        for start in range(0, len(self.intervals), CUT_ROWS):
            chosen = self.intervals[start : start + CUT_ROWS]
            body = encode_intervals(chosen)
            made.append(("alarm_intervals", (chosen[0].position, chosen[-1].position, body)))
        return made
