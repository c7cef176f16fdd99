"""Simulated devices: the plant's own products on real sockets, to any source's address.

Each device of devices.csv sends by the source that can carry its product: JSON (and raw binary)
over MQTT with QoS 1 and to Kafka, binary frames over TCP. A device that is acknowledged keeps what
is not, and sends it again after a lost connection, as a good device does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from connectors.backoff import Backoff
from connectors.errors import ConfigError
from connectors.http.config import HttpConfig
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig, in_plant
from connectors.tcp.config import Delimiter, LengthPrefix, TcpConfig, listen_address
from connectors.tcp.framing import stream_bytes
from flows.plant_file import Plant, Product
from flows.simulated_frames import Encoder, encoder
from flows.simulated_kafka import KafkaLink, kafka_place
from flows.simulated_sparkplug import SparkplugLink, sparkplug_address
from flows.simulated_told import Told
from flows.simulated_values import SimulatedDevice

TOPIC: Final = "iotlink/{env}/{hub_id}/{device_id}/{type}/{direction}/{role}/{format}"
TURN_S: Final = 0.02  # between two looks at who is due
UNACKNOWLEDGED: Final = 10_000  # frames that a device keeps; beyond it it drops the oldest

log = logging.getLogger("simulator")


class Simulator:
    """All simulated devices of a plant.

    rate: frames a second of each device. seed: of every value; times are the clock's. folder: the
    plant's, for the files that sources name. skipped: devices that no source can carry, with the reason.
    """

    def __init__(self, plant: Plant, *, seed: int = 1, rate: float = 1.0, folder: Path = Path()) -> None:
        if rate <= 0:
            raise ConfigError("the rate must be above 0 frames a second")
        self.told = Told()
        self._folder = folder
        self.skipped: dict[str, str] = {}
        self._period = 1.0 / rate
        self._links: dict[str, Link] = {}
        self._devices: list[_Sender] = []
        members: Counter[str] = Counter(row["productId"] for row in plant.master.devices.values())
        turns: Counter[str] = Counter()
        for device, row in plant.master.devices.items():
            product = plant.products[row["productId"]]
            try:
                link, topic = self._link(plant, device, row, product)
                frames = link.encoder(product) if isinstance(link, SparkplugLink) else encoder(product)
            except ConfigError as error:
                self.skipped[device] = str(error)
                continue
            turn = turns[product.productId]
            turns[product.productId] += 1
            values = SimulatedDevice(
                device, product, plant.rules, seed, turn, members[product.productId], row
            )
            self._devices.append(_Sender(values, frames, link, topic))
        for device, why in self.skipped.items():
            log.warning("%s is not simulated: %s", device, why)

    @property
    def running(self) -> int:
        """How many devices are simulated."""
        return len(self._devices)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; then what is on its way has two seconds to be acknowledged."""
        tasks = [asyncio.create_task(link.run()) for link in self._links.values()]
        began = time.monotonic()
        due = {
            index: index * self._period / max(len(self._devices), 1) for index in range(len(self._devices))
        }
        try:
            while not stop.is_set():
                elapsed = time.monotonic() - began
                for index, sender in enumerate(self._devices):
                    late = int((elapsed - due[index]) / self._period)
                    for _ in range(max(late, 0) + 1 if elapsed >= due[index] else 0):
                        sender.send(due[index], int((time.time() - elapsed + due[index]) * 1000))
                        self.told.sent += 1
                        due[index] += self._period
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), TURN_S)
            until = time.monotonic() + 2.0
            while time.monotonic() < until and any(link.waiting for link in self._links.values()):
                await asyncio.sleep(0.02)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _link(self, plant: Plant, device: str, row: dict[str, str], product: Product) -> tuple[Link, str]:
        """The way of a device's frames: a connection and, for MQTT, its topic."""
        reasons = ["no source"]
        # a source that is made for the product before one that would carry it too
        ranked = sorted(plant.sources.items(), key=lambda item: item[1].product != product.productId)
        for name, config in ranked:
            if config.product is not None and config.product != product.productId:
                reasons.append(f"{name} is for {config.product}")
            elif isinstance(config, MqttConfig) and config.sparkplug and product.decode.format == "typed":
                node = sparkplug_address(config.sparkplug, device, row.get("hub_id") or "")
                if node is None:
                    reasons.append(f"{name} hears no edge node that would call it so")
                    continue
                key = f"{name}/{node.group}/{node.node}"
                sparkplug = self._links.get(key) or SparkplugLink(
                    name, in_plant(config, self._folder), node, self.told
                )
                self._links[key] = sparkplug
                return sparkplug, str(node)
            elif isinstance(config, MqttConfig):
                if product.decode.format not in ("json", "binary"):
                    reasons.append(f"{name} cannot carry {product.decode.format}")
                    continue
                topic = device_topic(config, product, device, row.get("hub_id") or "")
                if not any(mqtt.topic_matches_sub(wanted, topic) for wanted in config.subscribe):
                    reasons.append(f"{name} does not subscribe to {topic}")
                    continue
                link = self._links.get(name) or _MqttLink(name, in_plant(config, self._folder), self.told)
                self._links[name] = link
                return link, topic
            elif isinstance(config, KafkaConfig):
                if product.decode.format not in ("json", "binary") or config.device.startswith("payload:"):
                    reasons.append(f"{name} (device: {config.device}) cannot carry {product.decode.format}")
                    continue
                try:
                    placed = kafka_place(config, product, device, row.get("hub_id") or "")
                except ConfigError as error:
                    reasons.append(f"{name}: {error}")
                    continue
                kafka = self._links.get(name) or KafkaLink(name, config, self.told)
                assert isinstance(kafka, KafkaLink)
                self._links[name] = kafka
                kafka.place(device, placed)
                return kafka, device
            elif isinstance(config, TcpConfig):
                bound = _tcp_identity(config, device)
                if bound is None or product.decode.format != "binary":
                    reasons.append(f"{name} (device: {config.device}) cannot tell {device}")
                    continue
                if not isinstance(config.framing, LengthPrefix | Delimiter) or config.tls:
                    reasons.append(f"{name} has TLS or a framing that is not simulated")
                    continue
                tcp = _TcpLink(device, config, config.framing, bound, self.told)
                self._links[f"{name}/{device}"] = tcp
                return tcp, ""
            else:
                kind = type(config).__struct_config__.tag
                reasons.append(f"{name} is of kind {kind}, which is not simulated")
        raise ConfigError("; ".join(reasons[1:] or reasons))


