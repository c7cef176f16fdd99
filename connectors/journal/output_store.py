"""How the output log lies on disk, and how it is read.

One LMDB environment, `DATA/output`, that the flow alone writes. Each kind of record has its own
sub-database: the record's number, eight bytes big-endian, to positions, a running total of bytes
and the body (`connectors.journal.columns`). Beside them stand `state` (device and product -> newest
values, `record_key`; `state_layouts` and `state_texts` say how they are read), `open_alarms` (subject ->
newest event, until closed), `answers` (an operator's action by
its id -> what became of it; `answer_order`, by number, knows the oldest), `params` (device and
parameter -> the override in force), `master` (rows of master data that differ from the plant's files) and
`meta`. Every transaction moves `applied` together with what
was made of the entries up to it.

Versions that knew one product a device kept its newest values under the device alone. Such records are
read until one of their device and product stands beside them.

Kinds: telemetry, windows, rejects, alarm_batches and alarm_intervals are cut into big records, each
one insert of the historian; alarms holds one event a record, as soon as it is found. The number of an alarms
record is a function of the journal; where the others are cut is decided once, when they are
written.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from connectors.errors import JournalError
from connectors.journal.environment import Environment
from connectors.sink import OutputRecord
from operators.batch import Ledger, Waiting

KINDS: Final = ("telemetry", "windows", "rejects", "alarm_batches", "alarms", "alarm_intervals")
DATABASES: Final = (
    *(
        b"meta",
        b"state",
        b"state_layouts",
        b"state_texts",
        b"open_alarms",
        b"answers",
        b"answer_order",
        b"params",
        b"master",
    ),
    *(kind.encode() for kind in KINDS),
)
RECORD: Final = struct.Struct("<qqQ")  # first and last position, bytes of the kind up to its end
TALLY: Final = struct.Struct("<QQ")  # last number and bytes of a kind, ever
NUMBER: Final = struct.Struct(">Q")
PRODUCT_BYTES: Final = 8
MAX_KEY: Final = 500  # LMDB's limit is 511 bytes
ANSWERS_KEPT: Final = 10_000  # the newest
DEFAULT_BACKLOG: Final = 4_000_000_000


def bytes_key(data: bytes) -> bytes:
    """Bytes as a key: themselves, or where they are too long their SHA-256."""
    return data if 0 < len(data) <= MAX_KEY else hashlib.sha256(data).hexdigest().encode()


def record_key(device: bytes, product: bytes) -> bytes:
    """The key of a record of newest values; product: PRODUCT_BYTES."""
    return bytes_key(device) + b"\0" + product


def text_key(text: str) -> bytes:
    """A text as a key."""
    return bytes_key(text.encode("utf-8", "surrogatepass"))


class Cursor(msgspec.Struct):
    """What a drainer keeps in `DATA/cursors/TARGET.json`: by kind, the last number that its
    target holds durably; `backlog`: how many bytes may wait for it."""

    target: str
    identity: str
    kinds: dict[str, int]
    backlog: int = DEFAULT_BACKLOG


def cursor_path(data: Path, target: str) -> Path:
    """Where a target's cursor stands."""
    return data / "cursors" / f"{target}.json"


