"""`penstock check --connect` on a broker: does it let us in, and would it lose what it has acknowledged?

The broker's own word is asked for first (protocol 5 tells limits at CONNECT); what it does not tell
is tried, with messages of a few bytes under a random topic of our own, which are taken away again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from connectors.mqtt.config import MqttConfig, subscriptions

TIMEOUT_S: Final = 5.0
PROBE: Final = 1_200  # messages; the queues of brokers end at 1,000 when nobody has set them
PROBE_TOPIC: Final = "penstock/check"
PROBE_S: Final = 5.0  # for sending, and again for taking
QUIET_S: Final = 0.3  # nothing more comes after that long
ENOUGH_INFLIGHT: Final = 1_000
_EXPIRY_S: Final = 60  # of the probe's session, should this process end in the middle


@dataclass(slots=True)
class _Heard:
    """What one client was told."""

    accepted: threading.Event = field(default_factory=threading.Event)
    subscribed: threading.Event = field(default_factory=threading.Event)
    reason: Any = None
    properties: Any = None
    granted: list[Any] = field(default_factory=list)
    mids: list[int] = field(default_factory=list)  # of messages that came
    done: int = 0  # of messages sent, by their PUBACK
    refused: str = ""
    ended: threading.Event = field(default_factory=threading.Event)  # the connection


def try_broker(plant: str, config: MqttConfig) -> tuple[str, list[str]]:
    """What the broker is to this source, and warnings. Raises OSError with the reason when it cannot
    be used. Leaves nothing behind at the broker."""
    name = f"penstock-check-{plant}-{secrets.token_hex(4)}"
    with _connected(config, name, fresh=True) as (client, heard):
        warnings = _told_limits(config, heard.properties)
        warnings += _refused_subscriptions(client, heard, config)
    if config.qos == 0:
        return "the broker accepts", [
            *warnings,
            "qos: 0: what the broker cannot send at once is lost, and so is all of it while the receiver "
            "is away; use qos: 1",
        ]
    return "the broker accepts", [*warnings, *_probe(config, name)]


def _told_limits(config: MqttConfig, properties: Any) -> list[str]:
    """What a broker of protocol 5 says of itself at CONNECT (MQTT 5, section 3.2.2.3)."""
    told = properties.json() if properties is not None else {}
    found = []
    if told.get("MaximumQoS", 2) < config.qos:
        found.append(
            f"the broker offers QoS {told['MaximumQoS']} only: it sends each message once, received or not"
        )
    expiry = told.get("SessionExpiryInterval")
    wanted = config.session_expiry // 10**9
    if expiry is not None and expiry < min(wanted, _EXPIRY_S):
        found.append(
            f"the broker keeps a session for {expiry} s, session_expiry asks for {wanted} s: what comes "
            "while the receiver is away for longer is lost"
        )
    largest = told.get("MaximumPacketSize")
    if largest is not None and largest < config.max_payload:
        found.append(f"the broker takes packets of {largest} bytes; max_payload is {config.max_payload}")
    return found


def _refused_subscriptions(client: mqtt.Client, heard: _Heard, config: MqttConfig) -> list[str]:
    """Subscribe as the receiver will, for a moment. Of a shared subscription its filter alone: a member of
    the group would be given messages that a running receiver waits for."""
    _subscribe(client, heard, [_unshared(topic) for topic in subscriptions(config)], config.qos, config)
    found = []
    for topic, code in zip(subscriptions(config), heard.granted, strict=False):
        if code.is_failure:
            found.append(f"the broker refuses the subscription {topic}: {code}")
        elif code.value < config.qos:
            found.append(
                f"the broker grants {topic} QoS {code.value} only: what it cannot send at once is lost"
            )
    return found


def _unshared(topic: str) -> str:
    return topic.split("/", 2)[-1] if topic.startswith("$share/") else topic


def _probe(config: MqttConfig, name: str) -> list[str]:
    """Let messages wait for a session that is away, then take them without acknowledging."""
    topic = f"{PROBE_TOPIC}/{secrets.token_hex(8)}"
    away = f"{name}-away"
    try:
        with _connected(config, away, fresh=False) as (client, heard):
            _subscribe(client, heard, [topic], 1, config)
            if not heard.granted or heard.granted[0].is_failure:
                return [_cannot_tell(f"it refuses a subscription to {topic}")]
        with _connected(config, f"{name}-sender", fresh=True) as (client, heard):
            sent, refused = _publish(client, heard, topic), heard.refused
        with _connected(config, away, fresh=False) as (client, heard):
            until = time.monotonic() + PROBE_S
            all_sent = partial(_subscribe, client, heard, [topic], 1, config)
            window = _taken(heard, all_sent, until)
            for mid in heard.mids[:window]:
                client.ack(mid, 1)
            kept = _rest(client, heard, all_sent, window, until)
            late = time.monotonic() > until
    finally:
        _forget(config, away)
    if not sent or not kept:
        return [_cannot_tell(refused or f"messages under {topic} do not come through")]
    if kept < sent and late:
        return [_cannot_tell(f"it has handed on {kept} messages of {sent} after {PROBE_S:.0f} s")]
    found = []
    if kept < sent:
        found.append(
            f"the broker drops messages that it has acknowledged: of {sent} sent while a session was away "
            f"it kept {kept}; set max_queued_messages 0 and max_queued_bytes to a size that you choose "
            "(mosquitto; elsewhere the length of a session's queue)"
        )
    if window < min(ENOUGH_INFLIGHT, kept):
        found.append(
            f"the broker sends {window} messages and then waits for their acknowledgement, which comes with "
            "the journal's commit; set max_inflight_messages 1000 or more (mosquitto)"
        )
    return found


def _cannot_tell(why: str) -> str:
    return f"whether the broker drops messages that it has acknowledged cannot be told: {why}"


def _taken(heard: _Heard, all_sent: Callable[[], None], until: float) -> int:
    """How many come while none is acknowledged. all_sent: asks the broker something, whose answer comes
    behind what it had to send; quiet alone may be a busy broker's."""
    count = -1
    while len(heard.mids) < PROBE and count < len(heard.mids) and time.monotonic() < until:
        count = len(heard.mids)
        time.sleep(QUIET_S)
        all_sent()
    return len(heard.mids)


