"""A plant of an OPC UA server with real processes: values, an alarm, a receiver killed, a server restarted
with its namespaces in another order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.ports import free_port
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OTHERS, OpcuaServer
from tests.waiting import LIMIT_S, until

lacking = why_not()
pytestmark = pytest.mark.skipif(lacking is not None, reason=str(lacking))

PRODUCT = """\
productId: press-v1
version: 1
decode: {format: typed}
metrics:
  tempC: {unit: Cel, range: [-40, 150]}
  count: {type: integer}
  state: {type: string, values: [idle, run, fault]}
"""
RULE = """\
ruleId: hot
productId: press-v1
type: threshold
condition: "tempC > 80 and state == 'run'"
severity: high
"""
NODES = [
    ("press-01", "tempC", "Double", 20.5),
    ("press-01", "count", "Int32", 0),
    ("press-01", "state", "Int32", 1, {"enum": ["idle", "run", "fault"]}),
]


def test_a_plant_that_runs(tmp_path: Path) -> None:
    server = OpcuaServer(tmp_path / "server", NODES, user="line", password="a-secret-of-scada")
    folder, data, port = tmp_path / "plant", tmp_path / "data", free_port()
    url = f"http://127.0.0.1:{port}"
    written(folder, server, port)

    def get(path: str) -> Any:
        try:
            with urlopen(url + path, timeout=LIMIT_S) as answer:
                return json.load(answer)
        except HTTPError as error:
            return json.load(error)
        except OSError:
            return None

    def value(metric: str) -> Any:
        return ((get("/api/state") or {}).get("press-01", {}).get(metric) or {}).get("value")

    def component(name: str) -> dict[str, Any]:
        found: dict[str, Any] = ((get("/health/ready") or {}).get("components") or {}).get(name, {})
        return found

    with (tmp_path / "run.log").open("wb") as log:
        plant = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(folder), "--data", str(data)],
            stdout=log, stderr=log, env={**os.environ, "SCADA_PASSWORD": "a-secret-of-scada"},
        )  # fmt: skip
    try:
        until(lambda: (value("tempC"), value("count"), value("state")) == (20.5, 0, "run"), "all values")
        until(lambda: "3 nodes" in component("receiver-scada").get("detail", ""), "their number to be told")
        server.tell(set=[["press-01.tempC", 85.0]])
        until(lambda: get("/api/alarms"), "the alarm")
        until(lambda: alarms(data), "the alarm in its file")
        assert alarms(data) == [("raised", 85.0)]

        told = json.loads((data / "run" / "supervisor.json").read_bytes())["components"]
        os.kill(told["receiver-scada"]["pid"], signal.SIGKILL)
        for number in range(1, 51):
            server.tell(set=[["press-01.count", number]])
            time.sleep(0.02)
        until(lambda: value("count") == 50, "the last number")
        metrics = until(lambda: figures(data), "the receiver's figures")
        assert metrics["receiver_gaps_total"] == 0

        server.kill()
        until(lambda: component("receiver-scada").get("state") == "disconnected", "the server to be missed")
        server.nodes[0] = ("press-01", "tempC", "Double", 30.0)
        server.start([NAMESPACE, *OTHERS])
        until(lambda: value("tempC") == 30.0, "the value after the restart")
        until(lambda: len(alarms(data)) > 1, "the alarm's end")
        assert alarms(data)[1] == ("cleared", 30.0)
    finally:
        plant.terminate()
        plant.wait(LIMIT_S)
        server.close()
    assert plant.returncode == 0
    assert "a-secret-of-scada" not in (tmp_path / "run.log").read_text()


def written(folder: Path, server: OpcuaServer, port: int) -> None:
    """The plant's files."""
    texts = {
        "plant.yaml": f"""\
plant: works
sources:
  scada:
    kind: opcua
    endpoint: "{server.endpoint}"
    nodes: opcua-nodes.csv
    publishing: 50ms
    queue: 1000
    enumerations: texts
    username: line
    password: "${{SCADA_PASSWORD}}"
historian: {{listen: "127.0.0.1:{free_port()}"}}
server: {{listen: "127.0.0.1:{port}"}}
""",
        "products/press-v1.yaml": PRODUCT,
        "rules/press-v1.yaml": RULE,
        "devices.csv": "device_id,productId\npress-01,press-v1\n",
        "opcua-nodes.csv": "node_id,device_id,metric,sampling_ms\n"
        + "".join(
            f"nsu={NAMESPACE};s=press-01.{metric},press-01,{metric},0\n" for _, metric, *_ in NODES
        ),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def alarms(data: Path) -> list[tuple[str, float]]:
    """The alarm's events so far: transition, and the value that made it."""
    path = data / "alarms.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    told = [line["data"] for line in lines if line["data"]["ruleId"] == "hot"]
    return [
        (one["transition"], one["evidence"]["values"]["tempC"])
        for one in told
        if one["transition"] in ("raised", "cleared")
    ]


def figures(data: Path) -> dict[str, float]:
    found = json.loads((data / "run" / "receiver-scada.json").read_bytes())
    metrics: dict[str, float] = found["metrics"]
    return metrics if "receiver_gaps_total" in metrics else {}
