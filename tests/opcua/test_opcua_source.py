"""The OPC UA source against a server that nobody here wrote (node-opcua)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.opcua.check import try_server
from connectors.opcua.config import Browse, OpcuaConfig
from connectors.source import Surroundings
from tests.opcua import running
from tests.opcua.running import configured
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OTHERS, OpcuaServer

lacking = why_not()
pytestmark = pytest.mark.skipif(lacking is not None, reason=str(lacking))

NODES = [
    ("press-01", "tempC", "Double", 20.5),
    ("press-01", "rpm", "Int32", 1200),
    ("press-01", "mode", "String", "idle"),
    ("press-01", "on", "Boolean", True),
    ("press-02", "tempC", "Double", 30.5),
    ("press-02", "count", "Int64", 7),
    ("press-02", "zones", "Double", [1.5, 2.5, 3.5]),
]
KINDS = {
    "tempC": "number",
    "rpm": "integer",
    "mode": "string",
    "on": "boolean",
    "count": "integer",
    "zone2": "number",
}
CSV = (
    "node_id,device_id,metric,sampling_ms,deadband,index\n"
    + "".join(
        f"nsu={NAMESPACE};s={device}.{metric},{device},{metric},50,,\n"
        for device, metric, _, _ in NODES
        if metric != "zones"
    )
    + f"nsu={NAMESPACE};s=press-02.zones,press-02,zone2,50,,1\n"
)
AT = 1_772_355_600_000  # 2026-03-01T09:00:00Z


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpcuaServer]:
    """For a test that ends it, or changes what nodes it has; a start takes seconds."""
    one = OpcuaServer(tmp_path / "server", NODES)
    yield one
    one.close()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpcuaServer]:
    one = OpcuaServer(tmp_path_factory.mktemp("opcua") / "server", NODES)
    yield one
    one.close()


@pytest.fixture
def shared(started: OpcuaServer) -> OpcuaServer:
    """Its values as they were at the beginning."""
    started.tell(set=[[f"{device}.{metric}", value] for device, metric, _, value in NODES])
    return started


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpcuaServer]:
    folder = tmp_path_factory.mktemp("opcua-guarded") / "server"
    one = OpcuaServer(folder, NODES, user="line", password="a-secret-of-scada")
    yield one
    one.close()


class Running(running.Running):
    """With this file's nodes."""

    def __init__(self, folder: Path, config: OpcuaConfig, csv: str = CSV) -> None:
        super().__init__(folder, config, csv, KINDS)


def test_values_times_and_qualities(tmp_path: Path, shared: OpcuaServer) -> None:
    async def play() -> None:
        async with Running(tmp_path, configured(shared.endpoint)) as run:
            await run.until(lambda: len(run.values()) == 7)
            assert run.values() == {
                "press-01.tempC": (20.5, 0), "press-01.rpm": (1200.0, 0), "press-01.mode": ("idle", 0),
                "press-01.on": (1.0, 0), "press-02.tempC": (30.5, 0), "press-02.count": (7.0, 0),
                "press-02.zone2": (2.5, 0),
            }  # fmt: skip
            shared.tell(set=[["press-01.tempC", 21.5, AT], ["press-01.mode", "läuft", AT]])
            shared.set("press-02.tempC", 31.5, AT + 1, "UncertainLastUsableValue")
            shared.set("press-02.count", 8, AT + 2, "BadSensorFailure")
            await run.until(
                lambda: "press-02.count" in run.values() and run.values()["press-02.count"][1] == 2
            )
            told = run.readings()
            assert ("press-01", AT, {"tempC": (21.5, 0), "mode": ("läuft", 0)}) in told
            assert ("press-02", AT + 1, {"tempC": (31.5, 1)}) in told
            assert run.receiver.status.extra.get("gaps_total", 0) == 0
            assert run.appender.controls == [("connected", {"source": "scada"})]

    asyncio.run(play())


def test_a_restart_with_a_reordered_namespace(tmp_path: Path, server: OpcuaServer) -> None:
    async def play() -> None:
        async with Running(tmp_path, configured(server.endpoint)) as run:
            await run.until(lambda: len(run.values()) == 7)
            server.kill()
            await run.until(lambda: run.receiver.status.state == "disconnected")
            server.nodes[0] = ("press-01", "tempC", "Double", 99.5)
            server.start([NAMESPACE, *OTHERS])
            await run.until(lambda: run.values()["press-01.tempC"] == (99.5, 0), 10)
            kinds = [kind for kind, _ in run.appender.controls]
            assert kinds == ["connected", "disconnected", "connected"]

    asyncio.run(play())


