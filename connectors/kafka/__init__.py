"""Kafka as a source, of a plant or of a dataflow of one's own: `KafkaSource(config, journal=PATH)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.kafka.config import KafkaConfig

if TYPE_CHECKING:
    from connectors.bytewax_source import KafkaSource

__all__ = ["KafkaConfig", "KafkaSource"]


def __getattr__(name: str) -> object:
    # only where it is asked for: a receiver's process has no use for Bytewax
    if name == "KafkaSource":
        from connectors.bytewax_source import KafkaSource

        return KafkaSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
