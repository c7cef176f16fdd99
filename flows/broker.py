"""A small MQTT broker on loopback, for the demo and for tests: mosquitto where it is found, else
amqtt (pure Python, MQTT 3.1.1) in a process of its own.

`python -m flows.broker --port N --data DIR [--kind mosquitto|amqtt]` runs one until it is told to
stop.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from connectors.errors import ConnectError
from connectors.json_logs import log_as_json

START_S: Final = 30.0
STOP_S: Final = 5.0
BrokerKind = Literal["mosquitto", "amqtt"]

# the defaults (20 in flight, 1,000 queued) drop messages that have been acknowledged to their sender
MOSQUITTO_CONF: Final = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {data}/
autosave_on_changes true
autosave_interval 1000
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 2000
log_dest stderr
log_type error
log_type warning
"""

log = logging.getLogger("broker")


@dataclass(slots=True)
class Broker:
    """A running broker at `address` = (host, port)."""

    address: tuple[str, int]
    kind: BrokerKind
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it cleanly, within 5 s."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait()


def find_mosquitto() -> str | None:
    """The mosquitto program, also where servers' packages put it."""
    return shutil.which(
        "mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    )


def start_broker(data: Path, port: int = 0, kind: BrokerKind | None = None, settings: str = "") -> Broker:
    """A broker on 127.0.0.1 that answers; its sessions are kept in `data`.

    port: 0 for a free one. kind: None for mosquitto if it is found, else amqtt. settings: further
    lines for mosquitto's configuration. Raises `ConnectError` when it does not answer within 30 s.
    """
    program = find_mosquitto()
    if kind is None:
        kind = "mosquitto" if program else "amqtt"
    if port and not is_free(port):
        raise ConnectError(f"port {port} of 127.0.0.1 is in use; choose another")
    port = port or free_port()
    data.mkdir(parents=True, exist_ok=True)
    logged = data / "broker.log"
    with logged.open("ab") as output:
        process = subprocess.Popen(
            _command(kind, program, data, port, settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    broker = Broker(("127.0.0.1", port), kind, process)
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(broker.address, 1.0):
            return broker
        time.sleep(0.02)
    broker.kill()
    raise ConnectError(f"{kind} does not answer on port {port}: {_tail(logged)}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server would
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _command(kind: BrokerKind, program: str | None, data: Path, port: int, settings: str) -> list[str]:
    if kind == "amqtt":
        return [
            sys.executable,
            "-m",
            "flows.broker",
            "--kind",
            "amqtt",
            "--port",
            str(port),
            "--data",
            str(data),
        ]
    if program is None:
        raise ConnectError("mosquitto is not installed")
    conf = data / "mosquitto.conf"
    text = MOSQUITTO_CONF.format(port=port, data=data.resolve())
    if os.geteuid() == 0:  # it would give its rights away, and with them its data directory
        text += f"user {getpass.getuser()}\n"
    conf.write_text(text + settings)
    return [program, "-c", str(conf)]


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-3:]) or "it says nothing"


async def _serve_amqtt(port: int) -> None:
    from amqtt.broker import Broker as Amqtt

    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 1000}},
        "plugins": {"flows.amqtt_everyone.AcceptEveryone": {}},
    }
    broker = Amqtt(config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    log.info("listening on 127.0.0.1:%d", port)
    await stop.wait()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(broker.shutdown(), STOP_S - 1)


def main(arguments: list[str] | None = None) -> int:
    """`python -m flows.broker --port N --data DIR [--kind KIND]`"""
    parser = argparse.ArgumentParser(prog="python -m flows.broker")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=("mosquitto", "amqtt"))
    chosen = parser.parse_args(arguments)
    log_as_json("broker")
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.WARNING)
    program = find_mosquitto()
    if chosen.kind == "amqtt" or (chosen.kind is None and program is None):
        asyncio.run(_serve_amqtt(chosen.port))
        return 0
    try:
        chosen.data.mkdir(parents=True, exist_ok=True)
        command = _command("mosquitto", program, chosen.data, chosen.port, "")
        os.execv(command[0], command)  # noqa: S606 - in its place, so that signals reach it
    except (ConnectError, OSError) as error:
        log.error("%s", error)
    return 3


if __name__ == "__main__":
    sys.exit(main())
