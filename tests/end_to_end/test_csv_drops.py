"""CSV as plants have it, through `replay` and a `files` source: what spreadsheets, databases and loggers
export, by hand after their formats or by tools that nobody here wrote. Expected values are stated."""

from __future__ import annotations

import bz2
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.cli import main

Reading = tuple[str, str, dict[str, Any]]  # device, time, metrics


def plant(folder: Path, source: str, decode: str, metrics: str, devices: str = "furnace-1,oven\n") -> Path:
    (folder / "products").mkdir(parents=True)
    (folder / "plant.yaml").write_text(
        "plant: works\nsources:\n"
        f"  drops: {{kind: files, watch: inbox/, pattern: '*', product: oven, {source}}}\n"
    )
    (folder / "products" / "oven.yaml").write_text(
        f"productId: oven\nversion: 1\ndecode:\n{decode}\nmetrics:\n{metrics}\n"
        "contract: {timestamp: {max_age: 40000d}}\n"
    )
    (folder / "devices.csv").write_text("device_id,productId\n" + devices)
    return folder


def replayed(folder: Path, *inputs: Path) -> tuple[list[Reading], list[tuple[str, str, str]]]:
    """(readings by device and time, rejects as (reason, message, row))."""
    out = folder / "out"
    arguments = [word for path in inputs for word in ("--input", str(path))]
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(folder), *arguments, "--output", str(out)])
    assert ended.value.code == 0
    readings: list[Reading] = []
    for row in pq.read_table(out / "telemetry.parquet").to_pylist():
        metrics = {
            name: value
            for name, value in row.items()
            if not name.startswith("_") and not name.endswith("__quality") and value is not None
        }
        readings.append((row["_device"], row["_ts"].strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3], metrics))
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text("utf-8").splitlines()]
    return readings, [(r["reason"], r["message"], bytes.fromhex(r["payload_hex"]).decode()) for r in rejects]


def test_a_german_spreadsheet(tmp_path: Path) -> None:
    """Title lines, a line of units, semicolons, decimal commas, dots between thousands, date and time in
    columns of their own, a cell with a line end, windows-1252."""
    folder = plant(
        tmp_path / "plant",
        "encoding: windows-1252, skip: 2, skip_after: 1, separator: ';', comment: '#',"
        " columns: {temp: 'Temp. [°C]', note: Bemerkung}",
        "  format: csv\n  separator: ';'\n  decimal: ','\n  thousands: '.'\n"
        "  timestamp: {column: [Datum, Uhrzeit], format: '%d.%m.%Y %H:%M:%S', zone: Europe/Berlin}\n"
        "  columns: {tempC: temp, power: Leistung, note: note}",
        "  tempC: {unit: Cel, range: [-40, 2000], on_breach: reject}\n  power: {unit: W}\n"
        "  note: {type: string}",
    )
    text = (
        "Meßprotokoll Ofen 1;;;;\r\n"
        "erstellt am 02.03.2026;;;;\r\n"
        "Datum;Uhrzeit;Temp. [°C];Leistung;Bemerkung\r\n"
        ";;°C;W;\r\n"
        "01.03.2026;10:00:00;85,5;1.234.567,25;läuft\r\n"
        '01.03.2026;10:00:05;1.086;12;"Tür ""auf"";\r\ndann zu"\r\n'
        "# von Hand gelöscht\r\n"
        "\r\n"
        "01.03.2026;10:00:10;86,75;1.23,5;\r\n"
        "31.02.2026;10:00:15;86;1;\r\n"
        "01.03.2026;10:00:20;86\r\n"
        "01.07.2026;10:00:00;5000;1;\r\n"
        "01.07.2026;10:00:00;-0,5;;"
    )
    path = tmp_path / "furnace-1.csv"
    path.write_bytes(text.encode("windows-1252"))
    readings, rejects = replayed(folder, path)
    assert readings == [
        ("furnace-1", "2026-03-01T09:00:00.000", {"tempC": 85.5, "power": 1234567.25, "note": "läuft"}),
        (
            "furnace-1",
            "2026-03-01T09:00:05.000",
            {"tempC": 1086.0, "power": 12.0, "note": 'Tür "auf";\r\ndann zu'},
        ),
        ("furnace-1", "2026-07-01T08:00:00.000", {"tempC": -0.5}),
    ]
    assert rejects == [
        (
            "type",
            "line 10: power: not a number",
            "01.03.2026;10:00:10;86,75;1.23,5;",
        ),
        (
            "malformed",
            "line 11: columns 'Datum', 'Uhrzeit': '31.02.2026 10:00:15' is no time (as %d.%m.%Y %H:%M:%S)",
            "31.02.2026;10:00:15;86;1;",
        ),
        ("malformed", "line 12: 3 columns where the header line has 5", "01.03.2026;10:00:20;86"),
        ("range", "line 13: tempC: 5000 is above 2000 (range -40..2000)", "01.07.2026;10:00:00;5000;1;"),
    ]