def test_nodes_that_are_not_there_are_told_and_come_back(tmp_path: Path, server: OpcuaServer) -> None:
    async def play() -> None:
        csv = CSV + f"nsu={NAMESPACE};s=press-03.tempC,press-03,tempC,,,\nnsu=http://none/;i=1,x,y,,,\n"
        async with Running(tmp_path, configured(server.endpoint), csv) as run:
            await run.until(lambda: run.receiver.status.extra.get("missing_nodes") == 2)
            await run.until(lambda: "press-03.tempC (BadNodeIdUnknown)" in run.receiver.status.detail)
            assert "nsu=http://none/;i=1 (BadNoNamespace)" in run.receiver.status.detail
            server.tell(add=["press-03", "tempC", "Double", 5.5])
            await run.until(lambda: run.values().get("press-03.tempC") == (5.5, 0))
            server.tell(remove="press-01.rpm")
            await run.until(lambda: "press-01.rpm" in run.receiver.status.detail)
            server.tell(add=["press-01", "rpm", "Int32", 4])
            await run.until(lambda: run.values()["press-01.rpm"] == (4.0, 0))

    asyncio.run(play())


def test_a_subtree(tmp_path: Path, shared: OpcuaServer) -> None:
    async def play() -> None:
        browse = Browse(include=["press-*/*"], exclude=["*/zones", "press-02/count"])
        async with Running(tmp_path, configured(shared.endpoint, nodes=None, browse=browse)) as run:
            await run.until(lambda: len(run.values()) == 5)
            assert set(run.values()) == {
                *(f"press-01.{name}" for name in ("tempC", "rpm", "mode", "on")),
                "press-02.tempC",
            }

    asyncio.run(play())


def trusted(folder: Path, certificate: bytes) -> str:
    """A trust folder with one certificate."""
    (folder / "trusted").mkdir(exist_ok=True)
    (folder / "trusted" / "server.der").write_bytes(certificate)
    return "trusted"


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"])
def test_security_and_a_user(tmp_path: Path, guarded: OpcuaServer, policy: str) -> None:
    async def play() -> None:
        keys: dict[str, Any] = {"security": policy, "username": "line"}
        keys["trust"] = trusted(tmp_path, guarded.certificate)
        good = configured(guarded.endpoint, password="a-secret-of-scada", **keys)
        async with Running(tmp_path, good) as run:
            await run.until(lambda: len(run.values()) == 7)
        assert "7 nodes are there" in await asyncio.to_thread(tried, tmp_path, good)
        wrong = configured(guarded.endpoint, password="wrong", **keys)
        async with Running(tmp_path, wrong) as run:
            await run.until(lambda: "refuses: Bad" in run.receiver.status.detail)
            assert not run.appender.frames

    asyncio.run(play())


def test_a_server_that_nobody_trusts(tmp_path: Path, shared: OpcuaServer) -> None:
    async def play() -> None:
        (tmp_path / "trusted").mkdir()
        config = configured(shared.endpoint, security="Basic256Sha256", trust="trusted")
        async with Running(tmp_path, config) as run:
            await run.until(lambda: "the server's certificate is not trusted" in run.receiver.status.detail)
            (refused,) = (tmp_path / "data" / "opcua" / "scada" / "refused").iterdir()
            assert refused.read_bytes() == shared.certificate
            refused.rename(tmp_path / "trusted" / refused.name)
            await run.until(lambda: len(run.values()) == 7)

    asyncio.run(play())


def tried(folder: Path, config: OpcuaConfig) -> str:
    """What `check --connect` says."""
    return try_server(config, Surroundings("plant", folder, folder / "data"), "scada", CSV)


def test_check_connect_says_what_is_wrong(tmp_path: Path, server: OpcuaServer) -> None:
    assert tried(tmp_path, configured(server.endpoint)) == "the server accepts; all 7 nodes are there"
    server.tell(remove="press-01.rpm")
    with pytest.raises(
        OSError, match=r"the server accepts, but has no nsu=http://penstock.test/line;s=press-01.rpm"
    ):
        tried(tmp_path, configured(server.endpoint))
    server.kill()
    with pytest.raises(OSError, match="Connect call failed"):
        tried(tmp_path, configured(server.endpoint))
