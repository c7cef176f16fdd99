"""`penstock devices set | retire`: changing master data of a plant that runs.

penstock devices PLANT                                        devices, and frames that wait for unknown ones
penstock devices set PLANT DEVICE NAME=VALUE... --by --why    provision a device, or change its row
penstock devices retire PLANT DEVICE... --by --why            its readings are filtered from then on

`--table sites` or `customers` changes those; there `retire` removes the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from connectors.errors import ConfigError, PenstockError
from flows import alarm_actions
from flows.apply import user_name
from flows.folder import data_directory
from flows.health import is_running
from flows.look_command import devices as show_devices
from flows.look_command import emit
from flows.master_actions import checked_changes
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
_data = click.option(
    "--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)"
)
_json = click.option("--json", "as_json", is_flag=True, help="machine-readable output")


@devices.command("set")
@click.argument("plant", type=click.Path(path_type=Path))
@click.argument("key")
@click.argument("assignments", nargs=-1, metavar="NAME=VALUE...")
@_table
@_by
@_why
@_data
@_json
def set_row(
    plant: Path,
    key: str,
    assignments: tuple[str, ...],
    table: str,
    by: str | None,
    why: str,
    data: Path | None,
    as_json: bool,
) -> None:
    """Say cells of the row KEY; a new one is made. NAME= takes a cell back."""
    row: dict[str, Any] = {KEYS[table]: key}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"'{text}': write NAME=VALUE, e.g. site_id=ulsan")
        row[name.strip()] = value.strip()
    act(plant, data, [{"op": "upsert", "table": table, "data": row}], by, why, as_json)


@devices.command("retire")
@click.argument("plant", type=click.Path(path_type=Path))
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_table
@_by
@_why
@_data
@_json
def retire(
    plant: Path, keys: tuple[str, ...], table: str, by: str | None, why: str, data: Path | None, as_json: bool
) -> None:
    """Retire devices; of another table, remove rows."""
    check_known(plant, data, table, keys)
    changes = [{"op": "delete", "table": table, "keys": {KEYS[table]: key}} for key in keys]
    act(plant, data, changes, by, why, as_json)


def check_known(plant: Path, data: Path | None, table: str, keys: Sequence[str]) -> None:
    """Raises `ConfigError` for the first row that the plant does not have."""
    views = Views(data_directory(plant, data))
    try:
        known = [row.get(KEYS[table], "") for row in views.master(table)]
    finally:
        views.close()
    for key in keys:
        if known and key not in known:
            raise ConfigError(f"unknown {table.removesuffix('s')} '{key}'{nearest(key, known)}")


def act(plant: Path, data: Path | None, changes: list[Any], by: str | None, why: str, as_json: bool) -> None:
    """Journal changes and wait for the answer. Raises `ConfigError` for what is refused."""
    if not plant.is_dir():
        raise ConfigError(f"{plant}: no such folder")
    if not why.strip():
        raise click.UsageError("say why with --why TEXT: it stands in the history")
    where = data_directory(plant, data)
    action = checked_changes(changes, by or user_name(), why)
    if not is_running(read_status(where)):
        raise PenstockError("the plant is not running; start it with: penstock run PLANT")
    action_id = alarm_actions.send(where, action)
    views = Views(where)
    try:
        answer = alarm_actions.wait(views, action_id)
    finally:
        views.close()
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
