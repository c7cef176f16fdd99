"""The historian as a target: records of the output log become inserts.

One record is one insert (more only where it would touch over 50 partitions), and its token is
made of table, schema version, output log and record number, so an insert that is repeated after a
crash is dropped by the server's deduplication window, and beyond the window its rows collapse by
the table's order. A record is cut once and durably by the flow, so equal tokens always mean equal
rows. The same code serves the embedded engine and a server.
"""

from __future__ import annotations

import fcntl
import logging
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import clickhouse_connect
import msgspec
import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from connectors.clickhouse.config import ClickHouseConfig
from connectors.clickhouse.schema import (
    SCHEMA_VERSION,
    create_windows,
    identifier,
    migrate,
    telemetry_table,
    windows_table,
)
from connectors.errors import ConfigError, ConnectError, DeliveryError, PermanentDeliveryError
from connectors.journal.arrow import TEXTS, values_column
from connectors.journal.columns import (
    Telemetry,
    Windows,
    decode_alarms,
    decode_intervals,
    decode_rejects,
    decode_telemetry,
    decode_windows,
)
from connectors.sink import OutputRecord

PARTITIONS: Final = 50  # an insert; a server refuses over 100 (code 252)
DAY_NS: Final = 86_400_000_000_000
NANOSECONDS: Final = pa.timestamp("ms", "UTC")

# codes of ClickHouse (src/Common/ErrorCodes.cpp) that pass by themselves: trying again helps
PASSING: Final = frozenset(
    {
        3,  # UNEXPECTED_END_OF_FILE
        159,  # TIMEOUT_EXCEEDED
        164,  # READONLY
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        203,  # NO_FREE_CONNECTION
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        236,  # ABORTED
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        319,  # UNKNOWN_STATUS_OF_INSERT
        425,  # SYSTEM_ERROR
        439,  # CANNOT_SCHEDULE_TASK
        516,  # AUTHENTICATION_FAILED: the operator mends it
        999,  # KEEPER_EXCEPTION
    }
)
MISSING: Final = frozenset({16, 60})  # NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_TABLE: migrate and try again
_CODE = re.compile(r"[Cc]ode: (\d+)")


