"""`penstock new --from opc.tcp://...` on servers that it has never met."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.errors import ConfigError, ConnectError
from connectors.opcua.nodes import Item, read_nodes, write_nodes
from connectors.typed import TypedValue, pack, unpack
from flows.heard_opcua import Server, server_of
from flows.heard_plant import new_from
from tests.ports import free_port
from tests.services.asyncua_server import NAMESPACE as MILL
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OpcuaServer

ROOT = Path(__file__).resolve().parents[2]
CELSIUS = {"analog": {"low": 0, "high": 200, "unit": "degree_celsius"}}
NARROW = {"analog": {"low": 0, "high": 1, "unit": "hertz"}}


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_server_of_presses(tmp_path: Path) -> None:
    nodes = [
        ("furnace", "temp/a", "Float", 500.0),
        *(
            (f"press-0{n}", *one)
            for n in (1, 2)
            for one in (
                ("level", "Double", 20.0 + n, CELSIUS),
                ("rate", "Double", 50.0, NARROW),
                ("on", "Boolean", True),
                ("count", "UInt32", 7),
                ("state", "UInt32", 1, {"multi": ["idle", "run"]}),
                ("zones", "Double", [1, 2]),
                ("argument", "Argument", "x"),
                ("name", "String", "a"),
            )
        ),
    ]
    server = OpcuaServer(tmp_path / "server", nodes)
    folder = tmp_path / "plant"
    try:
        made = new_from(folder, server.endpoint, "device-v1", 1.5)
    finally:
        server.close()
    assert made.told == [
        "furnace-v1: 1 metric of 1 device",
        "  devices: furnace",
        "press-v1: 8 metrics of 2 devices",
        "  devices: press-01, press-02",
        "left out: 2 variables: of a type that is no number, boolean or text",
        "decoded: 3 of 3 frames (100 %)",
    ]
    assert (folder / "devices.csv").read_text() == (
        "device_id,productId,name\nfurnace,furnace-v1,\npress-01,press-v1,\npress-02,press-v1,\n"
    )
    product = (folder / "products" / "press-v1.yaml").read_text()
    assert product.partition("metrics:\n")[2].splitlines() == [
        "  level: {unit: Cel, range: [0, 200]}   # heard: 21 to 22; the range is the server's",
        "  rate: {unit: Hz, range: [0, 100]}   # heard: 50 to 50; the server's range 0 to 1 does not hold",
        "  on: {type: boolean}",
        "  count: {type: integer, range: [0, 20]}   # heard: 7 to 7",
        "  state: {type: string, values: [idle, run]}",
        "  zones_0: {range: [0, 2]}   # heard: 1 to 1",
        "  zones_1: {range: [0, 5]}   # heard: 2 to 2",
        '  name: {type: string}   # heard: "a"',
    ]
    assert "    enumerations: texts " in (folder / "plant.yaml").read_text()
    items = read_nodes((folder / "opcua-nodes.csv").read_text(), "opcua-nodes.csv")
    assert items[0] == Item(f"nsu={NAMESPACE};s=furnace.temp/a", "furnace", "temp/a")
    assert Item(f"nsu={NAMESPACE};s=press-01.zones", "press-01", "zones_1", place="1") in items
    with pytest.raises(ConfigError, match="exists already; choose another folder"):
        new_from(folder, server.endpoint, "device-v1", 1)
    with pytest.raises(ConnectError, match=f"{server.endpoint} does not answer: .*Connect call failed"):
        new_from(tmp_path / "other", server.endpoint, "device-v1", 1)


@pytest.fixture
def mill() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.services.asyncua_server", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield f"opc.tcp://127.0.0.1:{port}/mill/"
    process.kill()
    process.wait()


def test_a_mill_whose_motors_have_the_same_names(tmp_path: Path, mill: str) -> None:
    folder = tmp_path / "plant"
    made = new_from(folder, mill, "motor-v1", 1.5)
    assert made.told == [
        "motor-v1: 3 metrics of 4 devices",
        "  devices: Line1-MotorA, Line1-MotorB, Line2-MotorA, Line2-MotorB",
        "left out: 4 variables: arrays without elements, or of more than 8",
        "decoded: 4 of 4 frames (100 %)",
    ]
    product = (folder / "products" / "motor-v1.yaml").read_text()
    assert (
        '  Speed: {unit: "{rev}/min", range: [0, 3000]}   # heard: 1000 to 1001; the range is the server\'s\n'
        "  State: {type: string, values: [Off, Running]}\n"
        '  Label: {type: string}   # heard: "MotorA of ' in product
    )
    assert f"nsu={MILL};" in (folder / "opcua-nodes.csv").read_text()


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("opc.tcp://plc", Server("opc.tcp://plc:4840")),
        ("opc.tcp://line:a%40b@[::1]:4841/UA/x", Server("opc.tcp://[::1]:4841/UA/x", "line", "a@b")),
    ],
)
def test_addresses(text: str, server: Server) -> None:
    assert server_of(text) == server


@pytest.mark.parametrize("text", ["opc.tcp://", "opc.tcp://host:port", "opc.tcp://[::1"])
def test_addresses_with_a_mistake(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write opc\.tcp://HOST:PORT"):
        server_of(text)


def test_nodes_and_typed_frames_are_read_as_they_were_written() -> None:
    items = [
        Item("nsu=http://a/;s=x,y", "d", "m"),
        Item("i=85", "d", "n", 0.0, 2.5, True, "1,2"),
        Item("ns=2;i=7", "e", "m", 12.5, 0.5),
    ]
    assert read_nodes(write_nodes(items), "nodes.csv") == items
    values = [
        TypedValue("a", 1.5, 1, 2, 0),
        TypedValue("b", "läuft", 3),
        TypedValue("a", None, 4, 0, 2),
        TypedValue("c", True),
        TypedValue("b", "", 5),
    ]
    assert unpack(pack(values)) == values
    for broken in (b"", b"PTV1", pack(values)[:-1], b"x" + pack(values)[1:]):
        with pytest.raises(ValueError, match="no typed frame"):
            unpack(broken)
