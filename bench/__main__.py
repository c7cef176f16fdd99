"""`python -m bench run NAME [--json] [--save]`: the benchmarks. Each states its question, its input and
its machine; the figures that the project quotes stand in `bench/results/`."""

from __future__ import annotations

import datetime
import importlib
import json
from pathlib import Path
from typing import Any

import click

from bench import machine

BENCHMARKS = {
    "flow": "the whole flow against a plain row-at-a-time Bytewax dataflow",
    "journal": "journal append against raw write + fdatasync of the same bytes",
    "decode": "frames of every kind to columns, beside struct, construct, msgspec and pyarrow",
    "decode_json": "JSON to columns",
    "decode_binary": "binary frames with CRC16 to columns",
    "slices": "CPU of a slice of few and of many frames, devices named by topic and by payload",
    "rules": "rule evaluations a second",
    "temporal": "evaluations a second of rules that look at the past",
    "scale": "cost a message and memory a device, from 100 to 100,000 devices and 10 to 1,000 rules",
    "latency": "TCP device to alarm on a real Kafka at 20,000 messages/s, telemetry on",
    "http": "messages a second of the HTTP source on one core, one a request and in batches",
    "opcua": "CPU a value and loss of the OPC UA source at 30,000 values/s, plain and encrypted",
    "mqtt": "a backlog of QoS 1 messages into the journal, against a bare drain of the same socket",
    "sparkplug": "CPU a Sparkplug message and metric in the receiver, beside a plain reader",
    "start": "start to first alarm, caches warm",
}


@click.group()
def cli() -> None:
    """Benchmarks of Penstock."""


@cli.command("list")
def list_benchmarks() -> None:
    """What can be run."""
    for name, question in BENCHMARKS.items():
        click.echo(f"{name:16s} {question}")


@cli.command()
@click.argument("name", type=click.Choice(list(BENCHMARKS)))
@click.option("--json", "as_json", is_flag=True, help="machine-readable output on stdout alone")
@click.option("--save", is_flag=True, help="write the result to bench/results/NAME.json")
def run(name: str, as_json: bool, save: bool) -> None:
    """Run one benchmark."""
    result: dict[str, Any] = {
        "benchmark": name,
        "question": BENCHMARKS[name],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.describe(),
    }
    result["result"] = importlib.import_module(f"bench.{name}").run()
    if save:
        path = Path(__file__).parent / "results" / f"{name}.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{name}: {BENCHMARKS[name]}")
    here = result["machine"]
    click.echo(f"on {here['cpu']}, {here['cores']} cores, Python {here['python']}")
    _print(result["result"], "  ")


def _print(value: Any, indent: str) -> None:
    for key, item in value.items():
        if isinstance(item, dict):
            click.echo(f"{indent}{key}:")
            _print(item, indent + "  ")
        elif isinstance(item, float):
            click.echo(f"{indent}{key:34s} {item:,.4g}")
        elif isinstance(item, int):
            click.echo(f"{indent}{key:34s} {item:,}")
        else:
            click.echo(f"{indent}{key:34s} {item}")


if __name__ == "__main__":
    cli()
