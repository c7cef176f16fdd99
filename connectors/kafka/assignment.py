"""The partitions that a Kafka source's consumer reads: which, from where, and what is gone of them.

Partitions are assigned by us, never by a group. Where one begins or goes on is what is noted of it; what is
there no more before it was read is a gap, which is handed on like messages.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from connectors.errors import ConnectError
from connectors.kafka.client import told
from connectors.kafka.config import KafkaConfig, start_ms, topics_of
from connectors.kafka.progress import Part, Progress
from connectors.kafka.watch import Look, Watch

WATERMARK_S: Final = 3.0
CLOSE_S: Final = 0.5

log = logging.getLogger(__name__)


class Gap(NamedTuple):
    """Messages that were never read and are there no more: `lost` offsets from `first`; -1: it cannot
    be said how many."""

    topic: str
    partition: int
    first: int
    lost: int


class Assignment:
    """What the consumer has assigned; of the fetching thread alone, but for `look`.

    give: takes gaps, in order with the messages. say: tells the log something once. ending: set when
    nothing more is read.
    """

    def __init__(
        self,
        config: KafkaConfig,
        progress: Progress,
        watch: Watch,
        *,
        give: Callable[[Sequence[Gap]], None],
        say: Callable[[str], None],
        ending: threading.Event,
    ) -> None:
        self._config, self._progress, self._watch = config, progress, watch
        self._give, self._say, self._ending = give, say, ending
        self.consumer: Any = None  # made once the brokers have answered
        self.position: dict[Part, int] = {}  # of what is assigned: the next offset to be handed on
        self.eof: dict[Part, int] = {}
        self.trouble: dict[Part, str] = {}  # what the brokers say of a partition that cannot be read
        self.look: Look | None = None
        self.followed: Look | None = None

    def drop_those_made_anew(self, look: Look) -> None:
        """Forget what is known of topics that are others now, once what was read of them is durable."""
        for topic, identifier in look.identifiers.items():
            known = self._progress.topics.get(topic, "")
            if not known or not identifier or known == identifier:
                continue
            mine = [part for part in self.position if part.topic == topic]
            self._unassign(mine)
            if mine and not self._is_settled():
                return
            log.warning("the topic %s was made anew: it is read from its beginning", topic)
            before = sorted(part for part in self._progress.offsets.items() if part[0].topic == topic)
            self._give([Gap(topic, part.partition, at, -1) for part, at in before])
            self._progress.forget(topic)
            self._progress.move({}, {topic: identifier})

    def follow(self, look: Look) -> bool:
        """Read all that is there; False: it has to be tried again."""
        there = {Part(name, number) for name, numbers in look.partitions.items() for number in numbers}
        gone = [p for p in self.position if p not in there and p.topic not in look.refused]
        self._unassign(gone)
        new = sorted(there - self.position.keys())
        known = self._progress.offsets
        try:
            begun = self._begin([part for part in new if part not in known], look)
        except (ConnectError, KafkaException) as error:
            self._say(f"where to begin: {error}")
            return False
        identifiers = {name: one for name, one in look.identifiers.items() if one}
        specs = {look.specs[name] for name in (*look.partitions, *look.absent)} | {
            spec for spec in topics_of(self._config) if spec not in look.refused
        }
        if begun or specs - self._progress.seen or identifiers.items() - self._progress.topics.items():
            self._progress.move(begun, identifiers, specs)
        known |= begun
        self._assign({part: known[part] for part in new if part in known})
        return all(part in known for part in new)

    def _begin(self, parts: Sequence[Part], look: Look) -> dict[Part, int]:
        """Where partitions begin that have never been read: what came to be while the source was
        configured at its beginning, else as `start` says."""
        first = [part for part in parts if look.specs[part.topic] not in self._progress.seen]
        begun = self._watch.offsets([part for part in parts if part not in first], OffsetSpec.earliest())
        start = self._config.start
        if start == "earliest":
            begun |= self._watch.offsets(first, OffsetSpec.earliest())
        elif start == "latest":
            begun |= self._watch.offsets(first, OffsetSpec.latest())
        else:
            found = self._watch.offsets(first, OffsetSpec.for_timestamp(start_ms(start)))
            late = [part for part, at in found.items() if at < 0]
            begun |= {**found, **self._watch.offsets(late, OffsetSpec.latest())}
        return begun

    def _assign(self, offsets: Mapping[Part, int]) -> None:
        if offsets:
            self.consumer.incremental_assign(
                [TopicPartition(part.topic, part.partition, at) for part, at in offsets.items()]
            )
            self.position |= offsets

    def _unassign(self, parts: Sequence[Part]) -> None:
        if parts:
            self.consumer.incremental_unassign([TopicPartition(*part) for part in parts])
        for part in parts:
            self.position.pop(part, None)
            self.eof.pop(part, None)
            self.trouble.pop(part, None)

    def beyond(self, part: Part) -> None:
        """The next offset of a partition is there no more, or not there yet."""
        at = self.position[part]
        self._unassign([part])
        try:
            low, high = self.consumer.get_watermark_offsets(TopicPartition(*part), timeout=WATERMARK_S)
        except KafkaException as error:
            self._say(f"{part.topic}, partition {part.partition}: {told(error)}")
            self.followed = None  # it is assigned again, and found out of range again
            return
        if at > high and self._is_another(part.topic):
            return
        if low <= at <= high:
            self._assign({part: at})
            return
        gap = Gap(part.topic, part.partition, at, low - at if at < low else -1)
        self._give([gap])
        if not self._is_settled():
            return
        # a partition that ends before what was read of it lost its end; what is there is known
        goes_on = low if at < low else high
        self._progress.move({part: goes_on})
        self._assign({part: goes_on})

    def _is_another(self, topic: str) -> bool:
        """Whether a topic that ends before what was read of it was made anew meanwhile; then the look that
        says so is followed."""
        self.followed = None
        try:
            self.look = look = self._watch.look()
        except ConnectError:
            return True  # asked again, once a broker answers
        identifier = look.identifiers.get(topic, "")
        return topic not in look.partitions or identifier != self._progress.topics.get(topic, identifier)

    def _is_settled(self) -> bool:
        """Wait until all that was handed on is durable; False: the end came first."""
        while not self._progress.is_settled():
            if self._ending.is_set():
                return False
            time.sleep(0.01)
        return True

    def let_go(self) -> None:
        """End the connection; what was handed on stays where it is, and reading goes on behind it."""
        consumer, self.consumer = self.consumer, None
        self.position, self.eof, self.trouble, self.followed = {}, {}, {}, None
        if consumer is not None:
            # it waits for brokers that may not answer any more
            closing = threading.Thread(target=_close, args=(consumer,), name="kafka-closing", daemon=True)
            closing.start()
            closing.join(CLOSE_S)


def _close(consumer: Any) -> None:
    try:
        consumer.close()
    except (KafkaException, SystemError, RuntimeError) as error:
        log.warning("closing: %s", told(error))
