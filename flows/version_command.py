"""`penstock version`: what this is made of, for bug reports."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import click

UNDERNEATH = (
    "bytewax",
    "numba",
    "numpy",
    "lmdb",
    "paho-mqtt",
    "confluent-kafka",
    "clickhouse-connect",
    "chdb",
    "pyarrow",
    "msgspec",
    "litestar",
    "granian",
)


def versions() -> dict[str, str]:
    """Name -> version of Penstock, Python and the libraries underneath."""
    found = {"penstock": metadata.version("penstock"), "python": platform.python_version()}
    found.update({name: metadata.version(name) for name in UNDERNEATH})
    found["platform"] = platform.platform()
    return found


@click.command()
@click.option("--json", "as_json", is_flag=True, help="machine-readable output")
def version(as_json: bool) -> None:
    """Versions of everything underneath."""
    found = versions()
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"{name:20s} {value}")
