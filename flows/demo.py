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
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from connectors.errors import PenstockError
from flows.broker import free_port, is_free, start_broker
from flows.demo_view import DemoView
from flows.folder import open_plant
from flows.plant_file import Plant
from flows.processes import Child
from flows.supervisor import Supervisor
from flows.undisturbed import differences
from flows.views import Views
from operators.jit import warm_up

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "press-line"
PORTS = {"MQTT_PORT": 1883, "TCP_PORT": 7001, "HISTORIAN_PORT": 8123, "SERVER_PORT": 8080}
KILL_AFTER_S = 20.0
AFTER_KILL_S = 20.0
CATCH_UP_S = 60.0
LINE_S = 5.0


@click.command()
@click.option("--kill", is_flag=True, help="kill the flow with SIGKILL, then count what was lost and doubled")
@click.option("--seconds", type=float, help="stop by itself after so long")
@click.option(
    "--data", type=click.Path(path_type=Path), help="keep the data here (default: a new folder, removed)"
)
def demo(kill: bool, seconds: float | None, data: Path | None) -> None:
    """Run the example press line; Ctrl-C stops."""
    console = Console(stderr=True, soft_wrap=True)
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
        self.live: Live | None = None
        self.recording = data / "recording.jsonl"

    def run(self) -> None:
        """Start, show, (kill,) stop."""
        data = self.data
        self.say("Penstock demo: a press line, simulated devices on real sockets; Ctrl-C stops")
        self.environment()
        with self.working("warming kernels (the first time takes up to a minute)"):
            took = warm_up()
        self.say(f"kernels ready ({took:.1f} s)")
        plant = open_plant(EXAMPLE)
        broker = start_broker(data / "broker", int(os.environ["MQTT_PORT"]))
        self.say(f"MQTT broker: {broker.kind} on {broker.address[0]}:{broker.address[1]}")
        supervisor = Supervisor(plant, EXAMPLE, data, say=self.say)
        simulator = self.child("simulator", ["simulate", str(EXAMPLE), "--data", str(data)])
        capture = self.child(
            "capture",
            ["capture", str(EXAMPLE), "--data", str(data), "--from-start", "--output", str(self.recording)],
        )
        try:
            with self.working("starting processes"):
                supervisor.start(apply=True)
            self.say(f"{len(supervisor.children)} processes started, plant '{plant.name}' applied")
            if self.kill:
                capture.start(dict(os.environ))
            simulator.start(dict(os.environ))
            self.watch(plant, supervisor, simulator, capture)
        finally:
            self.say("stopping")
            for child in (simulator, capture):
                child.terminate()
            for child in (simulator, capture):
                child.wait(5.0)
            supervisor.stop()
            broker.stop()
            self.say("stopped")

    def child(self, name: str, arguments: list[str]) -> Child:
        """A command of ours in a process of its own."""
        return Child(name, "flows.cli", arguments, 9, self.data / "logs" / f"{name}.jsonl")

    def environment(self) -> None:
        """Ports of the example: those of the environment, else the usual ones, else free ones."""
        for name, usual in PORTS.items():
            if name not in os.environ:
                os.environ[name] = str(usual if is_free(usual) else free_port())
        os.environ["MQTT_HOST"] = "127.0.0.1"

    def say(self, text: str) -> None:
        """A line of the log: printed, above the screen where there is one."""
        self.lines.append(text)
        console = self.live.console if self.live is not None else self.console
        if self.live is None or not self.console.is_terminal:
            console.print(text, highlight=False)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Say every five seconds that something still goes on."""
        began = time.monotonic()
        over = threading.Event()

        def tell() -> None:
            while not over.wait(LINE_S):
                self.say(f"{what}: {time.monotonic() - began:.0f} s")

        self.say(what)
        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    def watch(self, plant: Plant, supervisor: Supervisor, simulator: Child, capture: Child) -> None:
        """Show what happens until Ctrl-C, the time given, or the end of the kill."""
        views = Views(self.data)
        view = DemoView(views, plant, EXAMPLE)
        for line in view.footer:
            self.console.print(line, highlight=False)
        try:
            with self.on_screen():
                settle = self._show(view, supervisor)
            if settle:
                self.settle(plant, supervisor, simulator, capture, views)
        finally:
            views.close()

    @contextmanager
    def on_screen(self) -> Iterator[None]:
        """The live screen on a terminal; nothing elsewhere."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False, screen=True) as self.live:
            try:
                yield
            finally:
                self.live = None

    def _show(self, view: DemoView, supervisor: Supervisor) -> bool:
        """True when the kill is to be counted."""
        began = time.monotonic()
        shown = -LINE_S
        heard_at: float | None = None
        killed_at: float | None = None
        end = self.seconds if self.seconds is not None else float("inf")
        while not supervisor.stop_signals:
            supervisor.watch()
            now = time.monotonic() - began
            if now - shown >= (1.0 if self.live is not None else LINE_S):
                shown = now
                if self.live is not None:
                    self.live.update(view.screen(now, self.lines[-5:]), refresh=True)
                else:
                    for line in view.lines(now):
                        self.console.print(line, highlight=False)
            if self.kill and heard_at is None and view.views.ledger():
                heard_at = now
            if heard_at is not None and killed_at is None and now > heard_at + KILL_AFTER_S:
                pid = supervisor.child("flow").pid
                if pid is not None:
                    killed_at = now
                    os.kill(pid, signal.SIGKILL)
                    self.say(f"SIGKILL sent to the flow (pid {pid})")
            if killed_at is not None and now > killed_at + AFTER_KILL_S:
                return True
            if now > end:
                return False
            time.sleep(0.05)
        return False

    def settle(
        self, plant: Plant, supervisor: Supervisor, simulator: Child, capture: Child, views: Views
    ) -> None:
        """Let the devices fall silent, everything drain, and count."""
        self.say("devices fall silent; waiting until everything has been handed on")
        simulator.terminate()
        simulator.wait(10.0)
        self.until(supervisor, views, views.drained)
        self.say("the journal ends here")
        for child in reversed(supervisor.children):
            if child.name.startswith("receiver") or child.name == "journal":
                child.terminate()
                child.wait(5.0)
        self.until(supervisor, views, lambda: views.drained(to_the_end=True))
        self.until(supervisor, views, lambda: rests(self.recording))
        capture.terminate()
        capture.wait(5.0)
        self.report(plant)

    def until(self, supervisor: Supervisor, views: Views, holds: Callable[[], bool]) -> None:
        """Keep the plant up until something holds."""
        until = time.monotonic() + CATCH_UP_S
        while not holds():
            if supervisor.stop_signals:
                raise click.Abort
            if time.monotonic() > until:
                raise PenstockError(
                    f"not everything was handed on within {CATCH_UP_S:.0f} s: {behind(views)}"
                )
            supervisor.watch()
            time.sleep(0.1)

    def report(self, plant: Plant) -> None:
        """What was lost and what came twice."""
        told = simulator_report(self.data)
        with self.recording.open("rb") as recording:
            journaled = sum(b'"ingest_ts"' in line for line in recording)
        acknowledged = int(told.get("acknowledged", 0))
        self.say(
            f"devices sent {told.get('sent', 0)} frames and were told that {acknowledged} are safe; "
            f"{journaled} are in the journal"
        )
        with self.working("comparing with an undisturbed run over the same journal"):
            found = differences(plant, self.data, self.recording)
        for line in found.lines():
            self.say(line)
        if acknowledged > journaled or not found.clean:
            raise PenstockError("the kill left a difference; the lines above say which")
        self.say("the flow was killed; nothing was lost and nothing came twice")


def behind(views: Views) -> str:
    """What is still to be done, and what is not well."""
    lag = views.lag()["entries"]
    parts = [f"the flow is {lag:.0f} entries behind"] if lag else []
    parts += [
        f"{one['records']:.0f} records wait for {name}"
        for name, one in views.waiting().items()
        if one["records"]
    ]
    parts += [
        f"{name}: {one['state']} {one['detail']}".rstrip()
        for name, one in views.status()["health"]["components"].items()
        if not one["ready"]
    ]
    return "; ".join(parts) or "the recording still grows"


def rests(path: Path) -> bool:
    """Whether a file has not grown for a second."""
    try:
        return time.time() - path.stat().st_mtime > 1.0
    except FileNotFoundError:
        return False


def simulator_report(data: Path) -> dict[str, Any]:
    """What the simulated devices were told is safe: {"acknowledged": n, "sent": n}."""
    try:
        return dict(json.loads((data / "run" / "simulator.json").read_bytes()))
    except (OSError, ValueError):
        return {}
