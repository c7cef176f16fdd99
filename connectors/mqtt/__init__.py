"""MQTT as a source, of a plant or of a dataflow of one's own: `MqttSource(config, journal=PATH)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.mqtt.config import MqttConfig

if TYPE_CHECKING:
    from connectors.bytewax_source import MqttSource

__all__ = ["MqttConfig", "MqttSource"]


def __getattr__(name: str) -> object:
    # only where it is asked for: a receiver's process has no use for Bytewax
    if name == "MqttSource":
        from connectors.bytewax_source import MqttSource

        return MqttSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
