"""Which shard a device belongs to: a stable hash of a key of its, the same on every machine and for ever.

The hash is that of Kafka's DefaultPartitioner (org.apache.kafka.common.utils.Utils.murmur2 of the
key's bytes, made positive, modulo the count), so a topic that is keyed by device agrees with it.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

from operators.batch import Address

By = Literal["device_id", "hub_id", "site_id"]

# header of a frame that its receiver has cut by shard itself: the number, as a text
SHARD_HEADER: Final = "shard"


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


def hash_shard(key: str, count: int) -> int:
    """The shard of a key, 0 to count - 1; 0 for "", which is no key."""
    if count == 1 or not key:
        return 0
    return (murmur2(key.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF) % count


class Sharding(msgspec.Struct, frozen=True, kw_only=True):
    """How a plant's devices are divided. keys: device -> its hub or site, of the devices that
    devices.csv gives one, where `by` asks for that."""

    count: int
    by: By = "device_id"
    keys: dict[str, str] = {}

    def of_device(self, device: str, hub: str = "") -> int:
        """The shard of a device. hub: what its address says, for one that devices.csv gives no hub.
        A device without hub or site is divided by its own name; without a name it goes to shard 0."""
        if self.by == "device_id" or not device:
            return hash_shard(device, self.count)
        key = self.keys.get(device, "") or (hub if self.by == "hub_id" else "")
        return hash_shard(key or device, self.count)


class DeviceOf(Protocol):
    """What an address says of its frames' device."""

    def __call__(self, address: Address, /) -> tuple[str, str]:
        """The device's name and its hub's; "" for what the address does not say."""
