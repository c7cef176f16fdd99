"""The historian's tables, and how they are migrated.

    telemetry_<product>   wide: one row a reading; a column a metric and one for its quality
    telemetry             view: tall, one row a value
    windows_<every>       one row a window, metric and revision (columns of windows.jsonl)
    alarms                one row an event      rejects   one row a refused frame or reading
    alarm_intervals       one row an occurrence, from raise to clear
    _schema               which version of this file has been applied, when

Tables are ReplacingMergeTree in an order that tells different rows apart, so that a repeat of a
row collapses and different rows never do; `non_replicated_deduplication_window` makes insert
tokens count. Partitions are days of the event; TTLs count from ingest. Migration only adds: new
products are new tables, new metrics new columns. A metric whose type changed keeps its column
and gets values that fit it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from operators.spec import DAY, SECOND

SCHEMA_VERSION: Final = 3
FOR_EVER: Final = 50 * 365 * DAY
QUALITY: Final = "Enum8('good' = 0, 'uncertain' = 1, 'bad' = 2, 'absent' = 3)"
TYPES: Final = {
    "number": "Nullable(Float64) CODEC(ZSTD(1))",
    "integer": "Nullable(Int64) CODEC(ZSTD(1))",
    "boolean": "Nullable(Bool) CODEC(ZSTD(1))",
    "string": "LowCardinality(Nullable(String)) CODEC(ZSTD(1))",
}
TIME: Final = "DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))"
SETTINGS: Final = (
    "non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1"
)
_OTHER = re.compile(r"[^A-Za-z0-9_]")

Metrics = Sequence[tuple[str, str]]  # (name, type) in file order


class Commands(Protocol):
    """A client that runs statements (clickhouse-connect's `Client`)."""

    def command(self, cmd: str) -> object: ...

    def query_rows(self, sql: str) -> Sequence[Sequence[object]]: ...


def identifier(name: str) -> str:
    """The name of a table or column: every character outside [A-Za-z0-9_] becomes `_`."""
    return _OTHER.sub("_", name)


def telemetry_table(productId: str) -> str:
    """`press-v1` -> `telemetry_press_v1`"""
    return f"telemetry_{identifier(productId)}"


def windows_table(every: str) -> str:
    """`1m` -> `windows_1m`"""
    return f"windows_{identifier(every)}"


def ttl(column: str, keep_ns: int) -> str:
    """Rows go when they were taken in so long ago. A DateTime ends in 2106, and a sum beyond it would
    wrap round and let every row go at once: who keeps for so long keeps for ever."""
    if keep_ns > FOR_EVER:
        return ""
    return f"TTL toDateTime({column}) + toIntervalSecond({max(1, keep_ns // SECOND)})"


def telemetry_columns(metrics: Metrics) -> list[tuple[str, str]]:
    """Column and type of a wide table."""
    columns = [
        ("_ts", TIME),
        ("_ingest_ts", TIME),
        ("_device", "LowCardinality(String)"),
        ("_seq", "UInt64 CODEC(Delta, ZSTD(1))"),
        ("_historical", "Bool"),
    ]
    for name, kind in metrics:
        columns += [
            (identifier(name), TYPES[kind]),
            # a reading from before its product had the metric is absent in it
            (f"{identifier(name)}__quality", f"{QUALITY} DEFAULT 'absent' CODEC(ZSTD(1))"),
        ]
    return columns


def create_telemetry(productId: str, metrics: Metrics, keep_ns: int) -> str:
    """The wide table of a product."""
    columns = ", ".join(f"`{name}` {kind}" for name, kind in telemetry_columns(metrics))
    return (
        f"CREATE TABLE IF NOT EXISTS {telemetry_table(productId)} ({columns})"
        " ENGINE = ReplacingMergeTree PARTITION BY toYYYYMMDD(_ts) ORDER BY (_device, _ts, _seq)"
        f" {ttl('_ingest_ts', keep_ns)} SETTINGS {SETTINGS}"
    )


def create_windows(every: str, keep_ns: int) -> str:
    """The table of one window. `_ingest_ts` is not known of a window: its end stands in."""
    aggregates = ", ".join(
        f"`{name}` Nullable(Float64) CODEC(ZSTD(1))"
        for name in ("min", "max", "mean", "last", "std", "p50", "p95", "p99")
    )
    return (
        f"CREATE TABLE IF NOT EXISTS {windows_table(every)} (window LowCardinality(String),"
        " productId LowCardinality(String), device_id LowCardinality(String), metric LowCardinality(String),"
        f" start {TIME}, end {TIME}, count UInt64, good UInt64, bad UInt64, coverage Nullable(Float64),"
        f" {aggregates}, revision UInt32, position UInt64)"
        " ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(start)"
        " ORDER BY (productId, device_id, metric, start, revision)"
        f" {ttl('end', keep_ns)} SETTINGS {SETTINGS}"
    )


CREATE_ALARMS: Final = (
    "CREATE TABLE IF NOT EXISTS alarms (id String, type LowCardinality(String), subject String,"
    f" time {TIME}, sequence String, alarm_id String, ruleId LowCardinality(String),"
    " rule_version LowCardinality(String), productId LowCardinality(String),"
    " device_id LowCardinality(Nullable(String)),"
    " hub_id Nullable(String), site_id Nullable(String), customer_id Nullable(String),"
    " transition LowCardinality(String), severity LowCardinality(String),"
    f" onset_time {TIME}, event_time {TIME}, ingest_time {TIME}, actor Nullable(String),"
    " comment Nullable(String), active Bool, acknowledged Bool, latched Bool,"
    " shelved_until Nullable(DateTime64(3, 'UTC')), suppressed Bool, out_of_service Bool,"
    " evidence String CODEC(ZSTD(1)), message String CODEC(ZSTD(1)), position UInt64, _shadow UInt8,"
    " _shard UInt16)"
    " ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(time) ORDER BY (subject, sequence)"
    f" SETTINGS {SETTINGS}"
)
CREATE_ALARM_INTERVALS: Final = (
    "CREATE TABLE IF NOT EXISTS alarm_intervals (alarm_id String, ruleId LowCardinality(String),"
    " rule_version LowCardinality(String), subject String, device_id LowCardinality(Nullable(String)),"
    " productId LowCardinality(String), severity LowCardinality(String),"
    f" onset_time {TIME}, raised_time {TIME}, cleared_time Nullable(DateTime64(3, 'UTC')),"
    " historical UInt8, position UInt64)"
    " ENGINE = ReplacingMergeTree(position) PARTITION BY toYYYYMM(onset_time)"
    f" ORDER BY (subject, alarm_id, historical) SETTINGS {SETTINGS}"
)
CREATE_REJECTS: Final = (
    "CREATE TABLE IF NOT EXISTS rejects (reason LowCardinality(String), message String CODEC(ZSTD(1)),"
    " source LowCardinality(String), topic String, device_id String, productId LowCardinality(String),"
    f" position UInt64, `index` UInt32, ingest_time {TIME}, payload_hex String CODEC(ZSTD(1)),"
    " _shard UInt16)"
    " ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(ingest_time) ORDER BY (position, `index`, _shard)"
)
CREATE_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS _schema (version UInt32, applied DateTime DEFAULT now())"
    " ENGINE = ReplacingMergeTree ORDER BY version"
)


