"""Question: how many messages a second does an HTTP source take, from socket to journal, on one core?

Input: 100-byte JSON payloads of 100 addresses, posted over 64 keep-alive connections: one a request
(each answered after the commit), and 5,000 JSON lines a request over 4 connections, plain and as gzip.
The journal and the receiver are processes as in a plant. `a_core` divides the messages by the CPU
seconds of the receiver process, all its threads counted: what it would do with one core of its own;
`per_second` is what came through here, with poster, receiver and journal on the same machine.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

from connectors.journal.wire import socket_path
from flows.broker import free_port

FLOOR_POSTS: Final = 10_000  # a second and core
FLOOR_BATCHED: Final = 500_000
CONNECTIONS: Final = 64
BATCHERS: Final = 4
LINES: Final = 5_000


def run(posts: int = 50_000, batches: int = 400) -> dict[str, Any]:
    """Measure; returns figures of single posts and of batches, and the floors."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        data = Path(folder)
        (data / "run").mkdir()
        port = free_port()
        config = {"kind": "http", "listen": f"127.0.0.1:{port}"}
        body = json.dumps({"plant": "bench", "source": "ingest", "config": config})
        (data / "run" / "source-ingest.json").write_text(body)
        journal = _start("connectors.journal.process", folder, "--max-bytes", str(4 << 30))
        try:
            while not socket_path(data).exists():
                time.sleep(0.05)
            receiver = _start("flows.receiver", folder, "ingest")
            try:
                _wait_for(port)
                line = json.dumps({"device_timestamp": 1772355600000, "data": {"metrics": {"tempC": 71.5}}})
                payload = line.encode().ljust(100)
                lines = b"\n".join([payload] * LINES)
                singles = [_request(f"dev/{n}", payload, "application/json") for n in range(100)]
                plain = [_request(f"dev/{n}", lines, "application/x-ndjson") for n in range(100)]
                packed = [
                    _request(f"dev/{n}", gzip.compress(lines, 1), "application/x-ndjson", "gzip")
                    for n in range(100)
                ]
                return {
                    "single": _measure(receiver.pid, port, singles, posts, CONNECTIONS, 1),
                    "batched": _measure(receiver.pid, port, plain, batches, BATCHERS, LINES),
                    "batched_gzip": _measure(receiver.pid, port, packed, batches, BATCHERS, LINES),
                    "floor_single_a_core": FLOOR_POSTS,
                    "floor_batched_a_core": FLOOR_BATCHED,
                }
            finally:
                receiver.terminate()
                receiver.wait(10)
        finally:
            journal.terminate()
            journal.wait(10)


def _measure(
    pid: int, port: int, requests: list[bytes], count: int, connections: int, messages: int
) -> dict[str, float]:
    process = psutil.Process(pid)
    _in_process(port, requests, max(connections * 2, count // 50), connections)  # warm
    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    _in_process(port, requests, count, connections)
    wall, spent = time.perf_counter() - began, sum(process.cpu_times()[:2]) - before
    return {
        "per_second": round(count * messages / wall),
        "a_core": round(count * messages / spent),
        "cpu_us_a_message": round(spent / count / messages * 1e6, 2),
        "memory_mb": round(process.memory_info().rss / 1e6),
    }


def _in_process(port: int, requests: list[bytes], count: int, connections: int) -> None:
    poster = multiprocessing.get_context("fork").Process(
        target=_post, args=(port, requests, count, connections)
    )
    poster.start()
    poster.join()
    if poster.exitcode != 0:
        raise RuntimeError("a post was not answered with 200")


def _post(port: int, requests: list[bytes], count: int, connections: int) -> None:
    """Post `count` requests, one under way a connection."""
    ready = selectors.DefaultSelector()
    sent = answered = 0
    for number in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        ready.register(sock, selectors.EVENT_READ)
        sock.sendall(requests[number % len(requests)])
        sent += 1
    while answered < count:
        for key, _ in ready.select():
            sock = key.fileobj  # type: ignore[assignment]  # sockets alone are registered
            if not sock.recv(65_536).startswith(b"HTTP/1.1 200"):
                sys.exit(1)
            answered += 1
            if sent < count:
                sock.sendall(requests[sent % len(requests)])
                sent += 1


def _request(address: str, body: bytes, kind: str, encoding: str = "") -> bytes:
    coded = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    head = f"POST /ingest/{address} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\n{coded}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stderr=subprocess.DEVNULL)


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
