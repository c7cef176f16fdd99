"""How a plant that runs is stopped: in order, at once at a second wish, and by one wish said twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.waiting import LIMIT_S, until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "press-line"
PROCESSES = (
    "journal",
    "flow",
    "historian",
    "server",
    "drainer-alarms-file",
    "drainer-historian",
    "receiver-line1",
    "receiver-hydraulics",
)
STOPPING = "stopping; a second signal ends all at once"


class Running:
    """`penstock run` of the press line."""

    def __init__(self, folder: Path) -> None:
        self.data, self.log = folder / "data", folder / "run.log"
        shutil.copytree(EXAMPLE, folder / "plant", ignore=shutil.ignore_patterns(".penstock"))
        ports = ("MQTT_PORT", "TCP_PORT", "HISTORIAN_PORT", "SERVER_PORT")
        self._environment = {**os.environ, **{name: str(free_port()) for name in ports}}
        self._command = [sys.executable, "-m", "flows.cli", "run"]
        self._command += [str(folder / "plant"), "--data", str(self.data)]
        self.start()

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def told(self, name: str) -> dict[str, Any]:
        """What a process says about itself, of those that run now."""
        try:
            found: dict[str, Any] = json.loads((self.data / "run" / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if name == "supervisor" or found["pid"] == self.component(name).get("pid") else {}

    def component(self, name: str) -> dict[str, Any]:
        status = self.told("supervisor")
        if status.get("pid") != self.process.pid:
            return {}
        found: dict[str, Any] = status["components"].get(name, {})
        return found

    def next_entry(self) -> int:
        """Of the journal, which the flow reads next; 0 before it has begun."""
        found: int = self.told("flow").get("source", {}).get("next_entry", 0)
        return found

    def until_at_work(self, name: str) -> None:
        """Before, it just ends, or (a drainer that connects) in the midst of a call."""
        early = (None, "starting", "connecting", "retrying")
        told = self.log.read_text
        until(lambda: self.told(name).get("state") not in early, f"{name} to be at work", told=told)

    def pid_of(self, name: str) -> int:
        return until(lambda: self.component(name).get("pid"), f"{name} to run", told=self.log.read_text)

    def stopped(self) -> list[str]:
        """What was said from `stopping` on, without the clock."""
        assert self.process.wait(LIMIT_S) == 0
        lines = [line[10:] for line in self.log.read_text("utf-8").splitlines()]
        return lines[lines.index(STOPPING) :]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_a_stop_ends_all_calmly_and_leaves_nothing_to_do_again(running: Running) -> None:
    for name in PROCESSES:
        running.until_at_work(name)
    until(lambda: running.next_entry() > 2, "the journal's ticks")
    done = running.next_entry() - 1
    running.process.send_signal(signal.SIGINT)
    assert running.stopped() == [STOPPING, "stopped"]
    for name in PROCESSES:
        lines = (running.data / "logs" / f"{name}.jsonl").read_text("utf-8").splitlines()
        assert not [line for line in lines if not line.startswith("{")], name  # of a trace
        assert name == "journal" or json.loads(lines[-1])["event"] == "stopped", lines

    running.start()
    until(running.next_entry, "the flow to begin")
    assert running.told("flow")["source"]["durable_entry"] >= done
    for _ in range(2):  # as `timeout` and make do, to a process and to its group: one wish
        running.process.send_signal(signal.SIGTERM)
    assert running.stopped() == [STOPPING, "stopped"]


def test_a_second_wish_kills_what_is_still_stopping(running: Running) -> None:
    pid = running.pid_of("receiver-hydraulics")
    running.pid_of("flow")
    os.kill(pid, signal.SIGSTOP)
    running.process.send_signal(signal.SIGINT)
    until(lambda: STOPPING in running.log.read_text("utf-8"), "the first wish to be heard")
    time.sleep(1.0)  # for longer than one wish takes to be said twice
    running.process.send_signal(signal.SIGINT)
    told = running.stopped()
    assert "receiver-hydraulics was still stopping at the second signal and was killed" in told
    assert told[-1] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
