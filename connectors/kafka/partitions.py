"""Which partition a key goes to: the one that Kafka's Java clients choose, so that whoever else writes to
the topics puts it there too; chosen here, because a partition's end is where sending goes on."""

from __future__ import annotations

from functools import lru_cache

from connectors.shards import murmur2


@lru_cache(maxsize=100_000)
def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's Java clients put a key; a partition chosen here is one that can be looked into."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
