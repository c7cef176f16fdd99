"""Kafka as a source of a dataflow of one's own."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from connectors.kafka import KafkaConfig, KafkaSource
from operators.batch import FrameBatch
from tests.kafka.test_kafka_source import Topic
from tests.services.kafka import KafkaBroker


def run(config: KafkaConfig, journal: Path, enough: int) -> list[tuple[str, bytes]]:
    stop = threading.Event()
    seen: list[tuple[str, bytes]] = []

    def take(batch: FrameBatch) -> list[bytes]:
        seen.extend((dict(address.headers)["key"], payload) for address, payload in batch.frames())
        if len(seen) >= enough:
            stop.set()
        return []

    flow = Dataflow("own")
    batches = op.input("fleet", flow, KafkaSource(config, journal=journal, stop=stop))
    op.output("out", op.flat_map("payloads", batches, take), TestingSink([]))
    run_main(flow, epoch_interval=timedelta(milliseconds=50))
    return seen


@pytest.mark.kafka
def test_messages_come_with_their_keys_and_each_once(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = Topic(broker, "own", 2)
    for number in range(200):
        topic.put(b"%d" % number, partition=number % 2, key=b"press-%d" % (number % 2))
    found = run(topic.config(), tmp_path / "journal", 200)
    assert sorted(int(payload) for _, payload in found) == list(range(200))
    assert [int(payload) for key, payload in found if key == "press-1"] == list(range(1, 200, 2))
    topic.put(b"200", key=b"press-0")
    again = run(topic.config(), tmp_path / "journal", 201)  # without recovery: all that the journal keeps
    assert again == [*found, ("press-0", b"200")]
