"""`penstock devices set | retire`: changing master data of a plant that runs.

penstock devices PLANT                                        devices, and frames that wait for unknown ones
penstock devices set PLANT DEVICE NAME=VALUE... --by --why    provision a device, or change its row
penstock devices retire PLANT DEVICE... --by --why            its readings are filtered from then on

`--table sites` or `customers` changes those; there `retire` removes the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from connectors.errors import ConfigError, PenstockError
from flows import alarm_actions
from flows.apply import user_name
from flows.folder import data_directory
from flows.health import is_running
from flows.look_command import devices as show_devices
from flows.look_command import emit, plant_options
from flows.master_actions import checked_changes
from flows.remote_plant import RemotePlant
from flows.show_group import ShowGroup
from flows.status import read_status
from flows.views import Views
from operators.document import nearest
from operators.master import KEYS


@click.group(cls=ShowGroup)
def devices() -> None:
    """Devices of a plant, when they were last heard, and changing their master data.

    `penstock devices PLANT` is `penstock devices show PLANT`.
    """


devices.add_command(show_devices, "show")

_table = click.option(
    "--table", type=click.Choice(list(KEYS)), default="devices", show_default=True, help="which master data"
)
_by = click.option("--by", help="who does it (default: the user)")
_why = click.option("--why", required=True, help="the reason, for the history")


@devices.command("set")
@click.argument("words", nargs=-1, metavar="PLANT KEY NAME=VALUE...")
@_table
@_by
@_why
@plant_options
def set_row(
    words: tuple[str, ...],
    table: str,
    by: str | None,
    why: str,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Say cells of the row KEY; a new one is made. NAME= takes a cell back. With --url leave PLANT out:

    \b
    penstock devices set plant press-09 productId=press-v1 site_id=ulsan --why "commissioned"
    penstock devices set press-09 site_id=ulsan --why "moved" --url http://127.0.0.1:8080
    """
    folder, (key, *assignments) = _words(words, url)
    plant = folder if url is None else RemotePlant(url, token)
    row: dict[str, Any] = {KEYS[table]: key}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"'{text}': write NAME=VALUE, e.g. site_id=ulsan")
        row[name.strip()] = value.strip()
    act(plant, data, [{"op": "upsert", "table": table, "data": row}], by, why, as_json)


@devices.command("retire")
@click.argument("words", nargs=-1, metavar="PLANT KEY...")
@_table
@_by
@_why
@plant_options
def retire(
    words: tuple[str, ...],
    table: str,
    by: str | None,
    why: str,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Retire devices; of another table, remove rows. With --url leave PLANT out."""
    folder, keys = _words(words, url)
    plant = folder if url is None else RemotePlant(url, token)
    check_known(plant, data, table, keys)
    changes = [{"op": "delete", "table": table, "keys": {KEYS[table]: key}} for key in keys]
    act(plant, data, changes, by, why, as_json)


def _words(words: tuple[str, ...], url: str | None) -> tuple[Path, tuple[str, ...]]:
    """PLANT and the rest, of which there is one at least; PLANT is left out with --url."""
    if url is not None:
        words = ("", *words)
    for number, name in enumerate(("PLANT", "KEY")):
        if len(words) <= number:
            raise click.UsageError(f"Missing argument '{name}'.")
    return Path(words[0]), words[1:]


def check_known(plant: Path | RemotePlant, data: Path | None, table: str, keys: Sequence[str]) -> None:
    """Raises `ConfigError` for the first row that the plant does not have."""
    known = [row.get(KEYS[table], "") for row in _rows(plant, data, table)]
    for key in keys:
        if known and key not in known:
            raise ConfigError(f"unknown {table.removesuffix('s')} '{key}'{nearest(key, known)}")


def _rows(plant: Path | RemotePlant, data: Path | None, table: str) -> list[dict[str, str]]:
    if isinstance(plant, RemotePlant):
        return plant.master(table)
    views = Views(data_directory(plant, data))
    try:
        return views.master(table)
    finally:
        views.close()


def act(
    plant: Path | RemotePlant,
    data: Path | None,
    changes: list[Any],
    by: str | None,
    why: str,
    as_json: bool,
) -> None:
    """Journal changes and wait for the answer. Raises `ConfigError` for what is refused."""
    if isinstance(plant, Path) and not plant.is_dir():
        raise ConfigError(f"{plant}: no such folder")
    if not why.strip():
        raise click.UsageError("say why with --why TEXT: it stands in the history")
    action = checked_changes(changes, by or user_name(), why)
    if isinstance(plant, RemotePlant):
        answer: dict[str, Any] | None = plant.change_master(changes, action["by"], why)
    else:
        answer = _answer(data_directory(plant, data), action)
    if answer is None:
        raise PenstockError(
            "it is journaled, but the flow has not answered yet; penstock top shows what is not well"
        )
    if as_json:
        emit(answer)
    elif answer["accepted"]:
        click.echo(answer["message"])
    if not answer["accepted"]:
        raise ConfigError(answer["message"])


def _answer(data: Path, action: Mapping[str, Any]) -> dict[str, Any] | None:
    if not is_running(read_status(data)):
        raise PenstockError("the plant is not running; start it with: penstock run PLANT")
    action_id = alarm_actions.send(data, action)
    views = Views(data)
    try:
        return alarm_actions.wait(views, action_id)
    finally:
        views.close()
