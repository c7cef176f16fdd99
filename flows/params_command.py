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
from connectors.journal.lines import iso_time
from flows import alarm_actions, specs
from flows.apply import LONGEST, applied_plant, user_name
from flows.folder import data_directory
from flows.health import is_running
from flows.look_command import emit, show
from flows.plant_file import Plant
from flows.plant_reader import load_bundle
from flows.show_group import ShowGroup
from flows.status import read_status
from flows.views import Views
from operators.document import nearest
from operators.parameters import Parameters, ParameterSpec, Value, refusal
from rules.check import number_of

NAMES: Final = 256  # parameters of one call


@click.group(cls=ShowGroup)
def params() -> None:
    """Parameters of a plant's devices: what counts, where it comes from, and setting it.

    `penstock params PLANT` is `penstock params show PLANT`.
    """


_data = click.option(
    "--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)"
)
_json = click.option("--json", "as_json", is_flag=True, help="machine-readable output")
_by = click.option("--by", help="who does it (default: the user)")
_why = click.option("--why", required=True, help="the reason, for the history")


@params.command("show")
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--device", help="one device alone")
@_data
@_json
def show_params(plant: Path, device: str | None, data: Path | None, as_json: bool) -> None:
    """Every device's parameters, with where each value comes from."""
    where = _data_of(plant, data)
    loaded = _plant(where)
    rows = parameter_rows(loaded, set_now(where))
    if device is not None:
        if device not in loaded.master.devices:
            known = loaded.master.devices
            raise ConfigError(f"no device '{device}' in devices.csv{nearest(device, known)}")
        rows = [row for row in rows if row["device_id"] == device]
    if as_json:
        emit(rows)
    elif not rows:
        click.echo("no device has a parameter")
    else:
        show(_table(rows))


@params.command("set")
@click.argument("plant", type=click.Path(path_type=Path))
@click.argument("device")
@click.argument("assignments", nargs=-1, required=True, metavar="NAME=VALUE...")
@_by
@_why
@_data
@_json
def set_params(
    plant: Path,
    device: str,
    assignments: tuple[str, ...],
    by: str | None,
    why: str,
    data: Path | None,
    as_json: bool,
) -> None:
    """Set parameters of DEVICE: over devices.csv and the product, until reset.

    Takes effect with the next reading, and stays over changes of the plant.
    """
    where = _data_of(plant, data)
    spec = specs.parameters(_plant(where))
    wanted = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"'{text}': write NAME=VALUE, e.g. tempHigh=75")
        wanted[name.strip()] = read_value(spec, device, name.strip(), value.strip())
    act(where, spec, device, wanted, by, why, as_json)


@params.command("reset")
@click.argument("plant", type=click.Path(path_type=Path))
@click.argument("device")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_by
@_why
@_data
@_json
def reset_params(
    plant: Path,
    device: str,
    names: tuple[str, ...],
    by: str | None,
    why: str,
    data: Path | None,
    as_json: bool,
) -> None:
    """Take back what was set for DEVICE; without NAME all of it."""
    where = _data_of(plant, data)
    spec = specs.parameters(_plant(where))
    own = [row["param"] for row in set_now(where) if row["device_id"] == device]
    if not names and not own:
        raise ConfigError(f"nothing is set for '{device}'{nearest(device, spec.devices)}")
    act(where, spec, device, dict.fromkeys(names or own), by, why, as_json)


def _plant(data: Path) -> Plant:
    """The applied plant, with master data as changes have made them."""
    views = Views(data)
    try:
        return views.plant_now() or load_bundle(applied_plant(data).files)  # which says why there is none
    finally:
        views.close()


def _data_of(plant: Path, data: Path | None) -> Path:
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


def parameter_rows(plant: Plant, overrides: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """device_id, productId, param, value, source (set, devices.csv, product, or None where it has no
    value), by, why, at, in_effect: by device in the order of devices.csv, then what is set for devices
    or parameters that the plant does not know."""
    spec = specs.parameters(plant)
    own = {(row["device_id"], row["param"]): row for row in overrides}
    found = []
    for device, product in spec.devices.items():
        cells = plant.master.devices[device]
        for param, default in spec.declared.get(product, {}).items():
            row = own.pop((device, param), None)
            fits = row is not None and isinstance(row["value"], str) == isinstance(default, str)
            if row is not None:
                found.append(_row(device, product, param, row["value"], "set", row, in_effect=fits))
            if not fits:
                value, source = _unset(cells.get(param, ""), default)
                found.append(_row(device, product, param, value, source, {}))
    for (device, param), row in own.items():
        found.append(_row(device, spec.devices.get(device), param, row["value"], "set", row, in_effect=False))
    return found


def _unset(cell: str, default: Value | None) -> tuple[Value | None, str | None]:
    """The value without an operator, and where it comes from."""
    if cell:
        value = cell if isinstance(default, str) else number_of(cell)
        return value, "devices.csv"
    return default, None if default is None else "product"


def _row(
    device: str,
    product: str | None,
    param: str,
    value: Value | None,
    source: str | None,
    about: Mapping[str, Any],
    *,
    in_effect: bool = True,
) -> dict[str, Any]:
    at_ms = about.get("at_ms")
    return {
        "device_id": device,
        "productId": product,
        "param": param,
        "value": value,
        "source": source,
        "by": about.get("by"),
        "why": about.get("why"),
        "at": None if at_ms is None else iso_time(int(at_ms) * 1_000_000),
        "in_effect": in_effect,
    }


def read_value(spec: ParameterSpec, device: str, name: str, text: str) -> Value:
    """A value as its parameter takes it; raises `ConfigError` for what is none."""
    default = spec.declared.get(spec.devices.get(device, ""), {}).get(name)
    if isinstance(default, str):
        return text
    value = number_of(text)
    known = name in spec.declared.get(spec.devices.get(device, ""), {})
    if value is None and known:
        raise ConfigError(f"{name}: '{text[:60]}' is no number, and '{name}' is one")
    return text if value is None else value


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
    if not why.strip():
        raise click.UsageError("say why with --why TEXT: it stands in the history")
    if len(wanted) > NAMES:
        raise click.UsageError(f"{len(wanted)} parameters at once; at most {NAMES}")
    if not is_running(read_status(data)):
        raise PenstockError("the plant is not running; start it with: penstock run PLANT")
    known = Parameters()
    for row in set_now(data):
        known.put(row["device_id"], row["param"], row["value"])
    refused = [refusal(device, name, value, spec, known) for name, value in wanted.items()]
    if any(refused):
        raise ConfigError("\n".join(text for text in refused if text))
    told = [
        _send(data, device, name, value, (by or user_name())[:LONGEST], why) for name, value in wanted.items()
    ]
    answers = _answers(data, told)
    if as_json:
        emit(answers)
    else:
        for answer in answers:
            click.echo(answer["message"], err=not answer["accepted"])
    if not all(answer["accepted"] for answer in answers):
        raise ConfigError("not all of it was accepted")


def _send(data: Path, device: str, name: str, value: Value | None, by: str, why: str) -> str:
    body = {"kind": "param", "device_id": device, "param": name, "value": value}
    return alarm_actions.send(data, {**body, "by": by, "why": why[:LONGEST]}, "params")


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
