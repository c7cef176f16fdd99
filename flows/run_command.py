"""`penstock run`: a plant under the supervisor, in the foreground."""

from __future__ import annotations

import time
from pathlib import Path

import click

from connectors.errors import ConfigError
from flows.ending import leave
from flows.folder import data_directory, open_plant
from flows.plant_file import Plant
from flows.shards import shard_folders
from flows.supervisor import Supervisor


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@click.option("--apply", is_flag=True, help="take a changed folder in")
def run(plant: Path, data: Path | None, apply: bool) -> None:
    """Run PLANT until Ctrl-C (twice: at once).

    What runs is the plant as it was applied last; where the folder differs from it, how is said.
    """
    where = data_directory(plant, data)
    loaded, problems = None, ""
    try:
        loaded = open_plant(plant)
    except ConfigError as error:
        if apply or not plant.is_dir() or not (where / "journal" / "data.mdb").exists():
            raise
        problems = str(error)
    supervisor = Supervisor(loaded, plant, where, say=_say, problems=problems)
    _say(f"data in {where}")
    supervisor.run(apply=apply, started=lambda: _say_where(supervisor.plant, where))
    _say("stopped")
    leave(0)


def _say_where(loaded: Plant, where: Path) -> None:
    """What runs, and where to look."""
    _say(f"plant     {loaded.name} {loaded.sha256[:12]}")
    _say(f"server    http://{loaded.server.listen}  (/health/ready, /metrics, /api/alarms, /api/v3.1)")
    if loaded.historian.url == "embedded":
        _say(f"historian http://{loaded.historian.listen}  (ClickHouse HTTP)")
    for folder in shard_folders(where):
        _say(f"alarms    {folder / 'alarms.jsonl'}")


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')}  {text}", err=True)
