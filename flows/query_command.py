"""`penstock query`: SQL over the historian of a running plant."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from connectors.errors import ConfigError, PenstockError
from flows.address import split_address
from flows.apply import applied_plant, resolved_plant
from flows.folder import data_directory, open_plant
from flows.plant_file import Plant

FORMATS = {
    "table": "PrettyCompactMonoBlock",
    "csv": "CSVWithNames",
    "json": "JSONEachRow",
    "parquet": "Parquet",
}

CHANGING = (
    *("ALTER", "ATTACH", "CREATE", "DELETE", "DETACH", "DROP", "EXCHANGE", "GRANT", "INSERT", "KILL", "MOVE"),
    *("OPTIMIZE", "RENAME", "REVOKE", "SYSTEM", "TRUNCATE", "UNDROP", "UPDATE"),
)


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.argument("sql")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="table", help="how to print")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a row (--format json)")
@click.option("--output", type=click.Path(path_type=Path), help="a file instead of the terminal")
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
def query(plant: Path, sql: str, form: str, as_json: bool, output: Path | None, data: Path | None) -> None:
    """Run SQL over PLANT's historian, e.g. "SELECT count() FROM telemetry"."""
    word = sql.split(maxsplit=1)[0].upper() if sql.strip() else ""
    if not word or word in CHANGING:
        raise click.UsageError(f"a query only reads; '{word}' is for a client of the historian's own address")
    form = "json" if as_json else form
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is binary; name a file with --output")
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"--output: there is no folder {output.absolute().parent}")
    client = historian_client(plant_with_historian(plant, data))
    try:
        body = client.raw_query(sql, fmt=FORMATS[form])
    except DatabaseError as error:
        raise ConfigError(f"the historian refuses the query: {error}") from error
    finally:
        client.close()
    if output is not None:
        output.write_bytes(body)
    else:
        sys.stdout.buffer.write(body)
        sys.stdout.flush()


def plant_with_historian(folder: Path, data: Path | None) -> Plant:
    """The plant that runs over the data, whatever its folder says by now; that of the folder where none
    was ever run. Raises `ConfigError`."""
    try:
        applied = applied_plant(data_directory(folder, data))
    except PenstockError as error:
        if isinstance(error, ConfigError):
            raise
        return open_plant(folder)
    return resolved_plant(applied.files)


def historian_client(plant: Plant) -> Client:
    """A client of a plant's historian; raises PenstockError where it does not answer."""
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # the line below says it
    url = plant.historian.url
    try:
        if url == "embedded":
            host, port = split_address(plant.historian.listen)
            return clickhouse_connect.get_client(host=host, port=port)
        return clickhouse_connect.get_client(dsn=url)
    except (ClickHouseError, OSError) as error:
        raise PenstockError(
            f"the historian at {plant.historian.listen if url == 'embedded' else 'the configured url'}"
            f" does not answer; is the plant running? ({type(error).__name__})"
        ) from error
