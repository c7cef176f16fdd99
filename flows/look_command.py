"""`penstock rejects | devices | state | top`: looking at a plant (alarms: flows/alarms_command.py).

By PLANT the data directory is read (the plant need not run); with `--url` a running plant's server
is asked. Both give the same JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import click
from rich.console import Console, Group
from rich.live import Live

from connectors.errors import ConfigError, PenstockError
from flows.alarm_filters import AlarmFilters
from flows.folder import data_directory
from flows.look_tables import (
    Rates,
    devices_table,
    health_table,
    history_table,
    ledger_table,
    rejects_table,
    state_table,
    summary_line,
)
from flows.remote_plant import RemotePlant
from flows.shards import shard_folders
from flows.views import EventCursor, Views

TOP_S: Final = 1.0
EXPORT_LIMIT: Final = 10_000
Command = TypeVar("Command", bound=Callable[..., Any])


class Plant(Protocol):
    """A plant to look at; see `Views`."""

    def open_alarms(self, filters: AlarmFilters = ...) -> list[dict[str, Any]]: ...
    def alarm_history(self, limit: int, filters: AlarmFilters = ...) -> list[dict[str, Any]]: ...
    def alarm_events(
        self, after: EventCursor | None, limit: int, filters: AlarmFilters = ...
    ) -> tuple[EventCursor, list[dict[str, Any]]]: ...
    def find_alarms(self, prefix: str) -> list[dict[str, Any]]: ...
    def shadow_events(self, limit: int, filters: AlarmFilters = ...) -> list[dict[str, Any]]: ...
    def devices(self) -> list[dict[str, Any]]: ...
    def state(self, device_id: str) -> dict[str, Any] | None: ...
    def states(self) -> dict[str, dict[str, Any]]: ...
    def device_history(self, device_id: str) -> list[dict[str, Any]] | None: ...
    def alarm_figures(self, start_ms: int | None, end_ms: int | None) -> dict[str, Any]: ...
    def rejects(self, limit: int, reason: str | None = None) -> list[dict[str, Any]]: ...
    def status(self) -> dict[str, Any]: ...


def find(plant: Path | None, data: Path | None, url: str | None, token: str | None) -> Plant:
    """The plant that the options name. Raises `PenstockError` where it has never run."""
    if url is not None:
        return RemotePlant(url, token)
    if plant is None and data is None:
        raise click.UsageError("name the plant: PLANT, --data DIR or --url URL")
    folder = data_directory(plant or Path(), data)
    if plant is not None and not plant.is_dir():
        raise ConfigError(f"{plant}: no such folder")
    if not (shard_folders(folder)[0] / "journal" / "data.mdb").exists():
        raise PenstockError(f"{folder} holds no plant's data; run it first: penstock run {plant or 'PLANT'}")
    return Views(folder)


def plant_options(command: Command) -> Command:
    """--data, --url, --token and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="machine-readable output"),
        click.option("--token", help="of the server at --url"),
        click.option("--url", help="a running plant's server, e.g. http://127.0.0.1:8080"),
        click.option("--data", type=click.Path(path_type=Path), help="default: PLANT/.penstock"),
    ):
        command = option(command)
    return command


def emit(body: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(body, ensure_ascii=False))


