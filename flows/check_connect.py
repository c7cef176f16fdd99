"""`penstock check --connect`: whether the addresses of a plant can be reached from here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from connectors.errors import ConfigError, PenstockError
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcuaConfig
from connectors.source import Surroundings
from connectors.tcp.config import TcpConfig, listen_address
from connectors.tls import in_folder, server_context
from flows.plant_file import Plant

TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class Tried:
    """One address: what it is for, and what came of it."""

    what: str
    address: str
    good: bool
    told: str

    def line(self) -> str:
        return f"{'ok  ' if self.good else 'FAIL'}  {self.what}  {self.address}  {self.told}"

    def as_object(self) -> dict[str, Any]:
        return {"what": self.what, "address": self.address, "ok": self.good, "result": self.told}


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
        elif isinstance(source, FilesConfig):
            found.append(Tried(what, source.watch, True, "a folder, made when it is not there"))
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


def _attempt(what: str, address: str, attempt: Callable[[], str]) -> Tried:
    try:
        return Tried(what, address, True, attempt())
    except ConfigError as error:
        return Tried(what, address, False, str(error))
    except TimeoutError:
        return Tried(what, address, False, f"no answer within {TIMEOUT_S:.0f} s")
    except (OSError, ValueError) as error:
        return Tried(what, address, False, getattr(error, "strerror", None) or str(error))


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


def _mqtt(plant: Plant, source: MqttConfig) -> str:
    """A CONNECT with the source's credentials, under a name of its own and without a session."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    answered = threading.Event()
    answer: list[Any] = []

    def connected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        answer.append(reason)
        answered.set()

    protocol = mqtt.MQTTv5 if source.protocol == "5" else mqtt.MQTTv311
    name = f"penstock-check-{plant.name}"
    if source.protocol == "5":
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol)
    else:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, clean_session=True
        )
    client.on_connect = connected
    client.connect_timeout = TIMEOUT_S
    if source.username is not None:
        client.username_pw_set(source.username, source.password)
    if source.tls:
        client.tls_set(source.ca_file, source.cert_file, source.key_file)
    client.connect(source.host, source.port)
    client.loop_start()
    try:
        if not answered.wait(TIMEOUT_S):
            raise TimeoutError
    finally:
        client.disconnect()
        client.loop_stop()
    if answer[0].is_failure:
        raise OSError(f"the broker refuses: {answer[0]}")
    return "the broker accepts"