def _rest(client: mqtt.Client, heard: _Heard, all_sent: Callable[[], None], at: int, until: float) -> int:
    """How many come in all, each acknowledged."""
    quiet, asked = time.monotonic() + QUIET_S, False
    while at < PROBE and time.monotonic() < until:
        if at < len(heard.mids):
            client.ack(heard.mids[at], 1)
            at += 1
            quiet, asked = time.monotonic() + QUIET_S, False
        elif time.monotonic() < quiet:
            time.sleep(0.002)
        elif asked:
            break
        else:
            all_sent()
            asked = True
    time.sleep(0.05)  # for the last acknowledgements to leave
    return at


def _publish(client: mqtt.Client, heard: _Heard, topic: str) -> int:
    """How many of the probe's messages the broker has acknowledged.

    One goes ahead: a broker that refuses a flood may cut it off, and its answers are lost with it.
    """
    until = time.monotonic() + PROBE_S
    for numbers in (range(1), range(1, PROBE)):
        for number in numbers:
            client.publish(topic, number.to_bytes(2, "big"), 1)
        while heard.done < numbers.stop and not heard.refused and time.monotonic() < until:
            if heard.ended.wait(0.005):
                break
    return heard.done


def _forget(config: MqttConfig, name: str) -> None:
    """End the probe's session, with what waits in it."""
    try:
        with _connected(config, name, fresh=True):
            pass
    except OSError:
        return  # it ends by its expiry, or when the broker forgets it


def _subscribe(client: mqtt.Client, heard: _Heard, topics: list[str], qos: int, config: MqttConfig) -> None:
    heard.subscribed.clear()
    if config.protocol == "5":
        options = SubscribeOptions(qos=qos, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        client.subscribe([(topic, options) for topic in topics])
    else:
        client.subscribe([(topic, qos) for topic in topics])
    if not heard.subscribed.wait(TIMEOUT_S):
        raise TimeoutError


@contextmanager
def _connected(config: MqttConfig, name: str, *, fresh: bool) -> Iterator[tuple[mqtt.Client, _Heard]]:
    """A client that the broker accepts. fresh: it begins a session and leaves none."""
    heard, version5 = _Heard(), config.protocol == "5"
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=name,
        protocol=mqtt.MQTTv5 if version5 else mqtt.MQTTv311,
        clean_session=None if version5 else fresh,
        manual_ack=True,
        reconnect_on_failure=False,
    )
    _listen(client, heard)
    client.max_inflight_messages_set(PROBE)
    client.connect_timeout = TIMEOUT_S
    if config.username is not None:
        client.username_pw_set(config.username, config.password)
    if config.tls:
        client.tls_set(config.ca_file, config.cert_file, config.key_file)
    properties = None
    if version5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        properties.SessionExpiryInterval = 0 if fresh else _EXPIRY_S
        properties.ReceiveMaximum = 65_535
        client.connect(config.host, config.port, clean_start=fresh, properties=properties)
    else:
        client.connect(config.host, config.port)
    client.loop_start()
    try:
        if not heard.accepted.wait(TIMEOUT_S):
            raise TimeoutError
        if heard.reason is None:
            what = "the connection ended instead of an answer; is it the broker's port, and does tls fit?"
            raise ConnectionAbortedError(what)
        if heard.reason.is_failure:
            raise ConnectionRefusedError(f"the broker refuses: {heard.reason}")
        yield client, heard
    finally:
        client.disconnect()
        client.loop_stop()


def _listen(client: mqtt.Client, heard: _Heard) -> None:
    def connected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        heard.reason, heard.properties = reason, properties
        heard.accepted.set()

    def ended(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        heard.ended.set()
        heard.accepted.set()

    def subscribed(client: Any, userdata: Any, mid: int, reasons: list[Any], properties: Any) -> None:
        heard.granted = reasons
        heard.subscribed.set()

    def published(client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            heard.refused = f"the broker refuses to publish: {reason}"
        else:
            heard.done += 1

    def came(client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        heard.mids.append(message.mid)

    client.on_connect, client.on_disconnect, client.on_subscribe = connected, ended, subscribed
    client.on_publish, client.on_message = published, came
