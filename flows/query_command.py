"""`penstock query`: SQL over the historian of a running plant."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from connectors.errors import ConfigError, PenstockError
from flows.address import split_address
from flows.apply import applied_plant, resolved_plant
from flows.folder import data_directory, open_plant
from flows.plant_file import Plant

Command = TypeVar("Command", bound=Callable[..., Any])
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


def historian_options(command: Command) -> Command:
    """--url and --token."""
    for option in (
        click.option("--token", help="of the historian at --url, e.g. ClickHouse's access token"),
        click.option("--url", help="the historian's own address, e.g. http://127.0.0.1:8123"),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("words", nargs=-1, metavar="PLANT SQL")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="table", help="how to print")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a row (--format json)")
@click.option("--output", type=click.Path(path_type=Path), help="a file instead of the terminal")
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@historian_options
def query(
    words: tuple[str, ...],
    form: str,
    as_json: bool,
    output: Path | None,
    data: Path | None,
    url: str | None,
    token: str | None,
) -> None:
    """Run SQL over PLANT's historian. With --url leave PLANT out:

    \b
    penstock query plant "SELECT count() FROM telemetry"
    penstock query "SELECT count() FROM telemetry" --url http://127.0.0.1:8123
    """
    if len(words) != 2 - (url is not None):
        told = "a query" if url is not None else "the plant and a query: PLANT SQL"
        raise click.UsageError(f"write {told}; SQL is one argument, in quotes")
    sql = words[-1]
    word = sql.split(maxsplit=1)[0].upper() if sql.strip() else ""
    if not word or word in CHANGING:
        raise click.UsageError(f"a query only reads; '{word}' is for a client of the historian's own address")
    form = "json" if as_json else form
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is binary; name a file with --output")
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"--output: there is no folder {output.absolute().parent}")
    client = open_historian(None if url is not None else Path(words[0]), data, url, token)
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


def open_historian(plant: Path | None, data: Path | None, url: str | None, token: str | None) -> Client:
    """A client of the historian that the options name. Raises as `historian_client`."""
    if url is None:
        if plant is None:
            raise click.UsageError("name the plant: PLANT or --url URL")
        return historian_client(plant_with_historian(plant, data))
    if not url.startswith(("http://", "https://")):
        raise ConfigError("--url: write the historian's address, http://host:port")
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    try:
        return clickhouse_connect.get_client(dsn=url, access_token=token)
    except (ClickHouseError, OSError) as error:
        place = f"{urlsplit(url).hostname}:{urlsplit(url).port or ''}".rstrip(":")  # a password may be in it
        raise PenstockError(
            f"the historian at {place} does not answer; is the plant running? ({type(error).__name__})"
        ) from error


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
