"""A press line with real processes: what the server tells, and what it tells of a killed flow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from click.testing import CliRunner

from connectors.errors import ConfigError
from flows.broker import start_broker
from flows.cli import cli
from tests.ports import free_port
from tests.server.looked_at import PRESS_LINE
from tests.waiting import LIMIT_S, until


def asked(*words: str) -> Any:
    """What a command prints."""
    ran = CliRunner().invoke(cli, [*words, "--json"])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def remote_commands(url: str, historian: str) -> None:
    """Commands that act on a plant elsewhere, through its server and its historian."""
    who = ("--by", "a test", "--why", "because", "--url", url)
    (answer,) = asked("params", "set", "press-01", "tempHigh=61.5", *who)
    assert answer["accepted"]
    shown = asked("params", "--url", url, "--device", "press-01")
    row = next(row for row in shown if row["param"] == "tempHigh")
    assert (row["value"], row["source"], row["by"], row["why"]) == (61.5, "set", "a test", "because")
    (answer,) = asked("params", "reset", "press-01", *who)
    assert answer["accepted"]
    assert "set" not in {row["source"] for row in asked("params", "--url", url)}
    assert asked("devices", "set", "press-01", "name=renamed", *who)["accepted"]
    assert asked("history", "--url", url)[0]["changes"] == "first"
    assert asked("query", "SELECT 1 AS one", "--url", historian) == {"one": 1}

    for words, told in (
        (("params", "set", "press-01", "tempHihg=1"), "tempHihg"),
        (("params", "set", "press-00", "tempHigh=1"), "press-00"),
        (("params", "set", "press-01", "tempHigh=hot"), "'hot' is no number"),
        (("devices", "retire", "press-00"), "unknown device 'press-00'; did you mean"),
    ):
        refused = CliRunner().invoke(cli, [*words, *who])
        assert isinstance(refused.exception, ConfigError)
        assert told in str(refused.exception)


def test_a_plant_that_runs(tmp_path: Path) -> None:
    names = ("MQTT_PORT", "TCP_PORT", "HISTORIAN_PORT", "SERVER_PORT")
    environ = {**os.environ, "MQTT_HOST": "127.0.0.1", **{name: str(free_port()) for name in names}}
    data = tmp_path / "data"
    url = f"http://127.0.0.1:{environ['SERVER_PORT']}"

    def get(path: str) -> Any:
        try:
            with urlopen(url + path, timeout=LIMIT_S) as answer:
                return json.load(answer)
        except HTTPError as error:
            return json.load(error)
        except OSError:
            return None

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments], stdout=log, stderr=log, env=environ
            )

    def component(name: str) -> dict[str, Any]:
        found: dict[str, Any] = ((get("/health/ready") or {}).get("components") or {}).get(name, {})
        return found

    def position() -> int:
        """Of the reading that is shown."""
        return int(get("/api/state")["press-01"]["tempC"]["position"])

    plant = start("run", str(PRESS_LINE), "--data", str(data))
    children = [plant]
    broker = None
    try:
        until(lambda: component("receiver-line1").get("state") == "disconnected", "the broker to be missed")
        told = get("/health/ready")
        assert not told["ready"]
        assert environ["MQTT_PORT"] in told["components"]["receiver-line1"]["detail"]
        broker = start_broker(tmp_path / "broker", int(environ["MQTT_PORT"]))
        until(lambda: (get("/health/ready") or {}).get("ready"), "all to be ready")
        children.append(start("simulate", str(PRESS_LINE), "--data", str(data), "--rate", "5"))
        until(lambda: len(get("/api/state") or {}) == 12, "values of all devices")
        first = position()
        until(lambda: position() > first, "newer values")
        remote_commands(url, f"http://127.0.0.1:{environ['HISTORIAN_PORT']}")

        flow = json.loads((data / "run" / "supervisor.json").read_bytes())["components"]["flow"]["pid"]
        os.kill(flow, signal.SIGKILL)
        until(lambda: not component("flow").get("ready", True), "the killed flow to be named")
        until(lambda: component("flow").get("ready"), "the flow to be ready again")
        before = position()
        until(lambda: position() > before, "newer values")

        looked = subprocess.run(
            [sys.executable, "-m", "flows.cli", "top", "--url", url, "--json"],
            capture_output=True,
            check=True,
            timeout=LIMIT_S,
        )
        status = json.loads(looked.stdout)
        assert status["running"]
        for row in status["ledger"]:
            outcomes = ("frames_decoded", "frames_rejected", "frames_filtered", "frames_held")
            assert row["frames_in"] == sum(row.get(term, 0) for term in outcomes)
    finally:
        for child in reversed(children):
            child.terminate()
            child.wait(LIMIT_S)
        if broker is not None:
            broker.stop()
    assert plant.returncode == 0
