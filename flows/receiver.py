"""The receiver process: one source of a plant, from its peers into the journal.

`python -m flows.receiver DATA SOURCE [--config FILE]`. FILE (of the supervisor a descriptor that only this
process inherits; default `DATA/run/source-SOURCE.json`) holds the source's configuration with environment
references and secrets resolved: `{"plant", "source", "config", "folder"}`.

Exit codes: 0 stopped, 1 the configuration is wrong, 3 the journal is gone or the receiver broke.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from connectors.errors import ConfigError, PenstockError
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.journal.client import JournalClient
from connectors.journal.sharded import ShardedClient
from connectors.json_logs import log_as_json
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcuaConfig
from connectors.shards import Sharding
from connectors.source import Appender, Receiver, Surroundings
from connectors.tcp.config import TcpConfig
from flows.ending import leave
from flows.shards import shard_folders
from flows.source_specs import source_spec
from flows.status import StatusThread
from flows.wiring import source_kind
from operators.batch import Address
from operators.decode.routing import DeviceReader

STOP_S = 4.5  # from SIGTERM to the end, whatever hangs

# the same as in flows.plant_file, which would bring the compiler into this process: 0.7 s and 60 MB
SourceConfig = MqttConfig | TcpConfig | HttpConfig | FilesConfig | OpcuaConfig | KafkaConfig

log = logging.getLogger("receiver")


class SourceFile(msgspec.Struct, kw_only=True):
    """What the supervisor tells a receiver. folder: the plant's, for relative paths; files: path ->
    text of what the configuration names of the applied plant. shards: how frames are divided, where
    the plant has several; devices: those of devices.csv, where a peer's name is looked up in them."""

    plant: str
    source: str
    config: SourceConfig
    folder: str | None = None
    files: dict[str, str] = {}
    shards: Sharding | None = None
    devices: list[str] = []


def read_source_file(path: Path) -> SourceFile:
    """Raises `ConfigError`, whose text holds nothing of the file's content."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=SourceFile)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error


def build_receiver(source: SourceFile, data: Path) -> Receiver:
    """The receiver of a source's kind. Raises `ConfigError`."""
    kind = str(source.config.__struct_config__.tag)
    folder = Path(source.folder) if source.folder is not None else data.parent
    surroundings = Surroundings(source.plant, folder, data, source.files)
    receiver: Receiver = source_kind(kind).load().build(source.source, source.config, surroundings)
    return receiver


def secrets_of(config: SourceConfig) -> list[str]:
    """Values of a configuration that no log may show."""
    password = getattr(config, "password", None)
    return [*([password] if password else []), *getattr(config, "api_keys", [])]


def describe(receiver: Receiver) -> dict[str, Any]:
    """The receiver's part of its status file."""
    status = receiver.status
    return {
        "state": status.state,
        "detail": status.detail,
        "last_frame_ms": status.last_frame_ms,
        "metrics": {
            "receiver_frames_total": status.frames,
            "receiver_bytes_total": status.bytes,
            "receiver_refused_total": status.refused,
            "receiver_reconnects_total": status.reconnects,
            "receiver_peers": status.peers,
            **{f"receiver_{name}": value for name, value in status.extra.items()},
        },
    }


async def receive(receiver: Receiver, appender: Appender) -> None:
    """Run until SIGTERM or SIGINT; raises what the receiver raises."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def end() -> None:
        stop.set()
        # a journal that takes nothing, a peer that hangs: nothing may hold the process longer
        loop.call_later(STOP_S, os._exit, 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await receiver.run(appender, stop)


def journal_client(source: SourceFile, data: Path) -> JournalClient | ShardedClient:
    """The way into the journal, or the journals of all shards. Raises `ConfigError`."""
    sharding = source.shards
    if sharding is None:
        return JournalClient(data, source.source)
    folders = shard_folders(data)
    if len(folders) != sharding.count:
        raise ConfigError(f"{data} has {len(folders)} shards, the source is told of {sharding.count}")
    spec = source_spec(source.source, source.config)
    reader = DeviceReader(spec, frozenset(source.devices))

    def route(address: Address) -> int:
        return sharding.of_device(*reader(address))

    clients = [JournalClient(folder, source.source) for folder in folders]
    return ShardedClient(clients, route if spec.carries == "frames" else None, sharding.of_device)


async def _run(receiver: Receiver, client: JournalClient | ShardedClient) -> None:
    client.start()
    try:
        await receive(receiver, client)
    finally:
        await client.close(within=0.5)  # the receiver has waited for what it acknowledges


def main(arguments: list[str] | None = None) -> int:
    """`python -m flows.receiver DATA SOURCE [--config FILE]`"""
    parser = argparse.ArgumentParser(prog="python -m flows.receiver")
    parser.add_argument("data", type=Path)
    parser.add_argument("source")
    parser.add_argument("--config", type=Path)
    chosen = parser.parse_args(arguments)
    component = f"receiver-{chosen.source}"
    log_as_json(component)
    status: StatusThread | None = None
    try:
        source = read_source_file(chosen.config or chosen.data / "run" / f"source-{chosen.source}.json")
        log_as_json(component, secrets_of(source.config))
        receiver = build_receiver(source, chosen.data)
        status = StatusThread(
            chosen.data, component, lambda: describe(receiver), lambda: receiver.status.state
        )
        status.start()
        log.info("starting, process %d", os.getpid())
        asyncio.run(_run(receiver, journal_client(source, chosen.data)))
    except ConfigError as error:
        return _failed(status, error, 1)
    except PenstockError as error:
        return _failed(status, error, 3)
    status.close()
    log.info("stopped")
    return 0


def _failed(status: StatusThread | None, error: PenstockError, code: int) -> int:
    log.error("%s", error)
    if status is not None:
        told = status.describe
        status.describe = lambda: {**told(), "state": "failed", "detail": str(error)}
        status.close()
    return code


if __name__ == "__main__":
    leave(main())
