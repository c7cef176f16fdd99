"""A plant that reads Kafka, as its users run it: fed by kcat, with processes and the broker killed under
it, and with devices that a topic of master data brings and takes away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from connectors.journal.entries import FRAMES
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from flows.views import Views
from operators.jit import warm_up
from tests.conformance.subject_kafka import made_topic
from tests.ports import free_port
from tests.services.kafka import KafkaBroker
from tests.waiting import LIMIT_S, until

ROOT = Path(__file__).resolve().parents[2]
PLANT = """\
plant: kafka-line
sources:
  fleet: {{kind: kafka, bootstrap: "{address}", topic: {name}.frames, device: key, product: press}}
  things: {{kind: kafka, bootstrap: "{address}", topic: {name}.master, device: key, carries: master}}
historian: {{listen: "127.0.0.1:{historian}"}}
server: {{listen: "127.0.0.1:{server}"}}
journal: {{max: 200MB}}
"""
PRODUCT = """\
productId: press
version: 1
decode: {format: json, timestamp: t, metrics: m}
metrics:
  tempC: {unit: Cel}
"""
DEVICES = "device_id,productId\np0,press\np1,press\np2,press\n"


class Running:
    """`penstock run` over a plant whose sources are two topics of a broker."""

    def __init__(self, folder: Path, broker: KafkaBroker) -> None:
        self.name = f"plant-{time.monotonic_ns()}"
        self.broker = broker
        made_topic(broker, f"{self.name}.frames", 3)
        made_topic(broker, f"{self.name}.master")
        self.plant = plant = folder / "plant"
        (plant / "products").mkdir(parents=True)
        ports = {"historian": free_port(), "server": free_port()}
        (plant / "plant.yaml").write_text(PLANT.format(address=broker.address, name=self.name, **ports))
        (plant / "products" / "press.yaml").write_text(PRODUCT)
        (plant / "devices.csv").write_text(DEVICES)
        self.data = folder / "data"
        self._frames: defaultdict[str, list[tuple[str, bytes]]] = defaultdict(list)
        self._next = 1  # the entry to be read next
        self._looking, self._stopped = threading.Lock(), threading.Event()
        warm_up()  # into the cache, so that no process of the plant compiles
        with (folder / "run.log").open("ab") as log:
            command = [sys.executable, "-m", "flows.cli", "run", str(plant), "--data", str(self.data)]
            self.supervisor = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self._following = threading.Thread(target=self._follow, daemon=True)
        self._following.start()

    def stop(self) -> None:
        self._stopped.set()
        self._following.join(LIMIT_S)
        self.supervisor.terminate()
        self.supervisor.wait(LIMIT_S)

    def status(self, component: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.data / "run" / f"{component}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def is_connected(self, source: str) -> bool:
        return self.status(f"receiver-{source}").get("state") in ("connected", "silent")

    def kill(self, component: str) -> None:
        def alive() -> int | None:
            pid = self.status("supervisor").get("components", {}).get(component, {}).get("pid")
            with suppress(OSError, TypeError):
                os.kill(pid, 0)
                return int(pid)
            return None

        os.kill(until(alive, f"{component} to run"), signal.SIGKILL)

    def journaled(self, source: str) -> list[tuple[str, bytes]]:
        """The key and the payload of every frame of a source."""
        self._look()
        return list(self._frames[source])

    def _follow(self) -> None:
        """Look all the time: the journal keeps what the flow is through with for a minute."""
        until((self.data / "journal" / "data.mdb").exists, "the journal")
        while not self._stopped.wait(1.0):
            self._look()

    def _look(self) -> None:
        with self._looking, closing(JournalReader(self.data / "journal")) as reader:
            assert reader.oldest() <= self._next, "frames were trimmed before they were looked at"
            while entries := reader.read(self._next, 10_000, 64 << 20):
                for address, payload in merge([one for one in entries if one.kind == FRAMES]).frames():
                    self._frames[address.source].append((dict(address.headers)["key"], payload))
                self._next = entries[-1].number + 1

    def ledger(self) -> dict[str, int]:
        """The terms of the source `fleet`, over all products."""
        total: dict[str, int] = {}
        for (source, _), terms in Views(self.data).ledger().items():
            for term, count in terms.items() if source == "fleet" else ():
                total[term] = total.get(term, 0) + count
        return total

    def kcat(self, topic: str) -> subprocess.Popen[bytes]:
        """A producer that takes lines `key|value`."""
        return subprocess.Popen(
            ["kcat", "-P", "-b", self.broker.address, "-t", f"{self.name}.{topic}", "-K", "|", "-X",
             "enable.idempotence=true", "-X", "partitioner=murmur2_random", "-q"],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def feed(self, first: int, end: int) -> None:
        """Readings of three devices in turn, 1,000 a second."""
        kcat = self.kcat("frames")
        assert kcat.stdin is not None
        for number in range(first, end):
            kcat.stdin.write(f"p{number % 3}|{json.dumps(reading(number))}\n".encode())
            if number % 20 == 0:
                kcat.stdin.flush()
                time.sleep(0.02)
        kcat.stdin.close()
        assert kcat.wait(LIMIT_S) == 0

    def tell(self, topic: str, *lines: tuple[str, object]) -> None:
        text = "".join(f"{key}|{json.dumps(value)}\n" for key, value in lines)
        kcat = self.kcat(topic)
        kcat.communicate(text.encode(), LIMIT_S)
        assert kcat.returncode == 0


@pytest.fixture(scope="module")
def running(broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if shutil.which("kcat") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no kcat here")
        pytest.skip("no kcat here")
    one = Running(tmp_path_factory.mktemp("kafka-plant"), broker)
    try:
        until(lambda: one.is_connected("fleet") and one.is_connected("things"), "the topics")
        yield one
    finally:
        one.stop()


def reading(number: int) -> dict[str, object]:
    return {"t": int(time.time() * 1000) + number, "m": {"tempC": number}}


@pytest.mark.kafka
def test_a_topic_of_master_data_brings_a_device_and_retires_it(running: Running) -> None:
    def term(name: str) -> int:
        return running.ledger().get(name, 0)

    running.tell("frames", ("p9", reading(1)))
    until(lambda: term("frames_rejected") == 1, "a reject")
    row = {"device_id": "p9", "productId": "press"}
    running.tell("master", ("p9", {"op": "upsert", "table": "devices", "data": row}))
    until(lambda: running.journaled("things"), "the change")
    running.tell("frames", ("p9", reading(2)))
    until(lambda: term("readings_accepted") == 1, "a reading")
    keys = {"device_id": "p9"}
    running.tell("master", ("p9", {"op": "delete", "table": "devices", "keys": keys}))
    until(lambda: len(running.journaled("things")) == 2, "the change")
    running.tell("frames", ("p9", reading(3)))
    until(lambda: term("readings_filtered") == 1, "a reading that is filtered")
    assert (term("frames_rejected"), term("readings_accepted")) == (1, 1)


@pytest.mark.kafka
def test_each_message_once_over_kills_of_receiver_journal_and_broker(running: Running) -> None:
    before, count, sent = running.ledger(), 4000, 0
    earlier = len(running.journaled("fleet"))
    with ThreadPoolExecutor(1) as feeder:
        for victims in (["receiver-fleet", "journal"], ["receiver-fleet"]):
            feeding = feeder.submit(running.feed, sent, sent + count // 2)
            sent += count // 2
            for victim in victims:
                time.sleep(0.7)
                running.kill(victim)
            feeding.result()
            if sent < count:
                running.broker.kill()  # with a source that is still reading; kcat itself ends with its broker
                running.broker.start()

    def come() -> list[tuple[str, bytes]]:
        return running.journaled("fleet")[earlier:]

    def counted(term: str) -> int:
        return running.ledger()[term] - before.get(term, 0)

    until(lambda: len(come()) >= count, "every message")
    until(lambda: counted("readings_accepted") >= count, "the readings")
    found = come()
    numbers = [json.loads(payload)["m"]["tempC"] for _, payload in found]
    assert sorted(numbers) == list(range(count))
    for device in range(3):  # in the order of its partition
        own = [number for (key, _), number in zip(found, numbers, strict=True) if key == f"p{device}"]
        assert own == list(range(device, count, 3))
    assert [counted(term) for term in ("frames_in", "frames_decoded", "readings_accepted")] == [count] * 3


@pytest.mark.kafka
def test_simulated_devices_send_to_the_topic(running: Running) -> None:
    before, earlier = running.ledger().get("readings_accepted", 0), len(running.journaled("fleet"))
    command = ["simulate", str(running.plant), "--rate", "5", "--data", str(running.data)]
    devices = subprocess.Popen([sys.executable, "-m", "flows.cli", *command], cwd=ROOT)
    try:
        until(lambda: running.ledger().get("readings_accepted", 0) >= before + 10, "readings")
    finally:
        devices.terminate()
        assert devices.wait(LIMIT_S) == 0
    # partitions come in any order among each other
    keys = {"p0", "p1", "p2"}
    until(lambda: {key for key, _ in running.journaled("fleet")[earlier:]} == keys, "every device")
