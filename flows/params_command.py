"""`penstock params`: parameters by device, where each value comes from, and setting them.

penstock params PLANT                                          every device's parameters
penstock params set PLANT DEVICE NAME=VALUE... --by --why      over devices.csv and the product
penstock params reset PLANT DEVICE [NAME...] --by --why        take back what was set
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from connectors.errors import ConfigError, PenstockError
from flows import alarm_actions, specs
from flows.apply import LONGEST, applied_plant, user_name
from flows.folder import data_directory
from flows.health import is_running
from flows.look_command import emit, plant_options, show
from flows.param_rows import parameter_rows, read_value, refusals, set_action
from flows.plant_file import Plant
from flows.plant_reader import load_bundle
from flows.remote_plant import RemotePlant
from flows.show_group import ShowGroup
from flows.status import read_status
from flows.views import Views
from operators.document import nearest
from operators.parameters import ParameterSpec, Value

NAMES: Final = 256  # parameters of one call


@click.group(cls=ShowGroup)
def params() -> None:
    """Parameters of a plant's devices: what counts, where it comes from, and setting it.

    `penstock params PLANT` is `penstock params show PLANT`.
    """


_by = click.option("--by", help="who does it (default: the user)")
_why = click.option("--why", required=True, help="the reason, for the history")


@params.command("show")
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@click.option("--device", help="one device alone")
@plant_options
def show_params(
    plant: Path | None,
    device: str | None,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Every device's parameters, with where each value comes from."""
    if url is not None:
        rows = RemotePlant(url, token).params()
        known = {str(row["device_id"]) for row in rows}
    else:
        where = _data_of(plant, data)
        loaded = _plant(where)
        rows, known = parameter_rows(loaded, set_now(where)), set(loaded.master.devices)
    if device is not None:
        if device not in known:
            there = "that has a parameter" if url is not None else "in devices.csv"
            raise ConfigError(f"no device '{device}' {there}{nearest(device, known)}")
        rows = [row for row in rows if row["device_id"] == device]
    if as_json:
        emit(rows)
    elif not rows:
        click.echo("no device has a parameter")
    else:
        show(_table(rows))


