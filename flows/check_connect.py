"""`penstock check --connect`: whether the addresses of a plant can be reached from here."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from connectors.errors import ConfigError, ConnectError, PenstockError
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig, in_plant
from connectors.opcua.config import OpcuaConfig
from connectors.source import Surroundings
from connectors.tcp.config import TcpConfig, listen_address
from connectors.tls import in_folder, server_context
from flows.plant_file import Plant
from flows.plant_paths import watch_problem

OPCUA_PORT: Final = 4840  # OPC UA Part 6, 7.2: the default of opc.tcp
TIMEOUT_S: Final = 5.0  # of one answer; a dead address is told after it
_OF_NO_AUTHORITY: Final = (18, 19, 20, 21)  # OpenSSL's: signed by itself, or by nobody who is known
LONGEST_S: Final = 20.0  # for everything: an address that answers is asked several things


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


Answer = str | tuple[str, list[str]] | list[Tried]
"""What came of an address that can be used: words, words and warnings, or several lines of its own."""


def try_addresses(plant: Plant, folder: Path = Path()) -> list[Tried]:
    """Each address once, all at the same time: brokers and servers are asked, own addresses are bound and
    let go. Comes back within `LONGEST_S`, whatever does not answer. folder: the plant's, for the files that
    sources name."""
    attempts = [_Attempt(*told) for told in _attempts(plant, folder)]
    for one in attempts:
        one.thread.start()
    until = time.monotonic() + LONGEST_S
    for one in attempts:
        one.thread.join(max(0.0, until - time.monotonic()))
    return [tried for one in attempts for tried in one.found]


def _attempts(plant: Plant, folder: Path) -> Iterator[tuple[str, str, Callable[[], Answer]]]:
    """What an address is for, the address, and how it is tried."""
    for name, source in plant.sources.items():
        what = f"sources.{name}"
        if isinstance(source, MqttConfig):
            yield what, f"{source.host}:{source.port}", partial(_mqtt, plant, source, folder)
        elif isinstance(source, TcpConfig | HttpConfig):
            yield what, source.listen, partial(_served, source, folder)
        elif isinstance(source, OpcuaConfig):
            yield what, source.endpoint, partial(_opcua, plant, name, source, folder)
        elif isinstance(source, KafkaConfig):
            yield what, source.bootstrap, partial(_kafka_source, source, what, folder)
        elif isinstance(source, FilesConfig):
            yield what, source.watch, partial(_watched, source, folder)
    if plant.journal.kind == "kafka":
        yield "journal", plant.journal.bootstrap, partial(_journal, plant)
    if plant.sinks.alarms.bootstrap:
        yield "sinks.alarms", plant.sinks.alarms.bootstrap, partial(_kafka, plant)
    if plant.historian.url == "embedded":
        yield "historian", plant.historian.listen, partial(_listen, plant.historian.listen)
    else:
        url = urlsplit(plant.historian.url)
        number = url.port or (8443 if url.scheme == "https" else 8123)
        address = f"{url.hostname}:{number}"  # never the whole URL: it may hold a password
        yield "historian", address, partial(_historian, plant.historian.url)
    yield "server", plant.server.listen, partial(_listen, plant.server.listen)


class _Attempt:
    """One address in a thread of its own, which may outlive the answer: names are looked up for as long as
    the system likes. `found` says so until there is better."""

    def __init__(self, what: str, address: str, attempt: Callable[[], Answer]) -> None:
        self.found = [Tried(what, address, False, f"no end of it within {LONGEST_S:.0f} s")]
        self.thread = threading.Thread(target=self._run, args=(what, address, attempt), daemon=True)

    def _run(self, what: str, address: str, attempt: Callable[[], Answer]) -> None:
        try:
            answer = attempt()
        except PenstockError as error:
            told = str(error)
        except TimeoutError:
            told = f"no answer within {TIMEOUT_S:.0f} s"
        except (OSError, ValueError) as error:
            told = _words(error)
        except Exception as error:  # of a library, about what a server said
            told = f"{type(error).__name__}: {error}"
        else:
            if isinstance(answer, list):
                self.found = answer
            elif isinstance(answer, str):
                self.found = [Tried(what, address, True, answer)]
            else:
                self.found = [Tried(what, address, True, *answer)]
            return
        self.found = [Tried(what, address, False, told)]


def _words(error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(number)  # asyncio has words of its own, with an address that we name already
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or str(error.reason or error)
        told = f"TLS: {reason.replace('_', ' ').lower()}"
        unknown = getattr(error, "verify_code", 0) in _OF_NO_AUTHORITY
        return f"{told}; 'ca_file' names the authority that signed its certificate" if unknown else told
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _journal(plant: Plant) -> tuple[str, list[str]]:
    """The topic whose partitions are the plant's journals."""
    from connectors.journal.kafka_check import try_topic

    return try_topic(plant.journal, plant.shards.count)


