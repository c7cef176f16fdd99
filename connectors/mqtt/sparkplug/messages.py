"""Sparkplug messages of a source -> frames for the journal, and what is asked of edge nodes.

A frame is what one message told of one device (`connectors.typed`), its topic the message's. What
cannot be read is journaled as it came, with the header `malformed`, and so becomes a reject.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final

from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug import values
from connectors.mqtt.sparkplug.compressed import read_message
from connectors.mqtt.sparkplug.metrics import SEVERAL, Told
from connectors.mqtt.sparkplug.nodes import SEQUENCES, Device, Node
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import Payload
from connectors.mqtt.sparkplug.store import Birth, BirthStore, birth_of
from connectors.mqtt.sparkplug.values import TooLargeError, UnreadableError
from connectors.source import Frame
from connectors.typed import TypedValue, pack
from operators.batch import BAD, FRAME_HISTORICAL, FRAME_RETAINED
from operators.sparkplug import COMMANDS, SparkplugNames, SparkplugTopic, split_topic

MALFORMED: Final = "malformed"  # header of a frame that could not be read: why
TOO_LARGE: Final = "too_large"  # of one that is too large when it is unpacked
CAP: Final = 1_000_000  # bytes of a payload that is unpacked, if nothing else is said
VALUES_OF_FRAME: Final = 8192  # 230 KB, and the names
MOST_NODES: Final = 20_000
MOST_DEVICES: Final = 200_000
MOST_METRICS: Final = 1_000_000  # their names; some 200 MB
ASK_FIRST_S: Final = 5.0  # between two questions to one node, then twice as long each time
ASK_LONGEST_S: Final = 300.0
ASK_AT_ONCE: Final = 50  # nodes a second
SETTLE_S: Final = 3.0  # after connecting: who has been heard by then need not be asked
REBORN_S: Final = 10.0  # from a node's birth to those of its devices
FIGURES: Final = (
    *("nodes", "devices", "messages_total", "values_total", "skipped_values_total", "malformed_total"),
    *("unknown_aliases_total", "gaps_total", "lost_messages_total", "repeats_total", "deaths_total"),
    *("old_deaths_total", "rebirths_total", "same_names_total"),
)
ADDRESSES: Final = 50_000  # whose devices are known, before they are looked up anew
_TIME: Final = attrgetter("time_ns")
_TIME_AHEAD_MS: Final = 300_000  # a device's time further ahead of ours is no time to go by

log = logging.getLogger(__name__)

Command = tuple[str, bytes]  # topic, payload
Numbered = tuple[int, Birth]  # in the order in which they came about


class Sparkplug:
    """All edge nodes of one source. For one event loop's thread.

    `take` is given every message, `tick` is called once a second; both return what has to be
    journaled, in this order. `commands` are the questions to publish, after either.
    """

    def __init__(
        self,
        config: SparkplugConfig,
        store: BirthStore | None = None,
        cap: int = CAP,
        *,
        now: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self._store, self._cap, self._now, self._now_ms = store, cap, now, now_ms
        self._nodes = store.load() if store is not None else {}
        self._names = SparkplugNames(config.device_id, config.hub_id)
        self._named: dict[str, tuple[str, str, str]] = {}
        self._addresses: dict[str, SparkplugTopic] = {}  # of messages so far, none of another's name
        for node in self._nodes.values():
            for device in node.devices:
                self._is_own_name(SparkplugTopic(node.group, "NBIRTH", node.name, device))
        self._settled_at: float | None = None
        self.unique = False  # whether no other message has the content of the one taken last
        self._born: list[Numbered] = []
        self._died: list[Numbered] = []
        self._number = 0
        self._kept: dict[bytes, int] = {}  # key of a record -> number of the change that it holds
        self._asking: dict[tuple[str, str], Node] = {}  # whose births are wanted
        self._metrics = sum(
            len(device.names) for node in self._nodes.values() for device in node.devices.values()
        )

    def connected(self) -> None:
        """A connection to the broker is made: what came meanwhile may have passed us by."""
        self._settled_at = self._now() + SETTLE_S
        for node in self._nodes.values():
            node.confirmed = False

    def close(self, whole: bool = True) -> None:
        """The end. whole: all that was taken is durable, so that sequence numbers can be trusted."""
        if self._store is not None:
            self._store.close(self._nodes.values() if whole else ())

    def take(self, topic: str, data: bytes, flags: int = 0) -> list[Frame]:
        """The frames of one message. Births and deaths in it are for `keep` and `deaths`."""
        self.unique = False
        address = self._addresses.get(topic) or split_topic(topic)
        if address is None:
            error = UnreadableError("its topic is none of a Sparkplug message")
            return [_unreadable(topic, data, error, flags)]
        if flags & FRAME_RETAINED or address.type in COMMANDS:
            return [Frame(topic, data, flags)]  # decoding filters both
        self.counts["messages_total"] += 1
        try:
            if topic not in self._addresses:
                if not self._is_own_name(address):
                    raise UnreadableError("another device of the source has the same name")
                if len(self._addresses) >= ADDRESSES:
                    self._addresses.clear()
                self._addresses[topic] = address
            return list(self._frames(address, data)) if data else [Frame(topic, data)]
        except UnreadableError as error:
            self.counts["malformed_total"] += 1
            return [_unreadable(topic, data, error)]
        finally:
            node = self._nodes.get((address.group, address.node))
            if node is not None and node.wanted:
                self._asking[address.group, address.node] = node

    def tick(self) -> list[Frame]:
        """What time alone has led to: devices that did not come back with their node."""
        now = self._now()
        frames: list[Frame] = []
        for node in self._nodes.values():
            lost = node.lost(now, self.config.reorder / 1e9)
            if lost:
                self.counts["gaps_total"] += 1
                self.counts["lost_messages_total"] += lost
                log.warning("%s/%s: %d messages are missing", node.group, node.name, lost)
                node.wanted = True
            if node.born_at is not None and now - node.born_at >= REBORN_S:
                node.born_at = None
                for name, device in node.devices.items():
                    if name and device.there and not device.born:
                        frames += self._gone(SparkplugTopic(node.group, "NDEATH", node.name, name), device)
                        self._changes(self._died, node, name)
        if self._settled_at is not None and now >= self._settled_at:
            self._settled_at = None
            for node in self._nodes.values():
                node.wanted |= not node.confirmed
        self._asking |= {key: node for key, node in self._nodes.items() if node.wanted}
        self.counts["nodes"] = sum(node.there for node in self._nodes.values())
        self.counts["devices"] = sum(
            device.there for node in self._nodes.values() for name, device in node.devices.items() if name
        )
        return frames

    def commands(self) -> list[Command]:
        """Questions for births that are due; each is given once."""
        if not self.config.rebirth:
            return []
        now = self._now()
        found: list[Command] = []
        for key, node in list(self._asking.items()):
            if len(found) < ASK_AT_ONCE and node.may_ask(now, ASK_FIRST_S, ASK_LONGEST_S):
                topic = SparkplugTopic(node.group, "NCMD", node.name)
                found.append((str(topic), values.rebirth_command(self._now_ms())))
            if not node.wanted:
                del self._asking[key]
        self.counts["rebirths_total"] += len(found)
        return found

    def births(self) -> Iterator[tuple[SparkplugTopic, Mapping[str, int]]]:
        """The devices whose births are known, nodes among them, and their metrics' datatypes."""
        for node in self._nodes.values():
            for name, device in node.devices.items():
                kind = "DBIRTH" if name else "NBIRTH"
                yield SparkplugTopic(node.group, kind, node.name, name), device.names

    # messages

    def _frames(self, address: SparkplugTopic, data: bytes) -> Iterator[Frame]:
        payload = read_message(data, self._cap)
        node = self._node(address)
        if address.type == "NDEATH":
            yield from self._node_gone(address, node, payload)
            return
        now, seq = self._now(), int(payload.seq) % SEQUENCES
        if address.type == "NBIRTH":
            node.born(seq, values.birth_number(payload), now)
            node.answered(ASK_FIRST_S)
        elif payload.HasField("seq") and not node.follow(seq, zlib.crc32(data), now):
            self.counts["repeats_total"] += 1  # the contract filters it
        if not node.there and address.type != "NBIRTH":
            node.wanted = node.doubtful = True
        if address.type == "DDEATH":
            device = node.devices.get(address.device)
            if device is not None and device.there:
                yield from self._gone(address, device, int(payload.timestamp))
                self._changes(self._died, node, address.device)
            return
        if address.type in ("NDATA", "DDATA"):  # its number comes again after 255 others, not in the same ms
            self.unique = payload.HasField("seq") and payload.HasField("timestamp")
        device = node.device(address.device)
        node.wanted |= not device.there and address.type in ("NDATA", "DDATA")
        if address.type in ("NBIRTH", "DBIRTH"):
            yield from self._birth(address, node, device, payload, data)
        else:
            yield from self._data(address, node, device, payload, data)

    def _birth(
        self, address: SparkplugTopic, node: Node, device: Device, payload: Payload, data: bytes
    ) -> Iterator[Frame]:
        """All metrics of a device with their types and numbers. A birth says what is the case now:
        its values are of its own time, whenever each was taken."""
        told = Told(device, int(payload.timestamp), birth=True, doubtful=node.doubtful)
        told.take(payload.metrics)
        self._count_metrics(len(told.names) - len(device.names))
        device.names, device.aliases = told.names, told.aliases
        device.there = device.born = True
        if self.config.online is not None:
            at_ms = min(int(payload.timestamp), values.LAST_MS)
            told.live.append(TypedValue(self.config.online, True, at_ms * 10**6))
        yield from self._told(address, node, device, told, data)
        self._changes(self._born, node, address.device)

    def _data(
        self, address: SparkplugTopic, node: Node, device: Device, payload: Payload, data: bytes
    ) -> Iterator[Frame]:
        told = Told(device, int(payload.timestamp), birth=False, doubtful=node.doubtful)
        told.take(payload.metrics)
        if told.names:
            self._count_metrics(len(told.names.keys() - device.names.keys()))
            device.names |= told.names
        node.wanted |= told.unknown or bool(told.strangers)
        yield from self._told(address, node, device, told, data)

    def _count_metrics(self, more: int) -> None:
        if more > 0 and self._metrics + more > MOST_METRICS:
            raise UnreadableError(f"more than the {MOST_METRICS} metrics that a source follows")
        self._metrics += more

    def _told(
        self, address: SparkplugTopic, node: Node, device: Device, told: Told, data: bytes
    ) -> Iterator[Frame]:
        """What could be read, and the message as it came where something of it could not."""
        yield from self._packed(address, device, told.live, told.backlog)
        if told.skipped:
            self.counts["skipped_values_total"] += told.skipped
        if told.strangers or told.problems:
            self.counts["unknown_aliases_total"] += len(told.strangers)
            self.counts["malformed_total"] += bool(told.problems)
            why = told.why(address.device or address.node)
            yield _unreadable(str(address), data, UnreadableError(why))

    def _packed(
        self, address: SparkplugTopic, device: Device, live: list[TypedValue], backlog: list[TypedValue]
    ) -> Iterator[Frame]:
        """The backlog first, in an order of times."""
        for found, flags in ((backlog, FRAME_HISTORICAL), (live, 0)):
            if not found:
                continue
            found.sort(key=_TIME)
            if not flags:
                newest = self._now_ms() + _TIME_AHEAD_MS
                for one in reversed(found):
                    if (ms := one.time_ns // 1_000_000) <= newest:
                        device.newest_ms = max(device.newest_ms, ms)
                        break
            self.counts["values_total"] += len(found)
            topic = str(address)
            for first in range(0, len(found), VALUES_OF_FRAME):
                yield Frame(topic, pack(found[first : first + VALUES_OF_FRAME]), flags)

    # deaths

    def _node_gone(self, address: SparkplugTopic, node: Node, payload: Payload) -> Iterator[Frame]:
        """An NDEATH ends the session whose `bdSeq` it has, and no later one."""
        number = values.birth_number(payload)
        if not node.there or (number is not None and node.bd_seq not in (None, number)):
            self.counts["old_deaths_total"] += 1
            log.info(
                "%s/%s: an NDEATH of bdSeq %s is of no session that lasts", node.group, node.name, number
            )
            return
        node.there, node.doubtful, node.expected = False, True, None
        node.missing.clear()
        for name, device in node.devices.items():
            if device.there:
                yield from self._gone(address._replace(device=name), device)
            self._changes(self._died, node, name)

    def _gone(self, address: SparkplugTopic, device: Device, at_ms: int = 0) -> Iterator[Frame]:
        """Nobody vouches for the values of this device any more: each is bad, without a value, at a
        time behind its last one. (A will was written long before the death that it tells of.)"""
        device.there = device.born = False
        self.counts["deaths_total"] += 1
        at_ms = max(min(at_ms or self._now_ms(), self._now_ms() + _TIME_AHEAD_MS), device.newest_ms + 1)
        gone = [
            TypedValue(name, None, at_ms * 10**6, quality=BAD)
            for name, datatype in device.names.items()
            if datatype not in SEVERAL and datatype not in values.NOT_TAKEN
        ]
        if self.config.online is not None:
            gone.append(TypedValue(self.config.online, False, at_ms * 10**6))
        yield from self._packed(address, device, gone, [])

    # who is who

    def _node(self, address: SparkplugTopic) -> Node:
        key = address.group, address.node
        if key not in self._nodes:
            if len(self._nodes) >= MOST_NODES:
                raise UnreadableError(f"one more than the {MOST_NODES} edge nodes that a source follows")
            self._nodes[key] = Node(*key)
        return self._nodes[key]

    def _is_own_name(self, address: SparkplugTopic) -> bool:
        """Whether no other device has the name that this one would have in the plant."""
        device, _ = self._names.of(address)
        mine = address.group, address.node, address.device
        if device not in self._named and len(self._named) >= MOST_DEVICES:
            raise UnreadableError(f"one more than the {MOST_DEVICES} devices that a source follows")
        owner = self._named.setdefault(device, mine)
        if owner != mine and self.counts["same_names_total"] == 0:
            log.error(
                "%s and %s are both called %s: see 'device_id'", "/".join(owner), "/".join(mine), device
            )
        self.counts["same_names_total"] += owner != mine
        return owner == mine

    def keep(self) -> None:
        """Births so far are on disk when it returns; to be called before what `take` gave leaves for the
        journal. Most births come with QoS 0, once: without theirs, what comes again could not be read."""
        self._write(self._born)
        self._born.clear()

    def deaths(self) -> list[Numbered]:
        """What deaths since it was last asked have led to, for `keep_deaths`."""
        found, self._died = self._died, []
        return found

    def keep_deaths(self, deaths: Sequence[Numbered]) -> None:
        """These are on disk when it returns. To be called when their frames are durable, and before their
        messages are acknowledged: a death that comes again after a kill must find a device that lives."""
        self._write(deaths)

    def _changes(self, into: list[Numbered], node: Node, name: str) -> None:
        if self._store is not None:
            self._number += 1
            into.append((self._number, birth_of(node, name)))

    def _write(self, changes: Sequence[Numbered]) -> None:
        """What is not older than what is on disk already."""
        if changes and self._store is not None:
            self._store.keep(birth for number, birth in changes if number > self._kept.get(birth[0], 0))
            for number, (key, _) in changes:
                self._kept[key] = max(number, self._kept.get(key, 0))


def _unreadable(topic: str, data: bytes, error: UnreadableError, flags: int = 0) -> Frame:
    header = TOO_LARGE if isinstance(error, TooLargeError) else MALFORMED
    return Frame(topic, data, flags, headers=((header, str(error)),))
