"""`penstock demo`: the example press line with simulated devices on real sockets.

Everything is the real thing on an embedded default: an MQTT broker (mosquitto where it is found,
else an embedded one), TCP devices, the supervisor with all its processes, the embedded historian.
`--kill` ends the flow with SIGKILL before your eyes and then counts, against an undisturbed
replay of the same journal, what was lost and what came twice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from connectors.errors import PenstockError
from flows.broker import start_broker
from flows.demo_count import Count, count_differences
from flows.demo_view import plain_line, screen, where_to_look
from flows.folder import open_plant
from flows.plant_file import Plant
from flows.processes import Child
from flows.supervisor import Supervisor
from flows.views import Views
from operators.jit import warm_up

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "press-line"
PORTS = {"MQTT_PORT": 1883, "TCP_PORT": 7001, "HISTORIAN_PORT": 8123, "SERVER_PORT": 8080}
KILL_AFTER_S = 20.0
AFTER_KILL_S = 20.0
CATCH_UP_S = 60.0


@click.command()
@click.option("--kill", is_flag=True, help="kill the flow with SIGKILL, then count what was lost and doubled")
@click.option("--seconds", type=float, help="stop by itself after so long")
@click.option(
    "--data", type=click.Path(path_type=Path), help="keep the data here (default: a new folder, removed)"
)
def demo(kill: bool, seconds: float | None, data: Path | None) -> None:
    """Run the example press line; Ctrl-C stops."""
    console = Console(stderr=True)
    folder = data or Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    try:
        Demo(console, folder.resolve(), kill=kill, seconds=seconds).run()
    finally:
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


class Demo:
    """One run of the demo."""

    def __init__(self, console: Console, data: Path, *, kill: bool, seconds: float | None) -> None:
        self.console = console
        self.data = data
        self.kill = kill
        self.seconds = seconds
        self.lines: list[str] = []

    def run(self) -> None:
        """Start, show, (kill,) stop."""
        data = self.data
        self.say("Penstock demo: a press line, simulated devices on real sockets")
        self.environment()
        with self.console.status("kernels"):
            took = warm_up()
        self.say(f"kernels ready ({took:.1f} s)")
        broker = start_broker(data / "broker", int(os.environ["MQTT_PORT"]))
        self.say(f"MQTT broker: {broker.kind} on {broker.address}")
        plant = open_plant(EXAMPLE)
        supervisor = Supervisor(plant, EXAMPLE, data, say=self.say)
        simulator = Child("simulator", "flows.simulate_command", [], 9, data / "logs" / "simulator.jsonl")
        try:
            supervisor.start(apply=True)
            self.say(f"{len(supervisor.children)} processes started, plant '{plant.name}' applied")
            simulator.arguments = [str(EXAMPLE), "--data", str(data)]
            simulator.start(dict(os.environ))
            self.watch(plant, supervisor, simulator)
        finally:
            self.say("stopping")
            simulator.terminate()
            simulator.wait(5.0)
            supervisor.stop()
            broker.stop()
            self.say("stopped")

    def environment(self) -> None:
        """Ports of the example: the usual ones where free, else others."""
        for name, usual in PORTS.items():
            os.environ[name] = str(usual if name not in os.environ and is_free(usual) else free_port())
        os.environ["MQTT_HOST"] = "127.0.0.1"

    def say(self, text: str) -> None:
        """A line of the log, kept for the screen."""
        self.lines.append(text)
        if not self.console.is_terminal or len(self.lines) < 6:
            self.console.print(text, highlight=False)

    def watch(self, plant: Plant, supervisor: Supervisor, simulator: Child) -> None:
        """Show what happens until Ctrl-C, the time given, or the end of the kill."""
        views = Views(self.data)
        began = time.monotonic()
        shown = 0.0
        killed = False
        end = self.seconds if self.seconds is not None else float("inf")
        for line in where_to_look(plant, self.data):
            self.console.print(line, highlight=False)
        with Live(console=self.console, auto_refresh=False) as live:
            while not supervisor.stop_signals:
                supervisor.watch()
                now = time.monotonic() - began
                if now - shown >= 1.0:
                    shown = now
                    if self.console.is_terminal:
                        live.update(screen(views, self.data, now, self.lines[-5:]), refresh=True)
                    elif int(now) % 5 == 0:
                        self.console.print(plain_line(views, self.data, now), highlight=False)
                if self.kill and not killed and now > KILL_AFTER_S:
                    killed = True
                    pid = supervisor.child("flow").pid
                    if pid is not None:
                        os.kill(pid, signal.SIGKILL)
                        self.say(f"SIGKILL sent to the flow (pid {pid})")
                if killed and now > KILL_AFTER_S + AFTER_KILL_S:
                    self.settle(plant, supervisor, simulator, views)
                    return
                if now > end:
                    return
                time.sleep(0.05)

    def settle(self, plant: Plant, supervisor: Supervisor, simulator: Child, views: Views) -> None:
        """Let the devices fall silent, everything drain, and count."""
        self.say("devices fall silent; waiting until everything has been handed on")
        simulator.terminate()
        simulator.wait(10.0)
        told = simulator_report(self.data)
        until = time.monotonic() + CATCH_UP_S
        while time.monotonic() < until and not views.drained():
            supervisor.watch()
            time.sleep(0.2)
        for child in supervisor.children:
            if child.name.startswith("receiver"):
                child.terminate()
                child.wait(5.0)
        self.report(count_differences(plant, self.data, told))

    def report(self, count: Count) -> None:
        """What was lost and what came twice."""
        for line in count.lines():
            self.say(line)
            if self.console.is_terminal:
                self.console.print(line, highlight=False)
        if not count.clean:
            raise PenstockError("the kill left a difference; the lines above say which")


def simulator_report(data: Path) -> dict[str, Any]:
    """What the simulated devices were told is safe: {"acknowledged": n, "sent": n}."""
    try:
        return dict(json.loads((data / "run" / "simulator.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def is_free(port: int) -> bool:
    """Nobody listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
