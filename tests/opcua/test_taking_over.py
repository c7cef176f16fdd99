"""What a server holds for a source that was away: nothing of it is lost, and nothing comes twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.fakes import MemoryAppender
from connectors.opcua.config import Browse, OpcuaConfig
from operators.spec import SECOND
from tests.conformance.proxy import Proxy
from tests.opcua import running
from tests.opcua.running import configured
from tests.ports import free_port
from tests.services.node_packages import why_not
from tests.services.opcua_server import NAMESPACE, OpcuaServer

ROOT = Path(__file__).resolve().parents[2]

lacking = why_not()
pytestmark = pytest.mark.skipif(lacking is not None, reason=str(lacking))

DEVICES = ("pump-1", "pump-2", "pump-3")
CSV = "node_id,device_id,metric,sampling_ms\n" + "".join(
    f"nsu={NAMESPACE};s={device}.count,{device},count,0\n" for device in DEVICES
)


class Running(running.Running):
    """With this file's nodes."""

    def __init__(self, folder: Path, config: OpcuaConfig, appender: MemoryAppender | None = None) -> None:
        super().__init__(folder, config, CSV, {"count": "integer"}, appender)

    def counted(self, numbers: int) -> bool:
        """Whether every device's values are 0, 1, ... in order, each once, so many of them."""
        found = [self.all_of(device, "count") for device in DEVICES]
        return found == [list(range(numbers))] * len(DEVICES)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpcuaServer]:
    """One for all tests: a start takes seconds."""
    folder = tmp_path_factory.mktemp("opcua") / "server"
    one = OpcuaServer(folder, [(device, "count", "Int32", 0) for device in DEVICES])
    yield one
    one.close()


@pytest.fixture
def server(started: OpcuaServer) -> OpcuaServer:
    """Its values as they were at the beginning."""
    started.tell(set=[[f"{device}.count", 0] for device in DEVICES])
    return started


@pytest.fixture
def proxy(server: OpcuaServer) -> Iterator[Proxy]:
    one = Proxy(server.port)
    yield one
    one.close()


async def count(server: OpcuaServer, numbers: range, pause: float = 0.02) -> None:
    for number in numbers:
        server.tell(set=[[f"{device}.count", number] for device in DEVICES])
        await asyncio.sleep(pause)


def test_a_lost_connection(tmp_path: Path, server: OpcuaServer, proxy: Proxy) -> None:
    async def play() -> None:
        config = configured(f"opc.tcp://127.0.0.1:{proxy.port}", queue=1000)
        async with Running(tmp_path, config) as run:
            await run.until(lambda: run.counted(1))
            for first in (1, 21, 41):
                await count(server, range(first, first + 10))
                proxy.cut()
                await count(server, range(first + 10, first + 20))
            await run.until(lambda: run.counted(61))
            assert ("disconnected", {"source": "scada"}) in run.appender.controls
            await asyncio.sleep(1.1)  # a gap is told once a second
            await run.until(lambda: run.told("gaps_total") >= 0)
            assert (run.told("gaps_total"), run.told("overflows_total")) == (0, 0)

    asyncio.run(play())


def test_a_stop_with_a_full_journal_and_a_new_process(tmp_path: Path, server: OpcuaServer) -> None:
    """What was not acknowledged comes to the next one; what was on its way into the journal, once."""

    async def play() -> None:
        appender = MemoryAppender()
        config = configured(server.endpoint, queue=1000)
        already = server.counts()["acknowledged"]
        async with Running(tmp_path, config, appender) as run:
            await run.until(lambda: run.counted(1))
            appender.fill()
            await count(server, range(1, 11))
        assert server.counts()["acknowledged"] - already <= len(DEVICES)
        await count(server, range(11, 21))
        appender.drain()
        async with Running(tmp_path, config, appender) as run:
            await run.until(lambda: run.counted(21))
            await count(server, range(21, 23))
            await run.until(lambda: run.counted(23))
            assert run.told("gaps_total") in (0, -1)
        assert sum(1 for _ in (tmp_path / "data" / "opcua" / "scada").glob("session-*.json")) == 1

    asyncio.run(play())


def test_other_nodes_are_asked_for_anew(tmp_path: Path, server: OpcuaServer) -> None:
    async def play() -> None:
        async with Running(tmp_path, configured(server.endpoint)) as run:
            await run.until(lambda: run.counted(1))
        async with Running(tmp_path, configured(server.endpoint, queue=7)) as run:
            await run.until(lambda: run.counted(1))
            await run.until(lambda: run.told("gaps_total") == 1)

    asyncio.run(play())


def test_several_sessions(tmp_path: Path, server: OpcuaServer, proxy: Proxy) -> None:
    async def play() -> None:
        config = configured(f"opc.tcp://127.0.0.1:{proxy.port}", nodes_per_session=1, queue=1000)
        async with Running(tmp_path, config) as run:
            await run.until(lambda: run.counted(1) and run.receiver.status.peers == 3)
            proxy.cut()
            await count(server, range(1, 11))
            await run.until(lambda: run.counted(11))
            kinds = [kind for kind, _ in run.appender.controls]
            assert kinds == ["connected", "disconnected", "connected"]

    asyncio.run(play())


@pytest.mark.parametrize(("seconds", "timeout"), [(0.6, 20 * SECOND), (4.0, SECOND)])
def test_a_server_that_stood_still(tmp_path: Path, server: OpcuaServer, seconds: float, timeout: int) -> None:
    """Shorter and longer than the time-outs, with numbers that change before and after."""

    async def play() -> None:
        config = configured(server.endpoint, queue=1000, timeout=timeout)
        async with Running(tmp_path, config) as run:
            await run.until(lambda: run.counted(1))
            await count(server, range(1, 11))
            server.pause(True)
            await asyncio.sleep(seconds)
            server.pause(False)
            await count(server, range(11, 21))
            await run.until(lambda: run.counted(21))
            assert (run.receiver.status.reconnects > 0) is (seconds * SECOND > timeout)

    asyncio.run(play())


def test_another_maker(tmp_path: Path) -> None:
    """asyncua's server: values, a cut connection, a restart."""
    port = free_port()
    process = mill(port)
    proxy = Proxy(port)

    async def play() -> None:
        nonlocal process
        browse = Browse(include=["Mill/Line1/*/Speed"], device=3)
        config = configured(f"opc.tcp://127.0.0.1:{proxy.port}/mill/", nodes=None, browse=browse)
        async with running.Running(tmp_path, config, "", {"Speed": "number"}) as run:
            await run.until(lambda: len(run.values()) == 2)
            proxy.cut()
            await run.until(lambda: run.receiver.status.reconnects > 0)
            await run.until(lambda: run.receiver.status.peers == 1)
            process.kill()
            process.wait()
            await run.until(lambda: run.receiver.status.state == "disconnected")
            heard = len(run.readings())
            process = mill(port)
            await run.until(lambda: len(run.readings()) == heard + 2)
            assert run.values() == {"MotorA.Speed": (1000.0, 0), "MotorB.Speed": (1001.0, 0)}

    try:
        asyncio.run(play())
    finally:
        proxy.close()
        process.kill()
        process.wait()


def mill(port: int) -> subprocess.Popen[str]:
    """The other server, once it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.services.asyncua_server", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process
