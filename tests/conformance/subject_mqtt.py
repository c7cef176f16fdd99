"""MQTT: a broker between, so what it has acknowledged to the device is the source's to lose."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from connectors.mqtt.config import MqttConfig
from flows.broker import Broker, BrokerKind, start_broker
from operators.spec import SECOND
from tests.conformance.proxy import Proxy
from tests.conformance.subject import CAP, Subject
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.waiting import until

# what does not depend on the broker is shown with mosquitto
_EMBEDDED = "amqtt neither sends again what was in flight nor outlives its own end; for the demo"
_ENOUGH = "what does not depend on the broker is shown with mosquitto"


class MqttSubject(Subject):
    """Messages of QoS 1 under one topic."""

    secret = "s3cret-of-line"
    direct = False
    connects = True
    exactly_once = True
    waivers: Mapping[str, str] = {}
    broker: ClassVar[BrokerKind] = "mosquitto"

    def __init__(self, tmp: Path) -> None:
        kind = self.broker
        if kind == "mosquitto":
            need_mosquitto()
        self._data = tmp / f"broker-{kind}"
        self._broker: Broker = start_broker(self._data, free_port(), kind=kind)
        self._mqtt = MqttConfig(
            host="127.0.0.1",
            port=self._broker.address[1],
            subscribe=["plant/#"],
            username="line",
            password=self.secret,
            silent_after=SECOND,
            max_payload=CAP,
        )
        self.config = self._mqtt
        self._publisher = Publisher(self._broker)

    def send(self, payloads: Sequence[bytes]) -> None:
        self._publisher.send(payloads)

    def told_safe(self) -> int:
        return len(self._publisher.acknowledged)

    def settle(self) -> None:
        self._publisher.wait()

    def break_peer(self) -> None:
        port = self._broker.address[1]
        if self._broker.kind == "mosquitto":  # what it has acknowledged is on its disk within a second
            saved = self._data / "mosquitto.db"
            before = saved.stat().st_mtime_ns if saved.exists() else 0
            self._broker.process.send_signal(signal.SIGUSR1)  # it saves at once
            until(
                lambda: saved.exists() and saved.stat().st_mtime_ns != before, "the broker's sessions on disk"
            )
        self._broker.kill()
        self._broker = start_broker(self._data, port, self._broker.kind)

    def interpose(self) -> Proxy:
        proxy = Proxy(self._mqtt.port)
        self.config = msgspec.structs.replace(self._mqtt, port=proxy.port, keep_alive=SECOND)
        return proxy

    def close(self) -> None:
        self._publisher.close()
        self._broker.stop()


class AmqttSubject(MqttSubject):
    """The same with the broker that stands in where no other is found."""

    exactly_once = False
    waivers: Mapping[str, str] = {
        **dict.fromkeys(("what_is_not_durable_comes_again", "sigkill", "peer_returns", "network"), _EMBEDDED),
        **dict.fromkeys(("a_flood", "stops_within_five_seconds", "back_off", "secrets"), _ENOUGH),
    }
    broker: ClassVar[BrokerKind] = "amqtt"
