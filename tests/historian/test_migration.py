"""A historian of an earlier version gets what the newer one needs, and keeps what it has."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from connectors.clickhouse.schema import SETTINGS, migrate
from operators.spec import DAY
from tests.ports import free_port
from tests.waiting import LIMIT_S

# as schema version 2 made it
REJECTS = (
    "CREATE TABLE rejects (reason LowCardinality(String), message String CODEC(ZSTD(1)),"
    " source LowCardinality(String), topic String, device_id String, productId LowCardinality(String),"
    " position UInt64, `index` UInt32, ingest_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),"
    " payload_hex String CODEC(ZSTD(1)))"
    " ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(ingest_time) ORDER BY (position, `index`)"
    f" SETTINGS {SETTINGS}"
)


class Rows:
    """clickhouse-connect's client as `migrate` takes it."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def command(self, cmd: str) -> object:
        return self.client.command(cmd)

    def query_rows(self, sql: str) -> Sequence[Sequence[object]]:
        return list(self.client.query(sql).result_rows)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Rows]:
    port = free_port()
    command = [sys.executable, "-m", "flows.historian", str(tmp_path), "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    try:
        while True:
            try:
                yield Rows(clickhouse_connect.get_client(host="127.0.0.1", port=port))
                return
            except clickhouse_connect.driver.exceptions.Error:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def test_rejects_of_two_shards_are_told_apart(client: Rows) -> None:
    """Two shards have frames at the same positions; what is there is of the only shard, 0."""
    client.command(REJECTS)
    insert = "INSERT INTO rejects (position, `index`, ingest_time, message"
    at = "'2026-03-01 09:00:00'"
    client.command(f"{insert}) VALUES (1, 0, {at}, 'a'), (2, 0, {at}, 'b')")
    for _ in range(2):  # the second time changes nothing
        migrate(client, {"press": [("tempC", "number")]}, ["1m"], 10 * DAY, 400 * DAY)
    client.command(f"{insert}, _shard) VALUES (1, 0, {at}, 'c', 1), (2, 0, {at}, 'b', 0)")
    found = client.query_rows("SELECT position, _shard, message FROM rejects FINAL ORDER BY ALL")
    assert [tuple(row) for row in found] == [(1, 0, "a"), (1, 1, "c"), (2, 0, "b")]
