"""Listening to an MQTT broker for a while, without a session and without an acknowledgement kept back."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import click
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from connectors.errors import ConfigError, ConnectError
from flows.heard import MOST_FRAMES, HeardFrame, system_words
from operators.batch import Address
from operators.decode.routing import filter_problem

SOURCE: Final = "line1"
MOST_BYTES: Final = 200_000_000
_PROGRESS_S: Final = 5.0


class Broker(NamedTuple):
    """Where to listen, to what. tls: the broker's certificate has to be good, by the machine's authorities
    or the file that SSL_CERT_FILE names."""

    host: str
    port: int
    filter: str
    username: str = ""
    password: str = ""
    tls: bool = False


def broker_of(text: str) -> Broker | None:
    """The broker of `mqtt://[user[:password]@]host[:port][/filter]` or `mqtts://...`, filter `#` by default;
    a user's password may stand in MQTT_PASSWORD instead, where no list of processes shows it. None where
    the text is no such address. Raises `ConfigError` for one with a mistake."""
    scheme, mark, rest = text.partition("://")
    if scheme not in ("mqtt", "mqtts") or not mark:
        return None
    tls = scheme == "mqtts"
    head, _, topics = rest.partition("/")
    try:
        parts = urlsplit(f"mqtt://{head}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"--from: no address: {error}; write mqtt://HOST:PORT/FILTER") from error
    if not host:
        raise ConfigError("--from: the address names no host; write mqtt://HOST:PORT/FILTER")
    topics = topics or "#"
    if (problem := filter_problem(topics)) is not None:
        raise ConfigError(f"--from: '{topics}': {problem}")
    username = unquote(parts.username or "")
    password = unquote(parts.password or "") or (os.environ.get("MQTT_PASSWORD", "") if username else "")
    return Broker(host, port or (8883 if tls else 1883), topics, username, password, tls)


Ear = Callable[[mqtt.Client, str, bytes], Sequence[HeardFrame]]


def listen(broker: Broker, seconds: float, ear: Ear | None = None) -> list[HeardFrame]:
    """What the broker sends within `seconds` of the subscription, or until Ctrl-C; at most `MOST_FRAMES`
    and `MOST_BYTES`. ear: makes frames of a message, instead of one that is its payload. Raises
    `ConnectError` where it is not there or refuses."""
    frames: list[HeardFrame] = []
    size = 0
    full, ready = threading.Event(), threading.Event()
    refused: list[str] = []

    def connected(client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            refused.append(str(reason))
            ready.set()
        else:
            client.subscribe(broker.filter, 0)

    def subscribed(client: mqtt.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused.extend(str(one) for one in reasons if one.is_failure)
        ready.set()

    def heard(client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        nonlocal size
        if full.is_set():
            return
        if ear is not None:
            frames.extend(ear(client, message.topic, bytes(message.payload)))
        else:
            address = Address(SOURCE, message.topic, -1, ())
            at = time.time_ns() // 1_000_000
            frames.append(HeardFrame(address, bytes(message.payload), at, bool(message.retain)))
        size += len(message.payload)
        if len(frames) >= MOST_FRAMES or size >= MOST_BYTES:
            full.set()

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    if broker.username:
        client.username_pw_set(broker.username, broker.password or None)
    if broker.tls:
        client.tls_set_context(ssl.create_default_context())
    client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, heard
    where = f"{broker.host}:{broker.port}"
    try:
        client.connect(broker.host, broker.port)
    except ssl.SSLCertVerificationError as error:
        raise ConnectError(
            f"the certificate of the broker {where} is not trusted: {error.verify_message}; "
            "SSL_CERT_FILE names the file of its authority"
        ) from error
    except ssl.SSLError as error:
        raise ConnectError(
            f"{where} speaks no TLS that fits ({error.reason}); without TLS: mqtt://"
        ) from error
    except OSError as error:
        hint = "; without TLS: mqtt://" if broker.tls and isinstance(error, ConnectionResetError) else ""
        raise ConnectError(f"the broker {where} does not answer: {system_words(error)}{hint}") from error
    client.loop_start()
    try:
        if not ready.wait(10.0):
            hint = "" if broker.tls else "; if TLS is spoken there, write mqtts://"
            raise ConnectError(f"{where} says nothing of MQTT within 10 s{hint}")
        if refused:
            login = refused[0] in ("Not authorized", "Bad user name or password")
            hint = f"; write mqtt{'s' * broker.tls}://USER@{where}, the password in MQTT_PASSWORD" * login
            raise ConnectError(f"the broker {where} refuses: {refused[0]}{hint}")
        click.echo(f"listening on {where} to '{broker.filter}' for {seconds:g} s; Ctrl-C ends it", err=True)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not full.wait(min(left, _PROGRESS_S)):
            topics = len({frame.address.topic for frame in frames})
            click.echo(f"{len(frames)} frames of {topics} topics", err=True)
    except KeyboardInterrupt:
        pass
    finally:
        client.disconnect()
        client.loop_stop()
    return list(frames)
