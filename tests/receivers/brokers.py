"""Brokers for tests: mosquitto is required where CI=true, and skipped where it is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from flows.broker import Broker, find_mosquitto
from tests.waiting import LIMIT_S


def need_mosquitto() -> None:
    """Skip the test (fail in CI) where mosquitto is not installed."""
    if find_mosquitto() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs mosquitto")
        pytest.skip("mosquitto is not installed")


class Publisher:
    """A device: publishes and knows what the broker has acknowledged, in order."""

    def __init__(self, broker: Broker, name: str = "device", **keys: Any) -> None:
        self.acknowledged: list[bytes] = []
        self._mids: dict[int, bytes] = {}
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, **keys)
        self.client.max_inflight_messages_set(50)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_publish = self._published
        self.client.connect(*broker.address)
        self.client.loop_start()

    def send(
        self, payloads: Sequence[bytes], topic: str = "plant/press-01", qos: int = 1, retain: bool = False
    ) -> None:
        """Publish, without waiting."""
        for payload in payloads:
            self._mids[self.client.publish(topic, payload, qos, retain).mid] = payload

    def wait(self, seconds: float = LIMIT_S) -> None:
        """Until the broker has acknowledged everything."""
        end = time.monotonic() + seconds
        while self._mids:
            assert time.monotonic() < end, f"{len(self._mids)} messages not acknowledged by the broker"
            time.sleep(0.005)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _published(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        end = time.monotonic() + LIMIT_S
        while mid not in self._mids and time.monotonic() < end:
            time.sleep(0.001)  # the callback may come before publish has returned
        self.acknowledged.append(self._mids[mid])
        del self._mids[mid]  # after it is told: who waits for none to be left counts what was told
