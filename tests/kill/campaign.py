"""Kill campaigns: a plant over real sockets whose processes are killed with SIGKILL at random moments.

`python -m tests.kill.campaign --kills 200 --seed 7` runs a long one; the test suite runs a short
one. Devices go on sending all the while. At the end the plant's alarms, historian rows and newest
values are compared with an undisturbed replay of the recording of its journal, and the journal
with what devices were told is safe.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from connectors.journal.output_store import OutputReader
from connectors.journal.reader import JournalReader
from flows.broker import Broker, start_broker
from flows.folder import open_plant
from flows.health import readiness
from flows.undisturbed import Differences, differences
from flows.views import Views
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "press-line"
RULES = Path(__file__).resolve().parent / "plant" / "rules"
VICTIMS = (
    "flow",
    "journal",
    "historian",
    "drainer-historian",
    "drainer-alarms-file",
    "receiver-line1",
    "receiver-hydraulics",
    "archiver",
)
PAUSE_S = (0.2, 2.0)


@dataclass
class Campaign:
    """One plant under fire."""

    folder: Path  # a new folder for everything
    kills: int
    seed: int
    victims: tuple[str, ...] = VICTIMS
    say: Callable[[str], None] = print
    killed: dict[str, int] = field(default_factory=dict)

    def run(self) -> Differences:
        """Start, kill, drain, compare. Raises AssertionError where a process does not come back."""
        self.data = self.folder / "data"
        for name in ("MQTT_PORT", "TCP_PORT", "HISTORIAN_PORT", "SERVER_PORT"):
            os.environ[name] = str(free_port())
        self.plant = lively_plant(self.folder / "plant")
        broker = start_broker(self.folder / "broker", int(os.environ["MQTT_PORT"]))
        children: list[subprocess.Popen[bytes]] = []
        try:
            return self._run(broker, children)
        finally:
            for child in reversed(children):
                if child.poll() is None:
                    child.terminate()
                    child.wait(LIMIT_S)
            broker.stop()

    def _run(self, broker: Broker, children: list[subprocess.Popen[bytes]]) -> Differences:
        open_plant(self.plant)
        plant = self._start(children, "run", str(self.plant), "--data", str(self.data))
        self._until("the journal to begin", lambda: (self.data / "journal" / "data.mdb").exists())
        recording = self.folder / "recording.jsonl"
        capture = self._start(
            children,
            "capture",
            str(self.plant),
            "--data",
            str(self.data),
            "--from-start",
            "--output",
            str(recording),
        )
        self._until("all to run", lambda: all(self._pid(name) for name in self.victims))
        # a broker acknowledges, and drops, what is sent before anybody has ever subscribed
        self._until("sources to be connected", self._are_connected)
        devices = self._start(children, "simulate", str(self.plant), "--rate", "20", "--data", str(self.data))
        self._until("devices to be heard", lambda: self._told().get("acknowledged", 0) > 0)
        draw = random.Random(self.seed)
        order: list[str] = []
        for number in range(self.kills):
            time.sleep(draw.uniform(*PAUSE_S))
            if not number % len(self.victims):  # each in turn, in a new order every round
                order = draw.sample(self.victims, len(self.victims))
                self._stop_flow()
            victim = order[number % len(self.victims)]
            self._until(f"{victim} to run", lambda name=victim: self._pid(name) is not None)
            pid = self._pid(victim)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            self.killed[victim] = self.killed.get(victim, 0) + 1
            self.say(f"kill {number + 1}: {victim} (pid {pid})")
        self._after_kills()
        time.sleep(2.0)
        devices.terminate()
        devices.wait(LIMIT_S)
        told = self._told()
        views = Views(self.data)
        self._until("every receiver to be back", lambda: all(self._pid(name) for name in self.victims))
        safe = told["acknowledged"]
        self._until("acknowledged frames to be journaled", lambda: self._journaled() >= safe)
        self._until("everything to drain", views.drained)
        # time stands still from here on: no tick may find a delay or a window over after the recording
        journal = self._pid("journal")
        assert journal is not None
        os.kill(journal, signal.SIGSTOP)
        try:
            return self._compare(views, capture, recording, told)
        finally:
            os.kill(journal, signal.SIGCONT)
            plant.terminate()
            plant.wait(LIMIT_S)

    def _stop_flow(self) -> None:
        """A wished stop is one more moment at which the flow may be cut off."""
        self._until("the flow to run", lambda: self._pid("flow") is not None)
        pid = self._pid("flow")
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        self._until("the flow to stop", lambda: self._pid("flow") != pid)

    def _after_kills(self) -> None:
        """For a campaign that has more to look at while devices send."""

    def _compare(
        self, views: Views, capture: subprocess.Popen[bytes], recording: Path, told: dict[str, Any]
    ) -> Differences:
        with closing(JournalReader(self.data / "journal")) as reader:
            last = reader.last()
        self._until("the flow to reach the end", lambda: self._applied() >= last)
        self._until("everything to drain", views.drained)
        capture.terminate()
        capture.wait(LIMIT_S)
        journaled = sum(b'"ingest_ts"' in line for line in recording.open("rb"))
        self.say(
            f"devices sent {told['sent']}, were told {told['acknowledged']} are safe; journaled {journaled}"
        )
        assert capture.returncode == 0, (self.folder / "capture.log").read_text("utf-8")
        assert journaled >= told["acknowledged"] > 0
        return differences(open_plant(self.plant), self.data, recording)

    def _are_connected(self) -> bool:
        found = readiness(self.data)["components"]
        return all(one["ready"] for name, one in found.items() if name.startswith("receiver-"))

    def _journaled(self) -> int:
        with closing(JournalReader(self.data / "journal")) as reader:
            return reader.next_position()

    def _applied(self) -> int:
        with closing(OutputReader(self.data / "output")) as output:
            return min(output.applied(), output.applied_bulk())

    def _start(self, children: list[subprocess.Popen[bytes]], *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{arguments[0]}.log").open("ab")
        child = subprocess.Popen([sys.executable, "-m", "flows.cli", *arguments], stdout=log, stderr=log)
        log.close()
        children.append(child)
        return child

    def _told(self) -> dict[str, Any]:
        """What the simulated devices sent and were told is safe."""
        try:
            told: dict[str, Any] = json.loads((self.data / "run" / "simulator.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return told

    def _pid(self, name: str) -> int | None:
        try:
            status: dict[str, Any] = json.loads((self.data / "run" / "supervisor.json").read_bytes())
            pid = status["components"][name]["pid"]
            if pid is not None:
                os.kill(pid, 0)
            return None if pid is None else int(pid)
        except (OSError, ValueError, KeyError):
            return None

    def _until(self, what: str, holds: Callable[[], bool], seconds: float = LIMIT_S) -> None:
        until(holds, what, seconds=seconds)


def lively_plant(folder: Path) -> Path:
    """The example press line with windows of five seconds, an archive, and rules of every kind that
    raise and clear often."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("tests", ".penstock", "rules"))
    shutil.copytree(RULES, folder / "rules")
    for product in (folder / "products").glob("*.yaml"):
        text = product.read_text("utf-8")
        lively = text.replace("every: 1m", "every: 5s").replace("window.`1m`", "window.`5s`")
        assert lively != text
        product.write_text(lively, "utf-8")
    with (folder / "plant.yaml").open("a", encoding="utf-8") as file:
        file.write("archive: {path: archive/}\n")
    return folder


@click.command()
@click.option("--kills", type=int, default=200, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="a new folder for everything")
def main(kills: int, seed: int, folder: Path) -> None:
    """Run a kill campaign; exit code 1 when anything was lost, doubled or invented."""
    campaign = Campaign(folder, kills, seed)
    found = campaign.run()
    for line in found.lines():
        click.echo(line)
    sys.exit(0 if found.clean else 1)


if __name__ == "__main__":
    main()
