"""Nodes and values that no plant should have and every plant has; and what servers say about nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.opcua.config import OpcuaConfig
from operators.spec import MILLISECOND
from tests.opcua import running
from tests.opcua.running import configured
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OpcuaServer

lacking = why_not()
pytestmark = pytest.mark.skipif(lacking is not None, reason=str(lacking))

ANALOG = {"analog": {"low": 0, "high": 200, "unit": "degree_celsius"}}
NODES = [
    ("m", "level", "Double", 100.0, ANALOG),
    ("m", "speed", "Double", 100.0),
    ("m", "name", "String", "a"),
    ("m", "born", "DateTime", "9999-12-31T23:59:59Z"),
    ("m", "argument", "Argument", "x"),
    ("m", "many", "Variants", [1.5, 2.5]),
    ("m", "zones", "Double", [1.0, 2.0, 3.0]),
    ("m", "state", "Int32", 1, {"enum": ["idle", "run", "fault"]}),
    ("m", "valve", "UInt32", 10, {"enumValues": {"closed": 10, "open": 20}}),
    ("m", "phase", "UInt32", 0, {"multi": ["fill", "drain"]}),
    ("m", "door", "Boolean", False, {"states": ["zu", "offen"]}),
]
KINDS = {
    **dict.fromkeys(("level", "speed", "argument", "many", "zones", "zone"), "number"),
    "born": "integer",
    **dict.fromkeys(("name", "state", "valve", "phase", "door"), "string"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpcuaServer]:
    one = OpcuaServer(tmp_path_factory.mktemp("opcua") / "server", NODES)
    yield one
    one.close()


@pytest.fixture
def server(shared: OpcuaServer) -> OpcuaServer:
    """Its values as they were at the beginning."""
    shared.tell(set=[[f"{device}.{metric}", value] for device, metric, _, value, *_ in NODES])
    return shared


def rows(*metrics: str, more: str = "") -> str:
    return (
        "node_id,device_id,metric,sampling_ms,deadband,index\n"
        + "".join(f"nsu={NAMESPACE};s=m.{metric},m,{metric},0,,\n" for metric in metrics)
        + more
    )


class Running(running.Running):
    """With this file's kinds."""

    def __init__(self, folder: Path, config: OpcuaConfig, csv: str) -> None:
        super().__init__(folder, config, csv, KINDS)


def test_poison(tmp_path: Path, server: OpcuaServer) -> None:
    """Structures, Variants in Variants, NaN, a text of 3 MB: the values beside them come through."""

    async def play() -> None:
        csv = rows("level", "speed", "name", "born", "argument", "many", "zones")
        async with Running(tmp_path, configured(server.endpoint), csv) as run:
            await run.until(lambda: len(run.values()) == 7)
            assert run.values()["m.zones"] == (1.0, 0)
            assert run.values()["m.born"] == (253402300799000.0, 0)
            for metric in ("argument", "many"):
                value, quality = run.values()[f"m.{metric}"]
                assert (value != value, quality) == (True, 2)
            server.tell(set=[["m.level", "NaN"], ["m.name", "x" * 3_000_000], ["m.speed", 7]])
            await run.until(lambda: run.values()["m.speed"] == (7.0, 0))
            assert run.values()["m.level"][1] == 2
            (large,) = (one for one in run.appender.frames if one.headers)
            assert large.headers == (
                ("too_large", "a text of 3000000 bytes of 'name'; max_frame allows 1000000"),
            )
            assert (large.topic, large.payload) == ("m", b"x" * 4096)
            server.tell(set=[["m.name", "short"], ["m.zones", []]])
            await run.until(lambda: run.values()["m.name"] == ("short", 0))
            assert run.receiver.status.reconnects == 0

    asyncio.run(play())


def test_enumerations_as_texts(tmp_path: Path, server: OpcuaServer) -> None:
    async def play() -> None:
        csv = rows("state", "valve", "phase", "door", "speed")
        config = configured(server.endpoint, enumerations="texts")
        async with Running(tmp_path, config, csv) as run:
            await run.until(lambda: len(run.values()) == 5)
            assert run.values() == {
                "m.state": ("run", 0), "m.valve": ("closed", 0), "m.phase": ("fill", 0), "m.door": ("zu", 0),
                "m.speed": (100.0, 0),
            }  # fmt: skip
            server.tell(set=[["m.state", 2], ["m.valve", 20], ["m.phase", 1], ["m.door", True]])
            await run.until(lambda: run.values()["m.door"] == ("offen", 0))
            assert [run.values()[f"m.{name}"][0] for name in ("state", "valve", "phase")] == [
                "fault", "open", "drain",
            ]  # fmt: skip
            server.tell(set=[["m.state", -7], ["m.valve", 33]])
            await run.until(lambda: run.values()["m.valve"] == ("33", 0))
            assert run.values()["m.state"] == ("-7", 0)

    asyncio.run(play())


