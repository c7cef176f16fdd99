"""The one table of sources: kind -> its typed configuration and its receiver."""

from __future__ import annotations

import importlib
from typing import Any, Final, NamedTuple

from connectors.errors import ConfigError
from connectors.files.config import FilesConfig
from connectors.http.config import HttpConfig
from connectors.kafka.config import KafkaConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcuaConfig
from connectors.tcp.config import TcpConfig
from operators.document import nearest


class SourceKind(NamedTuple):
    """config: the Struct of its keys in plant.yaml; receiver: `module:class` of its receiver."""

    config: type
    receiver: str

    def load(self) -> Any:
        """The receiver's class; imported only in the process that runs it."""
        module, _, name = self.receiver.partition(":")
        return getattr(importlib.import_module(module), name)


SOURCES: Final[dict[str, SourceKind]] = {
    "files": SourceKind(FilesConfig, "connectors.files.source:FilesReceiver"),
    "http": SourceKind(HttpConfig, "connectors.http.source:HttpReceiver"),
    "kafka": SourceKind(KafkaConfig, "connectors.kafka.source:KafkaReceiver"),
    "mqtt": SourceKind(MqttConfig, "connectors.mqtt.source:MqttReceiver"),
    "opcua": SourceKind(OpcuaConfig, "connectors.opcua.source:OpcuaReceiver"),
    "tcp": SourceKind(TcpConfig, "connectors.tcp.source:TcpReceiver"),
}


def source_kind(kind: str) -> SourceKind:
    """Raises `ConfigError` that names the known kinds."""
    if kind in SOURCES:
        return SOURCES[kind]
    raise ConfigError(f"unknown kind '{kind}'{nearest(kind, SOURCES) or ';'} known: {', '.join(SOURCES)}")