@params.command("set")
@click.argument("words", nargs=-1, metavar="PLANT DEVICE NAME=VALUE...")
@_by
@_why
@plant_options
def set_params(
    words: tuple[str, ...],
    by: str | None,
    why: str,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Set parameters of DEVICE: over devices.csv and the product, until reset.

    Takes effect with the next reading, and stays over changes of the plant. With --url leave PLANT out:

    \b
    penstock params set plant press-01 tempHigh=75 --why "new oil"
    penstock params set press-01 tempHigh=75 --why "new oil" --url http://127.0.0.1:8080
    """
    plant, device, assignments = _words(words, url)
    if not assignments:
        raise click.UsageError("Missing argument 'NAME=VALUE...'.")
    texts = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"'{text}': write NAME=VALUE, e.g. tempHigh=75")
        texts[name.strip()] = value.strip()
    if url is not None:
        remote = RemotePlant(url, token)
        _tell(remote.set_params(device, _checked(texts, why), by or user_name(), why), as_json)
        return
    where = _data_of(plant, data)
    spec = specs.parameters(_plant(where))
    wanted = {name: read_value(spec, device, name, text) for name, text in texts.items()}
    act(where, spec, device, wanted, by, why, as_json)


@params.command("reset")
@click.argument("words", nargs=-1, metavar="PLANT DEVICE [NAME...]")
@_by
@_why
@plant_options
def reset_params(
    words: tuple[str, ...],
    by: str | None,
    why: str,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Take back what was set for DEVICE; without NAME all of it. With --url leave PLANT out."""
    plant, device, names = _words(words, url)
    if url is not None:
        remote = RemotePlant(url, token)
        own = [
            row["param"] for row in remote.params() if (row["device_id"], row["source"]) == (device, "set")
        ]
        if not names and not own:
            raise ConfigError(f"nothing is set for '{device}'")
        wanted = _checked(dict.fromkeys(names or own), why)
        _tell(remote.set_params(device, wanted, by or user_name(), why), as_json)
        return
    where = _data_of(plant, data)
    spec = specs.parameters(_plant(where))
    own = [row["param"] for row in set_now(where) if row["device_id"] == device]
    if not names and not own:
        raise ConfigError(f"nothing is set for '{device}'{nearest(device, spec.devices)}")
    act(where, spec, device, dict.fromkeys(names or own), by, why, as_json)


def _words(words: tuple[str, ...], url: str | None) -> tuple[Path | None, str, tuple[str, ...]]:
    """PLANT, DEVICE and the rest; PLANT is left out with --url."""
    if url is not None:
        words = ("", *words)
    for number, name in enumerate(("PLANT", "DEVICE")):
        if len(words) <= number:
            raise click.UsageError(f"Missing argument '{name}'.")
    return Path(words[0]) if url is None else None, words[1], words[2:]


def _checked(wanted: Mapping[str, Value | None], why: str) -> Mapping[str, Value | None]:
    if not why.strip():
        raise click.UsageError("say why with --why TEXT: it stands in the history")
    if len(wanted) > NAMES:
        raise click.UsageError(f"{len(wanted)} parameters at once; at most {NAMES}")
    return wanted


def _plant(data: Path) -> Plant:
    """The applied plant, with master data as changes have made them."""
    views = Views(data)
    try:
        return views.plant_now() or load_bundle(applied_plant(data).files)  # which says why there is none
    finally:
        views.close()


def _data_of(plant: Path | None, data: Path | None) -> Path:
    if plant is None:
        raise click.UsageError("name the plant: PLANT or --url URL")
    if not plant.is_dir():
        raise ConfigError(f"{plant}: no such folder")
    return data_directory(plant, data)


def set_now(data: Path) -> list[dict[str, Any]]:
    """What operators have set, as the flow has committed it."""
    views = Views(data)
    try:
        return views.params()
    finally:
        views.close()


def act(
    data: Path,
    spec: ParameterSpec,
    device: str,
    wanted: Mapping[str, Value | None],
    by: str | None,
    why: str,
    as_json: bool,
) -> None:
    """Check all, then journal each and wait for its answer. Raises `ConfigError` for what is refused."""
    _checked(wanted, why)
    if not is_running(read_status(data)):
        raise PenstockError("the plant is not running; start it with: penstock run PLANT")
    if refused := refusals(spec, set_now(data), device, wanted):
        raise ConfigError("\n".join(refused))
    whom, reason = (by or user_name())[:LONGEST], why[:LONGEST]
    told = [
        alarm_actions.send(data, set_action(device, name, value, whom, reason), "params")
        for name, value in wanted.items()
    ]
    _tell(_answers(data, told), as_json)


def _tell(answers: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """What the flow says to each. Raises `ConfigError` where it refuses one."""
    if as_json:
        emit(answers)
    else:
        for answer in answers:
            click.echo(answer["message"], err=not answer["accepted"])
    if not all(answer["accepted"] for answer in answers):
        raise ConfigError("not all of it was accepted")


def _answers(data: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    views = Views(data)
    until = time.monotonic() + alarm_actions.ANSWER_S
    found = []
    try:
        for action_id in ids:
            answer = alarm_actions.wait(views, action_id, max(0.0, until - time.monotonic()))
            if answer is None:
                raise PenstockError(
                    "it is journaled, but the flow has not answered yet; penstock top shows what is not well"
                )
            found.append(answer)
    finally:
        views.close()
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("device", "product", "parameter", "value", "from"):
        table.add_column(name, overflow="fold")
    for row in rows:
        value = "-" if row["value"] is None else str(row["value"])
        table.add_row(row["device_id"], row["productId"] or "-", row["param"], value, _origin(row))
    return table


def _origin(row: Mapping[str, Any]) -> str:
    if row["source"] != "set":
        return row["source"] or "nowhere"
    told = f"set by {row['by'] or '?'} {row['at']}: {row['why'] or ''}".rstrip(": ")
    return told if row["in_effect"] else f"{told} (not in effect: the plant does not know it)"