def _quiet() -> None:
    """The client's loggers say nothing: that a server is away, and why, is told once by who uses it."""
    for name in ("clickhouse_connect", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class HistorianFile(msgspec.Struct, kw_only=True):
    """What the supervisor tells of this target."""

    shard: int = 0  # whose output log it drains
    historian: ClickHouseConfig
    products: dict[str, list[tuple[str, str]]]
    windows: list[str] = msgspec.field(default_factory=list)


def historian_config(config: Mapping[str, Any]) -> HistorianFile:
    """The typed form of what the drainer is told. Raises `ConfigError`."""
    try:
        return msgspec.convert(config, HistorianFile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"historian: {error}") from error


class ClickHouseTarget:
    """A ClickHouse database over HTTP; it keeps no memory of what it has, tokens see to repeats."""

    kinds: tuple[str, ...] = ("telemetry", "windows", "alarm_batches", "rejects", "alarm_intervals")

    def __init__(self, config: HistorianFile, identity: str, migrating: Path | None = None) -> None:
        """identity: of the output log that it is fed from. migrating: a file that whoever migrates holds
        locked, where several drainers feed one historian."""
        self.config = config
        self.identity = identity
        self._migrating = migrating
        self._client: Any = None
        self._types: dict[str, dict[str, str]] = {}

    def open(self) -> dict[str, int] | None:
        """Connect and migrate. Raises `ConnectError`; `ConfigError` for a url that is none."""
        self._client = self._connect()
        self._types = {}
        self._told(lambda: self._migrate())
        return None

    def send(self, records: Sequence[OutputRecord]) -> None:
        """Insert each record."""
        for record in records:
            for part, (table, rows) in enumerate(self._tables(record)):
                token = f"{table}|{SCHEMA_VERSION}|{self.identity}|{record.kind}|{record.number}|{part}"
                self._told(lambda t=table, r=rows, k=token: self._insert(t, r, k))

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> Any:
        _quiet()
        historian = self.config.historian
        url = f"http://{historian.listen}" if historian.url == "embedded" else historian.url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("historian.url is not http(s)://host:port/database")
        try:
            return clickhouse_connect.get_client(
                host=parts.hostname,
                port=parts.port or (8443 if parts.scheme == "https" else 8123),
                username=parts.username,
                password=parts.password or "",
                database=parts.path.strip("/") or "default",
                interface=parts.scheme,
                connect_timeout=5,
                autogenerate_session_id=False,
                compress=historian.url != "embedded",
            )
        except (ClickHouseError, OSError) as error:
            raise ConnectError(
                f"no ClickHouse answers at {parts.hostname}:{parts.port}: {_short(_cause(error))}"
            ) from error

    def _migrate(self) -> None:
        keep = self.config.historian.keep
        client = _Client(self._client)
        with nullcontext() if self._migrating is None else self._migrating.open("a") as file:
            if file is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            migrate(client, self.config.products, self.config.windows, keep.raw, keep.windows)

    def _told(self, action: Any) -> None:
        """Run an action; its failure as ours, retryable or not."""
        try:
            action()
        except DatabaseError as error:
            found = _CODE.search(str(error))
            code = int(found[1]) if found else 0
            if code in MISSING:
                self._types = {}
                raise ConnectError(f"a table or column is missing: {_short(error)}") from error
            kind = DeliveryError if code in PASSING or not code else PermanentDeliveryError
            raise kind(_short(error)) from error
        except (ClickHouseError, OSError) as error:
            raise ConnectError(_short(error)) from error

    def _insert(self, table: str, rows: pa.Table, token: str) -> None:
        self._client.insert_arrow(
            table, rows, settings={"insert_deduplication_token": token, "async_insert": 0}
        )

    def _tables(self, record: OutputRecord) -> Iterator[tuple[str, pa.Table]]:
        if record.kind == "telemetry":
            telemetry = decode_telemetry(record.body)
            self._ensure(telemetry)
            table = telemetry_table(telemetry.productId)
            rows = telemetry_rows(telemetry, self._columns(table))
            for keep in by_partition(telemetry.ts_ns):
                yield table, rows if keep is None else rows.filter(pa.array(keep))
        elif record.kind == "windows":
            windows = decode_windows(record.body)
            table = windows_table(windows.window)
            if table not in self._types:
                keep_ns = self.config.historian.keep.windows
                self._told(lambda: self._client.command(create_windows(windows.window, keep_ns)))
                self._columns(table)
            rows = window_rows(windows)
            for keep in by_partition(windows.start_ns):
                yield table, rows if keep is None else rows.filter(pa.array(keep))
        elif record.kind == "alarm_batches":
            yield "alarms", self._sharded(alarm_rows(decode_alarms(record.body)))
        elif record.kind == "alarm_intervals":
            yield "alarm_intervals", interval_rows(decode_intervals(record.body))
        elif record.kind == "rejects":
            yield "rejects", self._sharded(reject_rows(record.body))

    def _sharded(self, rows: pa.Table) -> pa.Table:
        """Rows that hold a position, with the shard whose journal it is in."""
        return rows.append_column("_shard", pa.repeat(pa.scalar(self.config.shard, pa.uint16()), len(rows)))

    def _columns(self, table: str) -> dict[str, str]:
        """Column -> type as the server has it, asked once a connection."""
        if table not in self._types:
            found: dict[str, str] = {}

            def ask() -> None:
                rows = self._client.query(f"DESCRIBE TABLE {table}").result_rows
                found.update((str(row[0]), str(row[1])) for row in rows)

            self._told(ask)
            self._types[table] = found
        return self._types[table]

    def _ensure(self, telemetry: Telemetry) -> None:
        """The product's table and columns, for a plant that has changed since this connected."""
        known = self.config.products.get(telemetry.productId)
        if known is None or [tuple(m) for m in known] != telemetry.metrics:
            there = dict(known or [])
            there.update(telemetry.metrics)
            self.config.products[telemetry.productId] = list(there.items())
            self._types.pop(telemetry_table(telemetry.productId), None)
            self._told(self._migrate)


class _Client:
    """What a migration needs of clickhouse-connect's client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def command(self, cmd: str) -> object:
        return self._client.command(cmd)

    def query_rows(self, sql: str) -> Sequence[Sequence[object]]:
        rows: Sequence[Sequence[object]] = self._client.query(sql).result_rows
        return rows


def by_partition(ts_ns: Any) -> Iterator[Any]:
    """Masks that cut rows into inserts of at most 50 days each; None: all rows at once."""
    days = ts_ns // DAY_NS
    distinct = np.unique(days)
    if len(distinct) <= PARTITIONS:
        yield None
        return
    for start in range(0, len(distinct), PARTITIONS):
        chosen = distinct[start : start + PARTITIONS]
        yield (days >= chosen[0]) & (days <= chosen[-1])


def telemetry_rows(telemetry: Telemetry, types: Mapping[str, str]) -> pa.Table:
    """The rows of a wide table. types: of its columns; a metric whose type has changed since the
    column was made is written as that column can hold it, or null."""
    columns: dict[str, pa.Array] = {
        "_ts": milliseconds(telemetry.ts_ns),
        "_ingest_ts": milliseconds(telemetry.ingest_ns),
        "_device": pa.array(telemetry.devices, pa.string()).take(pa.array(telemetry.device)),
        "_seq": pa.array(telemetry.seq),
        "_historical": pa.array(telemetry.historical != 0),
    }
    for row, (metric, kind) in enumerate(telemetry.metrics):
        name = identifier(metric)
        values = values_column(kind, telemetry.value[row], telemetry.texts)
        columns[name] = fitted(values, types.get(name, ""))
        columns[f"{name}__quality"] = pa.array(telemetry.quality[row].view(np.int8), pa.int8())
    return pa.table(columns)


def fitted(values: pa.Array, column: str) -> pa.Array:
    """Values as a column of that ClickHouse type takes them; what it cannot hold is null."""
    plain = values.dictionary_decode() if values.type == TEXTS else values
    wants_text = "String" in column
    if pa.types.is_string(plain.type) == wants_text or not column:
        return plain
    return plain.cast(pa.string()) if wants_text else pa.nulls(len(plain), pa.float64())


def milliseconds(ns: Any) -> pa.Array:
    """int64[N] nanoseconds as Arrow time, cut down to milliseconds."""
    return pa.array(ns // 1_000_000, pa.int64()).cast(NANOSECONDS)


def window_rows(windows: Windows) -> pa.Table:
    """Rows of a windows table."""
    heard = windows.good + windows.bad
    coverage = np.where(heard > 0, 100.0 * windows.good / np.maximum(heard, 1), np.nan)
    rows = len(windows)
    columns: dict[str, pa.Array] = {
        "window": pa.repeat(windows.window, rows),
        "productId": pa.repeat(windows.productId, rows),
        "device_id": pa.array(windows.devices, pa.string()).take(pa.array(windows.device)),
        "metric": pa.array(windows.metrics, pa.string()).take(pa.array(windows.metric)),
        "start": milliseconds(windows.start_ns),
        "end": milliseconds(windows.end_ns),
        "count": pa.array(windows.count),
        "good": pa.array(windows.good),
        "bad": pa.array(windows.bad),
        "coverage": pa.array(coverage, mask=np.isnan(coverage)),
        "revision": pa.array(windows.revision),
        "position": pa.array(windows.position),
    }
    for name, values in windows.aggregates.items():
        columns[name] = pa.array(values, pa.float64(), mask=np.isnan(values))
    return pa.table(columns)


def alarm_rows(events: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of the alarms table."""
    rows = []
    for event in events:
        data = event["data"]
        state = data["state"]
        rows.append(
            {
                "id": event["id"],
                "type": event["type"],
                "subject": event["subject"],
                "time": event["time"],
                "sequence": event["sequence"],
                **{name: data[name] for name in _ALARM_FIELDS},
                **state,
                "evidence": msgspec.json.encode(data["evidence"]).decode(),
                "message": data["message"],
                "position": data["evidence"]["position"],
                "_shadow": int(event.get("shadow", False)),
            }
        )
    table = pa.Table.from_pylist(rows, schema=_ALARMS)
    return timed(table, ("time", "onset_time", "event_time", "ingest_time", "shelved_until"))


_ALARM_FIELDS: Final = (
    "alarm_id",
    "ruleId",
    "rule_version",
    "productId",
    "device_id",
    "hub_id",
    "site_id",
    "customer_id",
    "transition",
    "severity",
    "onset_time",
    "event_time",
    "ingest_time",
    "actor",
    "comment",
)
_INTERVALS: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("alarm_id", "ruleId", "rule_version", "subject", "device_id")),
        *((name, pa.string()) for name in ("productId", "severity")),
        *((name, pa.string()) for name in ("onset_time", "raised_time", "cleared_time")),
        ("historical", pa.uint8()),
        ("position", pa.int64()),
    ]
)


