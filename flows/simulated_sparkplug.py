"""Simulated Sparkplug devices: an edge node for each hub, with births, data by alias and a will."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from connectors.mqtt.config import MqttConfig, SparkplugConfig
from connectors.mqtt.sparkplug import values
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload
from flows.plant_file import Product
from flows.simulated_frames import TypedEncoder
from flows.simulated_told import Told
from flows.simulated_values import Value
from operators.sparkplug import SparkplugNames, SparkplugTopic, split_topic

ANY_GROUP: Final = "plant"  # of a source that hears all groups


def sparkplug_address(config: SparkplugConfig, device: str, hub: str) -> SparkplugTopic | None:
    """Where a device of devices.csv would publish; None where no edge node that is heard can."""
    group = ANY_GROUP if config.groups == "all" else config.groups[0]
    found = SparkplugNames(config.device_id, config.hub_id).address(device, hub, group)
    heard = found is not None and (config.groups == "all" or found.group in config.groups)
    return found if heard else None


class SparkplugEncoder:
    """All metrics of a product with their names and types, as a birth tells them."""

    def __init__(self, product: Product, online: str | None) -> None:
        self._named = TypedEncoder(product.decode.layout)
        self._online = online

    def encode(self, values: Mapping[str, Value], now_ms: int) -> bytes:
        payload = Payload(timestamp=now_ms)
        for name, value in self._named.named(values):
            if name == self._online:
                continue
            metric = payload.metrics.add(name=name, timestamp=now_ms)
            if isinstance(value, bool):
                metric.datatype, metric.boolean_value = DataType.Boolean, value
            elif isinstance(value, str):
                metric.datatype, metric.string_value = DataType.String, value
            elif isinstance(value, int):
                metric.datatype, metric.long_value = DataType.Int64, value & 0xFFFF_FFFF_FFFF_FFFF
            else:
                metric.datatype, metric.double_value = DataType.Double, value
        return bytes(payload.SerializeToString())


class SparkplugLink:
    """One edge node. Its first message of a device is the device's birth; at each connection, and
    when it is asked, all are born again with their last values."""

    def __init__(self, source: str, config: MqttConfig, address: SparkplugTopic, told: Told) -> None:
        self._config, self._told = config, told
        self._node = address._replace(type="NDATA", device="")
        self._lock = threading.Lock()
        self._newest: dict[str, Payload] = {}  # of each device, with names
        self._aliases: dict[tuple[str, str], int] = {}
        self._seq = 0
        self._bd_seq = int(time.time()) % 256
        self._there = False
        name = f"penstock-simulator-{source}-{address.group}-{address.node}"
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=True)
        self._client.on_connect, self._client.on_message = self._connected, self._asked
        self._client.on_disconnect = self._gone
        self._client.reconnect_delay_set(1, 5)
        if config.username is not None:
            self._client.username_pw_set(config.username, config.password)
        if config.tls:
            self._client.tls_set(config.ca_file, config.cert_file, config.key_file)
        self._set_will()
        self.waiting = 0

    def encoder(self, product: Product) -> SparkplugEncoder:
        """What makes the messages of a product's devices."""
        sparkplug = self._config.sparkplug
        return SparkplugEncoder(product, None if sparkplug is None else sparkplug.online)

    async def run(self) -> None:
        self._client.connect_async(self._config.host, self._config.port)
        self._client.loop_start()
        try:
            await asyncio.Event().wait()
        finally:
            if self._there:
                self._client.publish(*self._death())
            self._client.disconnect()
            self._client.loop_stop()

    def send(self, topic: str, frame: bytes) -> None:
        """Publish one message of a device; without a connection it is only remembered."""
        address, payload = split_topic(topic), Payload.FromString(frame)
        if address is None:
            return
        with self._lock:
            new = address.device not in self._newest
            self._newest[address.device] = payload
            if self._there and (new and address.device):
                self._bear_device(address.device)
            elif self._there and not new:
                self._publish(address, self._by_alias(address.device, payload))
            elif self._there:
                self._bear()
        self._told.unacknowledging += 1

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            return
        client.subscribe(str(self._node._replace(type="NCMD")), 1)
        with self._lock:
            self._there = True
            self._bear()

    def _gone(self, client: Any, *rest: Any) -> None:
        with self._lock:
            self._there = False
            self._bd_seq = (self._bd_seq + 1) % 256
            self._set_will()

    def _asked(self, client: Any, userdata: Any, message: Any) -> None:
        command = values.read_payload(message.payload)
        if any(one.name == values.REBIRTH and one.boolean_value for one in command.metrics):
            with self._lock:
                self._bear()

    def _set_will(self) -> None:
        topic, payload = self._death()
        self._client.will_set(topic, payload, qos=1)

    def _death(self) -> tuple[str, bytes]:
        payload = Payload(timestamp=int(time.time() * 1000))
        payload.metrics.add(name=values.BD_SEQ, datatype=DataType.Int64, long_value=self._bd_seq)
        return str(self._node._replace(type="NDEATH")), bytes(payload.SerializeToString())

    def _bear(self) -> None:
        now = int(time.time() * 1000)
        payload = Payload(timestamp=now)
        payload.metrics.add(
            name=values.BD_SEQ, datatype=DataType.Int64, timestamp=now, long_value=self._bd_seq
        )
        payload.metrics.add(
            name=values.REBIRTH, datatype=DataType.Boolean, timestamp=now, boolean_value=False
        )
        if "" in self._newest:
            payload.metrics.extend(self._with_aliases("", self._newest[""]).metrics)
        self._seq = -1
        self._publish(self._node._replace(type="NBIRTH"), payload)
        for device in self._newest:
            if device:
                self._bear_device(device)

    def _bear_device(self, device: str) -> None:
        payload = self._with_aliases(device, self._newest[device])
        self._publish(self._node._replace(type="DBIRTH", device=device), payload)

    def _with_aliases(self, device: str, payload: Payload) -> Payload:
        born = Payload()
        born.CopyFrom(payload)
        for metric in born.metrics:
            metric.alias = self._aliases.setdefault((device, metric.name), len(self._aliases) + 1)
        return born

    def _by_alias(self, device: str, payload: Payload) -> Payload:
        data = self._with_aliases(device, payload)
        for metric in data.metrics:
            metric.ClearField("name")
            metric.ClearField("datatype")
        return data

    def _publish(self, address: SparkplugTopic, payload: Payload) -> None:
        self._seq = (self._seq + 1) % 256
        payload.seq = self._seq
        self._client.publish(str(address), payload.SerializeToString(), qos=0)