def _historian(address: str) -> str:
    """A statement with the login of the url, over ClickHouse's HTTP protocol."""
    url = urlsplit(address)
    secure = url.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    asked = kind(url.hostname or "127.0.0.1", url.port or (8443 if secure else 8123), timeout=TIMEOUT_S)
    login = {"X-ClickHouse-User": url.username, "X-ClickHouse-Key": url.password}
    try:
        asked.request("GET", "/?query=SELECT%201", headers={key: text for key, text in login.items() if text})
        answer = asked.getresponse()
        body = answer.read(100)
    except ssl.SSLCertVerificationError as error:
        told = f"TLS: {error.verify_message}; SSL_CERT_FILE names the file of the authority that signed it"
        raise ConnectError(told) from error
    except (http.client.HTTPException, ConnectionResetError) as error:
        raise OSError("what answers speaks no HTTP; 8123 is ClickHouse's port for it") from error
    finally:
        asked.close()
    if answer.headers.get("X-ClickHouse-Exception-Code") == "516" or answer.status in (401, 403):
        raise OSError("the server refuses the login of the url")
    if answer.status != 200 or body.strip() != b"1":
        raise OSError(f"what answers is no ClickHouse: {answer.status} to SELECT 1")
    return "the server answers"


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
    if (problem := watch_problem(watch)) is not None:
        raise ConfigError(problem)
    if not watch.exists():
        return "is not there yet; it is made at the start"
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
    url = urlsplit(source.endpoint)
    # asyncua takes a second or more to load, which a dead address need not wait for
    socket.create_connection((url.hostname or "127.0.0.1", url.port or OPCUA_PORT), TIMEOUT_S).close()
    from connectors.opcua.check import try_server

    text = None if source.nodes is None else plant.files.get(source.nodes, b"").decode("utf-8", "replace")
    try:
        return try_server(source, Surroundings(plant.name, folder, folder / ".penstock"), name, text)
    except ConnectionRefusedError:
        raise
    except ConnectionError as error:
        raise OSError(
            "the connection ended instead of an answer; is it the port of an OPC UA server?"
        ) from error


def _kafka(plant: Plant) -> list[Tried]:
    """The brokers with the target's credentials, and its two topics."""
    from connectors.kafka.check import try_kafka

    alarms = plant.sinks.alarms
    topics = try_kafka(alarms)
    answered = Tried(
        "sinks.alarms", alarms.bootstrap, True, f"the brokers accept; delivery: {alarms.delivery}"
    )
    return [answered, *(Tried("sinks.alarms", name, True, words) for name, words in topics.items())]


def _kafka_source(source: KafkaConfig, what: str, folder: Path) -> str:
    """The brokers with the source's credentials, and its topics."""
    from connectors.kafka.check import try_source

    files = {key: in_folder(folder, getattr(source, key)) for key in ("ca_file", "cert_file", "key_file")}
    return try_source(msgspec.structs.replace(source, **files), what)


def _mqtt(plant: Plant, source: MqttConfig, folder: Path) -> tuple[str, list[str]]:
    """A session with the source's credentials, and whether the broker would drop what it has acknowledged."""
    from connectors.mqtt.check import try_broker

    try:
        return try_broker(plant.name, in_plant(source, folder))
    except ConnectionResetError as error:
        raise OSError(
            "the connection ended instead of an answer; is it the broker's port, and does tls fit?"
        ) from error
    except ConnectionRefusedError as error:
        if not str(error).endswith(("Not authorized", "Bad user name or password")):
            raise
        verb = "give" if source.username is None else "look at"
        raise OSError(f"{error}; {verb} 'username' and 'password'") from error
