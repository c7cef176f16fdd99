"""A plant made of edge nodes that it never met."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from connectors.errors import ConfigError
from flows.broker import start_broker
from flows.folder import open_plant
from flows.heard_plant import new_from
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.sparkplug.edge import Client, EdgeNode

PRESS = {
    "Motor/Temp": ("Double", 20.5),
    "Pump/Temp": ("Float", 0.5),
    "count": ("Int32", -5),
    "mode": ("String", "idle"),
    "on": ("Boolean", True),
    "blob": ("Bytes", b"\0"),
    "Spectrum": ("Int16Array", b"\x05\x00\xfb\xff"),
}
TANK = {"level": ("UInt16", 7)}


def test_what_births_tell_becomes_a_plant_that_decodes_it(tmp_path: Path) -> None:
    need_mosquitto()
    broker = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    port = broker.address[1]
    nodes = [
        EdgeNode("works", "edge1", {"uptime": ("Int64", 1)}, {"press-01": PRESS, "tank-1": TANK}),
        EdgeNode("works", "edge2", {}, {"press-01": PRESS}),
    ]
    ended = threading.Event()
    try:
        edges = [Client(node, port) for node in nodes]
        plain = Publisher(broker)

        def publish() -> None:
            value = 20.0
            while not ended.wait(0.05):
                value += 1
                for edge in edges:
                    edge.data("press-01", {"Motor/Temp": value % 40, "mode": "run"})
                plain.send(
                    [b'{"data": {"metrics": {"a": 1}}}'], "iotlink/dev/nohub/d1/periodic/pub/telemetry/json"
                )

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            made = new_from(tmp_path / "plant", f"mqtt://127.0.0.1:{port}/spBv1.0/works/#", "device-v1", 2.0)
            other = new_from(tmp_path / "other", f"mqtt://127.0.0.1:{port}", "device-v1", 1.0)
            with pytest.raises(ConfigError) as error:
                new_from(tmp_path / "none", f"mqtt://127.0.0.1:{port}/+/works/DDATA/#", "device-v1", 1.0)
        finally:
            ended.set()
            thread.join()
            plain.close()
        assert all(edge.asked == 1 for edge in edges)  # for their births, once
        for edge in edges:
            edge.leave()
    finally:
        broker.stop()
    hint = f"penstock new DIR --from mqtt://127.0.0.1:{port}/spBv1.0/#"
    assert str(error.value) == f"nothing but Sparkplug was heard; for it: {hint}"
    assert other.told[-1].endswith(f"of Sparkplug left out; for it: {hint}")
    assert sorted(line for line in made.told if " of " in line and line[0] != " ")[1:] == [
        "edge-v1: 1 metric of 1 device",
        "press-v1: 7 metrics of 2 devices",
        "tank-v1: 1 metric of 1 device",
    ]
    assert "(100 %)" in made.told[-1]
    plant = open_plant(tmp_path / "plant")
    assert {name: (row["productId"], row["hub_id"]) for name, row in plant.master.devices.items()} == {
        "works.edge1.press-01": ("press-v1", "works.edge1"),
        "works.edge2.press-01": ("press-v1", "works.edge2"),
        "works.edge1.tank-1": ("tank-v1", "works.edge1"),
        "works.edge1": ("edge-v1", "works.edge1"),
    }
    press = plant.products["press-v1"]
    assert {name: metric.type for name, metric in press.metrics.items()} == {
        "Temp": "number",
        "Pump_Temp": "number",
        "count": "integer",
        "mode": "string",
        "on": "boolean",
        "Spectrum_0": "integer",
        "Spectrum_1": "integer",
    }
    assert dict(press.decode.layout.metrics)["Pump_Temp"] == "Pump/Temp"
