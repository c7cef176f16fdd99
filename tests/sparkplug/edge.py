"""An edge node as an edge node is: births, data by alias, deaths, answers to NCMD. Its payloads are made with
Tahu's definition alone; what the engine thinks of them is none of its business."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload
from tests.waiting import LIMIT_S

Metrics = Mapping[str, tuple[str, Any]]  # name -> (datatype, value)

_LONG = ("Int64", "UInt64", "DateTime")


def put(metric: Any, datatype: str, value: Any) -> None:
    """A value as section 6.4.16 of the specification writes it."""
    if value is None:
        metric.is_null = True
    elif datatype in ("Float", "Double", "Boolean"):
        setattr(metric, f"{datatype.lower()}_value", value)
    elif datatype in ("String", "Text", "UUID"):
        metric.string_value = value
    elif datatype in ("Bytes", "File") or datatype.endswith("Array"):
        metric.bytes_value = value
    elif datatype in _LONG:
        metric.long_value = value & 0xFFFF_FFFF_FFFF_FFFF
    else:
        metric.int_value = value & 0xFFFF_FFFF


class EdgeNode:
    """The messages of one node, as (topic, payload). Numbers and names are given once, in births."""

    def __init__(self, group: str, name: str, own: Metrics, devices: Mapping[str, Metrics]) -> None:
        self.group, self.name, self.own, self.devices = group, name, own, devices
        self.bd_seq, self.seq = -1, 0
        self.aliases: dict[tuple[str, str], int] = {}
        self.datatypes: dict[tuple[str, str], str] = {}

    def topic(self, kind: str, device: str = "") -> str:
        return f"spBv1.0/{self.group}/{kind}/{self.name}" + (f"/{device}" if device else "")

    def _payload(self, at_ms: int, *, first: bool = False) -> Payload:
        self.seq = 0 if first else (self.seq + 1) % 256
        return Payload(timestamp=at_ms, seq=self.seq)

    def death(self) -> tuple[str, bytes]:
        """The will of the session to come."""
        payload = Payload(timestamp=1)
        payload.metrics.add(name="bdSeq", datatype=DataType.Int64, long_value=self.bd_seq % 256)
        return self.topic("NDEATH"), payload.SerializeToString()

    def session(self) -> None:
        """A new connection, which has a new number."""
        self.bd_seq += 1

    def birth(self, at_ms: int) -> tuple[str, bytes]:
        payload = self._payload(at_ms, first=True)
        payload.metrics.add(
            name="bdSeq", datatype=DataType.Int64, timestamp=at_ms, long_value=self.bd_seq % 256
        )
        payload.metrics.add(
            name="Node Control/Rebirth", datatype=DataType.Boolean, timestamp=at_ms, boolean_value=False
        )
        self._tell_all(payload, "", self.own, at_ms)
        return self.topic("NBIRTH"), payload.SerializeToString()

    def device_birth(self, device: str, at_ms: int) -> tuple[str, bytes]:
        payload = self._payload(at_ms)
        self._tell_all(payload, device, self.devices[device], at_ms)
        return self.topic("DBIRTH", device), payload.SerializeToString()

    def births(self, at_ms: int) -> list[tuple[str, bytes]]:
        return [self.birth(at_ms), *(self.device_birth(name, at_ms) for name in self.devices)]

    def _tell_all(self, payload: Payload, device: str, metrics: Metrics, at_ms: int) -> None:
        for name, (datatype, value) in metrics.items():
            alias = self.aliases.setdefault((device, name), len(self.aliases) + 1)
            self.datatypes[device, name] = datatype
            metric = payload.metrics.add(
                name=name, alias=alias, timestamp=at_ms, datatype=DataType.Value(datatype)
            )
            put(metric, datatype, value)

    def data(
        self,
        device: str,
        values: Mapping[str, Any],
        at_ms: int,
        *,
        historical: bool = False,
        quality: int | None = None,
    ) -> tuple[str, bytes]:
        payload = self._payload(at_ms)
        for name, value in values.items():
            metric = payload.metrics.add(alias=self.aliases[device, name], timestamp=at_ms)
            if historical:
                metric.is_historical = True
            if quality is not None:
                metric.properties.keys.append("Quality")
                metric.properties.values.add(type=DataType.Int32, int_value=quality)
            put(metric, self.datatypes[device, name], value)
        return self.topic("DDATA" if device else "NDATA", device), payload.SerializeToString()

    def device_death(self, device: str, at_ms: int) -> tuple[str, bytes]:
        return self.topic("DDEATH", device), self._payload(at_ms).SerializeToString()


class Client:
    """An edge node on a broker: a session with its will, births after CONNACK and when it is asked."""

    def __init__(self, node: EdgeNode, port: int) -> None:
        self.node = node
        self.asked = 0
        self._last_ms = 0
        self._lock = threading.RLock()
        self._born = threading.Event()
        node.session()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{node.group}-{node.name}-{node.bd_seq}"
        )
        topic, payload = node.death()
        self._client.will_set(topic, payload, qos=1)
        self._client.on_connect = self._connected
        self._client.on_message = self._told
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._born.wait(LIMIT_S)
        # the broker has the births when it has what was sent after them
        self._client.publish("told", b"", qos=1).wait_for_publish(LIMIT_S)

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe(self.node.topic("NCMD"), qos=1)
        self._bear()

    def _bear(self) -> None:
        with self._lock:
            for topic, payload in self.node.births(self._now_ms()):
                self._client.publish(topic, payload, qos=0)
        self._born.set()

    def _now_ms(self) -> int:
        """A time of its own for every message, as samples have."""
        self._last_ms = max(int(time.time() * 1000), self._last_ms + 1)
        return self._last_ms

    def _told(self, client: Any, userdata: Any, message: Any) -> None:
        command = Payload.FromString(message.payload)
        if any(one.name == "Node Control/Rebirth" and one.boolean_value for one in command.metrics):
            self.asked += 1
            self._bear()

    def data(self, device: str, values: Mapping[str, Any], at_ms: int = 0, **keys: Any) -> None:
        with self._lock:
            topic, payload = self.node.data(device, values, at_ms or self._now_ms(), **keys)
            self._client.publish(topic, payload, qos=0)

    def say(self, topic: str, payload: bytes, qos: int = 0) -> None:
        self._client.publish(topic, payload, qos=qos).wait_for_publish(LIMIT_S)

    def close(self) -> None:
        """The device's end without a word: its will is told."""
        self._client.loop_stop()
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def leave(self) -> None:
        """An orderly end, without the will."""
        self._client.disconnect()
        self._client.loop_stop()
