"""Keys of `journal` in plant.yaml, and what the journal process is told of a partition."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from connectors.kafka.config import KafkaClientConfig
from operators.spec import DAY, Duration, Size

KAFKA_KEYS: Final = ("bootstrap", "topic", "replication", "retention", "compression")


class JournalConfig(KafkaClientConfig, forbid_unknown_fields=True, kw_only=True):
    """Where the journal is. kind kafka: partition K of `topic` is the journal of shard K, and what
    lies on this machine is a copy of it that can be made anew. max: of the copy, or of the local
    journal, on disk. A topic that is not there is made with `shards.count` partitions, `replication`
    (without it as the brokers are set) and `retention`; compression: of what is sent."""

    kind: Literal["local", "kafka"] = "local"
    max: Size = 20_000_000_000
    topic: str = "frames"
    replication: int | None = None
    retention: Duration = 7 * DAY
    compression: Literal["none", "lz4", "zstd"] = "none"


class PartitionConfig(msgspec.Struct, kw_only=True):
    """What the supervisor writes for the journal process of one shard; partitions: how many shards
    the plant has."""

    journal: JournalConfig
    partition: int = 0
    partitions: int = 1


def partition_config(path: Path) -> PartitionConfig:
    """What stands in a file. Raises OSError, `msgspec.MsgspecError`."""
    return msgspec.json.decode(path.read_bytes(), type=PartitionConfig)
