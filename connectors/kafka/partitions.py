"""Which partition a key goes to: the one that Kafka's Java clients choose, so that whoever else writes to
the topics puts it there too; chosen here, because a partition's end is where sending goes on."""

from __future__ import annotations

from functools import lru_cache


def murmur2(data: bytes) -> int:
    """The hash of Kafka's Java clients (org.apache.kafka.common.utils.Utils.murmur2), as uint32."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ k
    if length & 3:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


@lru_cache(maxsize=100_000)
def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's Java clients put a key; a partition chosen here is one that can be looked into."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
