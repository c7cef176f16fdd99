"""Keys of `journal` in plant.yaml, and what the journal process is told of a partition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

import msgspec

from connectors.kafka.config import KafkaClientConfig
from operators.spec import DAY, Duration, Size

_NUMBERS: Final = re.compile(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?\Z")


class JournalConfig(KafkaClientConfig, forbid_unknown_fields=True, kw_only=True):
    """Where the journal is. kind kafka: partition K of `topic` is the journal of shard K, and what
    lies on this machine is a copy of it that can be made anew. max: of the copy, or of the local
    journal, on disk. A topic that is not there is made with `shards.count` partitions, `replication`
    (without it as the brokers are set) and `retention`; compression: of what is sent. shards_here,
    sources_here: what this machine runs where several share the plant; "" is all."""

    kind: Literal["local", "kafka"] = "local"
    max: Size = 20_000_000_000
    topic: str = "frames"
    replication: int | None = None
    retention: Duration = 7 * DAY
    compression: Literal["none", "lz4", "zstd"] = "none"
    shards_here: str = ""
    sources_here: str = ""


class PartitionConfig(msgspec.Struct, kw_only=True):
    """What the supervisor tells the journal process of one shard; partitions: how many shards
    the plant has. runs: whether the shard runs on this machine; the journal process of one that does not
    keeps a copy and passes on what this machine's receivers have for it, and writes no ticks. taken: why
    it does not run here though it should, in words for health."""

    journal: JournalConfig
    partition: int = 0
    partitions: int = 1
    runs: bool = True
    taken: str = ""


def shards_here(config: JournalConfig, count: int) -> list[int]:
    """The shards that this machine runs. Raises ValueError with what is wrong with `shards_here`."""
    if not config.shards_here.strip() or "${" in config.shards_here:  # not resolved yet
        return list(range(count))
    found: set[int] = set()
    for part in config.shards_here.split(","):
        match = _NUMBERS.match(part)
        if match is None:
            raise ValueError("numbers of shards are expected, e.g. 0-1,3")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if not first <= last < count:
            raise ValueError(f"shards are numbered 0 to {count - 1}")
        found |= set(range(first, last + 1))
    return sorted(found)


def sources_here(config: JournalConfig) -> set[str] | None:
    """The sources that this machine runs; None: all."""
    names = {name.strip() for name in config.sources_here.split(",")} - {""}
    return names or None


def partition_config(path: Path) -> PartitionConfig:
    """What stands in a file. Raises OSError, `msgspec.MsgspecError`."""
    return msgspec.json.decode(path.read_bytes(), type=PartitionConfig)
