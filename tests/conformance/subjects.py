"""The connectors that the conformance suite runs over: one row a peer that proves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conformance.subject import Subject
from tests.conformance.subject_files import FilesSubject
from tests.conformance.subject_http import HttpSubject
from tests.conformance.subject_kafka import KafkaSubject
from tests.conformance.subject_mqtt import MqttSubject
from tests.conformance.subject_opcua import OpcuaSubject
from tests.conformance.subject_tcp import TcpSubject

SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "mqtt-mosquitto": lambda tmp: MqttSubject(tmp, "mosquitto"),
    "mqtt-amqtt": lambda tmp: MqttSubject(tmp, "amqtt"),
    "tcp": TcpSubject,
    "http": HttpSubject,
    "files": FilesSubject,
    "kafka": KafkaSubject,
    "opcua": OpcuaSubject,
}
