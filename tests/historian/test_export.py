"""`penstock export`: every row once, in the table's order, from a historian that runs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import httpx
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from connectors.clickhouse.schema import migrate
from connectors.errors import ConfigError, PenstockError
from flows.cli import cli
from operators.spec import DAY
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

PLANT = Path(__file__).parents[1] / "archive" / "plant"
FOR_EVER = 100 * 365 * DAY


class Rows:
    """clickhouse-connect's client as `migrate` takes it."""

    def __init__(self, client) -> None:  # type: ignore[no-untyped-def]
        self.client = client

    def command(self, cmd: str) -> object:
        return self.client.command(cmd)

    def query_rows(self, sql: str) -> list[list[object]]:
        return list(self.client.query(sql).result_rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("historian")
    listen = f"127.0.0.1:{free_port()}"
    shutil.copytree(PLANT, made / "plant")
    config = made / "plant" / "plant.yaml"
    config.write_text(f"{config.read_text()}historian: {{listen: '{listen}'}}\n")
    (made / "data" / "run").mkdir(parents=True)
    command = [sys.executable, "-m", "flows.historian", str(made / "data"), "--listen", listen]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or answers(listen), "the historian")
        assert process.poll() is None
        host, port = listen.split(":")
        client = clickhouse_connect.get_client(host=host, port=int(port))
        migrate(Rows(client), {"boiler": [("tempC", "number")]}, ["1m"], FOR_EVER, FOR_EVER)
        for _ in range(2):  # a repeat, as after a crash
            client.command(
                "INSERT INTO telemetry_boiler (_ts, _ingest_ts, _device, _seq, tempC, tempC__quality) VALUES"
                " ('2026-03-01 09:00:00.250', '2026-03-01 09:00:01', 'b2', 2, 60.5, 'good'),"
                " ('2026-03-01 10:00:00.000', '2026-03-01 10:00:01', 'b1', 3, NULL, 'bad'),"
                " ('2026-03-01 08:00:00.000', '2026-03-01 08:00:01', 'b1', 1, -1, 'uncertain')"
            )
        client.close()
        yield made / "plant"
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def answers(listen: str) -> bool:
    try:
        return httpx.get(f"http://{listen}/ping", timeout=1).text == "Ok.\n"
    except httpx.TransportError:
        return False


def export(folder: Path, output: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["export", str(folder), "--output", str(output), *arguments])


def test_csv_has_each_row_once_with_times_to_the_millisecond(folder: Path, tmp_path: Path) -> None:
    result = export(folder, tmp_path, "--format", "csv", "--table", "telemetry_boiler")
    assert result.exit_code == 0, result.exception
    assert result.stdout == f"{tmp_path / 'telemetry_boiler.csv'}  3 rows\n"
    with (tmp_path / "telemetry_boiler.csv").open() as file:
        rows = [
            (row["_ts"], row["_device"], row["tempC"], row["tempC__quality"]) for row in csv.DictReader(file)
        ]
    assert rows == [
        ("2026-03-01T08:00:00.000Z", "b1", "-1", "uncertain"),
        ("2026-03-01T10:00:00.000Z", "b1", "\\N", "bad"),
        ("2026-03-01T09:00:00.250Z", "b2", "60.5", "good"),
    ]


def test_all_tables_as_parquet_within_a_time(folder: Path, tmp_path: Path) -> None:
    span = ["--from", "2026-03-01T09:00:00Z", "--to", "2026-03-01T10:00:00Z", "--json"]
    result = export(folder, tmp_path, *span)
    assert result.exit_code == 0, result.exception
    told = {line["table"]: line["rows"] for line in map(json.loads, result.stdout.splitlines())}
    assert told == {"alarm_intervals": 0, "alarms": 0, "rejects": 0, "telemetry_boiler": 1, "windows_1m": 0}
    table = pq.read_table(tmp_path / "telemetry_boiler.parquet")  # type: ignore[no-untyped-call]
    assert table["tempC"].to_pylist() == [60.5]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.parquet" for name in told)


def test_what_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    result = export(folder, tmp_path, "--table", "telemetry_boilr")
    assert isinstance(result.exception, ConfigError)
    told = "the historian has no table 'telemetry_boilr'; did you mean 'telemetry_boiler'?"
    assert str(result.exception) == told
    away = tmp_path / "plant"
    shutil.copytree(PLANT, away)
    config = away / "plant.yaml"
    listen = f"127.0.0.1:{free_port()}"
    config.write_text(f"{config.read_text()}historian: {{listen: '{listen}'}}\n")
    result = export(away, tmp_path / "out")
    assert isinstance(result.exception, PenstockError)
    assert str(result.exception).startswith(
        f"the historian at {listen} does not answer; is the plant running?"
    )
    assert not (tmp_path / "out").exists()
