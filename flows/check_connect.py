"""`penstock check --connect`: whether the addresses of a plant can be reached from here."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from connectors.errors import ConfigError, PenstockError
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcuaConfig
from connectors.source import Surroundings
from connectors.tcp.config import TcpConfig, listen_address
from connectors.tls import in_folder, server_context
from flows.plant_file import Plant

TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class Tried:
    """One address: what it is for, and what came of it. warnings: what would lose data or slow it
    down, though the address can be used."""

    what: str
    address: str
    good: bool
    told: str
    warnings: list[str] = field(default_factory=list)

    def line(self) -> str:
        head = f"{self.what}  {self.address}"
        told = f"{'ok  ' if self.good else 'FAIL'}  {head}  {self.told}"
        return "\n".join([told, *(f"warn  {head}  {words}" for words in self.warnings)])

    def as_object(self) -> dict[str, Any]:
        found = {"what": self.what, "address": self.address, "ok": self.good, "result": self.told}
        return {**found, "warnings": self.warnings}


def try_addresses(plant: Plant, folder: Path = Path()) -> list[Tried]:
    """Each address once: brokers and servers are asked, own addresses are bound and let go.
    folder: the plant's, for the files that sources name."""
    found: list[Tried] = []
    for name, source in plant.sources.items():
        what = f"sources.{name}"
        if isinstance(source, MqttConfig):
            found.append(_attempt(what, f"{source.host}:{source.port}", partial(_mqtt, plant, source)))
        elif isinstance(source, TcpConfig | HttpConfig):
            found.append(_attempt(what, source.listen, partial(_served, source, folder)))
        elif isinstance(source, OpcuaConfig):
            found.append(_attempt(what, source.endpoint, partial(_opcua, plant, name, source, folder)))
        elif isinstance(source, KafkaConfig):
            found.append(_attempt(what, source.bootstrap, partial(_kafka_source, source, what, folder)))
        elif isinstance(source, FilesConfig):
            found.append(_attempt(what, source.watch, partial(_watched, source, folder)))
    if plant.journal.kind == "kafka":
        found.append(_attempt("journal", plant.journal.bootstrap, partial(_journal, plant)))
    if plant.sinks.alarms.bootstrap:
        found.extend(_kafka(plant))
    if plant.historian.url == "embedded":
        found.append(_attempt("historian", plant.historian.listen, partial(_listen, plant.historian.listen)))
    else:
        url = urlsplit(plant.historian.url)
        number = url.port or (8443 if url.scheme == "https" else 8123)
        address = f"{url.hostname}:{number}"  # never the whole URL: it may hold a password
        found.append(_attempt("historian", address, partial(_reach, url.hostname or "", str(number))))
    found.append(_attempt("server", plant.server.listen, partial(_listen, plant.server.listen)))
    return found


def _attempt(what: str, address: str, attempt: Callable[[], str | tuple[str, list[str]]]) -> Tried:
    try:
        answer = attempt()
        told, warnings = (answer, []) if isinstance(answer, str) else answer
        return Tried(what, address, True, told, warnings)
    except PenstockError as error:
        return Tried(what, address, False, str(error))
    except TimeoutError:
        return Tried(what, address, False, f"no answer within {TIMEOUT_S:.0f} s")
    except (OSError, ValueError) as error:
        return Tried(what, address, False, getattr(error, "strerror", None) or str(error))


def _journal(plant: Plant) -> tuple[str, list[str]]:
    """The topic whose partitions are the plant's journals."""
    from connectors.journal.kafka_check import try_topic

    return try_topic(plant.journal, plant.shards.count)


def _reach(host: str, port: str) -> str:
    with closing(socket.create_connection((host or "127.0.0.1", int(port)), TIMEOUT_S)):
        return "reached"


def _listen(address: str) -> str:
    """Bind the address and let it go."""
    host, port = listen_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    return "free to listen on"


def _watched(source: FilesConfig, folder: Path) -> str:
    """Whether files of the folder could be read and put away."""
    watch = folder / source.watch
    if not watch.exists():
        parent = next(path for path in watch.absolute().parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ConfigError(f"is not there, and cannot be made: {parent} cannot be written")
        return "is not there yet; it is made at the start"
    if not watch.is_dir():
        raise ConfigError("is no folder")
    if not os.access(watch, os.R_OK | os.X_OK):
        raise ConfigError("cannot be read")
    if not os.access(watch, os.W_OK):
        raise ConfigError("cannot be written, so files that are read could not be put away")
    return "a folder, readable and writable"


def _served(source: HttpConfig | TcpConfig, folder: Path) -> str:
    """Its address, and its certificate with TLS."""
    told = _listen(source.listen)
    if not source.tls:
        return told
    server_context(*(in_folder(folder, name) for name in (source.cert_file, source.key_file, source.ca_file)))
    return f"{told}; the certificate and its key fit"


def _opcua(plant: Plant, name: str, source: OpcuaConfig, folder: Path) -> str:
    """A session with the source's security and user, and how many of its nodes are there."""
    from connectors.opcua.check import try_server

    text = None if source.nodes is None else plant.files.get(source.nodes, b"").decode("utf-8", "replace")
    return try_server(source, Surroundings(plant.name, folder, folder / ".penstock"), name, text)


def _kafka(plant: Plant) -> list[Tried]:
    """The brokers with the target's credentials, and its two topics."""
    from connectors.kafka.check import try_kafka

    alarms = plant.sinks.alarms
    try:
        topics = try_kafka(alarms)
    except PenstockError as error:
        return [Tried("sinks.alarms", alarms.bootstrap, False, str(error))]
    answered = Tried(
        "sinks.alarms", alarms.bootstrap, True, f"the brokers accept; delivery: {alarms.delivery}"
    )
    return [answered, *(Tried("sinks.alarms", name, True, words) for name, words in topics.items())]


def _kafka_source(source: KafkaConfig, what: str, folder: Path) -> str:
    """The brokers with the source's credentials, and its topics."""
    from connectors.kafka.check import try_source

    files = {key: in_folder(folder, getattr(source, key)) for key in ("ca_file", "cert_file", "key_file")}
    return try_source(msgspec.structs.replace(source, **files), what)


def _mqtt(plant: Plant, source: MqttConfig) -> tuple[str, list[str]]:
    """A session with the source's credentials, and whether the broker would drop what it has acknowledged."""
    from connectors.mqtt.check import try_broker

    return try_broker(plant.name, source)
