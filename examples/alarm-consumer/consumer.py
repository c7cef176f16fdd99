"""Open alarms from Kafka, as a consumer has them right: whatever is sent twice, and whatever comes late.

    python consumer.py --bootstrap 127.0.0.1:9092                 prints what changes, for ever
    python consumer.py --bootstrap 127.0.0.1:9092 --once          reads to the end, prints what is open

Two rules, and this file is little else:

1. `ce_id` equal to one seen: the same event again. It is skipped.
2. `ce_sequence` rises per key for ever. An event is applied only if its sequence is newer than the one
   that its key has (20 digits: they compare as text). So a copy that comes late changes nothing, even
   where its `ce_id` was forgotten long ago, and even on the compacted topic.

Both topics are read. `alarm.state` says what is open now, however long ago it was raised; `alarm.events`
tells every transition, also those between two looks. Which of the two brings an event first does not
matter: what is open follows the newest sequence of either. Reading is `read_committed`: with
`delivery: transactional` what a transaction left behind is not seen, with `delivery: idempotent` it
changes nothing.

Nothing is stored here. A consumer that acts on events (sends a page, opens a ticket) keeps `sequence` by
key in the same transaction as what it does, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import deque
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

REMEMBERED = 100_000  # ids; an older copy is caught by its sequence


class OpenAlarms:
    """What is open, by key (the alarm's subject)."""

    def __init__(self) -> None:
        self.newest: dict[str, str] = {}  # key -> sequence of what `open` says of it
        self.told: dict[str, str] = {}  # key -> sequence of the last transition that was told
        self.open: dict[str, dict[str, Any]] = {}  # key -> the data of its newest event
        self.copies = 0  # skipped by id
        self.late = 0  # skipped by sequence
        self._seen: set[str] = set()
        self._order: deque[str] = deque()

    def event(self, key: str, identifier: str, sequence: str, transition: str, data: Any) -> bool:
        """A message of `alarm.events`; True where it is a transition not told before."""
        if identifier in self._seen:
            self.copies += 1
            return False
        self._remember(identifier)
        if sequence <= self.told.get(key, ""):
            self.late += 1
            return False
        self.told[key] = sequence
        self.state(key, sequence, transition, data)
        return True

    def state(self, key: str, sequence: str, transition: str, data: Any) -> None:
        """A message of `alarm.state`: the newest event of its key once more; without data it is closed."""
        if sequence <= self.newest.get(key, ""):
            return
        self.newest[key] = sequence
        if data is None or transition == "closed":
            self.open.pop(key, None)
        else:
            self.open[key] = data

    def _remember(self, identifier: str) -> None:
        self._seen.add(identifier)
        self._order.append(identifier)
        if len(self._order) > REMEMBERED:
            self._seen.discard(self._order.popleft())


def line(sequence: str, transition: str, data: dict[str, Any] | None, key: str) -> str:
    """What is printed of a change: one JSON object."""
    found = data or {}
    return json.dumps(
        {
            "sequence": sequence,
            "transition": transition,
            "subject": key,
            "severity": found.get("severity"),
            "event_time": found.get("event_time"),
            "message": found.get("message"),
        },
        ensure_ascii=False,
    )


def read(arguments: argparse.Namespace) -> OpenAlarms:
    """Follow both topics from their beginnings; with `once` up to their ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap,
            "group.id": "alarm-consumer",  # assigned, not subscribed: it has no members and no offsets
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    stop = [False]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.__setitem__(0, True))
    assigned = []
    for topic in (arguments.events, arguments.state):
        described = consumer.list_topics(topic, timeout=10).topics[topic]
        if described.error is not None:
            raise SystemExit(f"{topic}: {described.error.str()}")
        assigned += [TopicPartition(topic, number, 0) for number in described.partitions]
    consumer.assign(assigned)
    alarms, ended = OpenAlarms(), set()
    while not stop[0] and not (arguments.once and len(ended) == len(assigned)):
        message = consumer.poll(0.2)
        if message is None:
            continue
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                ended.add((message.topic(), message.partition()))
            elif error.fatal():
                raise SystemExit(error.str())
            continue
        headers = {name: value.decode() for name, value in message.headers() or ()}
        if "ce_id" not in headers:
            continue  # not of ours
        key = message.key().decode()
        sequence, transition = headers["ce_sequence"], headers["ce_type"].rpartition(".")[2]
        data = json.loads(message.value()) if message.value() is not None else None
        if message.topic() == arguments.state:
            alarms.state(key, sequence, transition, data)
        elif alarms.event(key, headers["ce_id"], sequence, transition, data) and not arguments.once:
            print(line(sequence, transition, data, key), flush=True)
    consumer.close()
    return alarms


def main() -> int:
    parser = argparse.ArgumentParser(description="Open alarms from Kafka.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--events", default="alarm.events")
    parser.add_argument("--state", default="alarm.state")
    parser.add_argument("--once", action="store_true", help="read to the end, print what is open")
    arguments = parser.parse_args()
    began = time.monotonic()
    alarms = read(arguments)
    if arguments.once:
        for key in sorted(alarms.open):
            print(json.dumps(alarms.open[key], ensure_ascii=False))
    print(
        f"{len(alarms.open)} open; {alarms.copies} copies skipped by id, {alarms.late} by sequence;"
        f" {time.monotonic() - began:.1f} s",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
