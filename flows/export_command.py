"""`penstock export`: the historian's tables as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import click
from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.console import Console
from rich.progress import Progress

from connectors.errors import ConfigError, PenstockError
from flows.query_command import historian_options, open_historian
from flows.recorded import Moment
from operators.document import nearest

FORMATS: Final = {"csv": "CSVWithNames", "parquet": "Parquet"}
TIMES: Final = {"alarms": "time", "alarm_intervals": "onset_time", "rejects": "ingest_time"}
CHUNK: Final = 1 << 20


@click.command()
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@click.option(
    "--table", "wanted", multiple=True, help="this table; may be given several times (default: all)"
)
@click.option("--from", "from_ms", type=Moment(), help="rows whose time is from then on")
@click.option("--to", "to_ms", type=Moment(), help="rows whose time is before that")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="parquet", show_default=True)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of the files"
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object a file on stdout")
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@historian_options
def export(
    plant: Path | None,
    wanted: tuple[str, ...],
    from_ms: int | None,
    to_ms: int | None,
    form: str,
    output: Path,
    as_json: bool,
    data: Path | None,
    url: str | None,
    token: str | None,
) -> None:
    """Write PLANT's historian as TABLE.csv or TABLE.parquet, rows in the table's own order, each once.

    The time of a row is that of the reading, the window's start, the alarm event, an interval's onset,
    or a reject's arrival.

    \b
    penstock export plant --table windows_1m --from 2026-03-01 --output files/
    penstock export --url http://127.0.0.1:8123 --format csv --output files/
    """
    if plant is not None and url is not None:
        raise click.UsageError("name the plant once: PLANT or --url URL")
    with closing(open_historian(plant, data, url, token)) as client:
        try:
            there = tables(client)
            for name in wanted:
                if name not in there:
                    raise ConfigError(f"the historian has no table '{name}'{nearest(name, list(there))}")
            output.mkdir(parents=True, exist_ok=True)
            for name in wanted or there:
                path = output / f"{name}.{form}"
                rows = write_table(client, name, there[name], (from_ms, to_ms), FORMATS[form], path)
                told = {"table": name, "rows": rows, "file": str(path)}
                click.echo(json.dumps(told) if as_json else f"{path}  {rows:,} rows")
        except ClickHouseError as error:
            raise PenstockError(f"the historian refuses: {str(error).partition(chr(10))[0]}") from error


def tables(client: Any) -> dict[str, str]:
    """The historian's tables, each with what it is ordered by."""
    found = client.query(
        "SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase()"
        " AND engine LIKE '%MergeTree' AND NOT startsWith(name, '_') ORDER BY name"
    )
    return {str(name): str(key) for name, key in found.result_rows}


def write_table(client: Any, name: str, order: str, span: Sequence[int | None], form: str, path: Path) -> int:
    """Write a table's rows of span[0] <= time < span[1] (ms) to `path`, whole or not at all; how many."""
    where = f"FROM `{name}` FINAL{_condition(name, span)}"
    rows = int(client.query(f"SELECT count() {where}").result_rows[0][0])
    stream = client.raw_stream(
        f"SELECT * {where} ORDER BY {order} SETTINGS date_time_output_format = 'iso'", fmt=form
    )
    beside = path.with_name(f".{path.name}.partial")
    console = Console(stderr=True)
    try:
        with (
            closing(stream),
            beside.open("wb") as file,
            Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            task = progress.add_task(f"{name}: {rows:,} rows", total=None)
            while data := stream.read(CHUNK):
                file.write(data)
                progress.update(task, advance=len(data))
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    return rows


def _condition(name: str, span: Sequence[int | None]) -> str:
    column = TIMES.get(name, "_ts" if name.startswith("telemetry_") else "start")
    parts = [
        f"`{column}` {sign} fromUnixTimestamp64Milli({ms}, 'UTC')"
        for sign, ms in zip((">=", "<"), span, strict=True)
        if ms is not None
    ]
    return f" WHERE {' AND '.join(parts)}" if parts else ""