def read_cursor(path: Path) -> Cursor | None:
    """The cursor in a file; None where there is none that can be read."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Cursor)
    return None


def read_cursors(data: Path, identity: str) -> dict[str, Cursor]:
    """The cursor of every configured target: those that `DATA/run/target-*.json` names, or, where
    none is named, those that have a cursor. A target whose drainer has not started yet, or that
    belongs to another output log, stands at the beginning."""
    named = [path.stem.removeprefix("target-") for path in (data / "run").glob("target-*.json")]
    names = named or [path.stem for path in (data / "cursors").glob("*.json")]
    found: dict[str, Cursor] = {}
    for name in sorted(names):
        cursor = read_cursor(cursor_path(data, name))
        if cursor is None:
            cursor = Cursor(name, identity, dict.fromkeys(KINDS, 0))
        elif cursor.identity != identity:
            cursor = Cursor(name, identity, dict.fromkeys(cursor.kinds, 0), cursor.backlog)
        found[name] = cursor
    return found


class OutputReader:
    """Reads an output log while the flow writes it; no transaction outlives a call.

    Raises JournalError where there is no output log (yet).
    """

    def __init__(self, path: Path) -> None:
        self._environment = Environment(path, databases=DATABASES)
        if not self.identity:  # who remembers where it stands under no identity begins anew later
            self.close()
            raise JournalError(f"{path} is being made")

    def close(self) -> None:
        """Let go of the environment."""
        self._environment.close()

    @contextmanager
    def _begin(self, *, buffers: bool = False) -> Iterator[Any]:
        env = self._environment.env
        try:
            txn = env.begin(buffers=buffers)
        except lmdb.MapResizedError:  # the writer has made the map larger
            env.set_mapsize(0)
            txn = env.begin(buffers=buffers)
        except lmdb.Error as error:
            raise JournalError(f"cannot read the output log: {error}") from error
        with txn:
            yield txn

    def _db(self, name: str) -> Any:
        return self._environment.databases[name.encode()]

    def _meta(self, key: bytes) -> bytes | None:
        with self._begin() as txn:
            value: bytes | None = txn.get(key, db=self._db("meta"))
            return value

    @property
    def identity(self) -> str:
        """Tells this output log from one of another data directory; made with it."""
        return (self._meta(b"identity") or b"").decode()

    def version(self) -> int:
        """Rises with every commit that a read now would see; cheap enough to ask for every millisecond.

        The number in LMDB's meta page would be a commit's before readers may see it: the meta page is
        written, and synced, first. Who took that number and then read would miss the commit.
        """
        with self._begin() as txn:
            return int(txn.id())

    def applied(self) -> int:
        """The last journal entry whose alarms, ledger and state are in the log; 0: none."""
        value = self._meta(b"applied")
        return int(NUMBER.unpack(value)[0]) if value else 0

    def applied_bulk(self) -> int:
        """The last journal entry whose telemetry, windows, rejects and alarm batches are in the log."""
        value = self._meta(b"applied_bulk")
        return int(NUMBER.unpack(value)[0]) if value else 0

    def tally(self, kind: str) -> tuple[int, int]:
        """The number of the newest record of a kind (0: none yet), and the bytes of all ever."""
        value = self._meta(b"kind:" + kind.encode())
        return tuple(TALLY.unpack(value)) if value else (0, 0)

    def read(
        self, kind: str, after: int, max_bytes: int = 8 << 20, max_records: int = 10_000
    ) -> list[OutputRecord]:
        """Records with numbers above `after`, in order: at least one where there is one, and no
        more than the caps. Numbers below the first still kept are passed over."""
        found: list[OutputRecord] = []
        size = 0
        with self._begin() as txn, txn.cursor(db=self._db(kind)) as cursor:
            there = cursor.set_range(NUMBER.pack(after + 1))
            while there and len(found) < max_records:
                value = cursor.value()
                size += len(value)
                if found and size > max_bytes:
                    break
                first, last, _ = RECORD.unpack_from(value)
                number = NUMBER.unpack(cursor.key())[0]
                found.append(OutputRecord(kind, number, first, last, value[RECORD.size :]))
                there = cursor.next()
        return found

    def newest(self, kind: str, count: int) -> list[OutputRecord]:
        """The newest records that are still kept, newest first."""
        found: list[OutputRecord] = []
        with self._begin() as txn, txn.cursor(db=self._db(kind)) as cursor:
            there = cursor.last()
            while there and len(found) < count:
                value = cursor.value()
                first, last, _ = RECORD.unpack_from(value)
                number = NUMBER.unpack(cursor.key())[0]
                found.append(OutputRecord(kind, number, first, last, value[RECORD.size :]))
                there = cursor.prev()
        return found

    def backlog(self, kind: str, after: int) -> tuple[int, int]:
        """Records and bytes that wait behind a cursor."""
        with self._begin(buffers=True) as txn:
            return backlog(txn, self._environment.databases, kind, after)

    def ledger(self) -> Ledger:
        """The ledger's totals since the plant's first frame."""
        value = self._meta(b"ledger")
        rows = msgspec.msgpack.decode(value, type=list[tuple[str, str, dict[str, int]]]) if value else []
        return {(source, product): terms for source, product, terms in rows}

    def reject_counts(self) -> dict[tuple[str, str, str], int]:
        """Rejects so far by (source, productId, reason)."""
        value = self._meta(b"reject_counts")
        rows = msgspec.msgpack.decode(value, type=list[tuple[str, str, str, int]]) if value else []
        return {(source, product, reason): count for source, product, reason, count in rows}

    def alarm_counts(self) -> dict[str, int]:
        """Alarm events so far by transition."""
        value = self._meta(b"alarm_counts")
        return msgspec.msgpack.decode(value, type=dict[str, int]) if value else {}

    def open_alarms(self) -> list[dict[str, Any]]:
        """The newest event of every alarm that is not closed, by subject."""
        with self._begin() as txn, txn.cursor(db=self._db("open_alarms")) as cursor:
            return [json.loads(value) for value in cursor.iternext(keys=False)]

    def answer(self, action_id: str) -> dict[str, Any] | None:
        """What became of an operator's action ("id", "accepted", "message", "alarm_id", "subject",
        "state", "at_ms"); None while the flow has not dealt with it, or of one that is forgotten."""
        with self._begin() as txn:
            value = txn.get(text_key(action_id), db=self._db("answers"))
        return None if value is None else dict(json.loads(value))

    def params(self) -> list[dict[str, Any]]:
        """The parameters of devices that an operator has set: "device_id", "param", "value", "by",
        "why", "at_ms", by device and parameter."""
        with self._begin() as txn, txn.cursor(db=self._db("params")) as cursor:
            found = [dict(json.loads(value)) for value in cursor.iternext(keys=False)]
        return sorted(found, key=lambda one: (one["device_id"], one["param"]))

    def master(self) -> list[tuple[str, str, dict[str, str] | None]]:
        """Table, key and row (None: gone) of what differs from the applied plant's files, in the order in
        which it came to."""
        with self._begin() as txn, txn.cursor(db=self._db("master")) as cursor:
            found = [json.loads(value) for value in cursor.iternext(keys=False)]
        found.sort(key=lambda one: int(one["number"]))
        return [(one["table"], one["key"], one["row"]) for one in found]

    def past(self, table: str, key: str) -> list[tuple[int, dict[str, str]]]:
        """What a row of master data was, by rising time until which (ns), as of event time."""
        with self._begin() as txn:
            value = txn.get(text_key(f"{table}\0{key}"), db=self._db("master"))
        kept = {} if value is None else json.loads(value)
        return [(int(until), dict(row)) for until, row in kept.get("past", ())]

    def waiting(self) -> list[Waiting]:
        """The unknown devices that frames wait for, the longest first."""
        value = self._meta(b"waiting")
        return msgspec.msgpack.decode(value, type=list[Waiting]) if value else []

    def state(self, device_id: str) -> list[bytes]:
        """A device's records as `operators.state` wrote them, one a product."""
        device = text_key(device_id)
        before = device + b"\0"
        with self._begin() as txn, txn.cursor(db=self._db("state")) as cursor:
            found = [cursor.value()] if cursor.set_key(device) else []
            there = cursor.set_range(before)
            while there and cursor.key().startswith(before):
                if len(cursor.key()) == len(before) + PRODUCT_BYTES:
                    found.append(cursor.value())
                there = cursor.next()
        return found

    def state_count(self) -> int:
        """How many records there are; rises with each device that is first heard as a product."""
        with self._begin() as txn:
            return int(txn.stat(self._db("state"))["entries"])

    def state_layout(self, identifier: bytes) -> bytes | None:
        """The layout of records that name it."""
        with self._begin() as txn:
            value: bytes | None = txn.get(identifier, db=self._db("state_layouts"))
            return value

    def state_text(self, code: int) -> str | None:
        """The text that a record names by its code."""
        with self._begin() as txn:
            value: bytes | None = txn.get(NUMBER.pack(code), db=self._db("state_texts"))
            return None if value is None else value.decode("utf-8", "surrogatepass")

    def states(self) -> list[bytes]:
        """Every device's records, in the order of their keys: older forms first."""
        with self._begin() as txn, txn.cursor(db=self._db("state")) as cursor:
            return list(cursor.iternext(keys=False))

    def devices(self) -> list[str]:
        """Devices that have a state record, by name."""
        with self._begin() as txn, txn.cursor(db=self._db("state")) as cursor:
            keys = {_device_of(key) for key in cursor.iternext(values=False)}
        return sorted(key.decode("utf-8", "surrogatepass") for key in keys)


def _device_of(key: bytes) -> bytes:
    """The device in the key of a record of newest values."""
    end = len(key) - PRODUCT_BYTES - 1
    return key[:end] if end > 0 and key[end] == 0 else key


def backlog(txn: Any, databases: Mapping[bytes, Any], kind: str, after: int) -> tuple[int, int]:
    """Records and bytes of a kind behind number `after`; `txn` gives buffers."""
    value = txn.get(b"kind:" + kind.encode(), db=databases[b"meta"])
    if value is None:
        return 0, 0
    last, total = TALLY.unpack(bytes(value))
    if last <= after:
        return 0, 0
    with txn.cursor(db=databases[kind.encode()]) as cursor:
        if not cursor.set_range(NUMBER.pack(after + 1)):
            return 0, 0
        record = cursor.value()
        before = RECORD.unpack_from(record)[2] - len(record)
        first = NUMBER.unpack(bytes(cursor.key()))[0]
    return last - first + 1, total - before
