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
STOPPING = "stopping; a second signal ends all at once"


class Running:
    """`penstock run` of the press line."""

    def __init__(self, folder: Path) -> None:
        self.data, self.log = folder / "data", folder / "run.log"
        shutil.copytree(EXAMPLE, folder / "plant", ignore=shutil.ignore_patterns(".penstock"))
        ports = ("MQTT_PORT", "TCP_PORT", "HISTORIAN_PORT", "SERVER_PORT")
        command = [sys.executable, "-m", "flows.cli", "run", str(folder / "plant"), "--data", str(self.data)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **{name: str(free_port()) for name in ports}},
            )

    def component(self, name: str) -> dict[str, Any]:
        try:
            status = json.loads((self.data / "run" / "supervisor.json").read_bytes())
        except (OSError, ValueError):
            return {}
        found: dict[str, Any] = status["components"].get(name, {})
        return found

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


def test_a_signal_that_is_passed_on_twice_is_one_wish(running: Running) -> None:
    running.pid_of("flow")
    for _ in range(2):  # as `timeout` and make do, to a process and to its group
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
