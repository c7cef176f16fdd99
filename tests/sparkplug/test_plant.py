"""Sparkplug from an edge node to the alarm: the plant folder, `check`, and a plant that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug.messages import Sparkplug
from flows.broker import start_broker
from flows.cli import main
from tests.ports import free_port
from tests.receivers.brokers import need_mosquitto
from tests.sparkplug.edge import Client, EdgeNode
from tests.waiting import LIMIT_S, until

PLANT = """\
plant: works
sources:
  scada:
    kind: mqtt
    host: 127.0.0.1
    port: {port}
    sparkplug: {{groups: [works], host_id: penstock, online: online}}
historian: {{listen: "127.0.0.1:{historian}"}}
server: {{listen: "127.0.0.1:{server}"}}
"""
PRODUCT = """\
productId: press
version: 1
decode: {format: typed, metrics: {tempC: Motor/Temp, rpm: rpm, mode: mode, online: online}}
metrics:
  tempC: {unit: Cel, range: [-40, 200]}
  rpm: {type: integer}
  mode: {type: string}
  online: {type: boolean}
"""
RULES = """\
ruleId: hot
productId: press
type: threshold
condition: "tempC > 80"
severity: high
---
ruleId: gone
productId: press
type: threshold
condition: "not online"
severity: medium
"""
DEVICES = "device_id,productId,hub_id\nworks.edge1.press-01,press,works.edge1\n"
METRICS = {
    "Motor/Temp": ("Double", 20.5),
    "rpm": ("Int32", -5),
    "mode": ("String", "idle"),
    "blob": ("Bytes", b"\0"),
}


def written(folder: Path, port: int = 1883) -> Path:
    for name in ("products", "rules"):
        (folder / name).mkdir(parents=True)
    text = PLANT.format(port=port, historian=free_port(), server=free_port())
    (folder / "plant.yaml").write_text(text, "utf-8")
    (folder / "products" / "press.yaml").write_text(PRODUCT, "utf-8")
    (folder / "rules" / "press.yaml").write_text(RULES, "utf-8")
    (folder / "devices.csv").write_text(DEVICES, "utf-8")
    return folder


def checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    with pytest.raises(SystemExit) as ended:
        main(["check", str(folder)])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), (captured.out + captured.err).splitlines()


def test_a_plant_with_sparkplug_passes_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = checked(written(tmp_path / "plant"), capsys)
    assert code == 0


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "plant.yaml:3:10  sources.scada: 'subscribe' is missing"),
        (
            'sparkplug: {}, subscribe: ["#"]',
            "plant.yaml:3:67  sources.scada.subscribe[0]: takes topics of spBv1.0/ too, which 'sparkplug' "
            "subscribes to; narrow it",
        ),
        (
            "sparkplug: {groups: [a/b]}",
            "plant.yaml:3:61  sources.scada.sparkplug.groups[0]: the name of a group is one level of a "
            "topic, without '+', '#' and '/'",
        ),
        (
            "sparkplug: {groups: []}",
            "plant.yaml:3:60  sources.scada.sparkplug.groups: at least one group is expected; write all for "
            "every group",
        ),
        (
            'sparkplug: {device_id: "{node}"}',
            "plant.yaml:3:63  sources.scada.sparkplug.device_id: {device} is missing, so all would be called "
            "the same",
        ),
        (
            'sparkplug: {hub_id: "{device}"}',
            "plant.yaml:3:60  sources.scada.sparkplug.hub_id: no part '{device}'; known: {group}, {node}",
        ),
        (
            'sparkplug: {host_id: "a#"}',
            "plant.yaml:3:61  sources.scada.sparkplug.host_id: the name of a host application is one level "
            "of a topic, without '+', '#' and '/'",
        ),
        (
            "sparkplug: {}, product: other",
            "plant.yaml:3:64  sources.scada.product: 'other' reads json, and Sparkplug brings typed values; "
            "write decode: {format: typed} there",
        ),
        (
            "sparkplug: {}, carries: master",
            "plant.yaml:3:64  sources.scada.carries: 'sparkplug' brings values of devices; give master data "
            "a source of their own",
        ),
        (
            "sparkplug: {host: penstock}",
            "plant.yaml:3:52  sources.scada.sparkplug.host: unknown key 'host'; did you mean 'host_id'?",
        ),
    ],
)
def test_what_check_says(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, told: str) -> None:
    folder = written(tmp_path / "plant")
    other = "productId: other\nversion: 1\ndecode: {format: json}\nmetrics: {tempC: {}}\n"
    (folder / "products" / "other.yaml").write_text(other, "utf-8")
    text = f"plant: works\nsources:\n  scada: {{kind: mqtt, host: 127.0.0.1, {source}}}\n"
    (folder / "plant.yaml").write_text(text, "utf-8")
    code, lines = checked(folder, capsys)
    assert code == 1
    assert told in lines


def test_what_frames_come_to(tmp_path: Path) -> None:
    """Births, data, a backlog, what cannot be read, a command and a death, from the journal on."""
    folder, node = written(tmp_path / "plant"), EdgeNode("works", "edge1", {}, {"press-01": METRICS})
    node.session()
    at = 1_780_000_000_000
    sparkplug = Sparkplug(SparkplugConfig(online="online"), now_ms=lambda: at + 3000)
    messages = [
        *node.births(at),
        node.data("press-01", {"Motor/Temp": 95.0}, at + 1000),
        node.data("press-01", {"Motor/Temp": 150.0}, at - 3_600_000, historical=True),
        node.data("press-01", {"Motor/Temp": 20.0}, at + 2000, quality=500),
        (node.topic("DDATA", "press-01"), b"no protobuf"),
        (node.topic("DDATA", "press-02"), b""),
        (node.topic("DCMD", "press-01"), b"ours"),
        node.death(),
    ]
    with (tmp_path / "heard.jsonl").open("w") as file:
        for number, message in enumerate(messages):
            for frame in sparkplug.take(*message):
                line = {"ingest_ts": at + 1000 * number, "source": "scada", "topic": frame.topic}
                line |= {"payload_hex": frame.payload.hex(), "headers": dict(frame.headers)}
                file.write(json.dumps(line) + "\n")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(folder), "--input", str(tmp_path / "heard.jsonl"), "--output", str(out)])
    assert ended.value.code == 0
    summary = json.loads((out / "summary.json").read_bytes())
    assert summary["frames"] == {"in": 10, "decoded": 5, "rejected": 4, "filtered": 1, "held": 0}
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    edge = ("unknown_device", "'works.edge1' is not in devices.csv", "works.edge1")  # the node itself
    assert [(one["reason"], one["message"], one["device_id"]) for one in rejects] == [
        edge,
        ("malformed", "its bytes are no protobuf", "works.edge1.press-01"),
        ("unknown_device", "'works.edge1.press-02' is not in devices.csv", "works.edge1.press-02"),
        edge,
    ]
    assert bytes.fromhex(rejects[1]["payload_hex"]) == b"no protobuf"
    events = [json.loads(line) for line in (out / "alarms.jsonl").read_text().splitlines()]
    told = [(one["data"]["ruleId"], one["data"]["transition"], one["time"][17:23]) for one in events]
    assert told == [("hot", "raised", "41.000"), ("gone", "raised", "43.000")]
    state = json.loads((out / "state.json").read_bytes())["works.edge1.press-01"]
    assert {name: (one["value"], one["quality"]) for name, one in state.items()} == {
        "tempC": (None, "bad"),
        "rpm": (None, "bad"),
        "mode": (None, "bad"),
        "online": (False, "good"),
    }


@contextmanager
def running(folder: Path) -> Iterator[None]:
    log = (folder / "run.log").open("ab")
    child = subprocess.Popen([sys.executable, "-m", "flows.cli", "run", str(folder)], stdout=log, stderr=log)
    try:
        yield
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
        finally:
            log.close()


def tail(log: Path) -> str:
    return log.read_text("utf-8")[-3000:]


def alarms(folder: Path) -> list[tuple[str, str]]:
    """(subject, transition) so far."""
    path = folder / ".penstock" / "alarms.jsonl"
    if not path.exists():
        return []
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [(one["subject"], one["data"]["transition"]) for one in events]


def receiver_status(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        told: dict[str, Any] = json.loads((folder / ".penstock" / "run" / "receiver-scada.json").read_bytes())
        return told
    return {}


def test_from_an_edge_node_to_the_alarm_over_the_end_of_the_receiver(tmp_path: Path) -> None:
    need_mosquitto()
    broker = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    try:
        folder = written(tmp_path / "plant", broker.address[1])
        log = partial(tail, folder / "run.log")
        with running(folder):
            until(lambda: receiver_status(folder).get("state") == "connected", "connected", told=log)
            edge = Client(EdgeNode("works", "edge1", {}, {"press-01": METRICS}), broker.address[1])
            subject = "works.edge1.press-01"
            edge.data("press-01", {"Motor/Temp": 95.0})
            until(lambda: (f"{subject}/hot", "raised") in alarms(folder), "hot", told=log)
            edge.data("press-01", {"Motor/Temp": 40.0})
            until(lambda: (f"{subject}/hot", "cleared") in alarms(folder), "cool", told=log)
            os.kill(receiver_status(folder)["pid"], signal.SIGKILL)
            until(lambda: edge.asked, "back", told=log)  # births after the receiver's end
            edge.data("press-01", {"Motor/Temp": 96.0})
            until(lambda: alarms(folder).count((f"{subject}/hot", "raised")) == 2, "hot again", told=log)
            edge.close()
            until(lambda: (f"{subject}/gone", "raised") in alarms(folder), "gone", told=log)
    finally:
        broker.stop()