class _Sender:
    """One device."""

    def __init__(self, values: SimulatedDevice, frames: Encoder, link: Link, topic: str) -> None:
        self._values, self._frames, self._link, self._topic = values, frames, link, topic

    def send(self, elapsed_s: float, now_ms: int) -> None:
        self._link.send(self._topic, self._frames.encode(self._values.values(elapsed_s), now_ms))


class _MqttLink:
    """One connection to a broker, for all devices of a source."""

    def __init__(self, name: str, config: MqttConfig, told: Told) -> None:
        self._config, self._told = config, told
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"penstock-simulator-{name}", clean_session=True
        )
        self._client.max_queued_messages_set(UNACKNOWLEDGED)
        self._client.max_inflight_messages_set(100)
        self._client.reconnect_delay_set(1, 5)
        self._client.on_publish = self._published
        if config.username is not None:
            self._client.username_pw_set(config.username, config.password)
        if config.tls:
            self._client.tls_set(config.ca_file, config.cert_file, config.key_file)
        self.waiting = 0

    async def run(self) -> None:
        self._client.connect_async(self._config.host, self._config.port)
        self._client.loop_start()
        try:
            await asyncio.Event().wait()
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def send(self, topic: str, frame: bytes) -> None:
        if self._client.publish(topic, frame, qos=1).rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            self._told.dropped += 1
        else:
            self.waiting += 1

    def _published(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._told.acknowledged += 1
        self.waiting -= 1


class _TcpLink:
    """One device's connection to a TCP source. bound: the local address that tells the device."""

    def __init__(
        self,
        device: str,
        config: TcpConfig,
        framing: LengthPrefix | Delimiter,
        bound: tuple[str, int] | str | None,
        told: Told,
    ) -> None:
        self._framing = framing
        self._device, self._config, self._told = device, config, told
        self._local = bound if isinstance(bound, tuple) else None
        host, self._port = listen_address(config.listen)
        self._host = host if host not in ("", "0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared
        self._acknowledge = (
            bytes.fromhex(config.acknowledge or "") if config.acknowledge_each == "frame" else b""
        )
        self._kept: deque[bytes] = deque()  # sent and not acknowledged, and not yet sent
        self._unsent = 0
        self._more = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._kept)

    def send(self, topic: str, frame: bytes) -> None:
        if len(self._kept) >= UNACKNOWLEDGED:
            self._told.dropped += 1
            return
        self._kept.append(_framed(self._framing, frame))
        self._unsent += 1
        self._more.set()

    async def run(self) -> None:
        backoff = Backoff(limit_s=5.0)
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port, local_addr=self._local)
            except OSError as error:
                log.warning(
                    "%s: cannot connect to %s:%d: %s", self._device, self._host, self._port, error.strerror
                )
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._unsent = len(self._kept)
            self._more.set()
            try:
                await self._talk(reader, writer)
            except OSError as error:
                log.warning("%s: connection lost: %s", self._device, error.strerror or error)
            finally:
                writer.close()
            await asyncio.sleep(backoff.next())

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hearing = asyncio.create_task(self._hear(reader))
        try:
            while not hearing.done():
                more = asyncio.create_task(self._more.wait())
                await asyncio.wait({hearing, more}, return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
                self._more.clear()
                if self._unsent:
                    start = len(self._kept) - self._unsent
                    batch = [self._kept[index] for index in range(start, len(self._kept))]
                    self._unsent = 0
                    writer.write(b"".join(batch))
                    await writer.drain()
                    if not self._acknowledge:
                        self._told.unacknowledging += len(batch)
                        for _ in batch:
                            self._kept.popleft()
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await hearing

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """Count acknowledgements until the source ends the connection."""
        left = 0
        while data := await reader.read(65_536):
            if not self._acknowledge:
                continue
            whole, left = divmod(left + len(data), len(self._acknowledge))
            for _ in range(min(whole, len(self._kept) - self._unsent)):
                self._kept.popleft()
                self._told.acknowledged += 1


def device_topic(config: MqttConfig | HttpConfig, product: Product, device: str, hub: str) -> str:
    """The topic of a device's telemetry: the source's template, filled in, with what the product's
    own topic filter says where it says it. Raises `ConfigError` where no Sparkplug address leads to
    the device."""
    sparkplug = config.sparkplug if isinstance(config, MqttConfig) else None
    if sparkplug is not None and product.decode.format == "typed":
        address = sparkplug_address(sparkplug, device, hub)
        if address is None:
            raise ConfigError(f"no Sparkplug address leads to '{device}' (device_id: {sparkplug.device_id})")
        return str(address)
    parts = {
        "env": "dev",
        "hub_id": hub or "nohub",
        "device_id": device,
        "type": "periodic",
        "direction": "pub",
        "role": "telemetry",
        "format": "bin" if product.decode.format == "binary" else "json",
    }
    levels: list[str] = []
    for level in (config.topic or TOPIC).split("/"):
        name = level[1:-1] if level.startswith("{") and level.endswith("}") else None
        levels.append(level if name is None else parts.get(name, "x"))
    best: list[str] | None = None
    for wanted in product.topics:
        asked = wanted.split("/")
        if len(asked) == len(levels) and all(part not in ("#", "") for part in asked):
            best = [level if part == "+" else part for part, level in zip(asked, levels, strict=True)]
            if best == levels:
                break
    return "/".join(best or levels)


def _tcp_identity(config: TcpConfig, device: str) -> tuple[str, int] | str | None:
    """How a connection tells the source which device it is: the local address to bind, `any` where
    the source knows by itself, None where it cannot be told."""
    if config.device == f"const:{device}":
        return "any"
    if config.device != "peer":
        return None
    host, colon, port = device.rpartition(":") if device.count(":") == 1 else (device, "", "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return host, int(port) if colon else 0


def _framed(framing: LengthPrefix | Delimiter, frame: bytes) -> bytes:
    if isinstance(framing, LengthPrefix):
        length = len(frame) + (framing.size if framing.includes_header else 0)
        return length.to_bytes(framing.size, "big" if framing.order == "be" else "little") + frame
    delimiter = stream_bytes("delimiter", framing.delimiter)
    if framing.escape is None:
        return frame + delimiter
    escape = stream_bytes("escape", framing.escape)
    special: Iterable[int] = delimiter + escape
    return (
        b"".join(escape + bytes([byte]) if byte in special else bytes([byte]) for byte in frame) + delimiter
    )


Link = _MqttLink | _TcpLink | KafkaLink | SparkplugLink
