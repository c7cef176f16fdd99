"""Two processes that both say they run a shard: one of them does, the other says so and ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.source import Frame
from tests.kafka.partition_journal import Appending, PartitionProcess, content, payloads, told
from tests.services.kafka import KafkaBroker
from tests.standing_still import standing_still
from tests.waiting import LIMIT_S, until


def status(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "run" / "journal.json").read_bytes())
    return found


def started(data: Path) -> int:
    return sum(word.startswith("started") for word in told(data))


def words(topic: str, other: int) -> str:
    return (
        f"shard 0 ({topic}/0) is run by process {other} of this machine now, and two must not run one shard;"
        " stop the plant on one of them, then start this one again"
    )


@pytest.mark.kafka
def test_a_shard_that_runs_elsewhere_is_not_run_here(broker: KafkaBroker, tmp_path: Path) -> None:
    """A second process with a copy of its own ends; once the first has stopped it takes the shard over."""
    with PartitionProcess(tmp_path / "a", broker.address, "claimed") as first:
        until(lambda: started(tmp_path / "a"))
        with PartitionProcess(tmp_path / "b", broker.address, "claimed") as second:
            assert second.process.wait(LIMIT_S) == 3
        assert status(tmp_path / "b")["state"] == "taken"
        assert status(tmp_path / "b")["detail"] == words("claimed", first.process.pid)
        with first.client("x") as client:
            client.append([Frame("t", b"one")])
        assert started(tmp_path / "a") == 1
        assert first.stop() == 0
    with PartitionProcess(tmp_path / "b", broker.address, "claimed") as second:
        until(lambda: started(tmp_path / "b") == 2)
        assert second.stop() == 0
    assert payloads(tmp_path / "b") == [b"one"]


@pytest.mark.kafka
@pytest.mark.kill
def test_one_that_stood_still_gives_way(broker: KafkaBroker, tmp_path: Path) -> None:
    """Nothing behind the other's claim comes into its copy; what was acknowledged is in that of the other."""
    a, b = tmp_path / "a", tmp_path / "b"
    first = PartitionProcess(a, broker.address, "stood")
    receiver = Appending(a, "x", pause=0.02)
    second = passing = None
    try:
        until(lambda: receiver.answered > 20)
        with standing_still(first.process.pid):
            second = PartitionProcess(b, broker.address, "stood")
            until(lambda: started(b) == 2)
        assert first.process.wait(LIMIT_S) == 3
        assert status(a)["detail"] == words("stood", second.process.pid)
        kept = content(a)
        assert started(a) == 1
        assert kept == content(b)[: len(kept)]
        answered = receiver.answered
        passing = PartitionProcess(a, broker.address, "stood", runs=False)
        until(lambda: receiver.answered > answered + 20)
        count = receiver.finish()
        until(lambda: len(payloads(b)) == count)
        assert second.stop() == 0
    finally:
        for one in (first, second, passing):
            if one is not None:
                one.kill()
    assert payloads(b) == [f"x {number}".encode() for number in range(count)]


@pytest.mark.kafka
@pytest.mark.kill
def test_of_two_that_start_at_once_one_runs_the_shard(broker: KafkaBroker, tmp_path: Path) -> None:
    """Whichever it is; one that was killed meanwhile, and starts again over its copy, does not wait."""
    folders = [tmp_path / "a", tmp_path / "b"]
    both = [PartitionProcess(folder, broker.address, "both") for folder in folders]
    try:
        until(lambda: any(one.process.poll() == 3 for one in both))
        (stays,) = (number for number, one in enumerate(both) if one.process.poll() is None)
        one = both[stays]
        before = started(folders[stays])
        one.kill()
        one.start()
        until(lambda: started(folders[stays]) == before + 1)
        with one.client("x") as client:
            client.append([Frame("t", b"one")])
        assert one.stop() == 0
    finally:
        for other in both:
            if other.process.poll() is None:
                other.kill()
