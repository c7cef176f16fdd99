"""Simulated devices whose frames go to a Kafka source's topics, and how a device's message is addressed."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, NamedTuple, Protocol

from connectors.errors import ConfigError
from connectors.kafka.config import KafkaConfig, is_template, topics_of
from flows.plant_file import Product
from operators.decode.routing import TopicFilters

POLL_S: Final = 0.02
_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Placed(NamedTuple):
    """How the source knows a device's message."""

    topic: str
    key: str | None
    headers: dict[str, str]


def kafka_place(config: KafkaConfig, product: Product, device: str, hub: str) -> Placed:
    """Topic, key and headers by which a source takes a message as this device's. Raises `ConfigError`
    where they cannot say so."""
    parts = {"device_id": device, "hub_id": hub or "nohub"}
    filters = TopicFilters((product.productId, text) for text in product.topics)
    names = [_filled(topic, parts) if is_template(topic) else topic for topic in topics_of(config)]
    own = device in names and config.device == "topic"
    topic = device if own else next((name for name in names if filters.takers(name)), names[0])
    filled = _filled(config.topic or "{device_id}", parts)
    where, _, header = config.address.partition(":")
    key = filled if where == "key" else None
    headers = {header: filled} if where == "header" else {}
    kind, _, rest = config.device.partition(":")
    if kind == "key":
        key = device
    elif kind == "header":
        headers[rest] = device
    elif config.device == "topic" and where == "topic" and config.topic is None and topic != device:
        raise ConfigError(f"the topic {topic} names no device; say with 'device:' where its name stands")
    elif kind == "const" and rest != device:
        raise ConfigError(f"all of its messages are of {rest}")
    return Placed(topic, key, headers)


def _filled(text: str, parts: dict[str, str]) -> str:
    return _PLACE.sub(lambda found: parts.get(found[1], "x"), text)


class Counted(Protocol):
    """What becomes of messages."""

    acknowledged: int
    dropped: int


class KafkaLink:
    """One producer, for all devices of a source. told: counts what is `acknowledged` and `dropped`."""

    def __init__(self, name: str, config: KafkaConfig, told: Counted) -> None:
        from confluent_kafka import Producer

        from connectors.kafka.client import client_config, made_client

        settings = {**client_config(config, f"penstock-simulator-{name}"), "enable.idempotence": True}
        self._producer = made_client(Producer, settings, f"sources.{name}")
        self._told = told
        self._placed: dict[str, Placed] = {}
        self.waiting = 0

    def place(self, device: str, placed: Placed) -> None:
        """Where this device's messages go."""
        self._placed[device] = placed

    async def run(self) -> None:
        """Hear of acknowledgements until it is cancelled."""
        try:
            while True:
                self._producer.poll(0)
                await asyncio.sleep(POLL_S)
        finally:
            self._producer.flush(1.0)

    def send(self, device: str, frame: bytes) -> None:
        """Never blocks; what the producer has no room for is dropped, and counted."""
        topic, key, headers = self._placed[device]
        try:
            self._producer.produce(topic, frame, key, headers=headers, on_delivery=self._delivered)
        except BufferError:
            self._told.dropped += 1
        else:
            self.waiting += 1

    def _delivered(self, error: Any, message: Any) -> None:
        self.waiting -= 1
        if error is None:
            self._told.acknowledged += 1
        else:
            self._told.dropped += 1
