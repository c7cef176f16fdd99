"""The connectors that the conformance suite runs over: one row a peer that proves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conformance.subject import Subject
from tests.conformance.subject_files import FilesSubject
from tests.conformance.subject_http import HttpSubject
from tests.conformance.subject_kafka import KafkaSubject
from tests.conformance.subject_mqtt import AmqttSubject, MqttSubject
from tests.conformance.subject_opcua import OpcuaSubject
from tests.conformance.subject_sparkplug import SparkplugSubject
from tests.conformance.subject_tcp import TcpSubject

SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "mqtt-mosquitto": MqttSubject,
    "mqtt-amqtt": AmqttSubject,
    "tcp": TcpSubject,
    "http": HttpSubject,
    "files": FilesSubject,
    "kafka": KafkaSubject,
    "opcua": OpcuaSubject,
    "sparkplug": SparkplugSubject,
}