def test_deadbands_and_places(tmp_path: Path, server: OpcuaServer) -> None:
    """Absolute ones, percent of EURange, and those that a node cannot have."""

    async def play() -> None:
        where = f"nsu={NAMESPACE};s=m"
        csv = rows(
            more=f"{where}.level,m,level,0,10%,\n{where}.speed,m,speed,0,5,\n{where}.zones,m,zone,0,,7\n"
        )
        # a queue, so that no value takes the place of another before it is published
        async with Running(tmp_path, configured(server.endpoint, queue=10), csv) as run:
            await run.until(lambda: len(run.values()) == 3)
            for value in (102.0, 110.0, 130.0):  # 10 % of 200 is 20
                server.tell(set=[["m.level", value], ["m.speed", value]])
                await asyncio.sleep(0.15)
            await run.until(lambda: run.all_of("m", "speed")[-1] == 130.0)
            assert run.all_of("m", "level") == [100.0, 130.0]
            assert run.all_of("m", "speed") == [100.0, 110.0, 130.0]
            assert run.values()["m.zone"][1] == 2
            told = f"{where}.zones (BadIndexRangeNoData: index 7 is no place in its array)"
            await run.until(lambda: told in run.receiver.status.detail)
        csv = rows(more=f"{where}.speed,m,speed,0,2%,\n{where}.name,m,name,0,1,\n")
        async with Running(tmp_path, configured(server.endpoint), csv) as run:
            await run.until(lambda: run.told("missing_nodes") == 2)
            await run.until(lambda: "needs an EURange at the node" in run.receiver.status.detail)
            assert "a deadband of 2% needs an EURange at the node" in run.receiver.status.detail
            assert "a deadband of 1 needs a number" in run.receiver.status.detail

    asyncio.run(play())


def test_what_the_server_does_not_grant_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = OpcuaServer(tmp_path / "server", NODES, fold_ms=100)

    async def play() -> None:
        config = configured(server.endpoint, sampling=20 * MILLISECOND)
        async with Running(tmp_path, config, rows("level", "speed")) as run:
            await run.until(lambda: run.told("revised_nodes") == 2)
        assert (
            f"the server samples more slowly than asked for: 2 nodes, e.g. nsu={NAMESPACE};s=m.level: "
            "100 ms; values between are lost without a word" in caplog.text
        )

    try:
        asyncio.run(play())
    finally:
        server.close()


def test_every_value_that_the_server_queues_is_in_the_journal(tmp_path: Path) -> None:
    """A flood of what the server never folds: by its own counts, and by ours."""
    nodes = [(f"d{n % 10}", f"m{n // 10}", "Double", 0.0) for n in range(500)]
    server = OpcuaServer(tmp_path / "server", nodes)
    csv = "node_id,device_id,metric,sampling_ms\n" + "".join(
        f"nsu={NAMESPACE};s={device}.{metric},{device},{metric},0\n" for device, metric, *_ in nodes
    )

    async def play() -> None:
        async with Running(tmp_path, configured(server.endpoint, queue=100), csv) as run:
            await run.until(lambda: run.told("values_total") == 500)
            server.tell(flood={"every": 20, "ticks": 40})
            await run.until(lambda: run.told("values_total") == 500 * 41)
            await run.until(lambda: server.counts()["acknowledged"] == 500 * 41)
            counts = server.counts()
            assert (counts["written"], counts["folded"], counts["dropped"]) == (20_000, 0, 0)
            assert (run.told("gaps_total"), run.told("overflows_total")) == (0, 0)

    try:
        asyncio.run(play())
    finally:
        server.close()


def test_a_full_queue_is_told(tmp_path: Path, server: OpcuaServer) -> None:
    """What the server's own queue drops is counted, and the value behind the gap is uncertain."""

    async def play() -> None:
        config = configured(server.endpoint, queue=2)
        async with Running(tmp_path, config, rows("speed")) as run:
            await run.until(lambda: run.values() == {"m.speed": (100.0, 0)})
            run.appender.fill()
            for number in range(10):
                server.set("m.speed", float(number))
                await asyncio.sleep(0.1)
            run.appender.drain()
            await run.until(lambda: run.all_of("m", "speed")[-1] == 9.0)
            assert len(run.all_of("m", "speed")) < 11
            await run.until(lambda: run.told("overflows_total") >= 1)
            assert {values["speed"][1] for _, _, values in run.readings()} == {0, 1}

    asyncio.run(play())
