"""The long form of the conformance suite.

`python -m tests.conformance.campaign --kills 60 --flood 60 --away 60` runs over every kind (or those that
`--kind` names) and prints a line of JSON for each: how many SIGKILLs, frames and repeats, by how much the
receiver grew under floods, and how often a peer that hangs up was tried. Exit code 1: a promise is broken.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from connectors.fakes import MemoryAppender
from tests.conformance.processes import Processes
from tests.conformance.receiving import receiver
from tests.conformance.subjects import SUBJECTS
from tests.conformance.test_bounds import GROWTH, flooded
from tests.conformance.test_durable import kill_at_random
from tests.receivers.running import running

LONGEST_PAUSE_S = 30.0


def killed(name: str, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Nothing is lost or out of order over so many SIGKILLs of receiver and journal."""
    with closing(SUBJECTS[name](folder)) as subject:
        if why := subject.waivers.get("sigkill"):
            return {"waived": why}
        with closing(Processes(subject.config, folder / "data", subject.read)) as processes:
            twice = kill_at_random(subject, processes, kills, seed)
            return {"kills": kills, "lost": 0, "twice": twice, "frames": len(processes.journaled()) - twice}


def grown(name: str, folder: Path, seconds: float) -> dict[str, Any]:
    """By how much a receiver grows while its journal stands still, and then while it is slow."""
    with closing(SUBJECTS[name](folder)) as subject:
        if why := subject.waivers.get("a_flood"):
            return {"waived": why}
        with closing(Processes(subject.config, folder / "data", subject.read)) as processes:
            processes.wait_state("connected")
            most = flooded(subject, processes, seconds / 2, seconds / 2)
            assert most < GROWTH, f"grown by {most} bytes"
            return {"grown_mb": round(most / 1e6), "seconds": seconds}


def tried(name: str, folder: Path, seconds: float) -> dict[str, Any]:
    """How often a peer that hangs up is tried; no pause is longer than the cap."""
    with closing(SUBJECTS[name](folder)) as subject:
        if why := subject.waivers.get("back_off") or subject.waivers.get("network"):
            return {"waived": why}
        with closing(subject.interpose()) as proxy:
            proxy.hanging_up = True

            async def scene() -> None:
                async with running(receiver(subject, folder), MemoryAppender()):
                    await asyncio.sleep(seconds)

            asyncio.run(scene())
            ends = [*proxy.attempts, time.monotonic()]
            pauses = [later - earlier for earlier, later in pairwise(ends)]
            assert max(pauses) < LONGEST_PAUSE_S + 5.0, pauses
            return {"attempts": len(proxy.attempts), "longest_pause_s": round(max(pauses), 1)}


@click.command()
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(SUBJECTS)), help="default: every one")
@click.option("--kills", default=60, show_default=True)
@click.option("--flood", default=60.0, show_default=True, help="seconds")
@click.option("--away", default=60.0, show_default=True, help="seconds")
@click.option("--seed", default=1, show_default=True)
def main(kinds: tuple[str, ...], kills: int, flood: float, away: float, seed: int) -> None:
    """Run the promises of sources for long."""
    broken = False
    for name in kinds or tuple(SUBJECTS):
        told: dict[str, Any] = {"kind": name}
        parts: dict[str, Callable[[Path], dict[str, Any]]] = {
            "sigkill": partial(killed, name, kills=kills, seed=seed),
            "flood": partial(grown, name, seconds=flood),
            "back_off": partial(tried, name, seconds=away),
        }
        for part, work in parts.items():
            folder = Path(tempfile.mkdtemp(prefix="penstock-conformance-"))
            try:
                told[part] = work(folder)
            except AssertionError as error:
                told[part] = {"broken": str(error)[:2000]}
                broken = True
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        click.echo(json.dumps(told))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