def test_an_export_of_a_database_in_utf16(tmp_path: Path) -> None:
    """Tabs, NULL, datetime2 with seven digits, byte order mark, no separator named in the source; packed."""
    folder = plant(
        tmp_path / "plant",
        "device: 'payload:Machine'",
        '  format: csv\n  separator: "\\t"\n  timestamp: {column: LogTime, zone: America/New_York}\n'
        "  missing: ['NULL']\n  columns: {tempC: Temperature, on: Running}",
        "  tempC: {unit: Cel}\n  on: {type: boolean}",
        "press 7,oven\n",
    )
    text = (
        "LogTime\tMachine\tTemperature\tRunning\r\n"
        "2026-03-01 04:00:00.1234567\tpress 7\t21.5\t1\r\n"
        "2026-03-01 04:00:01.0000000\tpress 7\tNULL\t0\r\n"
        "2026-03-01 04:00:02\tpress 8\t1\t1\r\n"
        "2026-03-08 03:00:00-05:00\tpress 7\t1e2\tTRUE\r\n"
    )
    path = tmp_path / "log.csv.bz2"
    path.write_bytes(bz2.compress(b"\xff\xfe" + text.encode("utf-16-le")))
    readings, rejects = replayed(folder, path)
    assert readings == [
        ("press 7", "2026-03-01T09:00:00.123", {"tempC": 21.5, "on": True}),
        ("press 7", "2026-03-01T09:00:01.000", {"on": False}),
        ("press 7", "2026-03-08T08:00:00.000", {"tempC": 100.0, "on": True}),
    ]
    assert rejects == [
        ("unknown_device", "line 4: 'press 8' is not in devices.csv", "2026-03-01 04:00:02\tpress 8\t1\t1")
    ]


TALL = """time,sn,sensor,val,q
2026-03-01T09:00:00Z,f1,tempC,85.5,good
2026-03-01T09:00:00Z,f1,rpm,1500,Uncertain_LastUsableValue
2026-03-01T09:00:00Z,f2,tempC,70,192
2026-03-01T09:00:01Z,f1,rpm,1501,0x80000000
2026-03-01T09:00:01Z,f1,humidity,7,
2026-03-01T09:00:01Z,f1,rpm,1502,
2026-03-01T09:00:02Z,f3,tempC,1,
2026-03-01T09:00:03Z,f2,rpm,fast,
2026-03-01T09:00:04Z,f2,rpm,1,
2026-03-01T09:00:04Z,f2,,1,
"""


def test_a_tall_file_with_devices(tmp_path: Path) -> None:
    folder = plant(
        tmp_path / "plant",
        "join: [time, sn]",
        "  format: csv\n  timestamp: time\n  device: sn\n  metric: sensor\n  value: val\n  quality: q",
        "  tempC: {unit: Cel}\n  rpm: {unit: '{rev}/min'}",
        "f1,oven\nf2,oven\n",
    )
    path = tmp_path / "all.csv"
    path.write_text(TALL)
    readings, rejects = replayed(folder, path)
    assert sorted(readings, key=lambda one: (one[1], one[0])) == [
        ("f1", "2026-03-01T09:00:00.000", {"tempC": 85.5, "rpm": 1500.0}),
        ("f2", "2026-03-01T09:00:00.000", {"tempC": 70.0}),
        ("f1", "2026-03-01T09:00:01.000", {"rpm": 1501.0}),
        ("f1", "2026-03-01T09:00:01.000", {"rpm": 1502.0}),
    ]
    rows = TALL.splitlines()
    assert rejects == [
        ("unknown_device", "line 8: 'f3' is not in devices.csv", rows[7]),
        ("type", "line 9: rpm: not a number", rows[8]),
        (
            "malformed",
            "line 10: row 2 of 2: column 'sensor': a metric's name is expected",
            "\n".join(rows[9:11]),
        ),
    ]


def test_what_sqlite_writes(tmp_path: Path) -> None:
    """Its own quoting, of cells with quotes, separators and line ends."""
    tool = shutil.which("sqlite3")
    if tool is None:
        pytest.skip("no sqlite3 on this machine")
    made = (
        "create table log(t integer, temp real, note text);"
        "with recursive n(i) as (select 0 union all select i + 1 from n where i < 2999)"
        "insert into log select 1772355600 + i, i * 0.25, case i % 4 when 0 then 'say \"hi\"'"
        " when 1 then 'a,b;c' when 2 then 'two' || char(10) || 'lines' else null end from n;"
        "select * from log;"
    )
    done = subprocess.run([tool, "-csv", "-header", ":memory:", made], capture_output=True, check=True)
    folder = plant(
        tmp_path / "plant",
        "device: 'const:furnace-1'",
        "  format: csv\n  timestamp: {column: t, unit: s}\n  columns: {tempC: temp, note: note}",
        "  tempC: {unit: Cel}\n  note: {type: string}",
    )
    path = tmp_path / "log.csv"
    path.write_bytes(done.stdout)
    readings, rejects = replayed(folder, path)
    assert rejects == []
    notes = ['say "hi"', "a,b;c", "two\nlines", None]
    expected = [(i * 0.25, notes[i % 4]) for i in range(3000)]
    assert [(metrics["tempC"], metrics.get("note")) for _, _, metrics in readings] == expected


def test_parquet_and_json_lines_with_line_numbers(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa

    from connectors.files.config import FilesConfig
    from connectors.files.rows import file_rows

    start = datetime.datetime(2026, 3, 1, 9)
    table = pa.table(
        {
            "t": pa.array([start + datetime.timedelta(seconds=n) for n in range(10_000)], pa.timestamp("ns")),
            "v": pa.array([None if n % 7 == 0 else n / 3 for n in range(10_000)]),
            "s": pa.array([{"x": [n, float("nan")]} for n in range(10_000)]),
        }
    )
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=3_000)
    config = FilesConfig(watch="in")
    rows = list(file_rows(path, config))
    assert [row.frame.line for row in rows] == list(range(1, 10_001))
    assert json.loads(rows[1].frame.payload) == {
        "t": "2026-03-01T09:00:01Z",
        "v": 1 / 3,
        "s": {"x": [1, None]},
    }
    assert [row.frame for row in file_rows(path, config, rows[3_500].end)] == [r.frame for r in rows[3_501:]]
