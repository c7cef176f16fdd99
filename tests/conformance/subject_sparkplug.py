"""Sparkplug: an edge node behind a broker. It is born when the host application is there, and again when
it is asked; it tells values by alias with QoS 1.

A payload is a value of the metric `text`, its bytes as the characters of these numbers.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import Payload
from tests.conformance.subject import CAP
from tests.conformance.subject_mqtt import MqttSubject
from tests.reference import typed_frames
from tests.sparkplug.edge import EdgeNode
from tests.waiting import until

HOST = "penstock"
STATE = f"spBv1.0/STATE/{HOST}"


class SparkplugSubject(MqttSubject):
    """Values of one metric. What is sent before the host application is there waits for it."""

    waivers: Mapping[str, str] = {}

    def __init__(self, tmp: Path) -> None:
        super().__init__(tmp)
        sparkplug = SparkplugConfig(groups=["works"], host_id=HOST)
        self.config = self._mqtt = msgspec.structs.replace(
            self._mqtt,
            subscribe=[],
            sparkplug=sparkplug,
            max_payload=2 * CAP,  # a text and what is around it
        )
        self._node = EdgeNode("works", "edge1", {}, {"press": {"text": ("String", None)}})
        self._lock = threading.RLock()
        self._waiting: list[bytes] | None = []  # None: the host application has been there
        self._births: set[bytes] = set()
        self._last_ms = 0
        client = self._publisher.client
        client.on_connect, client.on_message = self._connected, self._heard
        self._connected(client)

    def send(self, payloads: Sequence[bytes]) -> None:
        with self._lock:
            if self._waiting is not None:
                self._waiting += payloads
            else:
                self._tell(payloads)

    def told_safe(self) -> int:
        return sum(one not in self._births for one in list(self._publisher.acknowledged))

    def settle(self) -> None:
        until(self._has_told, "a host application")
        super().settle()

    def read(self, frame: bytes) -> list[bytes]:
        """The texts of a typed frame: a birth and a death tell none."""
        return [value.encode("latin-1") for _, value, _, _ in typed_frames.read(frame) if value is not None]

    def _has_told(self) -> bool:
        with self._lock:  # or what waits is neither here nor with the broker
            return not self._waiting

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe([(STATE, 1), (self._node.topic("NCMD"), 1)])
        with self._lock:
            self._node.session()
            if self._waiting is None:
                self._bear()

    def _heard(self, client: Any, userdata: Any, message: Any) -> None:
        with self._lock:
            if message.topic != STATE:
                asked = Payload.FromString(message.payload).metrics
                if any(one.name == "Node Control/Rebirth" and one.boolean_value for one in asked):
                    self._bear()
            elif json.loads(message.payload)["online"]:
                self._bear()
                waiting, self._waiting = self._waiting, None
                self._tell(waiting or [])

    def _bear(self) -> None:
        for topic, payload in self._node.births(self._now_ms()):
            self._births.add(payload)
            self._publisher.send([payload], topic, qos=0)

    def _tell(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            told = {"text": payload.decode("latin-1")}
            topic, message = self._node.data("press", told, self._now_ms())
            self._publisher.send([message], topic)

    def _now_ms(self) -> int:
        """A time of its own for every message, as samples have."""
        self._last_ms = max(int(time.time() * 1000), self._last_ms + 1)
        return self._last_ms
