"""Messages of a real broker into the journals of three shards, receiver and journals killed: each once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.shards import hash_shard
from flows.broker import find_mosquitto, start_broker
from flows.shards import settle_shards
from tests.journal.journal_process import RunningJournal
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

SHARDS = 3
DEVICES = [f"press-{number:02}" for number in range(20)]
MESSAGES = 8_000


class Receiver:
    """`python -m flows.receiver DATA line1`, killed and started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "flows.receiver", str(self.data), "line1"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(LIMIT_S) == 0


def state(data: Path) -> str:
    """Of the receiver, in its own words."""
    try:
        return str(json.loads((data / "run" / "receiver-line1.json").read_bytes())["state"])
    except FileNotFoundError:
        return ""


def journaled(folder: Path) -> Iterator[tuple[str, int]]:
    """(device, its number) of each frame, in order."""
    with closing(JournalReader(folder / "journal")) as reader:
        for entry in reader.read(1, 1 << 24, 1 << 30):
            if entry.kind == 1:
                batch = merge([entry])
                for row in range(len(batch)):
                    topic = batch.addresses[int(batch.address[row])].topic
                    yield topic.split("/")[3], int(batch.frame(row))


@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto here")
def test_nothing_is_lost_and_nothing_is_twice(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folders = settle_shards(data, SHARDS, "device_id")
    broker = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    topics = [f"iotlink/dev/nohub/{device}/periodic/pub/telemetry/json" for device in DEVICES]
    (data / "run").mkdir(exist_ok=True)
    source = {"kind": "mqtt", "host": "127.0.0.1", "port": broker.address[1], "subscribe": ["iotlink/#"]}
    config = {"plant": "line", "source": "line1", "config": source, "shards": {"count": SHARDS}}
    (data / "run" / "source-line1.json").write_text(json.dumps(config))
    with ExitStack() as stack:
        stack.callback(broker.stop)
        journals = [stack.enter_context(RunningJournal(folder, 1 << 28)) for folder in folders]
        receiver = Receiver(data)
        stack.callback(lambda: receiver.process.kill())
        # nothing is kept for a source that has never subscribed
        until(lambda: state(data) in ("connected", "silent"), "the subscription")
        client = mqtt.Client(CallbackAPIVersion.VERSION2, "devices")
        client.max_queued_messages_set(0)
        client.max_inflight_messages_set(200)
        client.connect(*broker.address)
        client.loop_start()
        for number in range(MESSAGES):
            sent = client.publish(topics[number % len(topics)], str(number), qos=1)
            if number % 2500 == 2000:
                receiver.kill()
            if number == MESSAGES // 2:
                journals[1].kill()
                journals[1].start()
            time.sleep(0.0005)
        sent.wait_for_publish(LIMIT_S)
        client.disconnect()
        client.loop_stop()
        whole = lambda: sum(1 for folder in folders for _ in journaled(folder)) >= MESSAGES  # noqa: E731
        until(whole, "every message")
        time.sleep(1.0)  # for what would come twice
        receiver.stop()
    found = defaultdict(list)
    for shard, folder in enumerate(folders):
        for device, number in journaled(folder):
            assert hash_shard(device, SHARDS) == shard
            found[device].append(number)
    expected = {device: list(range(at, MESSAGES, len(DEVICES))) for at, device in enumerate(DEVICES)}
    assert {device: sorted(set(numbers)) for device, numbers in found.items()} == expected
    assert sum(len(numbers) - len(set(numbers)) for numbers in found.values()) == 0  # nothing twice
