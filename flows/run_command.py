"""`penstock run`: a plant under the supervisor, in the foreground."""

from __future__ import annotations

import time
from pathlib import Path

import click

from flows.folder import data_directory, open_plant
from flows.plant_file import Plant
from flows.supervisor import Supervisor


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@click.option("--apply", is_flag=True, help="take a changed folder in")
def run(plant: Path, data: Path | None, apply: bool) -> None:
    """Run PLANT until Ctrl-C (twice: at once)."""
    loaded = open_plant(plant)
    where = data_directory(plant, data)
    supervisor = Supervisor(loaded, plant, where, say=_say)
    _say(f"plant {loaded.name}: data in {where}")
    supervisor.run(apply=apply, started=lambda: _say_where(loaded, where))
    _say("stopped")


def _say_where(loaded: Plant, where: Path) -> None:
    """Where to look."""
    _say(f"server    http://{loaded.server.listen}  (/health/ready, /metrics, /api/alarms, /api/v3.1)")
    if loaded.historian.url == "embedded":
        _say(f"historian http://{loaded.historian.listen}  (ClickHouse HTTP)")
    _say(f"alarms    {where / 'alarms.jsonl'}")


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')}  {text}", err=True)