def interval_rows(intervals: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of the alarm_intervals table."""
    table = pa.Table.from_pylist(list(intervals), schema=_INTERVALS)
    return timed(table, ("onset_time", "raised_time", "cleared_time"))


_FLAGS: Final = ("active", "acknowledged", "latched", "suppressed", "out_of_service")
_ALARMS: Final = pa.schema(
    [(name, pa.string()) for name in ("id", "type", "subject", "time", "sequence", *_ALARM_FIELDS)]
    + [(name, pa.bool_()) for name in _FLAGS]
    + [
        ("shelved_until", pa.string()),
        ("evidence", pa.string()),
        ("message", pa.string()),
        ("position", pa.int64()),
        ("_shadow", pa.uint8()),
    ]
)


def timed(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Texts `2026-03-01T09:00:00.000Z` of some columns as Arrow time."""
    for name in names:
        texts = table.column(name).combine_chunks()
        at = np.array(
            [
                np.datetime64("NaT", "ms") if t is None else np.datetime64(t[:-1], "ms")
                for t in texts.to_pylist()
            ],
            "datetime64[ms]",
        )
        column = pa.array(at, pa.timestamp("ms")).cast(NANOSECONDS)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def reject_rows(body: bytes) -> pa.Table:
    """Rows of the rejects table."""
    rejects = decode_rejects(body)
    return pa.table(
        {
            "reason": [reject.reason.name for reject in rejects],
            "message": [reject.message for reject in rejects],
            "source": [reject.source for reject in rejects],
            "topic": [reject.topic for reject in rejects],
            "device_id": [reject.device_id for reject in rejects],
            "productId": [reject.productId for reject in rejects],
            "position": pa.array([reject.position for reject in rejects], pa.int64()),
            "index": pa.array([reject.index for reject in rejects], pa.int64()),
            "ingest_time": milliseconds(np.array([reject.ingest_ns for reject in rejects], np.int64)),
            "payload_hex": [reject.payload.hex() for reject in rejects],
        }
    )


def _cause(error: BaseException) -> BaseException:
    """The system's own word for a server that cannot be reached, which the client wraps three times."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ConnectionError | TimeoutError | socket.gaierror):
        inner = inner.__cause__ or inner.__context__
    return inner or error


def _short(error: BaseException) -> str:
    """The first line of a server's answer, without our password (a url may hold one)."""
    text = " ".join(str(error).split())
    return re.sub(r"//[^@/ ]*@", "//***@", text)[:500]
