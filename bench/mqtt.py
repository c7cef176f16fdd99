"""Question: what does reading a broker's messages into the journal cost over reading its socket?

Input: a backlog of 500,000 QoS 1 messages of 100 bytes on 1,000 topics, which mosquitto (20,000 in
flight) keeps for a session. Peer: a socket that continues such a session of the same broker, finds
the packet ids in what it reads and acknowledges them at once. Ours: the receiver process with the
journal process behind it, until the last message is durable. Both run in turns; `ratio` is the peer's
time over ours, of medians. Also: CPU of the receiver and of the journal a message.
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
from typing import Any, Final

import numpy as np

from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.entries import CONTROL, FRAMES
from connectors.journal.reader import JournalReader
from connectors.mqtt import packets
from connectors.mqtt.publishes import Publishes
from connectors.mqtt.session import READ_PAUSE_S
from flows.broker import Broker, find_mosquitto, free_port, is_free

FLOOR: Final = 0.5
AIM: Final = 0.95
MESSAGES: Final = 500_000
TOPICS: Final = 1000
SIZE: Final = 100
ROUNDS: Final = 3
IN_FLIGHT: Final = 20_000
WITHIN_S: Final = 300.0


def run(messages: int = MESSAGES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; returns speeds, the ratio and the CPU a message."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        root = Path(folder)
        broker = _broker(root)
        try:
            bare, ours = [], []
            spent: list[tuple[float, float]] = []
            for turn in range(rounds):
                _fill(broker, "bare", messages)
                bare.append(_drain(broker, "bare", messages))
                _fill(broker, f"penstock-{turn}", messages)
                seconds, receiver, journal = _receive(root / f"data-{turn}", broker, turn, messages)
                ours.append(seconds)
                spent.append((receiver, journal))
        finally:
            broker.kill()
    ratio = statistics.median(bare) / statistics.median(ours)
    return {
        "messages": messages,
        "bare_messages_s": round(messages / statistics.median(bare)),
        "receiver_messages_s": round(messages / statistics.median(ours)),
        "ratio": round(ratio, 3),
        "floor": FLOOR,
        "aim": AIM,
        "receiver_cpu_us_a_message": round(statistics.median(one for one, _ in spent) / messages * 1e6, 2),
        "journal_cpu_us_a_message": round(statistics.median(one for _, one in spent) / messages * 1e6, 2),
    }


def _broker(root: Path) -> Broker:
    """mosquitto that keeps its backlog in memory: saving it would be what is measured."""
    program, port = find_mosquitto(), free_port()
    if program is None:
        raise RuntimeError("mosquitto is not installed")
    conf = root / "mosquitto.conf"
    conf.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages {IN_FLIGHT}\n"
        "max_queued_messages 0\nmax_queued_bytes 0\nlog_type error\n"
    )
    broker = Broker(("127.0.0.1", port), "mosquitto", subprocess.Popen([program, "-c", str(conf)]))
    until = time.monotonic() + 30
    while is_free(port):
        if time.monotonic() > until:
            raise RuntimeError("mosquitto does not answer")
        time.sleep(0.02)
    return broker


def _session(broker: Broker, client: str) -> socket.socket:
    """A connection with a kept session that subscribes to everything."""
    sock = socket.create_connection(broker.address, 10)
    sock.settimeout(60)
    sock.sendall(packets.connect(client, False, 0, None, None, 0, 0, 0))
    sock.sendall(packets.subscribe(["plant/#"], 1, False))
    _exactly(sock, 4 + 5)
    return sock


def _fill(broker: Broker, client: str, messages: int) -> None:
    """Make the backlog: the session stays, its connection does not."""
    _session(broker, client).close()
    time.sleep(0.2)
    payload = b"x" * SIZE
    sock = socket.create_connection(broker.address, 10)
    sock.settimeout(120)
    sock.sendall(packets.connect("device", False, 0, None, None, 0, 0, 0))
    _exactly(sock, 4)
    for first in range(0, messages, 1000):
        part = bytearray()
        for number in range(first, min(first + 1000, messages)):
            topic = b"plant/press-%04d/up" % (number % TOPICS)
            size = 4 + len(topic) + SIZE
            part += bytes([0x32, size & 127 | 128, size >> 7]) + len(topic).to_bytes(2, "big") + topic
            part += (number % 65_535 + 1).to_bytes(2, "big") + payload
        sock.sendall(part)
        _exactly(sock, 4 * min(1000, messages - first))
    sock.close()


def _exactly(sock: socket.socket, size: int) -> None:
    while size:
        got = len(sock.recv(size))
        if not got:
            raise ConnectionError("the broker closed the connection")
        size -= got


def _drain(broker: Broker, client: str, messages: int) -> float:
    """Seconds of a bare socket, from CONNECT to the last acknowledgement sent."""
    publishes = Publishes(False, np.zeros(65_536, np.uint64), 1 << 20, 1 << 20)
    began = time.perf_counter()
    sock = socket.create_connection(broker.address, 10)
    sock.settimeout(60)
    sock.sendall(packets.connect(client, False, 0, None, None, 0, 0, 0))
    _exactly(sock, 4)
    buffer = np.empty(1 << 20, np.uint8)
    held, seen = 0, 0
    while seen < messages:
        time.sleep(READ_PAUSE_S)  # as ours does: it makes the pieces larger, and mosquitto faster
        held += sock.recv_into(memoryview(buffer)[held:])  # type: ignore[arg-type]  # an array is a buffer
        at = 0
        while True:
            publishes.split(buffer, at, held)
            at, batch = publishes.at, publishes.take()
            if batch is None:
                break
            seen += len(batch.mids)
            sock.sendall(packets.pubacks(batch.mids))
        buffer[: held - at] = buffer[at:held].copy()
        held -= at
    spent = time.perf_counter() - began
    sock.close()
    return spent


def _receive(data: Path, broker: Broker, turn: int, messages: int) -> tuple[float, float, float]:
    """Seconds from the receiver's connection to the last frame durable; CPU of receiver and journal."""
    (data / "run").mkdir(parents=True)
    config = {"kind": "mqtt", "host": "127.0.0.1", "port": broker.address[1], "subscribe": ["plant/#"]}
    config |= {"client_id": f"penstock-{turn}", "max_inflight": IN_FLIGHT}
    told = {"plant": "bench", "source": "line", "config": config, "folder": str(data)}
    (data / "run/source-line.json").write_text(json.dumps(told))
    quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    command = [sys.executable, "-m", "connectors.journal.process", str(data), "--max-bytes", str(4 << 30)]
    journal = subprocess.Popen(command, **quiet)
    receiver: subprocess.Popen[bytes] | None = None
    try:
        while not (data / "run/journal.sock").exists():
            time.sleep(0.02)
        client = BlockingJournalClient(data)
        receiver = subprocess.Popen([sys.executable, "-m", "flows.receiver", str(data), "line"], **quiet)
        until = time.monotonic() + WITHIN_S
        frames, began, before = 0, 0, (0.0, 0.0)
        while frames < messages:
            if time.monotonic() > until or receiver.poll() is not None:
                raise RuntimeError(f"{frames} of {messages} messages arrived")
            frames = int(client.status()["metrics"]["journal_frames_total"])
            if frames and not began:
                began, before = frames, (_cpu(receiver.pid), _cpu(journal.pid))
            time.sleep(0.005)
        share = messages / max(messages - began, 1)  # some were taken before the first look
        cpu = (_cpu(receiver.pid) - before[0]) * share, (_cpu(journal.pid) - before[1]) * share
        client.close()
        return _span(data), *cpu
    finally:
        for process in (receiver, journal):
            if process is not None:
                process.terminate()
                process.wait(30)


def _span(data: Path) -> float:
    """Seconds from `connected` to the last frames, by the journal's own clock."""
    begin = end = 0
    with JournalReader(data / "journal") as reader:
        following = reader.oldest()
        while read := reader.read(following, 10_000, 4 << 20):
            following = read[-1].number + 1
            for entry in read:
                if entry.kind == CONTROL and reader.control(entry).kind == "connected":
                    begin = entry.ms
                elif entry.kind == FRAMES:
                    end = entry.ms
    return max(end - begin, 1) / 1000


def _cpu(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
