"""`penstock check --connect` on the topic of a journal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from connectors.journal.kafka_config import JournalConfig, PartitionConfig
from connectors.journal.kafka_topic import ready_topic
from flows.check_command import check
from tests.ports import free_port
from tests.services.kafka import KafkaBroker
from tests.waiting import LIMIT_S, until

BASE = Path(__file__).resolve().parents[1] / "golden" / "base"
PLANT = """
plant: line
sources:
  b: {{kind: tcp, listen: "127.0.0.1:0", framing: {{kind: length_prefix}}}}
historian: {{listen: "127.0.0.1:0"}}
server: {{listen: "127.0.0.1:0"}}
shards: {{count: 2}}
journal: {journal}
"""


def connected(folder: Path, journal: Mapping[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    (folder / "plant.yaml").write_text(PLANT.format(journal=json.dumps({"kind": "kafka", **journal})))
    result = CliRunner().invoke(check, [str(folder), "--connect", "--json"], standalone_mode=False)
    found = json.loads(result.stdout)["connect"]
    return result.return_value, [one for one in found if one["what"] == "journal"]


@pytest.mark.kafka
def test_what_there_is_of_a_journals_topic_and_what_may_lose_input(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = {"bootstrap": broker.address, "topic": "checked.frames"}
    code, (one,) = connected(tmp_path, journal)
    assert (code, one["ok"]) == (0, True)
    assert one["result"] == (
        "checked.frames is not there; run makes it, 2 partitions, the brokers' replication"
    )
    config = JournalConfig(kind="kafka", bootstrap=broker.address, topic="checked.frames")
    ready_topic(PartitionConfig(journal=config, partitions=2))
    code, (one,) = connected(tmp_path, journal)
    assert (code, one["ok"]) == (0, True)
    assert one["result"].startswith("checked.frames: 2 partitions, replication 1, min.insync.replicas 1")
    lost = "replication 1: what devices were told is safe is lost with its broker's disk"
    assert lost in json.dumps(one)
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic("checked.three", 3, 1)])["checked.three"].result()
    until(lambda: "checked.three" in admin.list_topics(timeout=LIMIT_S).topics)
    code, (one,) = connected(tmp_path, {**journal, "topic": "checked.three"})
    assert (code, one["ok"]) == (3, False)
    assert one["result"] == (
        "the topic checked.three has 3 partitions, and a journal has one for each shard: 2; write shards:"
        " {count: 3} in a plant that has no data yet, or name another topic in journal.topic"
    )
    monkeypatch.setattr("connectors.journal.kafka_topic.ANSWER_S", 0.5)
    code, (one,) = connected(tmp_path, {**journal, "bootstrap": f"127.0.0.1:{free_port()}"})
    assert (code, one["ok"]) == (3, False)
    assert one["result"].startswith("Kafka: ")
