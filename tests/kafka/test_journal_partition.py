"""The journal as a partition of a real Kafka: one process, its copy, and what kills do to them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from connectors.errors import ConnectError, JournalError, JournalFull
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.entries import CONTROL, TICK
from connectors.journal.kafka_config import JournalConfig, PartitionConfig
from connectors.journal.kafka_follower import Follower
from connectors.journal.kafka_messages import FROM
from connectors.journal.kafka_topic import ready_topic, warnings
from connectors.journal.store import JournalStore
from connectors.source import Frame
from tests.journal.journal_process import RunningJournal
from tests.kafka.partition_journal import Appending, PartitionProcess, content, entries_of, payloads, told
from tests.kafka.reading import consumed
from tests.services.kafka import KafkaBroker
from tests.services.proxy import HoldingProxy
from tests.standing_still import standing_still
from tests.waiting import LIMIT_S, until


def numbered(name: str, count: int) -> list[bytes]:
    return [f"{name} {number}".encode() for number in range(count)]


def of(name: str, frames: list[bytes]) -> list[bytes]:
    return [frame for frame in frames if frame.startswith(f"{name} ".encode())]


def made_anew(data: Path, broker: KafkaBroker, topic: str, count: int) -> list[tuple[int, int, int, bytes]]:
    """The first `count` entries of a copy that begins with nothing."""
    with PartitionProcess(data, broker.address, topic) as other:
        until(lambda: len(content(data)) >= count)
        assert other.stop() == 0
    return content(data)[:count]


@pytest.mark.kafka
def test_what_is_appended_is_in_the_partition_and_in_every_copy(broker: KafkaBroker, tmp_path: Path) -> None:
    with PartitionProcess(tmp_path / "a", broker.address, "copied") as journal:
        with journal.client("line1") as client:
            assert client.append([Frame("t", b"one"), Frame("t", b"two")]) == 0
            assert client.append([Frame("t", b"three")], key="k") == 2
            assert client.append([Frame("t", b"three")], key="k") == 2
            client.control("connected", {"source": "line1"})
            client.control("plant", {"sha256": "ab" * 32, "files": {"plant.yaml": b"x" * 100}})
        stranger = Producer({"bootstrap.servers": broker.address})
        stranger.produce("copied", b"hello", partition=0)
        assert stranger.flush(LIMIT_S) == 0
        with journal.client("line1") as client:
            assert client.append([Frame("t", b"four")]) == 3
            assert client.status()["metrics"]["journal_kafka_strangers_total"] == 1
        assert journal.stop() == 0
    assert payloads(tmp_path / "a") == [b"one", b"two", b"three", b"four"]
    words = [word for word in told(tmp_path / "a") if word != "tick"]
    assert words[0] == 'started {"clean": true}'
    assert words[-1] == "stopped {}"
    whole = content(tmp_path / "a")
    assert made_anew(tmp_path / "b", broker, "copied", len(whole)) == whole


@pytest.mark.kafka
@pytest.mark.kill
def test_two_machines_share_two_partitions(broker: KafkaBroker, tmp_path: Path) -> None:
    """Each runs one shard and passes on what its own receiver has for the other's. Both processes of one
    machine are killed, and one of the other; both copies of a partition are the same, with every frame once
    and in its order."""

    def folder(machine: str, shard: int) -> Path:
        return tmp_path / machine / str(shard)

    runs = {("a", 0), ("b", 1)}
    places = [(machine, shard) for machine in ("a", "b") for shard in (0, 1)]
    journals = {
        (machine, shard): PartitionProcess(
            folder(machine, shard), broker.address, "machines", shard, 2, runs=(machine, shard) in runs
        )
        for machine, shard in places
    }
    receivers = {place: Appending(folder(*place), f"{place[0]}{place[1]}", 0.01) for place in places}
    plant = {"sha256": "ab" * 32, "files": {"plant.yaml": b"x"}, "apply_id": "c" * 32}
    try:
        for place in places:
            with journals[place].client() as client:
                client.control("plant", plant)
        for place in (("a", 0), ("a", 1), ("b", 1)):
            until(lambda: all(one.answered > 30 for one in receivers.values()))
            journals[place].kill()
            journals[place].start()
        counts = {place: one.finish() for place, one in receivers.items()}
        for place in (("a", 1), ("b", 0), ("a", 0), ("b", 1)):  # those that write `stopped` last
            until(
                lambda place=place: (
                    len(payloads(folder(*place))) == counts["a", place[1]] + counts["b", place[1]]
                )
            )
            assert journals[place].stop() == 0
    finally:
        for journal in journals.values():
            journal.kill()
    for shard in (0, 1):
        frames = payloads(folder("a", shard))
        for machine in ("a", "b"):
            name = f"{machine}{shard}"
            assert of(name, frames) == numbered(name, counts[machine, shard])
        one, other = content(folder("a", shard)), content(folder("b", shard))
        shared = min(len(one), len(other))
        assert shared > 50
        assert one[:shared] == other[:shared]
        controls = [word.partition(" ")[0] for word in told(folder("a", shard)) if "frames" not in word]
        assert controls.count("plant") == 1, "applied once, whoever brings it"
        assert controls.count("started") == 2, "by the machine that runs the shard, and again after its kill"


@pytest.mark.kafka
@pytest.mark.kill
def test_bytes_of_a_dead_process_that_land_later_do_not_count(broker: KafkaBroker, tmp_path: Path) -> None:
    """A proxy holds what the first process sends back, beyond its death and until the second has sent
    the same frames, and more of them."""
    proxy = HoldingProxy(broker.proxy_port, broker.behind_port)
    address = f"127.0.0.1:{broker.proxy_port}"
    journal = PartitionProcess(tmp_path / "a", address, "late")
    receiver = Appending(tmp_path / "a", "x", pause=0.02)
    try:
        until(lambda: receiver.answered > 20)
        proxy.holding = True
        until(lambda: proxy.held)
        time.sleep(0.5)
        journal.kill()
        proxy.holding = False
        answered = receiver.answered
        journal.start()
        until(lambda: receiver.answered > answered + 100)
        assert proxy.release() > 0
        answered = receiver.answered
        until(lambda: receiver.answered > answered + 50)
        count = receiver.finish()
        assert journal.stop() == 0
    finally:
        journal.kill()
        proxy.close()
    assert payloads(tmp_path / "a") == numbered("x", count)
    sent = [dict(message.headers()) for message in consumed(broker.address, "late")]
    appends = [one[FROM][:24] for one in sent if FROM in one]  # session and number
    assert len(appends) > len(set(appends)), "the late bytes did land"
    whole = content(tmp_path / "a")
    assert made_anew(tmp_path / "b", broker, "late", len(whole)) == whole


def disconnected(journal: PartitionProcess) -> str:
    """What the journal says of its brokers while it is without them."""
    status = journal.status()
    return str(status["detail"]) if status["state"] == "disconnected" else ""


@pytest.mark.kafka
@pytest.mark.kill
def test_a_broker_that_is_away_is_told_and_waited_for(broker: KafkaBroker, tmp_path: Path) -> None:
    journal = PartitionProcess(tmp_path / "a", broker.address, "away")
    receiver = Appending(tmp_path / "a", "x")
    try:
        until(lambda: receiver.answered > 20)
        broker.kill()
        detail = until(lambda: disconnected(journal))
        assert detail.startswith(f"Kafka {broker.address}: Kafka: ")
        assert detail.endswith("; sources wait")
        before = receiver.answered  # by now it has heard of all that the brokers took
        journal.kill()
        journal.start()  # it waits for the brokers then, too
        until(lambda: disconnected(journal))
        assert receiver.answered == before
        broker.start()
        until(lambda: receiver.answered > before + 100)
        assert journal.status()["state"] == "running"
        count = receiver.finish()
        assert journal.stop() == 0
    finally:
        journal.kill()
        if broker.process is None:
            broker.start()
    assert payloads(tmp_path / "a") == numbered("x", count)
    whole = content(tmp_path / "a")
    assert made_anew(tmp_path / "b", broker, "away", len(whole)) == whole


@pytest.mark.kafka
def test_devices_are_not_silent_while_the_broker_stands_still(broker: KafkaBroker, tmp_path: Path) -> None:
    """Their source counts as away between the last moment before and the first one after."""
    with (
        PartitionProcess(tmp_path / "a", broker.address, "still") as journal,
        journal.client("x") as client,
    ):
        client.control("connected", {"source": "x"})
        client.append([Frame("t", b"before")])
        assert broker.process is not None
        with standing_still(broker.process.pid):
            time.sleep(6.0)
        until(lambda: any("disconnected" in word for word in told(tmp_path / "a")))
        client.append([Frame("t", b"after")])
    whole = [entry for entry in entries_of(tmp_path / "a") if entry.number > 1]
    at = next(
        n for n, entry in enumerate(whole) if entry.kind == CONTROL and entry.control().kind == "disconnected"
    )
    away, tick, back = whole[at : at + 3]
    assert (tick.kind, back.control().kind) == (TICK, "connected")
    assert back.ms - away.ms > 4000
    assert all(entry.ms <= away.ms for entry in whole[:at])


@pytest.mark.kafka
def test_a_full_copy_holds_sources_up_until_it_is_trimmed(broker: KafkaBroker, tmp_path: Path) -> None:
    """Also one that is behind: another process has filled the partition beyond what fits the copy."""
    large = PartitionProcess(tmp_path / "a", broker.address, "large", compression="lz4")
    with large as journal, journal.client("x") as client:
        for _ in range(24):
            client.append([Frame("t", bytes(1000))] * 1000)
    small = PartitionProcess(tmp_path / "b", broker.address, "large", max_bytes=16 << 20)
    with small as journal, journal.client("x") as client:
        until(lambda: journal.status()["state"] == "full")
        while journal.status()["metrics"]["journal_next_position"] < 24_000:
            client.durable(int(journal.status()["metrics"]["journal_last_entry"]))
            time.sleep(0.1)
        until(lambda: journal.status()["state"] == "running")
        with pytest.raises(JournalFull):
            fill(client)
        client.durable(int(journal.status()["metrics"]["journal_last_entry"]))
        until(lambda: journal.status()["state"] == "running")
        assert client.append([Frame("t", b"again")]) > 24_000
        assert journal.stop() == 0


@pytest.mark.kafka
def test_what_was_trimmed_before_it_was_read_is_told(broker: KafkaBroker, tmp_path: Path) -> None:
    """The first copy stands still while the partition goes on, and loses its beginning."""
    with PartitionProcess(tmp_path / "a", broker.address, "trimmed") as journal:
        with journal.client("x") as client:
            client.append([Frame("t", one) for one in numbered("x", 20)])
        journal.stop()
    with PartitionProcess(tmp_path / "b", broker.address, "trimmed") as journal:
        receiver = Appending(tmp_path / "b", "y", pause=0.01)
        until(lambda: receiver.answered > 100)
        low = journal.status()["metrics"]["journal_kafka_offset"]
        admin = AdminClient({"bootstrap.servers": broker.address})
        for future in admin.delete_records([TopicPartition("trimmed", 0, int(low))]).values():
            future.result()
        ticks = told(tmp_path / "b").count("tick") + 3  # one of them tells how to go on behind it
        until(lambda: told(tmp_path / "b").count("tick") >= ticks)
        answered = receiver.answered + 400  # at most 7 an entry
        until(lambda: receiver.answered > answered)
        count = receiver.finish()
        journal.stop()
    with PartitionProcess(tmp_path / "a", broker.address, "trimmed") as journal:
        until(lambda: journal.status()["metrics"]["journal_kafka_gaps_total"] == 1)
        until(lambda: sum(word.startswith("started") for word in told(tmp_path / "a")) == 2)
        metrics = journal.status()["metrics"]
        journal.stop()
    whole = content(tmp_path / "b")
    (gap,) = (word for word in told(tmp_path / "a") if word.startswith("gap"))
    assert f'"missing": {int(metrics["journal_kafka_gap_messages_total"])}' in gap
    after = [entry for entry in content(tmp_path / "a") if entry[2] > 20]
    known = {entry[1:] for entry in whole}
    assert len(after) > 50
    assert {entry[1:] for entry in after if entry[1] <= whole[-1][1]} - known == {
        entry[1:] for entry in after if b"gap" in entry[3]
    }
    assert 20 + count in {entry[2] for entry in after}
    anew = content_of_new(tmp_path / "c", broker, "trimmed")
    assert len(set(anew) & set(whole)) > 50, "with the numbers of the others, too"


def fill(client: BlockingJournalClient) -> None:
    while True:
        client.append([Frame("t", bytes(1000))] * 1000)


def content_of_new(data: Path, broker: KafkaBroker, topic: str) -> list[tuple[int, int, int, bytes]]:
    with PartitionProcess(data, broker.address, topic) as journal:
        until(lambda: any(word.startswith("started") for word in told(data)))
        journal.stop()
    return content(data)


def refusal(address: str, topic: str, partitions: int = 1) -> str:
    journal = JournalConfig(kind="kafka", bootstrap=address, topic=topic)
    with pytest.raises(Exception) as caught:
        ready_topic(PartitionConfig(journal=journal, partitions=partitions))
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.kafka
def test_topics_that_would_lose_input_are_refused(broker: KafkaBroker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address})
    large = {"max.message.bytes": "41943040"}
    wanted = [
        NewTopic("two", 2, 1, config=large),
        NewTopic("compacted", 1, 1, config={**large, "cleanup.policy": "compact"}),
        NewTopic("small", 1, 1),
        NewTopic("short", 1, 1, config={**large, "retention.ms": "3600000", "retention.bytes": "1000000"}),
    ]
    for future in admin.create_topics(wanted).values():
        future.result()
    until(lambda: {one.topic for one in wanted} <= set(admin.list_topics(timeout=LIMIT_S).topics))
    assert refusal(broker.address, "two") == (
        "ConfigError: the topic two has 2 partitions, and a journal has one for each shard: 1; write"
        " shards: {count: 2} in a plant that has no data yet, or name another topic in journal.topic"
    )
    assert refusal(broker.address, "compacted") == (
        "ConfigError: the topic compacted has cleanup.policy=compact: compaction takes entries out of a"
        " journal; set it with kafka-configs --alter --entity-type topics --entity-name compacted"
        " --add-config cleanup.policy=delete, or name another topic in journal.topic"
    )
    assert refusal(broker.address, "small") == (
        "ConfigError: the topic small has max.message.bytes=1048588, and an entry may have 41943040; set"
        " it with kafka-configs --alter --entity-type topics --entity-name small"
        " --add-config max.message.bytes=41943040"
    )
    short = JournalConfig(kind="kafka", bootstrap=broker.address, topic="short")
    assert warnings(ready_topic(PartitionConfig(journal=short))) == [
        "replication 1: what devices were told is safe is lost with its broker's disk",
        "retention.ms=3600000: a plant that is down for longer than 1 h loses input",
        "retention.bytes=1000000: how long input is kept hangs on how much comes",
    ]


@pytest.mark.kafka
def test_a_copy_is_of_one_partition(broker: KafkaBroker, tmp_path: Path) -> None:
    """Neither another topic, nor one made anew, nor a local journal is taken for what the copy is of."""
    with PartitionProcess(tmp_path / "a", broker.address, "first") as journal:
        journal.client().close()
        until(lambda: told(tmp_path / "a"))
        journal.stop()
    mend = "run the plant over a new data directory (--data DIR)"
    assert not_opened(tmp_path / "a", broker.address, "second") == (
        f"the data directory holds a copy of first/0, not of second/0; {mend}"
    )
    with PartitionProcess(tmp_path / "a", broker.address, "second") as journal:
        assert journal.process.wait(LIMIT_S) == 3
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.delete_topics(["first"])["first"].result()
    until(lambda: "first" not in admin.list_topics(timeout=LIMIT_S).topics)
    assert not_opened(tmp_path / "a", broker.address, "first") == (
        "the topic first was made anew since the copy in the data directory was written; name another topic"
        f" in journal.topic, or {mend}"
    )
    with RunningJournal(tmp_path / "local") as local, local.client("x") as client:
        client.append([Frame("t", b"one")])
    assert not_opened(tmp_path / "local", broker.address, "second") == (
        "the data directory holds a local journal; journal.kind of a plant with data cannot change: run it"
        " over a new data directory (--data DIR)"
    )


@pytest.mark.kafka
def test_a_partition_that_lost_its_end_is_looked_at_again_and_then_refused(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JournalStore(tmp_path / "journal", 1 << 28)
    config = PartitionConfig(journal=JournalConfig(kind="kafka", bootstrap=broker.address, topic="ended"))
    follower = Follower(config, store, lambda error: None)
    try:
        follower.open()
        store.replicate([], follower.mark(5))
        ends = "ended/0 ends at offset 0, and it was read up to 5 before"
        with pytest.raises(ConnectError) as caught:
            follower.open()
        assert str(caught.value) == f"Kafka: {ends}; it may be that the brokers still recover"
        monkeypatch.setattr("connectors.journal.kafka_follower.RECOVERS_S", 0.0)
        with pytest.raises(JournalError) as refused:
            follower.open()
        assert str(refused.value) == (
            f"{ends}: brokers lost what they had acknowledged (unclean leader election, a restored backup);"
            " run the plant over a new data directory (--data DIR)"
        )
    finally:
        follower.close()
        store.close()


def not_opened(data: Path, address: str, topic: str) -> str:
    store = JournalStore(data / "journal", 1 << 28)
    journal = JournalConfig(kind="kafka", bootstrap=address, topic=topic)
    follower = Follower(PartitionConfig(journal=journal), store, lambda error: None)
    try:
        with pytest.raises(JournalError) as caught:
            follower.open()
    finally:
        follower.close()
        store.close()
    return str(caught.value)
