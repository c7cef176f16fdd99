"""Question: how long from the moment at which a TCP device should send a message to the moment at which a
consumer has the alarm that it raises from a real Kafka, at 20,000 messages/s with telemetry on?

Input: 1,000 devices behind four gateways, JSON with 4 metrics and the message's number, 20 threshold
rules, 1-minute windows, the embedded historian; the whole plant under its supervisor. One message in
200 raises; the device's next message clears and closes it, so 300 events/s go to each of both
topics. The load is open-loop: message n is due at start + n / rate whatever became of those before
it, and latency counts from there, by a clock that all processes share. `delivery: idempotent`, and
`transactional` (read committed) beside it. Stalls: the worst latency of each five-second epoch (the
flow's snapshot falls into each), as median and maximum. Floors: 8 ms p50, 40 ms p99; aims: 3 and 15.

The broker is that of the tests (`make services` runs the same); it, the consumer and the devices share
the machine's processors with the plant. `load_before` is the machine's load average at the start.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from confluent_kafka import Consumer, TopicPartition

from flows.broker import free_port
from operators.jit import warm_up

RATE = 20_000
DEVICES = 1_000
GATEWAYS = 4
HOT_EVERY = 201  # no divisor of DEVICES: each device is hot in turn
WARM_S = 8.0
MEASURED_S = 30.0
EPOCH_S = 5.0
START_S = 60.0

PLANT = """\
plant: latency
sources:
  gate:
    kind: tcp
    listen: "127.0.0.1:${TCP_PORT}"
    framing: {kind: length_prefix, size: 2}
    device: "payload:id"
    product: press
sinks:
  alarms:
    {kind: kafka, bootstrap: "${KAFKA}", delivery: DELIVERY, events: DELIVERY.events, state: DELIVERY.state}
historian: {listen: "127.0.0.1:${HISTORIAN_PORT}"}
server: {listen: "127.0.0.1:${SERVER_PORT}"}
"""
PRODUCT = """\
productId: press
version: 1
decode: {format: json, timestamp: t, metrics: m}
metrics:
  n:         {}
  tempC:     {unit: Cel, range: [-40, 150]}
  rpm:       {unit: "{rev}/min", range: [0, 6000]}
  vibration: {unit: mm/s, range: [0, 80]}
  pressure:  {unit: bar, range: [0, 400]}
windows:
  - {every: 1m, lateness: 5s}
"""
HOT = """\
ruleId: hot
productId: press
type: threshold
condition: "tempC > 100 and n >= 0"
severity: low
acknowledge: none
"""
QUIET = """\
ruleId: {metric}-{n}
productId: press
type: threshold
condition: "{metric} > {limit}"
severity: low
"""


def run() -> dict[str, Any]:
    """Both deliveries, one after the other on one broker."""
    from tests.services.kafka import KafkaBroker, why_not

    if why_not():
        raise SystemExit(f"{why_not()}; the benchmark needs a real Kafka")
    warm_up()
    found: dict[str, Any] = {
        "rate_per_s": RATE,
        "measured_s": MEASURED_S,
        "floor_p50_ms": 8.0,
        "floor_p99_ms": 40.0,
        "aim_p50_ms": 3.0,
        "aim_p99_ms": 15.0,
    }
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        kafka = KafkaBroker(Path(folder) / "kafka")
        kafka.java_options = ()  # at its fastest
        kafka.start()
        try:
            for delivery in ("idempotent", "transactional"):
                found[delivery] = _measured(Path(folder) / delivery, kafka.address, delivery)
        finally:
            kafka.stop()
    return found


def plant_files(delivery: str) -> dict[str, str]:
    """The plant folder."""
    limits = {"rpm": 5900, "vibration": 79, "pressure": 390}
    quiet = [
        QUIET.format(metric=metric, n=n, limit=limit + n / 10)
        for metric, limit in limits.items()
        for n in range(7)
    ][:19]
    return {
        "plant.yaml": PLANT.replace("DELIVERY", delivery),
        "products/press.yaml": PRODUCT,
        "rules/all.yaml": "---\n".join([HOT, *quiet]),
        "devices.csv": "device_id,productId\n" + "".join(f"press-{i:04d},press\n" for i in range(DEVICES)),
    }


def _measured(folder: Path, kafka: str, delivery: str) -> dict[str, Any]:
    ports = {name: str(free_port()) for name in ("TCP_PORT", "HISTORIAN_PORT", "SERVER_PORT")}
    environment = dict(os.environ, KAFKA=kafka, **ports)
    plant, data = folder / "plant", folder / "data"
    for name, text in plant_files(delivery).items():
        path = plant / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        command = [sys.executable, "-m", "flows.cli", "run", str(plant), "--data", str(data)]
        with (folder / "run.log").open("wb") as log:
            running = subprocess.Popen(command, env=environment, stderr=log)
        stack.callback(_stop, running)
        _await(ports["TCP_PORT"], data)
        consumer = _consumer(kafka, f"{delivery}.events")
        stack.callback(consumer.close)
        began = time.monotonic_ns() + 500_000_000
        seconds = WARM_S + MEASURED_S
        sender = [sys.executable, "-m", "bench.latency", ports["TCP_PORT"], str(began), str(seconds)]
        devices = subprocess.Popen(sender, stdout=subprocess.PIPE)
        stack.callback(_stop, devices)
        before, costs = _processor_seconds(running.pid), _costs(data)
        rows = _received(consumer, began, seconds)
        after, costs_after = _processor_seconds(running.pid), _costs(data)
        late_ms = json.loads(devices.communicate(timeout=30)[0])["latest_ms"]
    used = {name: round((after[name] - before[name]) / seconds, 3) for name in before if name in after}
    return {
        **_told(rows, seconds),
        "load_before": load,
        "sender_latest_ms": late_ms,
        "cores_used": used,
        **_spent(costs, costs_after),
    }


def _await(port: str, data: Path) -> None:
    """Until the receiver, the flow and the drainer are there."""
    from flows.health import readiness

    until = time.monotonic() + START_S
    while time.monotonic() < until:
        found = readiness(data)
        kafka = found["components"].get("drainer-kafka", {})
        if found["ready"] and kafka.get("state") in ("idle", "sending"):
            return
        time.sleep(0.1)
    raise TimeoutError(f"the plant is not ready: {readiness(data)}")


def _consumer(kafka: str, topic: str) -> Any:
    settings = {"bootstrap.servers": kafka, "group.id": "latency", "isolation.level": "read_committed"}
    consumer = Consumer(settings)
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    return consumer


def _received(consumer: Any, began: int, seconds: float) -> list[tuple[float, float]]:
    """(seconds after the start at which the message was due, latency in ms) of every raised and cleared."""
    rows = []
    end = began + int((seconds + 3.0) * 1e9)
    while time.monotonic_ns() < end:
        message = consumer.poll(0.05)
        now = time.monotonic_ns()
        if message is None or message.error() is not None:
            continue
        body = json.loads(message.value())
        if body["transition"] == "closed":
            continue  # stands beside cleared
        due = int(body["evidence"]["values"]["n"]) * 1_000_000_000 // RATE
        rows.append((due / 1e9, (now - began - due) / 1e6))
    return rows


def _told(rows: list[tuple[float, float]], seconds: float) -> dict[str, Any]:
    table = np.array([row for row in rows if WARM_S <= row[0] < seconds])
    due, latency = table[:, 0], table[:, 1]
    epochs = ((due - WARM_S) // EPOCH_S).astype(int)
    worst = np.array([latency[epochs == epoch].max() for epoch in np.unique(epochs)])
    expected = 2 * RATE * (seconds - WARM_S) / HOT_EVERY
    p50, p99, p999 = np.percentile(latency, [50, 99, 99.9])
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "p999_ms": round(float(p999), 2),
        "max_ms": round(float(latency.max()), 2),
        "epoch_worst_median_ms": round(float(np.median(worst)), 2),
        "epoch_worst_max_ms": round(float(worst.max()), 2),
        "events": len(latency),
        "events_expected": round(expected),
    }


def _processor_seconds(supervisor: int) -> dict[str, float]:
    """Processor time so far of each of the plant's processes."""
    found = {}
    for child in psutil.Process(supervisor).children(recursive=True):
        try:
            words = child.cmdline()
            name = " ".join([words[2].rpartition(".")[2], *(w for w in words[4:5] if not w.startswith("-"))])
            times = child.cpu_times()
        except (psutil.Error, IndexError):
            continue
        found[name] = times.user + times.system
    return found