def tall_view(products: Mapping[str, Metrics]) -> str:
    """The view `telemetry`: one row a value that is not absent; numbers and texts in columns of
    their own."""
    parts = []
    for productId, metrics in products.items():
        for name, kind in metrics:
            column = identifier(name)
            number = "NULL" if kind == "string" else f"toFloat64(`{column}`)"
            text = f"toString(`{column}`)" if kind == "string" else "NULL"
            parts.append(
                "SELECT _ts, _ingest_ts, toString(_device) AS _device, _seq, _historical,"  # noqa: S608 - quoted
                f" {quoted(productId)} AS productId, {quoted(name)} AS metric,"
                f" CAST({number} AS Nullable(Float64)) AS value, CAST({text} AS Nullable(String)) AS text,"
                f" toString(`{column}__quality`) AS quality"
                f" FROM {telemetry_table(productId)} WHERE `{column}__quality` != 'absent'"
            )
    return f"CREATE OR REPLACE VIEW telemetry AS {' UNION ALL '.join(parts)}"


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def migrate(
    client: Commands,
    products: Mapping[str, Metrics],
    windows: Iterable[str],
    keep_raw: int,
    keep_windows: int,
) -> None:
    """Make what is missing: tables, columns, the view. Running it again changes nothing.

    Raises what the client raises.
    """
    client.command(CREATE_SCHEMA)
    client.command(CREATE_ALARMS)
    client.command("ALTER TABLE alarms MODIFY COLUMN device_id LowCardinality(Nullable(String))")
    client.command("ALTER TABLE alarms ADD COLUMN IF NOT EXISTS _shadow UInt8")
    client.command(CREATE_ALARM_INTERVALS)
    client.command("ALTER TABLE alarms ADD COLUMN IF NOT EXISTS _shard UInt16")
    client.command(f"{CREATE_REJECTS} {ttl('ingest_time', keep_windows)} SETTINGS {SETTINGS}")
    if not any(row[0] == "_shard" for row in client.query_rows("DESCRIBE TABLE rejects")):
        # positions are of one shard; only a new column may go behind a table's order, and only at once
        client.command(
            "ALTER TABLE rejects ADD COLUMN _shard UInt16, MODIFY ORDER BY (position, `index`, _shard)"
        )
    for productId, metrics in products.items():
        client.command(create_telemetry(productId, metrics, keep_raw))
        there = {str(row[0]) for row in client.query_rows(f"DESCRIBE TABLE {telemetry_table(productId)}")}
        for name, kind in telemetry_columns(metrics):
            if name not in there:
                client.command(f"ALTER TABLE {telemetry_table(productId)} ADD COLUMN `{name}` {kind}")
    for every in windows:
        client.command(create_windows(every, keep_windows))
    if any(products.values()):
        client.command(tall_view(products))
    client.command(f"INSERT INTO _schema (version) VALUES ({SCHEMA_VERSION})")  # noqa: S608
