"""`penstock apply`: a changed folder into the plant that runs, after a look at what it does."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from connectors.errors import ConfigError
from flows.apply import append_plant, await_taken, check_running, make_plan, user_name
from flows.change import Plan
from flows.check_command import check_folder
from flows.folder import data_directory
from flows.plant_file import Plant
from flows.remote_plant import no_url


@click.command()
@no_url("a plant's files may hold code that it runs, so they are brought in where the plant runs")
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="say what it would do, and do nothing")
@click.option("--by", help="who does it (default: the user)")
@click.option("--why", help="the reason, for the history")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@click.option("--json", "as_json", is_flag=True, help="the plan, machine-readable, on stdout")
def apply(
    plant: Path, dry_run: bool, by: str | None, why: str | None, yes: bool, data: Path | None, as_json: bool
) -> None:
    """Bring the changed folder PLANT into the plant that runs.

    Says first of each change what it takes: live, or which process restarts, and which alarm states
    are kept.

    \b
    penstock apply plant --dry-run
    penstock apply plant --by "J. Doe" --why "limit of press 7 after its overhaul"
    """
    loaded, problems = check_folder(plant)
    if loaded is None:
        raise ConfigError(problems.render())
    bring_in(loaded, data_directory(plant, data), dry_run, by, why, yes, as_json)


def bring_in(
    loaded: Plant, data: Path, dry_run: bool, by: str | None, why: str | None, yes: bool, as_json: bool
) -> bool:
    """Plan, ask, append, wait; whether anything was applied. Raises `ConfigError` for what a running
    plant cannot become, `PenstockError` where it does not run or does not take it."""
    if not dry_run:
        check_running(data)
    plan = make_plan(data, loaded)
    if not as_json:
        click.echo("\n".join(plan.lines()) if not plan.empty else f"nothing to do: {_same(plan)}")
    if plan.refused:
        if as_json:
            _emit(plan, None)
        raise ConfigError("\n".join(plan.refused))
    if dry_run or plan.empty:
        if as_json:
            _emit(plan, None)
        return False
    if not why or not why.strip():
        raise click.UsageError("say why with --why TEXT: it stands in the history")
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm("apply this?", abort=True, err=True)
    apply_id = append_plant(data, loaded, by or user_name(), why)
    await_taken(data, loaded.sha256, lambda text: click.echo(text, err=True))
    if as_json:
        _emit(plan, apply_id)
    else:
        click.echo(f"applied {apply_id}")
    return True


def _same(plan: Plan) -> str:
    return f"the plant that is applied is this one ({plan.after[:12]})"


def _emit(plan: Plan, apply_id: str | None) -> None:
    click.echo(msgspec.json.encode({**msgspec.to_builtins(plan), "apply_id": apply_id}).decode())