def show(*parts: Any) -> None:
    """Tables on stdout; as wide as they are where stdout is no terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for part in parts:
        console.print(part)


def _plant_path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _only(words: tuple[str, ...]) -> str | None:
    if len(words) > 1:
        raise click.UsageError(f"unexpected argument '{words[1]}'")
    return words[0] if words else None


@click.command()
@click.argument("words", nargs=-1, metavar="[show|export|resubmit] [PLANT]")
@click.option("--limit", type=click.IntRange(1, 10_000), help="default: 100; export: 10000")
@click.option("--reason", help="only rejects of this reason")
@click.option("--product", help="only rejects of this product")
@click.option("--device", help="only rejects of this device")
@click.option("--source", help="only rejects from this source")
@click.option("--since", help="only rejects not older than this, e.g. 2h or 2026-03-01T09:00:00Z")
@click.option("--dry-run", is_flag=True, help="resubmit: only count")
@click.option("--output", type=click.Path(path_type=Path), help="export: a file instead of stdout")
@plant_options
def rejects(
    words: tuple[str, ...],
    limit: int | None,
    reason: str | None,
    product: str | None,
    device: str | None,
    source: str | None,
    since: str | None,
    dry_run: bool,
    output: Path | None,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """The newest rejects of PLANT; `export` writes them as JSON lines, oldest first; `resubmit` sends
    their frames through the current specs again, each once for ever."""
    from flows import rejects_command

    action = "show"
    if words and words[0] in ("show", "export", "resubmit") and not Path(words[0]).is_dir():
        action, words = words[0], words[1:]
    if reason is not None:
        from operators.document import nearest
        from operators.rejects import Reason

        if reason not in Reason.__members__:
            raise click.UsageError(f"no reason '{reason}'{nearest(reason, Reason.__members__)}")
    since_ns = None if since is None else rejects_command.since_ns(since, time.time_ns())
    filters = rejects_command.Filters(reason, product, device, source, since_ns)
    if action == "resubmit":
        path = _plant_path(_only(words))
        if url is not None or (path is None and data is None):
            raise click.UsageError("name the plant: PLANT or --data DIR")
        resubmit(data_directory(path or Path(), data), filters, dry_run, as_json)
        return
    plant = find(_plant_path(_only(words)), data, url, token)
    most = limit or (EXPORT_LIMIT if action == "export" else 100)
    rows = [row for row in plant.rejects(EXPORT_LIMIT, reason) if filters.take_line(row)][:most]
    if action == "export":
        body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in reversed(rows))
        if output is not None:
            output.write_text(body, "utf-8")
        else:
            click.echo(body, nl=False)
        click.echo(f"{len(rows)} rejects", err=True)
    elif as_json:
        emit(rows)
    elif not rows:
        click.echo("no rejects")
    else:
        show(rejects_table(rows))


def resubmit(data: Path, filters: Any, dry_run: bool, as_json: bool) -> None:
    """Send the frames of rejects again, and say how many."""
    from flows import rejects_command

    rejects_command.check_running(data)
    outcome = rejects_command.resubmit(data, filters, dry_run=dry_run)
    counts = {"resubmitted": outcome.resubmitted, "already": outcome.already, "skipped": outcome.skipped}
    if as_json:
        emit(counts)
        return
    click.echo(f"{outcome.resubmitted} frames {'would be ' if dry_run else ''}resubmitted")
    if outcome.already:
        click.echo(f"{outcome.already} had been resubmitted before")
    if outcome.skipped:
        click.echo(f"{outcome.skipped} are no whole frames (too_large, resync)")


@click.command()
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@click.option(
    "--history", "device", metavar="DEVICE", help="what the rows of one device were, and until when"
)
@plant_options
def devices(
    plant: Path | None,
    device: str | None,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Devices of PLANT and when they were last heard."""
    looked = find(plant, data, url, token)
    if device is not None:
        rows = looked.device_history(device)
        if rows is None:
            raise ConfigError(f"no device '{device}' in the master data")
        if as_json:
            emit(rows)
        else:
            show(history_table(rows))
        return
    rows = looked.devices()
    if as_json:
        emit(rows)
        return
    show(devices_table(rows))
    held = [row for row in rows if row["held"]]
    if held:
        one = held[0]
        cells = f"productId={one['productId'] or 'PRODUCT'}"
        told = f"{sum(row['held'] for row in held)} frames wait for {len(held)} unknown devices"
        click.echo(f"{told}; provision one: penstock devices set PLANT {one['device_id']} {cells} --why ...")


@click.command()
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@click.option("--device", help="one device alone")
@plant_options
def state(
    plant: Path | None,
    device: str | None,
    data: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Newest values of PLANT's devices."""
    looked = find(plant, data, url, token)
    if device is None:
        found = looked.states()
    else:
        one = looked.state(device)
        if one is None:
            raise ConfigError(f"no device '{device}' has been heard")
        found = {device: one}
    if as_json:
        emit(found)
    elif not found:
        click.echo("no device has been heard")
    else:
        show(state_table(found))


@click.command()
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="one shot instead of a live view")
@plant_options
def top(
    plant: Path | None, once: bool, data: Path | None, url: str | None, token: str | None, as_json: bool
) -> None:
    """Rates, lag and health of PLANT, live."""
    looked = find(plant, data, url, token)
    rates = Rates()
    status = looked.status()
    if not status["running"]:
        raise PenstockError("the plant is not running; start it with: penstock run PLANT")
    rates.update(status)
    if once or as_json or not sys.stdout.isatty():
        time.sleep(TOP_S)
        status = looked.status()
        rates.update(status)
        if as_json:
            emit({**status, "rates": rates.rows()})
        else:
            show(*top_parts(status, rates))
        return
    with Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(Group(*top_parts(status, rates)), refresh=True)
            time.sleep(TOP_S)
            status = looked.status()
            rates.update(status)


def top_parts(status: dict[str, Any], rates: Rates) -> list[Any]:
    """What `top` shows."""
    waiting = "  ".join(
        f"{name}: {one['records']:.0f} records, {one['bytes']:,.0f} bytes"
        for name, one in status["waiting"].items()
    )
    counts: Counter[str] = Counter()
    for one in status["rejects"]:
        counts[one["reason"]] += one["count"]
    refused = "  ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    return [
        f"{status['plant']}: {summary_line(status, rates)}",
        "",
        ledger_table(status, rates),
        "",
        f"waiting  {waiting or '-'}",
        f"rejects  {refused or '-'}",
        "",
        health_table(status),
    ]
