"""Both deliveries where processes die: drainers and the broker killed, and a dead drainer's bytes that
the network brings later."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import DeliveryError
from connectors.kafka.config import KafkaAlarmsConfig
from tests.kafka.drained import Drained
from tests.kafka.reading import config, consumed, header, positions, record, target
from tests.services.kafka import KafkaBroker
from tests.services.proxy import HoldingProxy
from tests.standing_still import standing_still
from tests.waiting import until

DELIVERIES = ("idempotent", "transactional")


@pytest.mark.kafka
def test_a_fenced_drainer_starts_anew_behind_what_its_successor_sent(broker: KafkaBroker) -> None:
    chosen = config(broker.address, "fenced", "transactional")
    first, second = target(chosen), target(chosen)
    first.open()
    first.send([record(1)])
    second.open()
    second.send([record(1), record(2)])
    with pytest.raises(DeliveryError, match=r"another drainer has taken over as fenced\.events/0"):
        first.send([record(2)])
    first.open()
    first.send([record(2), record(3)])
    first.close()
    second.close()
    assert positions(broker.address, chosen.events) == [1, 2, 3]


@pytest.mark.kafka
def test_drainer_and_broker_killed_nothing_is_missing_or_twice(broker: KafkaBroker, tmp_path: Path) -> None:
    """The other way of delivery: tests/kafka/test_campaign.py."""
    chosen = config(broker.address, "killed", "idempotent")
    drained = Drained(tmp_path / "data", chosen)
    draw = random.Random(5)
    for kill in range(3):
        drained.put(60)
        drained.start()
        until(lambda: (drained.put(1), drained.sent() > 0)[1])
        if kill == 1:
            broker.kill()
            drained.put(20)
            broker.start()
        deadline = time.monotonic() + draw.uniform(0.0, 0.3)
        while time.monotonic() < deadline:
            drained.put(1)
        drained.kill()
    drained.put(10)
    drained.start()
    until(drained.is_done)
    drained.stop()
    drained.log.close()
    drained.compare(broker.address, chosen)


@pytest.mark.kafka
def test_a_drainer_ends_while_its_brokers_do_not_answer(broker: KafkaBroker, tmp_path: Path) -> None:
    """Without their answer; nothing is lost by it, and nothing comes twice."""
    chosen = config(broker.address, "ended", "transactional")
    drained = Drained(tmp_path / "data", chosen)
    drained.put(3)
    drained.start()
    until(drained.is_done)
    assert broker.process is not None
    with standing_still(broker.process.pid):
        drained.put(5)
        until(lambda: drained.told().get("updated_ms", 0) > drained.put_ms + 100)
        drained.stop()
    late = "stopped before kafka answered; what it has not acknowledged is sent again at the next start"
    assert late in (drained.data / "drainer.log").read_text()
    drained.start()
    until(drained.is_done)
    drained.stop()
    drained.log.close()
    drained.compare(broker.address, chosen)


@pytest.mark.kafka
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_bytes_of_a_dead_drainer_that_land_later(broker: KafkaBroker, tmp_path: Path, delivery: str) -> None:
    """A proxy holds the first drainer's last Produce requests back, beyond its death and until its
    successor has sent the same events."""
    proxy = HoldingProxy(broker.proxy_port, broker.behind_port)
    try:
        chosen = config(f"127.0.0.1:{broker.proxy_port}", f"late-{delivery}", delivery)
        drained = Drained(tmp_path / "data", chosen)
        drained.put(5)
        drained.start()
        until(drained.is_done)
        proxy.holding = True
        drained.put(5)
        until(lambda: proxy.held)
        time.sleep(0.2)  # so that it has sent all that it wants to
        drained.kill()
        proxy.holding = False
        drained.put(5)
        drained.start()
        until(drained.is_done)
        late = proxy.release()
        drained.put(5)
        until(drained.is_done)
        drained.stop()
        drained.log.close()
    finally:
        proxy.close()
    assert late > 1000
    direct = config(broker.address, f"late-{delivery}")
    if delivery == "transactional":  # one committed copy, and nothing of the late bytes beside it
        drained.compare(broker.address, direct)
        return
    found = [header(message, "ce_id") for message in consumed(broker.address, direct.events)]
    expected = [one["id"] for one in drained.expected()]
    assert len(found) > len(expected), "the late bytes did land"
    assert set(found) == set(expected)
    assert applied(broker.address, direct) == newest(drained.expected())


def newest(events: list[dict[str, Any]]) -> dict[str, str]:
    return {one["subject"]: one["id"] for one in events}


def applied(address: str, chosen: KafkaAlarmsConfig) -> dict[str, str]:
    """What a consumer has that applies an event only if its sequence is newer, from both topics."""
    last: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for topic in (chosen.events, chosen.state):
        for message in consumed(address, topic):
            subject, sequence = message.key().decode(), header(message, "ce_sequence")
            if topic == chosen.events and header(message, "ce_id") in seen:
                assert sequence <= last[subject][0], "a copy never looks new"
            seen.add(header(message, "ce_id"))
            if sequence > last.get(subject, ("", ""))[0]:
                last[subject] = (sequence, header(message, "ce_id"))
    return {subject: identifier for subject, (_, identifier) in last.items()}


@pytest.mark.kafka
def test_a_broker_that_stands_still_is_waited_for(broker: KafkaBroker, tmp_path: Path) -> None:
    """SIGSTOP: connections stay open and nothing answers. The drainer says so, and goes on after."""
    chosen = config(broker.address, "still", "transactional")
    drained = Drained(tmp_path / "data", chosen)
    drained.put(5)
    drained.start()
    until(drained.is_done)
    assert broker.process is not None
    with standing_still(broker.process.pid):
        drained.put(5)
        until(lambda: drained.told().get("state") in ("retrying", "connecting"))
        assert drained.told()["lag_records"] == 60
        until(lambda: "Kafka" in drained.told()["detail"])
    until(drained.is_done)
    drained.stop()
    drained.log.close()
    drained.compare(broker.address, chosen)