def _costs(data: Path) -> dict[str, tuple[int, float]]:
    """By stage of the flow, and for the output log's commits: how many so far, and their seconds."""
    status = json.loads((data / "run" / "flow.json").read_bytes())
    found = {name: (stage["slices"], stage["seconds"]) for name, stage in status["stages"].items()}
    output = status["output"]
    return found | {"output_commit": (output["commits_total"], output["commit_seconds_total"])}


def _spent(before: dict[str, tuple[int, float]], after: dict[str, tuple[int, float]]) -> dict[str, Any]:
    """Where the flow's time went: slices in the run, and the mean of one in ms, by stage."""
    spent = {
        name: round(1000 * (after[name][1] - seconds) / max(1, after[name][0] - count), 2)
        for name, (count, seconds) in before.items()
    }
    return {"slices": after["decode"][0] - before["decode"][0], "mean_ms": spent}


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def send(port: int, began: int, seconds: float) -> float:
    """The devices: every message at its time, be the others late or not. Returns how late, in ms, the
    latest was handed to the kernel."""
    gateways = [socket.create_connection(("127.0.0.1", port)) for _ in range(GATEWAYS)]
    for gateway in gateways:
        gateway.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    names = [f'{{"id":"press-{i:04d}","t":'.encode() for i in range(DEVICES)]
    rest = [
        f'"rpm":{2500 + i},"vibration":{i % 60},"pressure":{200 + i % 90}}}}}'.encode()
        for i in range(DEVICES)
    ]
    wall_ms = int(time.time() * 1000) - (time.monotonic_ns() - began) // 1_000_000
    total, sent, latest = int(seconds * RATE), 0, 0
    while sent < total:
        now = time.monotonic_ns() - began
        due = min(total, now * RATE // 1_000_000_000 + 1 if now >= 0 else 0)
        if due == sent:
            time.sleep(0.0005)
            continue
        latest = max(latest, now - sent * 1_000_000_000 // RATE)
        parts: list[list[bytes]] = [[] for _ in range(GATEWAYS)]
        for n in range(sent, due):
            device = n % DEVICES
            hot = b"120" if n % HOT_EVERY == 0 else b"60"
            at = wall_ms + n * 1000 // RATE
            body = b'%b%d,"m":{"n":%d,"tempC":%b,%b' % (names[device], at, n, hot, rest[device])
            parts[device % GATEWAYS].append(struct.pack(">H", len(body)) + body)
        for gateway, part in zip(gateways, parts, strict=True):
            if part:
                gateway.sendall(b"".join(part))
        sent = due
    for gateway in gateways:
        gateway.close()
    return latest / 1e6


if __name__ == "__main__":
    print(json.dumps({"latest_ms": send(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))}))
