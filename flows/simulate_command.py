"""`penstock simulate`: plausible frames of a plant's devices, to the addresses of its sources."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from connectors.errors import ConfigError
from connectors.json_logs import log_as_json
from flows.folder import open_plant
from flows.simulate import Simulator
from flows.status import StatusThread


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--rate", type=float, default=1.0, show_default=True, help="frames a second of each device")
@click.option("--seed", type=int, default=1, show_default=True, help="of all values")
@click.option("--seconds", type=float, help="stop by itself after so long")
@click.option("--data", type=click.Path(path_type=Path), help="write a status file there, and log JSON lines")
@click.option("--json", "as_json", is_flag=True, help="what was sent: one JSON object on stdout, at the end")
def simulate(
    plant: Path, rate: float, seed: int, seconds: float | None, data: Path | None, as_json: bool
) -> None:
    """Simulate the devices of PLANT until Ctrl-C.

    \b
    penstock simulate plant --rate 10 --seconds 60
    """
    if data is not None:
        log_as_json("simulator")
    else:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
    simulator = Simulator(open_plant(plant), seed=seed, rate=rate, folder=plant)
    if not simulator.running:
        raise ConfigError(f"{plant}: no device of devices.csv can be simulated")
    status = StatusThread(data, "simulator", lambda: describe(simulator)) if data is not None else None
    if status is not None:
        status.start()
    asyncio.run(_run(simulator, seconds, quiet=data is not None))
    if status is not None:
        status.close()
    click.echo(_line(simulator), err=True)
    if as_json:
        click.echo(json.dumps({"devices": simulator.running, **dataclasses.asdict(simulator.told)}))


def describe(simulator: Simulator) -> dict[str, Any]:
    """The status file: what was sent, and what the devices were told is safe."""
    return {"state": "running", "devices": simulator.running, **dataclasses.asdict(simulator.told)}


async def _run(simulator: Simulator, seconds: float | None, *, quiet: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if seconds is not None:
        loop.call_later(seconds, stop.set)
    running = asyncio.create_task(simulator.run(stop))
    told = time.monotonic()
    while not running.done():
        await asyncio.wait({running}, timeout=0.2)
        if not quiet and time.monotonic() - told >= 5.0:
            told = time.monotonic()
            click.echo(_line(simulator), err=True)
    running.result()


def _line(simulator: Simulator) -> str:
    told = simulator.told
    return (
        f"{simulator.running} devices: {told.sent} frames sent, {told.acknowledged} acknowledged, "
        f"{told.unacknowledging} to sources that do not acknowledge, {told.dropped} dropped"
    )


if __name__ == "__main__":
    from flows.cli import main

    main(["simulate", *sys.argv[1:]])
