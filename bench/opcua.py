"""Question: what does a value of an OPC UA server cost the receiver, from socket to journal, and is any lost?

Input: node-opcua (an independent server) with 3,000 Double nodes of 100 devices, each given a new value ten
times a second: 30,000 values/s in one subscription on one connection, published every 100 ms, once in a plain
channel and once signed and encrypted (Basic256Sha256). The journal and the receiver are processes as in a
plant. `core` is the CPU seconds of the receiver process, all threads, divided by the seconds of the flood;
`lost` the values that the server was given and the journal has not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

from connectors.journal.wire import socket_path
from flows.status import read_status
from tests.services.opcua_server import NAMESPACE, OpcuaServer

DEVICES: Final = 100
METRICS: Final = 30
EVERY_MS: Final = 100
FLOOR_CORE: Final = 0.5
AIM_US: Final = 2.0


def run(ticks: int = 100) -> dict[str, Any]:
    """Measure; returns CPU a value and loss, plain and encrypted, with floor and aim."""
    return {
        "plain": _measure(ticks, "none"),
        "encrypted": _measure(ticks, "Basic256Sha256"),
        "floor_core": FLOOR_CORE,
        "aim_cpu_us_a_value": AIM_US,
    }


def _measure(ticks: int, security: str) -> dict[str, Any]:
    names = [(f"d{d:03d}", f"m{m:02d}") for d in range(DEVICES) for m in range(METRICS)]
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        data = Path(folder)
        server = OpcuaServer(data / "server", [(d, m, "Double", 0.0) for d, m in names])
        (data / "run").mkdir()
        (data / "trusted").mkdir()
        (data / "trusted" / "server.der").write_bytes(server.certificate)
        rows = "".join(f"nsu={NAMESPACE};s={d}.{m},{d},{m},0\n" for d, m in names)
        (data / "nodes.csv").write_text("node_id,device_id,metric,sampling_ms\n" + rows)
        config = {
            "kind": "opcua", "endpoint": server.endpoint, "nodes": "nodes.csv", "queue": 100,
            "publishing": EVERY_MS * 1_000_000, "security": security, "trust": "trusted",
        }  # fmt: skip
        body = {"plant": "bench", "source": "scada", "config": config, "folder": folder}
        (data / "run" / "source-scada.json").write_text(json.dumps(body))
        journal = _start("connectors.journal.process", folder, "--max-bytes", str(4 << 30))
        try:
            while not socket_path(data).exists():
                time.sleep(0.05)
            receiver = _start("flows.receiver", folder, "scada")
            try:
                return _flood(server, data, psutil.Process(receiver.pid), ticks)
            finally:
                receiver.terminate()
                receiver.wait(10)
        finally:
            journal.terminate()
            journal.wait(10)
            server.close()


def _flood(server: OpcuaServer, data: Path, process: psutil.Process, ticks: int) -> dict[str, Any]:
    nodes = DEVICES * METRICS
    first = _settled(data, nodes)
    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    server.tell(flood={"every": EVERY_MS, "ticks": ticks})
    wanted = first + nodes * ticks
    values, until = first, time.monotonic() + 60 + 2 * ticks * EVERY_MS / 1000
    newest = began
    while values < wanted and time.monotonic() < until:
        time.sleep(0.5)
        now = _values(data)
        if now > values:
            newest = time.perf_counter()
        elif values > first and time.perf_counter() - newest > 5:
            break
        values = now
    spent = sum(process.cpu_times()[:2]) - before
    counts = server.counts()
    seconds = counts.pop("flood_ms") / 1000
    del counts["texts"]  # of other tests
    return {
        "values": values - first,
        "per_second": round(counts["written"] / seconds),
        "lost": wanted - values,
        "overflows": _told(
            data, "overflows"
        ),  # of the server's queues, and gaps, as the receiver counts them
        "gaps": _told(data, "gaps"),
        "core": round(spent / seconds, 3),
        "cpu_us_a_value": round(spent / max(1, values - first) * 1e6, 2),
        "memory_mb": round(process.memory_info().rss / 1e6),
        "server": counts,
        "load": round(os.getloadavg()[0], 2),
    }


def _settled(data: Path, nodes: int) -> int:
    """Wait until every node's first value is in the journal."""
    until = time.monotonic() + 90
    while (values := _values(data)) < nodes:
        if time.monotonic() > until:
            raise RuntimeError(f"{values} of {nodes} nodes told after 90 s")
        time.sleep(0.5)
    time.sleep(2.0)
    return _values(data)


def _values(data: Path) -> int:
    """How many values are in the journal: the receiver counts them once they are durable."""
    return _told(data, "values")


def _told(data: Path, what: str) -> int:
    told = read_status(data).get("receiver-scada", {})
    return int(told.get("metrics", {}).get(f"receiver_{what}_total", 0))


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stderr=subprocess.DEVNULL)
