"""A plant that runs as real processes, and devices on a real socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from connectors.journal.output_store import OutputReader
from connectors.journal.reader import JournalReader
from flows.folder import open_plant
from flows.undisturbed import Differences, differences
from flows.views import Views
from operators.jit import warm_up
from tests.change.plants import write
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

PORTS = ("LINE1_PORT", "HISTORIAN_PORT", "SERVER_PORT", "LINE2_PORT")


class Devices(threading.Thread):
    """Presses p1 .. p4 that send 50 lines a second, and connect again when they are cut off. Every
    twelve seconds each is hot for six."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.stop = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self.stop.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as to:
                while not self.stop.wait(0.02):
                    at = int(time.time() * 1000)
                    device = f"p{self.sent % 4 + 1}"
                    hot = (at // 1000 + self.sent % 4) % 12 < 6
                    metrics = {"tempC": 90.0 if hot else 60.0, "rpm": self.sent % 5500, "torque": 1.5}
                    line = json.dumps({"id": device, "t": at, "m": metrics}) + "\n"
                    to.sendall(line.encode())
                    self.sent += 1
            self.stop.wait(0.1)


class RunningPlant:
    """`penstock run` over a folder, with devices and a capture from the journal's first entry on."""

    def __init__(self, folder: Path, files: Mapping[str, str], *, engine: str = "flows.cli") -> None:
        """engine: the module that `run` is asked of."""
        self.engine = engine
        warm_up()  # into the cache, so that no process of the plant compiles
        self.folder = folder
        self.plant = write(folder / "plant", files)
        self.data = folder / "data"
        self.recording = folder / "recording.jsonl"
        self.environ = {**os.environ, **{name: str(free_port()) for name in PORTS}}
        self._environ_before = {name: os.environ.get(name) for name in PORTS}
        self.children: list[subprocess.Popen[bytes]] = []
        self.devices = Devices(int(self.environ["LINE1_PORT"]))

    def __enter__(self) -> RunningPlant:
        os.environ.update({name: self.environ[name] for name in PORTS})  # this process reads the folder, too
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        self.supervisor = self.start("run")
        until((self.data / "journal" / "data.mdb").exists, "the journal")
        self.capture = self.start("capture", "--from-start", "--output", str(self.recording))
        self.until_ready()
        self.devices.start()
        until(lambda: self.position() > 20, "frames")

    def __exit__(self, *_: object) -> None:
        self.devices.stop.set()
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
                child.wait(LIMIT_S)
        for name, value in self._environ_before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    def write(self, files: Mapping[str, str]) -> None:
        write(self.plant, files)

    def start(self, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command}.log").open("ab") as log:
            child = subprocess.Popen(
                self._call(command, *arguments), stdout=log, stderr=log, env=self.environ
            )
        self.children.append(child)
        return child

    def call(self, command: str, *arguments: str, code: int = 0) -> str:
        """Run a command to its end; what it says on stdout."""
        done = subprocess.run(
            self._call(command, *arguments), capture_output=True, timeout=LIMIT_S, env=self.environ, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + (done.stderr if code else "")

    def apply(self, files: Mapping[str, str], why: str) -> str:
        """Write the folder and apply it; the apply id."""
        self.write(files)
        return self.call("apply", "--why", why, "--by", "kim").strip().rpartition(" ")[2]

    def _call(self, command: str, *arguments: str) -> list[str]:
        group, _, action = command.partition(" ")
        named = [group, *([action] if action else []), str(self.plant)]
        module = self.engine if group == "run" else "flows.cli"
        return [sys.executable, "-m", module, *named, *arguments, "--data", str(self.data)]

    def log(self, command: str) -> str:
        return (self.folder / f"{command}.log").read_text("utf-8")

    def status(self, component: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.data / "run" / f"{component}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def pid(self, name: str) -> int | None:
        pid = self.status("supervisor").get("components", {}).get(name, {}).get("pid")
        with suppress(OSError, TypeError):
            os.kill(pid, 0)
            return int(pid)
        return None

    def kill(self, name: str) -> None:
        pid = until(lambda: self.pid(name), f"{name} to run")
        os.kill(pid, signal.SIGKILL)

    def position(self) -> int:
        with closing(JournalReader(self.data / "journal")) as reader:
            return reader.next_position()

    def until_ready(self) -> None:
        until(lambda: self.status("flow").get("state") == "running" and self.pid("flow"), "the flow")
        until(lambda: self.pid("receiver-line1"), "the receiver")

    def until_taken(self, files: Mapping[str, str]) -> None:
        """Until the flow works under the plant of the folder."""
        sha256 = open_plant(self.plant).sha256
        until(lambda: self.status("flow").get("sha256") == sha256, "the flow to take the plant")

    def compared(self) -> Differences:
        """Stop the devices, let everything drain, and compare with a replay of the recording."""
        self.devices.stop.set()
        self.devices.join(LIMIT_S)
        views = Views(self.data)
        until(lambda: views.shards[0].output() is not None, "the output")
        until(views.drained, "everything to drain")
        # time stands still from here on: no tick may find a delay or a window over after the recording
        journal = until(lambda: self.pid("journal"), "the journal to run")
        os.kill(journal, signal.SIGSTOP)
        try:
            with closing(JournalReader(self.data / "journal")) as reader:
                last = reader.last()
            with closing(OutputReader(self.data / "output")) as output:
                until(lambda: min(output.applied(), output.applied_bulk()) >= last, "the flow")
            until(views.drained, "everything to drain")
            self.capture.terminate()
            self.capture.wait(LIMIT_S)
            assert self.capture.returncode == 0, self.log("capture")
            return differences(open_plant(self.plant), self.data, self.recording)
        finally:
            os.kill(journal, signal.SIGCONT)
            views.close()
