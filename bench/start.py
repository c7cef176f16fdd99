"""Question: how long from `penstock run` to the first alarm in alarms.jsonl, on a new data directory, with
kernels compiled before?

Input: one device that sends a JSON frame over TCP every 50 ms from the moment its connection is taken;
each is above the rule's limit, and the rule has no delay. The clock runs from the start of the
command, Python's own start included. Best and median of five runs. Floor: 5 s.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flows.broker import free_port
from operators.jit import warm_up

RUNS = 5
FLOOR_S = 5.0
GIVE_UP_S = 60.0

FILES = {
    "plant.yaml": """\
plant: start
sources:
  gate:
    kind: tcp
    listen: "127.0.0.1:${TCP_PORT}"
    framing: {kind: length_prefix, size: 2}
    device: "const:press-1"
    product: press
historian: {listen: "127.0.0.1:${HISTORIAN_PORT}"}
server: {listen: "127.0.0.1:${SERVER_PORT}"}
""",
    "products/press.yaml": """\
productId: press
version: 1
decode: {format: json, timestamp: device_timestamp, metrics: data.metrics}
metrics: {tempC: {unit: Cel}}
""",
    "rules/hot.yaml": """\
ruleId: hot
productId: press
type: threshold
condition: "tempC > 80"
severity: high
""",
    "devices.csv": "device_id,productId\npress-1,press\n",
}


def run() -> dict[str, Any]:
    """Measure RUNS starts."""
    warm_up()
    took = [_once() for _ in range(RUNS)]
    return {"best_s": min(took), "median_s": statistics.median(took), "floor_s": FLOOR_S, "runs": RUNS}


def _once() -> float:
    ports = {name: free_port() for name in ("TCP_PORT", "HISTORIAN_PORT", "SERVER_PORT")}
    environment = dict(os.environ, **{name: str(port) for name, port in ports.items()})
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        plant, data = Path(folder) / "plant", Path(folder) / "data"
        for name, text in FILES.items():
            path = plant / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        began = time.perf_counter()
        command = [sys.executable, "-m", "flows.cli", "run", str(plant), "--data", str(data)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            _send_until_alarm(ports["TCP_PORT"], data / "alarms.jsonl", began)
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(60)


def _send_until_alarm(port: int, alarms: Path, began: float) -> None:
    connection: socket.socket | None = None
    while not (alarms.exists() and alarms.stat().st_size):
        if time.perf_counter() - began > GIVE_UP_S:
            raise TimeoutError("no alarm within a minute")
        if connection is None:
            try:
                connection = socket.create_connection(("127.0.0.1", port), 1.0)
            except OSError:
                time.sleep(0.01)
                continue
        now = int(time.time() * 1000)
        frame = json.dumps({"device_timestamp": now, "data": {"metrics": {"tempC": 90.0}}}).encode()
        connection.sendall(len(frame).to_bytes(2, "big") + frame)
        time.sleep(0.05)
    if connection is not None:
        connection.close()
