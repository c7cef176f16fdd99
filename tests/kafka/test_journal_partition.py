"""The journal as a partition of a real Kafka: one process, its copy, and what kills do to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.source import Frame
from tests.kafka.partition_journal import PartitionProcess, content, payloads, told
from tests.kafka.reading import until
from tests.services.kafka import KafkaBroker


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_what_is_appended_is_in_the_partition_and_in_every_copy(broker: KafkaBroker, tmp_path: Path) -> None:
    with PartitionProcess(tmp_path / "a", broker.address, "copied") as journal:
        with journal.client("line1") as client:
            assert client.append([Frame("t", b"one"), Frame("t", b"two")]) == 0
            assert client.append([Frame("t", b"three")], key="k") == 2
            assert client.append([Frame("t", b"three")], key="k") == 2
            client.control("connected", {"source": "line1"})
        with journal.client() as client:
            client.control("plant", {"sha256": "ab" * 32, "files": {"plant.yaml": b"x" * 100}})
        assert journal.stop() == 0
    assert payloads(tmp_path / "a") == [b"one", b"two", b"three"]
    words = [word for word in told(tmp_path / "a") if word != "tick"]
    assert words[0] == 'started {"clean": true}'
    assert words[-1] == "stopped {}"
    before = content(tmp_path / "a")
    with PartitionProcess(tmp_path / "b", broker.address, "copied") as other:
        until(lambda: len(content(tmp_path / "b")) > len(before))
        assert other.stop() == 0
    assert content(tmp_path / "b")[: len(before)] == before
